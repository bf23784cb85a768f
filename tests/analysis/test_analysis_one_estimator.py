"""A relative change is one number wherever it is said, and its sign is that of the difference."""

import csv
import json
import math
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pmexp.protocol import Bound as Is
from pmexp.protocol import CriterionConfig, ProtocolConfig, Statistic
from pmexp_analysis import plots
from pmexp_analysis.figures.sections import of_section
from pmexp_analysis.numbers.scales import relative_change
from pmexp_analysis.pages.content import content_of
from pmexp_analysis.pages.document import as_markdown
from pmexp_analysis.pages.formats import records_csv
from pmexp_analysis.pages.headline import headlines
from pmexp_analysis.pages.paper import appendix
from pmexp_analysis.pages.tables import result_table
from run_folders import Runs

RATE, MEMORY = "speed/samples_per_s", "memory/peak_bytes"
BASE, OURS = [100.0, 120.0, 800.0], [90.0, 100.0, 1500.0]  # one pair of three makes a mean of means a gain


def test_every_place_says_the_same_number(runs: Runs) -> None:
    for seed, (base, ours) in enumerate(zip(BASE, OURS, strict=True)):
        runs.finished("baseline", seed, {RATE: base, MEMORY: ours})
        runs.finished("pm-drop", seed, {RATE: ours, MEMORY: base})
    criteria = {
        "it": CriterionConfig(
            metric=RATE, statistic=Statistic.relative_change, comparison=Is.no_worse, threshold=0.02
        )
    }
    experiment = runs.experiment()
    experiment = experiment.__class__(**{**vars(experiment), "protocol": ProtocolConfig(criteria=criteria)})
    content = content_of(experiment, "now", None, None)
    (section,) = content.sections
    (criterion,) = content.criteria
    expected = math.exp(np.mean(np.log(np.array(OURS) / np.array(BASE)))) - 1
    assert criterion.value == pytest.approx(expected) and expected > 0.1
    (record,) = [
        one for one in csv.DictReader(records_csv(content.comparisons).splitlines()) if one["metric"] == RATE
    ]
    assert float(record["relative_difference"]) == pytest.approx(expected)
    assert float(record["relative_low"]) < expected < float(record["relative_high"])
    said = f"{100 * expected:+.1f}%"
    assert result_table(section).cells[1][-1] == said
    assert f"throughput {said} (" in headlines(section)[0]
    assert f"{100 * (sum(OURS) / sum(BASE) - 1):+.1f}%" not in as_markdown(content)
    cut = 100 * (1 / (1 + expected) - 1)
    assert f"changes the peak memory of the whole process by {cut:.1f}%" in headlines(section)[0]
    assert said in as_markdown(content) and rf"\num{{{said[:-1]}}}\%" in appendix(content)
    with patch.object(plots, "forest", wraps=plots.forest) as drawn:
        looks = plots.styles(content.variants, "baseline")
        list(of_section(experiment, section, looks, ""))
    effects = {one.metric: one for one in drawn.call_args.args[0]}
    assert (effects[RATE].unit, effects[RATE].margin) == ("%", 2.0)
    assert effects[RATE].estimate == pytest.approx(100 * expected)
    assert effects[MEMORY].estimate == pytest.approx(cut)


numbers = st.lists(st.tuples(st.floats(0.01, 100), st.floats(0.01, 100)), min_size=1, max_size=5)


@settings(max_examples=50)
@given(numbers)
def test_negative_numbers_have_the_change_of_their_size_with_the_sign_of_the_difference(
    pairs: list[tuple[float, float]],
) -> None:
    ours, theirs = np.array(pairs).T
    assert relative_change(-ours, -theirs) == pytest.approx(-(relative_change(ours, theirs) or 0.0))


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ([-2.0], [-1.0], -1.0),  # twice as far below zero is less by all of it
        ([-0.5], [-1.0], 0.5),
        ([0.0, 0.0], [4.0, 4.0], -1.0),
        ([0.0, 0.0], [-4.0, -4.0], 1.0),
        ([0.0, 0.0], [0.0, 0.0], 0.0),
        ([1.0, 1.0], [0.0, 0.0], np.nan),
        ([0.0, 1.0], [1.0, 1.0], np.nan),
        ([1.0, 1.0], [-1.0, 1.0], np.nan),
    ],
)
def test_zeros_and_signs(ours: list[float], theirs: list[float], expected: float) -> None:
    np.testing.assert_equal(float(relative_change(np.array(ours), np.array(theirs))), expected)


def test_where_there_is_no_ratio_the_difference_is_said(runs: Runs) -> None:
    for seed in range(3):
        for variant, saved in (("baseline", 0.0), ("pm-drop", 3.0 * 2**20)):
            runs.finished(variant, seed, {"memory/saved_bytes": saved})
    content = runs.content()
    (section,) = content.sections
    assert result_table(section).cells[1][-1] == "+3 MiB"
    assert headlines(section)[0].startswith("pm-drop raises the memory saved for the backward pass by 3 MiB")
    assert json.dumps(content.comparisons[0].relative_difference) == "null"
