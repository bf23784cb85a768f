"""method=measure on two processes that it starts itself, and what becomes of a try that one of them does not survive."""

import json
from pathlib import Path

import pytest

import limited_ranks
from pmexp.errors import RankFailed
from pmexp.fit import processes
from pmexp.fit.command import main
from pmexp.fit.measure import Try
from small_runs import TINY_BERT, last_of_each

TWO = [
    *last_of_each([*TINY_BERT, "dataset.max_length=128", "model.architecture.vocab_size=10000"]),
    "system.device=cpu",
    "system=ddp",
    "system.processes=2",
    "train.batch_size=16",
]


@pytest.mark.parametrize("what", ["batch", "length"])
def test_the_largest_under_a_limit_of_one_rank(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rank 0 could go on: it waits for rank 1 in a collective of half an hour's patience."""
    monkeypatch.setattr(processes, "execute", limited_ranks.limited)
    assert main(["method=measure", f"what={what}", *TWO, "name=mine", f"runs_dir={tmp_path}"]) == 0
    (file,) = (tmp_path / "mine" / "fit").glob(f"{what}-baseline-s0-*.json")
    answer = json.loads(file.read_text())
    probes = {probe["value"]: probe for probe in answer["probes"]}
    step = 1 if what == "batch" else 64
    largest, first_lack = answer["largest"], answer["largest"] + step
    assert largest > (8 if what == "batch" else 128)
    assert probes[largest]["fits"] and probes[largest]["peak_bytes"] <= limited_ranks.MORE_BYTES * 1.5
    assert probes[first_lack]["note"].startswith("out of memory: rank 1: ")
    assert probes[first_lack]["peak_bytes"] is None
