"""Stages in processes of their own: whatever one does, what it found is kept and the next one begins."""

import json
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest

from forked_python import ForkedPython
from pmexp.bench.gpu import bench
from pmexp.bench.gpu import execute as module
from pmexp.bench.gpu.budget import Budget
from pmexp.bench.gpu.execute import execute
from pmexp.bench.gpu.page import page
from pmexp.bench.gpu.plan import Stage

TESTS = Path(__file__).parents[2]


# Each gets this share of the budget; the others, which end by themselves, get eight such shares.
_SHARES = {"slow": 1, "hanging": 1}


def stages(*names: str) -> list[Stage]:
    return [
        Stage(name, f"The {name} one", _SHARES.get(name, 8), "bench.gpu.stages_of_tests") for name in names
    ]


@pytest.fixture(autouse=True)
def stages_are_found_and_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """To import torch takes them longer than all else."""
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    monkeypatch.setattr(subprocess, "Popen", ForkedPython)


def executed(seconds: float, *names: str) -> tuple[dict[str, Any], list[list[str]]]:
    record: dict[str, Any] = {"command": "the command", "date": "2026-11-27", "claims": []}
    written: list[list[str]] = []

    def write(record: dict[str, Any]) -> None:
        json.dumps(record)
        page(record)
        written.append([stage["ended"] for stage in record["stages"]])

    execute(record, stages(*names), "cpu", "tiny", Budget(seconds), write)
    return record, written


def has_ended(pid: int) -> bool:
    """Whether the process has ended, be it a zombie whose exit code nobody has read yet."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.slow
def test_a_stage_that_fails_or_dies_costs_no_other(capfd: pytest.CaptureFixture[str]) -> None:
    record, written = executed(90, "broken", "killed", "whole")
    assert written == [
        ["not begun"] * 3,
        ["failed", "not begun", "not begun"],
        ["failed", "ended by signal 11", "not begun"],
        ["failed", "ended by signal 11", "done"],
    ]
    broken, killed, whole = record["stages"]
    assert broken["tables"] == {"speed": [{"what": "before"}]}
    assert broken["failed"] == ["broken: RuntimeError: CUDA error: an illegal memory access was encountered"]
    assert killed["notes"] == ["the last words"]  # and not the line that was cut short
    assert whole["tables"]["speed"][1] == {"what": "second", "note_of": "a|b"}
    assert whole["failed"] == ["the middle: ValueError: no such kernel"]
    assert [check["held"] for check in whole["checks"]] == [True, False]
    assert whole["notes"] == ["on cpu, tiny is True"] and whole["left_out"] == ["the rest"]
    assert record["environment"]["device"] == "cpu"
    assert "Traceback" in capfd.readouterr().err  # whoever watches the terminal sees where it failed


@pytest.mark.slow
def test_a_stage_that_takes_too_long_or_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_GRACE", 1.0)
    monkeypatch.setattr(bench, "_SHORTEST", 0.0)  # the fork has it too: however late, its part begins
    record, _ = executed(36, "slow", "hanging", "whole")
    slow, hanging, whole = record["stages"]
    assert slow["ended"] == "out of time"
    assert slow["left_out"] == ["a long sleep: broken off, the stage's time was over"]
    assert hanging["ended"] == "hung, and was killed 1 s behind its time"
    assert has_ended(int(hanging["notes"][0].split()[1]))
    assert whole["ended"] == "done"


def test_the_page_says_what_was_found() -> None:
    whole = {
        "title": "The whole one",
        "ended": "done",
        "took_seconds": 3.0,
        "tables": {"speed": [{"what": "a|b", "both_us": 1234.5, "big": True}, {"elements": 4096, "what": None}]},
        "checks": [{"what": "one", "held": True, "detail": ""}, {"what": "two", "held": False, "detail": "why"}],
        "notes": ["a note"],
        "failed": ["a part: ValueError: no"],
        "left_out": ["the rest"],
    }  # fmt: skip
    lists = {kind: [] for kind in ("checks", "notes", "failed", "left_out")}
    last = {"title": "The last one", "ended": "not begun", "tables": {}} | lists
    text = page(
        {
            "command": "python3 -m pmexp.bench.gpu",
            "date": "2026-11-27",
            "environment": {"device": "A GPU", "torch": "2.13.0"},
            "claims": [{"claim": "it is fast", "verdict": "refuted"}],
            "stages": [whole, last],
        }
    )
    assert text.startswith(
        "# Measured on A GPU\n\n    python3 -m pmexp.bench.gpu\n\n2026-11-27; device A GPU, "
    )
    assert "| claim | verdict |\n| --- | --- |\n| it is fast | refuted |" in text
    assert "| what | both us | big | elements |\n| --- | --- | --- | --- |\n| a\\|b | 1,234 | yes |  |\n|  |  |  | 4,096 |" in text  # fmt: skip
    assert (
        "## The whole one\n\nEnded: done after 3 s.\n\nHolds:\n\n- one\n\n**Does not hold:**\n\n- two: why"
        in text
    )
    assert "**Failed:**\n\n- a part: ValueError: no\n\nLeft out:\n\n- the rest" in text
    assert "## The last one\n\nEnded: not begun.\n" in text
