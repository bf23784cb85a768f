"""The experiment that most of these tests read."""

from collections.abc import Callable
from pathlib import Path

import pytest

from run_folders import Runs, record


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path / "runs")


@pytest.fixture
def line() -> Callable[[str, float | None, int], str]:
    """A journal's line out of metric, value and step."""
    return record


@pytest.fixture
def demo(runs: Runs) -> Runs:
    """Two variants over three seeds with every kind of metric; the fourth run of `packed` has failed."""
    for seed in range(3):
        for variant, mask, saved, speed in (("baseline", 4.0, 100, 500.0), ("packed", 0.125, 60, 480.0)):
            finals = {
                "train/loss": 0.5 + seed / 8,
                "test/accuracy": 0.9 + seed / 100 + (seed - 1) ** 2 * (variant == "packed") / 50,
                "memory/mask_bytes_per_element": mask,
                "memory/saved_bytes": float(saved * 2**20),
                "memory/peak_bytes": float((saved + 20) * 2**20 + seed),
                "speed/step_ms": 64e3 / (speed + seed),
                "speed/samples_per_s": speed + 3 * seed * seed * (1 if variant == "packed" else 2),
            }
            runs.finished(variant, seed, finals, losses=[2.0 - seed / 4, 1.0, 0.5 + seed / 8])
    runs.unfinished(
        "packed", 3, failure={"status": "failed", "error": "MemoryError: no room", "log": "log.txt"}
    )
    return runs
