"""Runs of a baseline and of packed dropout with all that a claim rests on, and the report on them."""

from typing import Any

from pmexp_analysis.numbers.compare import Comparison as Compared
from pmexp_analysis.pages.content import Content
from run_folders import Runs

SCORE, STEP, PEAK = "test/accuracy", "speed/step_ms", "memory/peak_bytes"
CRITERIA: dict[str, Any] = {
    "masks": {"metric": "memory/mask_bytes", "statistic": "times_smaller", "comparison": "at_least"},
    "memory": {"metric": PEAK, "statistic": "relative_change", "comparison": "at_most"},
    "speed": {"metric": STEP, "statistic": "relative_change", "comparison": "within", "threshold": 0.02},
    "quality": {"metric": "score", "statistic": "difference", "comparison": "within", "threshold": 0.1},
    "finite": {"statistic": "diverged", "comparison": "at_most"},
}
MACHINE = {
    "cpu": "EPYC", "device": "cpu", "threads": 1, "version_torch": "2.13.0", "version_pmexp": "0.1.0",
    "git_commit": "a" * 40, "git_diff": "c" * 12, "precision": "fp32", "attention": "eager", "data_digest": "d1",
    "dropout_backend": "cpu core avx2",
}  # fmt: skip


def run(runs: Runs, variant: str, seed: int, score: float | None = None, **told: Any) -> None:
    """Writes a run in which every criterion passes; `told` replaces its environment, losses or outcome."""
    finals = {
        SCORE: 0.9 + seed / 100 if score is None else score,
        STEP: 10 + seed / 1000,
        PEAK: (100.0 if variant == "baseline" else 80.0) + seed,
        "memory/mask_bytes": 4.0 if variant == "baseline" else 1.0,
    }
    told = {"losses": [2.0, 1.0 + seed + len(variant) / 16], "environment": MACHINE} | told
    runs.finished(variant, seed, finals, protocol={"method": "pm-drop", "criteria": CRITERIA}, **told)


def pairs(runs: Runs, **told: Any) -> None:
    """Writes three seeds of baseline and pm-drop; `told` goes to the runs of pm-drop alone."""
    for seed in range(3):
        run(runs, "baseline", seed)
        # Equal scores would be no evidence.
        run(runs, "pm-drop", seed, **{"score": 0.9 + seed / 100 + seed**2 / 1e4} | told)


def compared(report: Content) -> dict[tuple[str, str], Compared]:
    return {(one.variant, one.metric): one for one in report.comparisons}


def results(report: Content) -> dict[str, str]:
    return {one.name: one.result for one in report.criteria}
