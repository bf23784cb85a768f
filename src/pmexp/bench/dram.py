"""Judges what the dropout kernels moved through device memory, as Nsight Compute counted it.

    python -m pmexp.bench.dram csv=dram.csv elements=12345678 dtype=bf16

A kernel of dropout has to read its input and write its result once; forward writes the mask and backward
reads it. docs/profiling.md has the command that counts, and says where the number of elements stands.
"""

import json
import math
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from pmexp.command_line import Command, Given, Key, importing, whole
from pmexp.command_line.output import write
from pmexp.errors import UserError

with importing("train"):
    from pmexp.bench.ncu import Traffic, traffic
    from pmexp.bench.options import DTYPES

_ITEMSIZE = {"fp32": 4, "bf16": 2, "fp16": 2, "fp64": 8}  # bytes
_MARGIN = 0.05  # below what a byte mask would add to fp32, a ninth
_STEPS = "4"  # so many does measure.nsight capture
MUST, LESS, MORE = "pass", "less", "more"
_IN_WORDS = {
    MUST: "pass: what it must",
    LESS: "not settled: less than it must; caches kept a part, or elements= is too large",
    MORE: "fail: more than it must",
}


@dataclass(frozen=True)
class Kind:
    """Names the kernels that together drop every element once, or once apply its mask."""

    name: str
    pattern: re.Pattern[str]  # is in the kernel's name as ncu prints it
    packed: bool  # whether the mask is packed; else a value takes a byte


KINDS = (
    Kind("packed forward", re.compile(r"^_(native_)?dropout_kernel\b"), True),
    Kind("packed backward", re.compile(r"^_scale_kernel\b"), True),
    Kind("torch forward", re.compile(r"fused_dropout_kernel"), False),
    Kind("torch backward", re.compile(r"masked_scale"), False),
)


@dataclass(frozen=True)
class Verdict:
    """Holds how many bytes the launches of a kind of kernel have moved, and how many they had to."""

    kind: str
    launches: int
    moved: float  # bytes that were read and written
    must: float  # bytes: the input, the result and the mask, each once

    @property
    def ratio(self) -> float:
        return self.moved / self.must

    @property
    def word(self) -> str:
        """Returns which of MUST, LESS and MORE holds."""
        return LESS if self.ratio < 1 - _MARGIN else MORE if self.ratio > 1 + _MARGIN else MUST


def judged(kernels: Iterable[Traffic], elements: int, itemsize: int, bits: int) -> list[Verdict]:
    """Returns a verdict for each kind of kernel that ran.

    Args:
        elements: how many went through forward in all of the steps together.
        itemsize: bytes of an element.
        bits: of a packed mask value.
    """
    verdicts = []
    for kind in KINDS:
        of_it = [kernel for kernel in kernels if kind.pattern.search(kernel.kernel)]
        if of_it:
            mask = bits / 8 if kind.packed else 1
            moved = sum(kernel.read + kernel.written for kernel in of_it)
            launches = sum(kernel.launches for kernel in of_it)
            verdicts.append(Verdict(kind.name, launches, moved, elements * (2 * itemsize + mask)))
    return verdicts


def _judge(given: Given) -> int:
    """Prints the kernels and the verdicts, writes them where `out` says, and returns the exit code."""
    file = given.path("csv")
    if file is None:
        raise UserError("csv: names no file; give what ncu --csv printed, as csv=dram.csv")
    elements = math.prod(whole(key, given[key], what=f"number of {key}") for key in ("elements", "steps"))
    out = given.new_file("out", ".json")
    kernels = traffic(file)
    verdicts = judged(kernels, elements, _ITEMSIZE[given["dtype"]], int(given["bits"]))
    if not verdicts:
        raise UserError(
            f"csv: {file} has no kernel of dropout, but {kernels[0].kernel[:60]!r} and others; "
            "run ncu with the --kernel-name of docs/profiling.md"
        )
    for kernel in kernels:
        bytes_moved = f"read {kernel.read:.4g} B, wrote {kernel.written:.4g} B"
        print(f"{kernel.launches} launches {bytes_moved}: {kernel.kernel}")
    for verdict in verdicts:
        against = f"{verdict.moved:.4g} B moved, {verdict.must:.4g} B needed, ratio {verdict.ratio:.3f}"
        print(f"{verdict.kind}: {against}, {_IN_WORDS[verdict.word]}")
    if out is not None:
        write(out, _record(given, kernels, verdicts))
        print(out)
    return int(any(verdict.word == MORE for verdict in verdicts))


def _record(given: Given, kernels: list[Traffic], verdicts: list[Verdict]) -> str:
    judgements = [asdict(one) | {"ratio": one.ratio, "verdict": one.word} for one in verdicts]
    record = {"command": given.again(), "kernels": [asdict(one) for one in kernels], "verdicts": judgements}
    return json.dumps(record, indent=1) + "\n"


COMMAND = Command(
    "pmexp.bench.dram",
    "judges the bytes of device memory that ncu counted",
    (
        Key("csv", "the file that ncu --csv wrote"),
        Key("elements", "elements dropped in a step: memory/mask_elements of the run"),
        Key("dtype", "of these elements", "fp32", DTYPES),
        Key("bits", "of a packed mask value", "1", ("1", "2", "4")),
        Key("steps", "how many of them ncu captured", _STEPS),
        Key("out", "the JSON file for kernels and verdicts"),
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 judged, 1 a kernel moved more than it must, 2 bad input, 130 interrupted."""
    return COMMAND.run(arguments, _judge)


if __name__ == "__main__":
    sys.exit(main())
