"""Differences in sigmas over scores that are multiples of one over the number of test samples."""

from itertools import pairwise

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from pmexp_analysis.numbers import sigmas


@st.composite
def scores(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Differences of pairs and the baseline's scores: right answers of `samples`, by seed."""
    samples, seeds = draw(st.sampled_from([7, 100, 360, 872, 10_000])), draw(st.integers(2, 10))
    right = st.lists(st.integers(0, min(samples, 12)), min_size=seeds, max_size=seeds)
    baseline, other = (np.array(draw(right)) / samples for _ in range(2))
    return other - baseline, baseline


@given(scores(), st.sampled_from([0.05, 0.2, 1.0]))
@example((np.array([0.01, -0.01, 0.0]), np.array([0.9, 0.91, 0.92])), 0.2)
@example((np.array([1 / 3, -1 / 3]), np.array([0.0, 1 / 3])), 0.2)
def test_equal_methods_get_an_answer(made: tuple[np.ndarray, np.ndarray], margin: float) -> None:
    """A mean difference of exactly zero is what equal methods have now and then."""
    differences, baseline = made
    p = float(sigmas.tost(differences, baseline, margin))
    ends = [sigmas.interval(differences, baseline, level) for level in (0.8, 0.9, 0.99)]
    if np.isnan(p):
        assert np.ptp(baseline) == 0 and np.isnan(ends).all()
        return
    assert 0 <= p <= 0.5
    for low, high in ends:
        assert low <= high
    for inner, outer in pairwise(ends):
        assert outer[0] <= inner[0] + 1e-9 and inner[1] <= outer[1] + 1e-9
