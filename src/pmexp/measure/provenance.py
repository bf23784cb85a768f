"""Records each start of a run as one line of attempts.jsonl.

Credentials are masked, and of the environment only what a list names is kept.
"""

import json
import os
import platform
import re
import shlex
import shutil
import socket
import sys
import time
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

import torch

from pmexp.masking import masked, masked_arguments, masked_values
from pmexp.measure.environment import GIT, cpu_name, git_version, output_of, outputs_of
from pmexp.process import usable_cores
from pmexp.run_folder.files import write_atomically
from pmexp.run_folder.folder import RunFolder

DIFF_BYTES = 1_000_000  # the most that source.diff keeps; it and the line say so where it was cut
_ARGUMENT = 300  # the most characters kept of an argument of the command
_UNTRACKED = 100  # the most names kept of files that are in no commit
# Only these variables of the environment are kept: even SLURM has one with a credential (SLURM_JWT).
_OF_CLUSTER = re.compile(
    r"SLURM_JOB_(ID|NAME|PARTITION|ACCOUNT|QOS|NODELIST|NUM_NODES|GPUS|START_TIME|END_TIME)"
    r"|SLURM_ARRAY_(JOB_ID|TASK_ID)|SLURM_STEP_(ID|NUM_TASKS|NODELIST)|SLURM_(PROCID|LOCALID|RESTART_COUNT)"
    r"|SLURM_(NTASKS|GPUS|MEM)(_PER_\w+)?|SLURM_CPUS_(PER_TASK|ON_NODE)|SLURM_GPUS_ON_NODE"
    r"|SLURM_CLUSTER_NAME|SLURM_SUBMIT_HOST|SLURMD_NODENAME|CUDA_VISIBLE_DEVICES"
)
# Read once, when the parent of all workers imports this. The folders' names say it: importlib would read each
# package's description, which takes a tenth of a second.
_PACKAGES = "".join(
    sorted(
        {
            f"{file.name.removesuffix('.dist-info').replace('-', '==', 1)}\n"
            for folder in dict.fromkeys(sys.path)
            for file in Path(folder or ".").glob("*.dist-info")
        },
        key=str.lower,
    )
)


def record_start(folder: RunFolder, resumed_at: int, data: Mapping[str, str] | None = None) -> None:
    """Appends the line of this start, and keeps the source's changes and the packages in artifacts/.

    `resumed_at`: the step of the checkpoint that it goes on from, 0 without one. `data`: where its data lies,
    and the digest of that; None where it came to no data. Rank 0 alone calls it, in an opened folder.
    """
    line = {
        "attempt": folder.owner()["attempt"],
        "time": round(time.time(), 3),  # seconds since 1970
        "resumed_at": resumed_at,
        "data": dict(data or {}),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "command": _command(),
        "directory": os.getcwd(),
        "python": platform.python_version(),
        "packages": _kept(folder.artifacts, "packages.txt", _PACKAGES),
        "git": masked_values(_source(folder.artifacts)),
        "cpu": _cpu(),
        "gpus": _gpus(),
        "cluster": of_cluster(os.environ),
    }
    _append(folder.path / "attempts.jsonl", json.dumps(line) + "\n")


def _command() -> str:
    """The command line; a rank of several processes was given all of its configuration, which is cut."""
    given = masked_arguments(sys.argv)
    return shlex.join(text if len(text) <= _ARGUMENT else f"{text[:_ARGUMENT]}..." for text in given)


def of_cluster(environment: Mapping[str, str]) -> dict[str, str]:
    """What the cluster gave to this process."""
    return {name: masked(value) for name, value in environment.items() if _OF_CLUSTER.fullmatch(name)}


def _source(artifacts: Path) -> dict[str, Any]:
    """Commit, branch and changes of the source tree; {} for an installed package."""
    version = git_version()
    if not version:
        return {}
    difference, others, branch = outputs_of(
        [*GIT, "diff", "--no-ext-diff", "--no-color", "HEAD"],
        [*GIT, "ls-files", "--others", "--exclude-standard", "--full-name", ":/"],
        [*GIT, "rev-parse", "--abbrev-ref", "HEAD"],
    )
    changes, untracked = difference or "", (others or "").splitlines()
    diff, is_cut = _bounded(changes)
    return {
        "commit": version["git_commit"],
        "branch": branch,
        "changed": bool(changes),
        "diff": _kept(artifacts, "source.diff", masked(diff) + "\n") if changes else None,
        "diff_is_cut": is_cut,
        "untracked": untracked[:_UNTRACKED],
        "untracked_count": len(untracked),
    }


def _bounded(diff: str) -> tuple[str, bool]:
    """The diff in at most DIFF_BYTES, whole lines and a word about the rest, and whether it was cut."""
    data = diff.encode()
    if len(data) <= DIFF_BYTES:
        return diff, False
    whole = data[:DIFF_BYTES].rpartition(b"\n")[0]
    return f"{whole.decode()}\n... cut: these are the first {len(whole)} of {len(data)} bytes", True


def _cpu() -> dict[str, str | int]:
    return {
        "model": cpu_name(),
        "count": os.cpu_count() or 0,
        "usable": usable_cores(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }


def _gpus() -> list[dict[str, str]]:
    """Name, driver and memory of each GPU of this machine by nvidia-smi; without it what torch sees."""
    if shutil.which("nvidia-smi"):
        table = output_of(
            ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
        )
        rows = [line.split(", ") for line in (table or "").splitlines()]
        return [dict(zip(("name", "driver", "memory"), row, strict=False)) for row in rows]
    devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return [{"name": each.name, "memory": f"{each.total_memory // 2**20} MiB"} for each in devices]


def _kept(artifacts: Path, name: str, text: str) -> str:
    """Writes `text` to artifacts/<name>, or another number of it where an earlier start left another text."""
    for number in count(1):
        file = (
            artifacts / name if number == 1 else artifacts / f"{Path(name).stem}-{number}{Path(name).suffix}"
        )
        if not file.exists():
            write_atomically(file, text)
        if file.read_text(encoding="utf-8") == text:
            return f"{artifacts.name}/{file.name}"
    raise AssertionError


def _append(file: Path, line: str) -> None:
    with file.open("ab+") as stream:
        if stream.tell():
            stream.seek(-1, os.SEEK_END)
            if stream.read(1) != b"\n":  # a start before was killed while it wrote
                line = "\n" + line
        stream.write(line.encode())
        stream.flush()
        os.fsync(stream.fileno())
