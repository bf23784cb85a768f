"""What every test gets: no telemetry, no wall-clock bound on properties, and a folder of runs."""

import os
from pathlib import Path

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# Inductor else starts processes that compile, and one that tries each instruction set of the CPU first.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
os.environ.setdefault("TORCHINDUCTOR_VEC_ISA_OK", "1")

import hypothesis
import pytest

from pmexp import datasets
from pmexp.config import DatasetConfig, DatasetKind
from small_runs import Runs

hypothesis.settings.register_profile("pmexp", deadline=None)
hypothesis.settings.load_profile("pmexp")


@pytest.fixture
def runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Runs:
    return Runs(tmp_path / "runs", capsys)


@pytest.fixture(scope="session")
def few_news(tmp_path_factory: pytest.TempPathFactory) -> str:
    """`dataset.path` of each tenth document of Reuters-R8: to encode all of them takes seconds a run."""
    config = DatasetConfig(name="reuters-r8", kind=DatasetKind.reuters_r8, text_columns=["text"])
    folder = tmp_path_factory.mktemp("few-news")
    for file in Path(datasets.load(config).origin).glob("*.tab"):
        head, documents = (lines := file.read_text().splitlines(keepends=True))[:4], lines[4::10]
        (folder / file.name).write_text("".join([*head, *documents]))
    return f"dataset.path={folder}"
