"""Runs level=records: measures what the journal and the checkpoints cost a training step.

A real run takes real steps. What the training thread does for the records is timed by itself; what an
asynchronous write costs the steps beside it is the ratio of steps with one under way to steps without, in
pairs. Before that a checkpoint of each kind is read back and compared with the training's state.
"""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pmexp.bench.options import RecordsOptions
from pmexp.bench.pairs import alternate, paired_ratio
from pmexp.bench.step import steps_of
from pmexp.command_line.output import write
from pmexp.config import CheckpointConfig
from pmexp.errors import ContenderFailed, UserError
from pmexp.measure.environment import environment
from pmexp.measure.timing import WARMUP_STEPS
from pmexp.run_folder.folder import RunFolder
from pmexp.run_folder.journal import Journal
from pmexp.shown import counted
from pmexp.training.checkpoint import Checkpoints
from pmexp.training.loop import Training
from pmexp.training.prepared import prepare
from pmexp.training.resuming import state_of

_METRICS = {"train/loss": 1.0, "grad/norm": 1.0, "train/lr": 1e-3}  # what a logged step records
_SAVES = 5


def run(options: RecordsOptions, command: str) -> None:
    """Measures, prints and, with `out`, writes records.json.

    Raises UserError for a configuration that cannot be run, ContenderFailed where a checkpoint is wrong.
    """
    training = prepare(options.config).training
    needed = WARMUP_STEPS + 3 * options.steps
    if training.plan.total_steps < needed:
        raise UserError(f"steps: {needed} steps are needed and this training has {training.plan.total_steps}")
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=options.out) as scratch:  # on the disk that out= names
        folder = RunFolder(Path(scratch))
        record: dict[str, Any] = dict(_measured(training, folder, options.steps))
    record |= {
        "pairs": options.steps,
        "command": command,
        "settings": options.config.settings,
        "environment": environment(training.system.device),
    }
    print(_summary(record))
    if options.out is not None:
        path = options.out / "records.json"
        write(path, json.dumps(record, indent=2) + "\n")
        print(path)


def _measured(training: Training, folder: RunFolder, steps: int) -> dict[str, float]:
    take_step = steps_of(training)
    for _ in range(WARMUP_STEPS):
        take_step()
    with Journal(folder.journal) as journal:
        synchronous, asynchronous = (_Saver(training, folder, journal, kind) for kind in (False, True))
        plain, journaled = [], []
        for _ in range(steps):
            plain.append(take_step())
            journaled.append(_seconds(lambda: journal.write(training.progress.step, _METRICS)))
        waits = [[_seconds(saver.save) for _ in range(_SAVES)] for saver in (synchronous, asynchronous)]

        def beside_a_write() -> float:
            asynchronous.save()
            return take_step()

        def alone() -> float:
            asynchronous.checkpoints.wait()
            return take_step()

        beside, without = alternate(beside_a_write, alone, steps)
        asynchronous.checkpoints.wait()
    slower = paired_ratio(beside, without)
    return {
        "step_ms": 1e3 * statistics.median(plain),
        "journal_ms": 1e3 * statistics.median(journaled),
        "checkpoint_bytes": max(file.stat().st_size for file in folder.checkpoints.glob("resume/*.pt")),
        "synchronous_wait_ms": 1e3 * statistics.median(waits[0]),
        "asynchronous_wait_ms": 1e3 * waits[1][0],  # the others wait for the write before
        "beside_a_write": slower.ratio,  # a step's time, in times of one without
        "beside_a_write_low": slower.low,
        "beside_a_write_high": slower.high,
    }


class _Saver:
    """Saves checkpoints of one kind, the first of which has been read back and compared."""

    def __init__(self, training: Training, folder: RunFolder, journal: Journal, asynchronous: bool) -> None:
        config, device = CheckpointConfig(asynchronous=asynchronous), training.system.device
        self.checkpoints = Checkpoints(folder, config, training.ranks, device)
        self._training, self._journal = training, journal
        self.save()
        _require_equal(self.checkpoints, training)

    def save(self) -> None:
        state = {"training": state_of(self._training)}
        self.checkpoints.save(state, self._training.progress.step, 0, self._journal.sync())


def _require_equal(checkpoints: Checkpoints, training: Training) -> None:
    checkpoints.wait()
    checkpoint_loaded = checkpoints.load()
    expected = state_of(training)["module"]
    saved = checkpoint_loaded[0]["training"]["module"] if checkpoint_loaded else {}
    wrong = [name for name in expected if name not in saved or not expected[name].cpu().equal(saved[name])]
    if wrong:
        kind = "asynchronous" if checkpoints.asynchronous else "synchronous"
        raise ContenderFailed(f"{kind} checkpoint: differs from the training's state in {wrong[0]}")


def _seconds(action: Callable[[], None]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def _summary(record: dict[str, Any]) -> str:
    where = record["environment"]
    return "\n".join(
        [
            f"step                    {record['step_ms']:9.3f} ms",
            f"journal, a logged step  {record['journal_ms']:9.3f} ms",
            f"checkpoint of {record['checkpoint_bytes'] / 2**20:.1f} MiB",
            f"  training waits        {record['synchronous_wait_ms']:9.1f} ms, asynchronously "
            f"{record['asynchronous_wait_ms']:.1f} ms",
            f"  a step beside a write takes {record['beside_a_write']:.3f} times one alone "
            f"(95 %: {record['beside_a_write_low']:.3f} to {record['beside_a_write_high']:.3f})",
            f"{where['cpu']}, {counted(where['threads'], 'thread')}, device {where['device']}, torch "
            f"{where['version_torch']}; {counted(record['pairs'], 'pair')}; {record['command']}",
        ]
    )
