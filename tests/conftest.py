"""What every test gets: no telemetry, no wall-clock bound on properties, and a folder of runs."""

import shutil
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

from pmexp.tracking.database import create_database, silence_mlflow
from small_runs import Runs

silence_mlflow()
hypothesis.settings.register_profile("pmexp", deadline=None)
hypothesis.settings.load_profile("pmexp")


@pytest.fixture
def runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Runs:
    return Runs(tmp_path / "runs", capsys)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without runs: making one takes seconds."""
    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    create_database(file)
    return file


@pytest.fixture
def database(empty_database: Path) -> Callable[[Path], Path]:
    """Puts an empty mlflow.db into a folder of runs and returns its path."""

    def put(folder: Path) -> Path:
        folder.mkdir(exist_ok=True)
        return Path(shutil.copy(empty_database, folder))

    return put
