"""What a sweep says of runs that it finds or that ended, by what lies in their folders."""

from pathlib import Path

import pytest

from hydra_plugins.pmexp_launchers.sweep import outcome_of, recorded_outcome
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
