"""What every test gets: no telemetry, no wall-clock bound on properties, and a folder of runs."""

import os
from pathlib import Path

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import hypothesis
import pytest

from small_runs import Runs

hypothesis.settings.register_profile("pmexp", deadline=None)
hypothesis.settings.load_profile("pmexp")


@pytest.fixture
def runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Runs:
    return Runs(tmp_path / "runs", capsys)
