"""Task metrics against scikit-learn, and the catalog."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from pmexp.metrics.catalog import metric_of
from pmexp.metrics.task_metrics import TASK_METRICS, accuracy, f1

labels = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=30)


@given(labels)
def test_against_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    predicted, true = np.array(pairs).T
    assert accuracy(predicted, true) == pytest.approx(accuracy_score(true, predicted))
    assert f1(predicted, true) == pytest.approx(f1_score(true, predicted, zero_division=0))


@pytest.mark.parametrize("name", TASK_METRICS)
def test_every_task_metric_is_in_the_catalog_for_both_splits(name: str) -> None:
    for split in ("val", "test"):
        assert metric_of(f"{split}/{name}").direction == TASK_METRICS[name].direction


def test_an_unknown_metric_says_where_to_add_it() -> None:
    with pytest.raises(KeyError, match=r"catalog\.py"):
        metric_of("train/nonsense")
