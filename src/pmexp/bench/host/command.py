"""Reads the keys, starts this command anew beside the stand-in, and writes the page."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from pmexp.command_line import Command, Given, Key, whole
from pmexp.shown import markdown_table

COMMAND = Command(
    "pmexp.bench.host",
    "the host's part of a step on CUDA, without a device; needs torch for CUDA, transformers, triton and gcc",
    (
        Key("rounds", "steps of each way that count", "60"),
        Key("out", "the page; without it, it is printed"),
    ),
)
_FEWEST_ROUNDS = 6  # the range of fewer is no interval of 95 %
_IS_LOADED = "PMEXP_CUDA_STANDS_IN"
_PAGE = """\
# The host's part of a step on CUDA, without a device

    {command}

{date}; {versions}.

Native calls launch what Triton launches for Python's calls in all of {cases} cases: the same kernel, grid,
block, shared memory, stream and numbers, on the tensors' own memory; the generator is then the same.

CPU time of a step of two samples with AdamW and clipping, beside a device that takes no time and computes
nothing; medians, and the paired ratio's 95 % interval.

"""
_HEAD = ("model", "precision", "step", "launches", "CPU ms", "times stock", "low", "high")


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 done, 1 native calls launch otherwise, 2 bad input, 130 interrupted."""
    return COMMAND.run(arguments, _run)


def _run(given: Given) -> int:
    rounds = whole("rounds", given["rounds"], _FEWEST_ROUNDS, "number of rounds")
    if _IS_LOADED in os.environ:
        given.write_page("out", lambda: _page(rounds, given.again()))
        return 0
    given.new_file("out", ".md")
    from pmexp.bench.host.build import build  # it imports torch, for which a wrong key need not wait

    with tempfile.TemporaryDirectory() as folder:
        library = build(Path(folder))
        environment = {
            **os.environ,
            _IS_LOADED: "1",
            "LD_PRELOAD": str(library),
            "LD_LIBRARY_PATH": folder,
            "TRITON_LIBCUDA_PATH": folder,
            "TRITON_CACHE_DIR": str(Path(folder) / "triton"),  # whose launcher is linked with the stand-in
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, "-m", "pmexp.bench.host", *given.typed]
        return subprocess.run(command, env=environment, check=False).returncode


def _page(rounds: int, command: str) -> str:
    import torch

    from pmexp.bench.gpu.environment import environment
    from pmexp.bench.host.launches import compare_launches
    from pmexp.bench.host.stand_in import StandIn, believed
    from pmexp.bench.host.steps import measure
    from pmexp.packed_dropout import native

    stand_in = StandIn()
    with believed():
        native.choose("cuda", "native")
        native.calls(torch.device("cuda", 0))
        cases = compare_launches(stand_in)
        rows = [row.cells() for row in measure(stand_in, rounds)]
    versions = ", ".join(f"{name} {value}" for name, value in environment(torch.device("cuda", 0)).items())
    head = _PAGE.format(command=command, date=date.today(), versions=versions, cases=cases)
    return f"{head}{markdown_table(_HEAD, rows)}\n"
