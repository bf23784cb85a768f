"""The figures over a setting draw what the criteria judge."""

import pytest

from pmexp_analysis.figures.over_settings import of_experiment
from run_folders import Runs

JUDGED, PROCESS, SAVED = "memory/peak_tensor_bytes", "memory/peak_bytes", "memory/saved_bytes"


@pytest.mark.parametrize(
    ("recorded", "drawn"),
    [
        ([JUDGED, PROCESS], {"peak_tensor_bytes-over-max_length"}),
        ([PROCESS], set()),  # that of the process is no stand-in for that of the tensors
        ([SAVED, PROCESS], {"saved_bytes-over-max_length"}),
    ],
)
def test_memory_over_a_setting_is_that_of_tensors_and_of_nothing_else(
    runs: Runs, recorded: list[str], drawn: set[str]
) -> None:
    for length in (128, 256):
        for variant in ("baseline", "pm-drop"):
            runs.finished(
                variant, 0, dict.fromkeys(recorded, 1.0 * length), settings={"dataset.max_length": length}
            )
    figures = of_experiment(runs.experiment(), [], [], {})
    assert {one.name for one in figures} == drawn
