"""`make drill-calls`: each system call by which a run changes its folder fails, or kills the run, in a run of its own.

A run left alone says which calls there are. Then, for each of them and each way to be hurt, a run meets that
fault, its folder is read, and the same run without a fault has to end as the run left alone, bit for bit.
"""

import argparse
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from faulty_calls import NO_FAULT, Call, Fault, Met, What, arm, environment, faults_at, met, unsynced
from forked_python import begin_autograd
from hydra_plugins.pmexp_launchers import processes
from hydra_plugins.pmexp_launchers.sweep import Outcome, write_plan
from pmexp.command.compose import compose
from pmexp.config import RunConfig
from pmexp.run_folder.folder import RunFolder
from pmexp.run_folder.found import find_runs
from pmexp.run_folder.state import State
from pmexp.runs.table import run_lines, runs_json
from pmexp.training import run as training_run
from pmexp_analysis.sources.folders import load_runs
from same_run import assert_same_files, assert_same_run, assert_same_summary
from small_runs import TINY_VIT

# A checkpoint each step, of which the newest stays: they are written, renamed and removed.
RUN = [*TINY_VIT, "variant=pm-drop", "train.max_steps=3", "train.batch_size=16", "train.log_every=1"]
HOW = ["tracking=off", "checkpoint.every_s=0", "checkpoint.keep=1"]

_fork = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Attempt:
    outcome: Outcome  # as a sweep sees it
    calls: list[Met]
    output: str  # before it went to the run's log


class Drill:
    """Runs of one configuration, each forked from this process and in a folder of its own."""

    def __init__(self, scratch: Path, resumes: bool) -> None:
        """Finds the calls of a run left alone, or, with `resumes`, of one that goes on where another was killed
        while it wrote its last checkpoint."""
        self._scratch = scratch
        self._begun: Path | None = None
        self._alone = compose([*RUN, *HOW, f"runs_dir={scratch / 'alone'}"])
        self._other = replace(self._alone, seed=self._alone.seed + 1)  # a report needs a finished run
        training_run.run(self._other)  # here, so that what each run finds imported and cached is there once
        self.calls = self._attempt(self._alone).calls
        assert_finished(self._alone)
        if resumes:
            writes = [one.path.name for one in self.calls if one.call is Call.write]
            number = writes.index("step-00000003.partial") + 1
            begun = replace(self._alone, runs_dir=str(scratch / "begun"))
            self._attempt(begun, Fault(Call.write, number, What.torn, 0))
            self._begun = begun.folder
            self.calls = self._attempt(self._fresh()).calls

    def faults(self, first: int | None = None) -> list[Fault]:
        """All that the calls of each kind can meet, or that the first so many can."""
        count = Counter(one.call for one in self.calls)
        numbers = [(call, number) for call in Call for number in range(1, count[call] + 1)]
        return [
            fault
            for call, number in numbers
            if number <= (first or number)
            for fault in faults_at(call, number)
        ]

    def target(self, fault: Fault) -> Path:
        """What the call is about that a fault hurts."""
        return [one.path for one in self.calls if one.call is fault.call][fault.number - 1]

    def inject(self, fault: Fault) -> str:
        """Returns how a run ended that met a fault: "finished", "failed" or "killed". Raises AssertionError where
        it, or the run after it, is not what it has to be."""
        run = self._fresh()
        hurt = self._attempt(run, fault)
        assert any(one.was_hurt for one in hurt.calls), "the fault was not met"
        assert "Traceback" not in hurt.output, hurt.output
        ended = _judged(state_of(run), hurt.outcome, fault)
        self._attempt(run)
        assert_finished(run)
        assert_same_run(run.folder, self._alone.folder)
        assert_same_summary(run.folder, self._alone.folder)
        assert_same_files(run.folder, self._alone.folder)
        return ended

    def _fresh(self) -> RunConfig:
        """A run that nobody has gone on with, in an experiment with a finished one."""
        each = self._alone, self._other
        run, other = (replace(one, runs_dir=str(self._scratch / "hurt")) for one in each)
        shutil.rmtree(run.runs_dir, ignore_errors=True)
        shutil.copytree(self._other.folder, other.folder)
        if self._begun:
            shutil.copytree(self._begun, run.folder)
        write_plan([run, other])
        return run

    def _attempt(self, run: RunConfig, fault: Fault = NO_FAULT) -> Attempt:
        """One process of a run, as a sweep has it but for the fault."""
        trace, output = self._scratch / "trace", self._scratch / "output"
        work = processes._work

        def hurt(*arguments: Any) -> None:
            descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for stream in (sys.stdout, sys.stderr):
                os.dup2(descriptor, stream.fileno())
            arm(run.folder, fault, trace)
            work(*arguments)

        with patch.multiple(processes, _forkserver=_fork, _work=hurt, preload=lambda: None):
            outcome = processes.Worker(run, slot=0, gpu=None).outcome()
        return Attempt(outcome, met(trace), output.read_text())


