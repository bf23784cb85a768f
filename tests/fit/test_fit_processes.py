"""method=measure on two processes that it starts itself, and what becomes of a try that one of them does not survive.

Rank 0 could go on in all of them: it waits for rank 1 in a collective of half an hour's patience.
"""

import json
from pathlib import Path

import pytest

import limited_ranks
from pmexp.command.compose import compose
from pmexp.errors import RankFailed
from pmexp.fit import processes
from pmexp.fit.command import main
from pmexp.fit.measure import Try
from pmexp.protocol import ComparedLabel
from pmexp_analysis.numbers.fits import _answered
from small_runs import TINY_BERT, last_of_each

TWO = [
    *last_of_each([*TINY_BERT, "dataset.max_length=128"]),
    "system.device=cpu",
    "system=ddp",
    "system.processes=2",
    "train.batch_size=16",
]


def test_the_largest_batch_under_a_limit_of_one_rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "execute", limited_ranks.limited)
    keys = ["method=measure", *TWO, "global_batch=128", "name=mine", f"runs_dir={tmp_path}"]
    assert main(keys) == 0
    (file,) = (tmp_path / "mine" / "fit").glob("batch-baseline-s0-*.json")
    answer = json.loads(file.read_text())
    probes = {probe["value"]: probe for probe in answer["probes"]}
    largest = answer["largest"]
    assert 8 <= largest < 64 and probes[largest]["fits"] and probes[largest]["peak_bytes"] > 0
    assert probes[2 * largest]["note"].startswith("out of memory: rank 1: ")
    assert probes[2 * largest]["peak_bytes"] is None
    (limits,) = _answered([file], ComparedLabel.variant)
    assert (limits.over, limits.how) == ("train.batch_size", "measured for 78.6 GiB")
    assert (limits.tries["baseline"].largest, limits.tries["baseline"].first_lack) == (largest, 2 * largest)


def test_a_killed_rank_is_a_try_that_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "execute", limited_ranks.killed)
    probe = processes.measured(Try(4, compose(TWO), 4, 128, 1, 10**9))
    assert (probe.value, probe.peak_bytes, probe.fits) == (4, None, False)
    assert probe.note.startswith("out of memory: rank 1 was killed")


def test_a_rank_that_fails_otherwise_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "execute", limited_ranks.failing)
    with pytest.raises(RankFailed, match=r"^rank 1: ValueError: of rank 1$"):
        processes.measured(Try(4, compose(TWO), 4, 128, 1, 10**9))


def test_a_launcher_that_has_started_processes_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["method=measure", *TWO, "out=/tmp/never.json"]) == 2
    assert "starts its processes itself, and a launcher has started 2" in capsys.readouterr().err
