"""Task metrics against scikit-learn, and the catalog."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, top_k_accuracy_score

from pmexp.metrics.catalog import metric_of
from pmexp.metrics.task_metrics import TASK_METRICS, Evaluation, accuracy, f1, top5

labels = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=30)


@given(labels)
def test_against_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    predicted, true = np.array(pairs).T
    assert accuracy(predicted, true) == pytest.approx(accuracy_score(true, predicted))
    assert f1(predicted, true) == pytest.approx(f1_score(true, predicted, zero_division=0))


@given(st.integers(0, 2**32 - 1))
def test_top5_against_scikit_learn(seed: int) -> None:
    random = np.random.default_rng(seed)
    scores, true = random.random((20, 9)).astype(np.float32), random.integers(0, 9, 20)
    assert top5(scores, true) == pytest.approx(top_k_accuracy_score(true, scores, k=5, labels=range(9)))


def test_perplexity_is_that_of_the_loss() -> None:
    nothing = np.zeros((0, 0), np.float32), np.zeros(0, np.int64)
    compute = TASK_METRICS["perplexity"].compute
    assert compute(Evaluation(np.log(8.0), *nothing)) == pytest.approx(8.0)
    assert compute(Evaluation(1e4, *nothing)) == np.inf


@pytest.mark.parametrize("name", ["accuracy", "f1", "top5"])
@given(st.integers(0, 2**32 - 1))
def test_chance_is_what_the_best_constant_answer_scores(name: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    classes = 2 if name == "f1" else 7
    true = random.integers(0, classes, 30)
    shares = np.bincount(true, minlength=classes) / len(true)
    answers = [shares + 2 * np.eye(classes)[best] for best in range(classes)]
    metric = TASK_METRICS[name]
    scored = [metric.compute(Evaluation(0.0, np.tile(answer, (30, 1)), true)) for answer in answers]
    assert metric.chance(shares) == pytest.approx(max(scored))


def test_chance_of_a_language_is_its_number_of_tokens() -> None:
    assert TASK_METRICS["perplexity"].chance(np.full(1000, 1 / 1000)) == pytest.approx(1000)


@pytest.mark.parametrize("name", TASK_METRICS)
def test_every_task_metric_is_in_the_catalog_for_both_splits(name: str) -> None:
    for split in ("val", "test"):
        assert metric_of(f"{split}/{name}").direction == TASK_METRICS[name].direction


def test_an_unknown_metric_says_where_to_add_it() -> None:
    with pytest.raises(KeyError, match=r"catalog\.py"):
        metric_of("train/nonsense")
