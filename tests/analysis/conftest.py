"""The experiment that most of these tests read."""

from collections.abc import Callable
from pathlib import Path

import pytest

from run_folders import Runs, demo_in, record


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path / "runs")


@pytest.fixture
def line() -> Callable[[str, float | None, int], str]:
    """A journal's line out of metric, value and step."""
    return record


@pytest.fixture
def demo(tmp_path: Path) -> Runs:
    return demo_in(tmp_path)
