"""Metrics of numbers, classes, entities and texts against the libraries that people take them from."""

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from seqeval.metrics import f1_score as seqeval_f1
from sklearn.metrics import f1_score, matthews_corrcoef, mean_absolute_error, mean_squared_error

from pmexp.metrics.entities import entities, entity_f1, is_tag
from pmexp.metrics.task_metrics import TASK_METRICS, Evaluation

CLASSES = ["O", "B-A", "I-A", "E-A", "S-A", "B-B-c", "I-B-c", "I-A-c"]
WORDS = st.lists(st.lists(st.sampled_from(CLASSES), min_size=1, max_size=7), min_size=1, max_size=4)
PAIRS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=25)
NUMBER = st.floats(-1e3, 1e3, width=32)


def of_classes(predicted: Any, true: Any) -> Evaluation:
    return Evaluation(0.0, np.eye(4, dtype=np.float32)[predicted], true)


def of_numbers(said: Any, true: Any) -> Evaluation:
    return Evaluation(0.0, np.array(said, np.float32)[:, None], np.array(true, np.float32))


@settings(max_examples=20)  # scikit-learn takes 10 ms a call
@given(PAIRS)
def test_scores_of_classes_are_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    predicted, true = np.array(pairs).T
    result = of_classes(predicted, true)
    macro = f1_score(true, predicted, average="macro", zero_division=0)
    assert TASK_METRICS["macro_f1"].compute(result) == pytest.approx(macro)
    alike = len({*predicted, *true}) == 1  # scikit-learn warns then
    mcc = 0.0 if alike else matthews_corrcoef(true, predicted)
    assert TASK_METRICS["mcc"].compute(result) == pytest.approx(mcc)


@settings(max_examples=30)
@given(st.lists(st.tuples(NUMBER, NUMBER), min_size=2, max_size=20))
def test_scores_of_numbers_are_those_of_scipy_and_scikit_learn(pairs: list[tuple[float, float]]) -> None:
    said, true = np.array(pairs, np.float32).T
    result = of_numbers(said, true)
    assert TASK_METRICS["mse"].compute(result) == pytest.approx(mean_squared_error(true, said), rel=1e-5)
    assert TASK_METRICS["mae"].compute(result) == pytest.approx(mean_absolute_error(true, said), rel=1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rank, line = (
            stats.spearmanr(said, true).statistic,
            stats.pearsonr(said.astype(float), true.astype(float)),
        )
    constant = len(set(said.tolist())) == 1 or len(set(true.tolist())) == 1
    assert TASK_METRICS["spearman"].compute(result) == pytest.approx(0.0 if constant else rank)
    assert TASK_METRICS["pearson"].compute(result) == pytest.approx(
        0.0 if constant else line.statistic, nan_ok=True
    )


@pytest.mark.parametrize("name", ["mse", "mae", "pearson", "spearman"])
@settings(max_examples=20)
@given(st.lists(st.floats(-5, 5, width=16), min_size=3, max_size=15), st.floats(-5, 5))
def test_no_constant_scores_better_than_chance(name: str, numbers: list[float], constant: float) -> None:
    metric, true = TASK_METRICS[name], np.array(numbers, np.float32)
    chance, score = (
        metric.chance(true.astype(np.float64)),
        metric.compute(of_numbers([constant] * len(true), true)),
    )
    best = np.mean(true) if name == "mse" else np.median(true)
    assert score <= chance if metric.direction == "max" else score >= chance - 1e-5
    assert metric.compute(of_numbers([best] * len(true), true)) == pytest.approx(chance, abs=1e-5)


@settings(max_examples=10)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=25))
def test_macro_f1_of_chance_is_that_of_the_best_constant(true: list[int]) -> None:
    labels, metric = np.array(true), TASK_METRICS["macro_f1"]
    scores = [metric.compute(of_classes(np.full(len(true), answer), labels)) for answer in range(4)]
    assert metric.chance(np.bincount(labels, minlength=4) / len(true)) == pytest.approx(max(scores))


@settings(max_examples=60)
@given(st.data())
def test_entities_are_seqevals(data: st.DataObject) -> None:
    true = data.draw(WORDS)
    predicted = [
        data.draw(st.lists(st.sampled_from(CLASSES), min_size=len(s), max_size=len(s))) for s in true
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = seqeval_f1(true, predicted, zero_division=0)
    assert entity_f1(predicted, true) == pytest.approx(theirs)


def test_entities_have_a_type_and_two_ends() -> None:
    assert entities(["I-A", "I-A", "I-B", "O", "S-B", "I-B", "B-B", "E-B", "E-B"]) == [
        ("A", 0, 1), ("B", 2, 2), ("B", 4, 4), ("B", 5, 5), ("B", 6, 7), ("B", 8, 8),
    ]  # fmt: skip
    assert [tag for tag in ("O", "B-x", "NN", "B-", "X-a", "") if is_tag(tag)] == ["O", "B-x"]


def test_the_sentences_of_an_evaluation_keep_their_words() -> None:
    scores = np.eye(3, dtype=np.float32)[[1, 2, 0, 1]]
    rows = np.array([0, 0, 1, 4])
    result = Evaluation(0.0, scores, np.array([1, 2, 1, 1]), sample=rows, classes=["O", "B-A", "I-A"])
    assert result.sentences(result.predicted) == [["B-A", "I-A"], ["O"], ["B-A"]]
    assert TASK_METRICS["entity_f1"].compute(result) == pytest.approx(2 * 2 / (2 + 3))
    assert TASK_METRICS["accuracy"].compute(result) == 0.75


def test_chrf_is_sacrebleus() -> None:
    from sacrebleu.metrics import CHRF

    written, references = ["a small text", "another"], ["a small test", "another"]
    result = Evaluation(0.0, np.zeros((0, 0), np.float32), np.zeros(0), written, references)
    assert TASK_METRICS["chrf"].compute(result) == CHRF().corpus_score(written, [references]).score
    record = TASK_METRICS["chrf"].record
    assert record is not None and record().startswith("nrefs:1|case:mixed|eff:yes|nc:6|nw:0")
