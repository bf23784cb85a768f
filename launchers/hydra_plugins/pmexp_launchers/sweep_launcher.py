"""Does what all launchers do with a sweep, wherever its runs are executed."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from hydra_plugins.pmexp_launchers.sweep import (
    Outcome,
    failures_text,
    names_of,
    out_of_memory_text,
    write_plan,
)
from pmexp.config import RunConfig
from pmexp.errors import SweepFailed, UserError
from pmexp.run_folder.folder import RunFolder
from pmexp.run_folder.mirrored import lacked
from pmexp.run_folder.place import refuse_unusable
from pmexp.run_folder.plan import drop_from_plan
from pmexp.run_folder.state import State
from pmexp.shown import counted


class SweepLauncher(ABC):
    """Skips finished runs, has the rest executed, and names those that failed."""

    def sweep(self, runs: Sequence[RunConfig]) -> None:
        """Executes the unfinished runs. Raises SweepFailed, or UserError where only bad input was to blame.

        A place where nothing can be written, and data or a checkpoint that has changed since a run was made
        of it, are bad input before anything is executed; a full disk is a MachineError.
        """
        self.check()
        folders = [RunFolder(run.folder) for run in runs]  # a run's id is a digest of all its keys
        finished = [folder.is_finished() for folder in folders]
        waiting = [run for run, is_done in zip(runs, finished, strict=True) if not is_done]
        for experiment in sorted({run.folder.parent for run in waiting}):
            refuse_unusable(experiment, "runs_dir")
        if of_files := [run for run in runs if run.has_local_files]:
            from pmexp.training.changed_inputs import refuse_changed_inputs  # imports much

            refuse_changed_inputs(of_files)
        outcomes = {folder.path: Outcome(State.finished) for folder in folders}
        names = names_of({folder.path: run for folder, run in zip(folders, runs, strict=True)})
        for folder in itertools.compress(folders, finished):
            folder.drop_resume_checkpoints()  # which a kill just after the summary leaves
        print(f"{counted(len(runs), 'run')}, {len(runs) - len(waiting)} of them finished before")
        pairs = list(zip(folders, runs, strict=True))
        _say_lacked(itertools.compress(pairs, finished))
        if waiting:
            outcomes |= self.execute(runs, waiting, names)
            _say_lacked(itertools.compress(pairs, [not was_done for was_done in finished]))
        else:
            write_plan(runs)  # it may be damaged
        for run in waiting:
            if outcomes[run.folder].bad_input:
                drop_from_plan(run.folder.parent, run.run_id)
        if exhausted := out_of_memory_text(names):
            print(f"done, with this result:\n{exhausted}")
        _raise_failures(outcomes, names)

    @abstractmethod
    def check(self) -> None:
        """Raises UserError where the launcher's own keys are wrong."""

    @abstractmethod
    def execute(
        self, runs: Sequence[RunConfig], waiting: Sequence[RunConfig], names: Mapping[Path, str]
    ) -> Mapping[Path, Outcome]:
        """The outcome of each of the `waiting` among the sweep's `runs`, by its folder; so are `names`."""


def _say_lacked(runs: Iterable[tuple[RunFolder, RunConfig]]) -> None:
    """Says what trackers lack of finished runs: a run's own warning of it is in its log. One that is still
    claimed sends its end just now."""
    asked: dict[Path, dict[Path, Sequence[str]]] = {}
    for folder, run in runs:
        if folder.is_finished() and not folder.is_claimed():
            asked.setdefault(folder.path.parent, {})[folder.mirrored] = run.tracking.trackers
    for experiment, trackers in sorted(asked.items()):
        if said := lacked(experiment, trackers):
            print(said)


def _raise_failures(outcomes: Mapping[Path, Outcome], names: Mapping[Path, str]) -> None:
    bad = [outcome for outcome in outcomes.values() if outcome.error]
    if bad and all(outcome.bad_input for outcome in bad):
        raise UserError(f"{bad[0].error} ({len(bad)} of {counted(len(outcomes), 'run')})")
    if bad:
        raise SweepFailed(failures_text(outcomes, names))
