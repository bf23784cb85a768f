"""Says of many runs which are to be done and what became of each. Imports no torch; launchers build on it."""

import os
import signal
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pmexp.config import RunConfig
from pmexp.run_folder.differences import named, told_apart, words_of
from pmexp.run_folder.failure import FailureKind
from pmexp.run_folder.folder import RunFolder
from pmexp.run_folder.plan import Label, add_to_plan
from pmexp.run_folder.state import State, unfinished_state
from pmexp.run_folder.summary import NOT_FINITE
from pmexp.shown import counted

_LOST = 255  # multiprocessing's exit code of a process whose fork server is gone: the process may still run


@dataclass(frozen=True)
class Outcome:
    """Says how a run's process ended, and what that means for the run."""

    state: State
    error: str = ""  # one line; empty for a run that is done
    warning: str = ""  # one line: what a person should know of a run that is done
    bad_input: bool = False  # the user can mend it; nothing was written
    kind: FailureKind | None = None  # None for a run that has a result or that the user has to mend


def distinct(runs: Iterable[RunConfig]) -> list[RunConfig]:
    """The runs, each folder once: a sweep may name a configuration twice. Those of one seed stand together.

    They are compared with each other, and executed one after another they see the same machine: a load that
    comes or goes hits them alike.
    """
    return sorted({run.folder: run for run in runs}.values(), key=lambda run: run.seed)


def names_of(runs: Mapping[Path, RunConfig]) -> dict[Path, str]:
    """Names the run of each folder: by its id, after the folders above it where runs differ in these, and by
    what tells it apart from the others."""
    common = os.path.commonpath([folder.parent for folder in runs]) if runs else ""
    apart = told_apart({folder: (run.labels, run.settings) for folder, run in runs.items()})
    return {folder: named(str(folder.relative_to(common)), words_of(apart[folder])) for folder in runs}


def is_finished(run: RunConfig) -> bool:
    """Returns whether the run has its result."""
    return RunFolder(run.folder).is_finished()


def write_plan(runs: Sequence[RunConfig]) -> None:
    """Adds the runs to the plans of their experiments. Raises UserError or MachineError where it cannot."""
    experiments: dict[Path, list[tuple[str, dict[str, Label], dict[str, Any]]]] = {}
    for run in runs:
        folder = run.folder
        experiments.setdefault(folder.parent, []).append((folder.name, run.labels, run.settings))
    for folder, planned in experiments.items():
        add_to_plan(folder, planned)


def recorded_outcome(run: RunConfig) -> Outcome | None:
    """Reads what became of a run from its own record; None where it left none."""
    folder = RunFolder(run.folder)
    if folder.is_finished():
        wrong = folder.environment().get(NOT_FINITE)
        warning = f"not finite: {wrong}" if wrong else ""
        return Outcome(State.oom if folder.out_of_memory() else State.finished, warning=warning)
    if failure := folder.failed():
        state = unfinished_state(folder, failure, owner={})
        return Outcome(state, failure["error"], kind=FailureKind(failure["kind"]))
    return None


def outcome_of(run: RunConfig, exit_code: int) -> Outcome:
    """Says what became of a run whose process ended with `exit_code`, by the run's own record first."""
    recorded = recorded_outcome(run)
    if recorded:
        return recorded
    if exit_code < 0:
        said = f"killed by {signal.Signals(-exit_code).name}"
        return Outcome(State.stale, said, kind=FailureKind.infrastructure)
    if exit_code == _LOST:
        said = "the parent of all workers was killed, so its end was not seen"
        return Outcome(State.stale, said, kind=FailureKind.infrastructure)
    said = f"its process ended with code {exit_code} and left no summary"
    return Outcome(State.failed, said, kind=FailureKind.code)


def out_of_memory_text(names: Mapping[Path, str]) -> str:
    """Returns a line for each run, also of an earlier sweep, whose result is that memory did not suffice.

    names: of the runs, by their folders.
    """
    said = {name: RunFolder(folder).out_of_memory() for folder, name in names.items()}
    return "\n".join(f"  {name}: {State.oom.value}: {line}" for name, line in said.items() if line)


def failures_text(outcomes: Mapping[Path, Outcome], names: Mapping[Path, str]) -> str:
    """Returns one line for each run that did not finish: its name, what happened and its log."""
    bad = [folder for folder in outcomes if outcomes[folder].error]
    lines = [
        f"{len(bad)} of {counted(len(outcomes), 'run')} did not finish; the same command runs only these "
        "again:"
    ]
    for folder in bad:
        said = f"{outcomes[folder].state.value}: {outcomes[folder].error}"
        lines.append(f"  {names[folder]}: {said} (log: {RunFolder(folder).log})")
    return "\n".join(lines)
