"""Runs again the runs that have no result, from their own configuration and their checkpoint."""

from collections.abc import Sequence

from pmexp.config import read_config
from pmexp.errors import UserError
from pmexp.run_folder.folder import RunFolder
from pmexp.run_folder.found import FoundRun


def retry(runs: Sequence[FoundRun], overrides: Sequence[str]) -> None:
    """Executes the runs by the launcher that `overrides` name in Hydra's words, by the local one without any.

    Raises UserError before anything is executed for a run that cannot be, SweepFailed where one fails again.
    """
    from pmexp.command.compose import launcher  # Hydra's plugins take a moment

    done = [run for run in runs if RunFolder(run.path).is_finished()]  # but nobody can read with what result
    if done:
        raise UserError(done[0].error)
    configs = [read_config(run.path / "config.yaml") for run in runs]
    launcher(overrides).sweep(configs)
