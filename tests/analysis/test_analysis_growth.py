"""The growth of a saving is a fit over the settings that ran, and stays open where noise allows either."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from judged_runs import LENGTH, METHOD, MORE, judged
from pmexp.protocol import Statistic
from pmexp_analysis.criteria import Judged
from run_folders import Runs


def growing(runs: Runs, savings: dict[int, list[float]], threshold: float = 1.0) -> Judged:
    for length, by_seed in savings.items():
        for seed, saved in enumerate(by_seed):
            for variant, value in (("baseline", 1e6), (METHOD, 1e6 - saved)):
                runs.finished(variant, seed, {"memory/saved_bytes": value}, settings={LENGTH: length})
    growth = {"statistic": Statistic.growth_exponent, "over": LENGTH, **MORE}
    return judged(runs, metric="memory/saved_bytes", threshold=threshold, **growth)


@pytest.mark.parametrize(("power", "result"), [(1.0, "pass"), (2.0, "pass"), (0.5, "fail")])
def test_growth_of_an_exact_power(runs: Runs, power: float, result: str) -> None:
    one = growing(runs, {length: [4 * length**power] for length in (64, 256, 1024)})
    assert (one.result, one.value) == (result, pytest.approx(power, abs=1e-6))
    assert (one.parts[0].n, one.parts[0].low) == (3, pytest.approx(power, abs=1e-6))


def test_growth_of_a_noisy_saving_is_open(runs: Runs) -> None:
    noise = np.random.default_rng(1).lognormal(0, 0.3, (4, 2))
    savings = {n: [n * each for each in noise[place]] for place, n in enumerate((64, 128, 256, 512))}
    one = growing(runs, savings)
    fit = scipy_stats.linregress(np.log([*savings]), np.log([np.mean(saved) for saved in savings.values()]))
    half = scipy_stats.t.ppf(0.95, 2) * fit.stderr
    (part,) = one.parts
    assert one.result == "inconclusive" and "4 settings from 64 to 512" in one.why
    assert (part.value, part.low, part.high) == pytest.approx(
        (fit.slope, fit.slope - half, fit.slope + half), rel=1e-6
    )


def test_growth_needs_three_settings_and_a_saving(runs: Runs) -> None:
    assert growing(runs, {64: [1.0], 128: [2.0]}).why.startswith(
        "2 values of dataset.max_length have runs of both method and baseline"
    )
    one = growing(runs, {256: [-1.0]})
    assert (one.result, one.why) == ("fail", "nothing is saved at dataset.max_length=256")


def padded(runs: Runs, lengths: list[int], window: int, task: str = "longformer/listops") -> Judged:
    """A method that saves in proportion to the length that a model with so wide a window computes with."""
    for length in lengths:
        ran = float(-(-length // window) * window)
        for variant, value in (("baseline", 1e6), (METHOD, 1e6 - 4 * ran)):
            finals = {"memory/saved_bytes": value, "progress/computed_length": ran}
            runs.finished(variant, 0, finals, settings={LENGTH: length}, task=task)
    growth = {"statistic": Statistic.growth_exponent, "over": LENGTH, "threshold": 1.0, **MORE}
    return judged(runs, metric="memory/saved_bytes", **growth)


def test_growth_is_fitted_over_the_lengths_that_ran(runs: Runs) -> None:
    one = padded(runs, [128, 256, 512, 1024, 2048], window=512)
    assert (one.result, one.value, one.parts[0].n) == ("pass", 1.0, 3)
    assert one.why.endswith("3 settings from 512 to 2048; lengths 128, 256, 512 all ran with 512")


def test_lengths_that_all_ran_as_one_settle_nothing(runs: Runs) -> None:
    one = padded(runs, [128, 256, 512], window=512)
    assert (one.result, one.parts[0].n, one.seeds_needed) == ("inconclusive", 1, None)
    assert one.why.startswith("lengths 128, 256, 512 all ran with 512; at least 3 different values")
