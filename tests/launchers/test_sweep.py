"""What a sweep says of runs that it finds or that ended, by what lies in their folders."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from hydra_plugins.pmexp_launchers.sweep import Outcome, outcome_of, recorded_outcome
from hydra_plugins.pmexp_launchers.sweep_launcher import SweepLauncher
from pmexp.config import RunConfig
from pmexp.run_folder.mirrored import mark_complete, mark_lacking
from pmexp.run_folder.state import State
from tracked_runs import TrackedRun


@pytest.mark.parametrize(("status", "state"), [("finished", State.finished), ("oom", State.oom)])
def test_a_run_out_of_memory_is_a_result_and_not_called_finished(
    status: str, state: State, tmp_path: Path
) -> None:
    run = TrackedRun(tmp_path)
    assert recorded_outcome(run.config) is None
    run.record_end(status)
    for outcome in (recorded_outcome(run.config), outcome_of(run.config, exit_code=-9)):
        assert outcome is not None and (outcome.state, outcome.error, outcome.kind) == (state, "", None)


class Ended(SweepLauncher):
    """A launcher whose runs have ended: the first with all in its tracker, the second without a part, the third killed
    before it had sent its end, and the fourth still sending."""

    def __init__(self, runs: Sequence[TrackedRun], claims: ExitStack) -> None:
        self._runs, self._claims = runs, claims

    def check(self) -> None: ...

    def execute(
        self, runs: Sequence[RunConfig], waiting: Sequence[RunConfig], names: Mapping[Path, str]
    ) -> Mapping[Path, Outcome]:
        for run in self._runs:
            run.record_end("finished")
        mark_complete(self._runs[0].folder.mirrored, "mlflow", {"mlflow_run_id": "1"})
        mark_lacking(self._runs[1].folder.mirrored, "mlflow", "database is locked")
        self._claims.enter_context(self._runs[3].folder.claimed())
        return {run.folder: Outcome(State.finished) for run in waiting}


def test_a_sweep_says_what_a_tracker_lacks_of_its_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The runs' own warnings are in their logs; the same command says it again until it is repaired."""
    runs = [TrackedRun(tmp_path, seed) for seed in range(4)]
    said = (
        f"2 finished runs are not wholly in mlflow; pmexp runs repair default runs_dir={tmp_path} trackers=mlflow "
        "brings them there\n"
    )
    with ExitStack() as claims:
        launcher = Ended(runs, claims)
        for before in (0, 4):
            launcher.sweep([run.config for run in runs])
            assert capsys.readouterr().out == f"4 runs, {before} of them finished before\n{said}"
    mark_complete(runs[1].folder.mirrored, "mlflow", {"mlflow_run_id": "2"})
    launcher.sweep([run.config for run in runs[:2]])
    assert "mlflow" not in capsys.readouterr().out
