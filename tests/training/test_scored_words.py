"""What ranks say of numbers and of words is joined in the order of the split, and a run that goes on is exact."""

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from own_files import write
from pmexp.config import RunConfig
from pmexp.models.objectives import IGNORED, counted, summed_loss
from pmexp.training.evaluation_shares import EvaluationShare, joined, scored
from pmexp.training.outcome import weights_digest
from pmexp.training.prepared import prepare
from pmexp.training.resuming import restore, state_of
from small_architectures import run_of

CLASSES = ["a", "b", "c"]


@settings(max_examples=40)
@given(st.lists(st.lists(st.integers(-1, 2), min_size=4, max_size=4), min_size=1, max_size=7), st.data())
def test_words_are_joined_as_on_one_process(rows: list[list[int]], data: st.DataObject) -> None:
    labels = torch.tensor(rows).where(torch.tensor(rows) >= 0, IGNORED)  # words without a label among others
    scores = torch.arange(labels.numel() * 3, dtype=torch.float32).view(len(rows), 4, 3)
    whole = joined([EvaluationShare(scores=[scored(torch.arange(len(rows)), scores, labels)])], CLASSES)
    owner = torch.tensor(data.draw(st.lists(st.integers(0, 2), min_size=len(rows), max_size=len(rows))))
    shares = []
    for rank in range(3):
        own = (owner == rank).nonzero().flatten()
        parts = [
            scored(own[i : i + 2], scores[own[i : i + 2]], labels[own[i : i + 2]])
            for i in range(0, len(own), 2)
        ]
        shares.append(EvaluationShare(scores=parts))
    together = joined(shares, CLASSES)
    for one, other in (
        (together.scores, whole.scores),
        (together.true, whole.true),
        (together.sample, whole.sample),
    ):
        assert one is not None and other is not None and np.array_equal(one, other)
    assert whole.true.tolist() == [label for row in rows for label in row if label >= 0]
    assert [len(s) for s in whole.sentences(whole.true)] == [
        n for row in rows if (n := sum(x >= 0 for x in row))
    ]


def test_a_number_like_the_mark_of_no_label_counts() -> None:
    labels = torch.tensor([-100.0, 2.0])
    assert counted(labels) == 2 and counted(torch.tensor([[IGNORED, 1], [0, IGNORED]])) == 2
    assert summed_loss(torch.tensor([[-99.0], [4.0]]), labels).item() == 1 + 4


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    files: Path = write(tmp_path_factory.mktemp("own"), "jsonl")
    return run_of("bert", "regression", files)


def test_a_run_that_goes_on_is_the_run_left_alone(run: RunConfig) -> None:
    alone = prepare(run).training
    steps = alone.steps()
    next(steps)
    state = deepcopy(state_of(alone))  # as a checkpoint has it: these tensors train on
    rest = list(steps)
    again = prepare(run).training
    restore(again, state)
    assert list(again.steps())[-1][1]["val/loss"] == rest[-1][1]["val/loss"]
    assert weights_digest(again.engine.weights()) == weights_digest(alone.engine.weights())