def _judged(state: State, outcome: Outcome, fault: Fault) -> str:
    """How a run ended, by its folder and by its process, which have to agree."""
    if state is State.finished:
        assert outcome.state is State.finished, outcome
        return "finished"
    assert outcome.state is not State.finished, state
    assert outcome.kind and outcome.kind.name == "infrastructure" and not outcome.bad_input, outcome
    assert outcome.error.isprintable(), outcome
    if fault.what in (What.kills, What.torn):
        assert state in (State.pending, State.stale), state
        return "killed"
    assert state in (State.pending, State.stale, State.failed), state
    return "failed"


def assert_finished(run: RunConfig) -> None:
    log = RunFolder(run.folder).log
    assert state_of(run) is State.finished, log.read_text() if log.is_file() else "it has no log"


def state_of(run: RunConfig) -> State:
    """The state by which the list and the report know the run, which have to agree and to find no damage."""
    runs = find_runs(Path(run.runs_dir), run.name)
    (listed,) = (each for each in runs if each.run_id == run.run_id)
    assert all(each.state is State.finished for each in runs if each is not listed)
    run_lines(runs), runs_json(runs)
    reported = {
        member.run.run_id: member.run.state for member in load_runs(Path(run.runs_dir), run.name).members
    }
    assert reported == {each.run_id: each.state.value for each in runs}
    assert not listed.damage, listed.damage
    return listed.state


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--first", type=int, help="of each kind of call only so many")
    parser.add_argument("--sample", type=int, help="so many of the faults, of each kind of call alike")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--only", default="", help="faults whose description holds this, e.g. 'rename 3 '")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        if "faulty_calls" not in os.environ.get("LD_PRELOAD", ""):
            return os.spawnve(os.P_WAIT, sys.executable, [sys.executable, *sys.argv], environment(scratch))
        wrong = 0
        begin_autograd()
        for resumes in (False, True):
            (scratch / str(resumes)).mkdir()
            drill = Drill(scratch / str(resumes), resumes)
            faults = [fault for fault in drill.faults(arguments.first) if arguments.only in f"{fault} "]
            if arguments.sample:
                faults = sample(faults, arguments.sample // 2, random.Random(arguments.seed))
            print(f"a run that {'goes on from a checkpoint' if resumes else 'begins'}, seed {arguments.seed}")
            wrong += tally(drill, faults)
        return 1 if wrong else 0


def sample(faults: list[Fault], size: int, chance: random.Random) -> list[Fault]:
    """Some of the faults, spread over the kinds of calls."""
    chance.shuffle(faults)
    count: Counter[Call] = Counter()
    turn = {}
    for fault in faults:
        turn[fault] = count[fault.call]
        count[fault.call] += 1
    return sorted(faults, key=turn.__getitem__)[:size]


def tally(drill: Drill, faults: Sequence[Fault]) -> int:
    """Injects the faults and returns how many runs were lost by one, or could be without power."""
    ended: dict[Call, Counter[str]] = {call: Counter() for call in Call}
    for fault in faults:
        try:
            ended[fault.call][drill.inject(fault)] += 1
        except Exception as error:  # also of a list or a launcher that cannot read what is left
            ended[fault.call]["lost"] += 1
            print(f"{fault} ({drill.target(fault).name}): {error}", flush=True)
    for call, count in ended.items():
        if count:
            print(f"{call.name}: {_words(count)}")
    total = sum(ended.values(), Counter())
    print(f"all: {_words(total)}")
    for file in (names := unsynced(drill.calls)):
        print(f"{file.name}: renamed, and its folder is not synced")
    return total["lost"] + len(names)


def _words(count: Counter[str]) -> str:
    injected, lost = count.total(), count["lost"]
    how = ", ".join(f"{count[word]} {word}" for word in ("finished", "failed", "killed"))
    return f"{injected} injected, {injected - lost} survived ({how}), {lost} lost"


if __name__ == "__main__":
    sys.exit(main())
