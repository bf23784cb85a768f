"""An evaluation by generation that ranks share is the one of one process: each text once, one BLEU of all."""

from pathlib import Path

import pytest
import torch

import pair_ranks
from pmexp import datasets
from pmexp.config import ModelKind
from pmexp.datasets.base import Dataset
from pmexp.systems.ranks import Ranks
from small_kinds import of_kind

SAMPLES = 5  # in batches of 4: a rank has none of the last one


@pytest.mark.slow
def test_ranks_write_what_one_process_writes(tmp_path: Path) -> None:
    run = of_kind(ModelKind.t5, "dataset.max_length=8", "train.batch_size=4", "train.epochs=1")
    run.model.architecture["vocab_size"] = 300
    few = datasets.load(run.dataset).train.take(torch.arange(SAMPLES).numpy())
    data = Dataset(few, few, None, [])
    metrics, written, references = pair_ranks.evaluated(Ranks(), run, data)
    assert len(set(references)) == SAMPLES and len(set(map(len, written))) > 1
    shared_metrics, shared_written, shared_references = pair_ranks.run(tmp_path, run, data)
    assert (shared_written, shared_references) == (written, references)
    assert shared_metrics["bleu"] == metrics["bleu"]
    assert shared_metrics["loss"] == pytest.approx(metrics["loss"], rel=1e-6)
