"""Bars and the forest plot say what the numbers say."""

import math

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from pmexp_analysis.plots import Effect, Fit, Share, Stack, breakdown, forest, kernel_share, largest, styles
from pmexp_analysis.plots.looks import LIGHT

MIB = 2.0**20
NAN = math.nan


def spans(panel: Axes) -> list[tuple[float, float]]:
    """(left, width) of every bar."""
    return [(patch.get_x(), patch.get_width()) for patch in panel.patches if isinstance(patch, Rectangle)]


def texts(panel: Axes) -> list[str]:
    return [text.get_text() for text in panel.texts]


def names(panel: Axes) -> list[str]:
    return [tick.get_text() for tick in panel.get_yticklabels()]


def segments(panel: Axes) -> list[list[float]]:
    """The ends of every horizontal line."""
    lines = [c for c in panel.collections if isinstance(c, LineCollection)]
    return [segment[:, 0].tolist() for line in lines for segment in line.get_segments()]


def test_breakdown_stacks_the_categories_in_their_order_and_marks_the_peak() -> None:
    stacks = [
        Stack("baseline", {"masks": 4 * MIB, "parameters": 2 * MIB}, 7 * MIB),
        Stack("packed", {"parameters": 2 * MIB}, None),
    ]
    figure = breakdown(stacks, ["parameters", "masks"], "peak of live tensors")
    (panel,) = figure.axes
    assert names(panel) == ["baseline", "packed"]
    assert spans(panel) == [(0.0, 2.0), (2.0, 4.0), (0.0, 2.0), (2.0, 0.0)]
    assert [np.asarray(line.get_data()).tolist() for line in panel.lines] == [[[7.0], [0.0]]]
    assert texts(panel) == ["6", "2"]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["parameters", "masks", "peak of live tensors"]


def test_a_category_that_was_not_announced_is_an_error() -> None:
    with pytest.raises(KeyError, match="baseline: no category temporary"):
        breakdown([Stack("baseline", {"temporary": 1.0}, None)], ["parameters"], "peak")


def test_kernel_shares_are_in_percent_with_their_errors() -> None:
    shares = [Share("packed", (0.25, 0.125), (0.5, 0.0625)), Share("byte-mask", (0.0, 0.0), (NAN, 0.0))]
    (panel,) = kernel_share(shares).axes
    assert spans(panel) == [(0.0, 25.0), (0.0, 50.0), (0.0, 0.0)]
    assert segments(panel) == [[12.5, 37.5], [43.75, 56.25]]
    assert texts(panel) == ["25.0", "50.0", "0", "not measured"]


def test_largest_says_factors_over_the_baseline_and_their_bounds() -> None:
    looks = styles(["baseline", "packed", "tempo", "eager"], "baseline")
    fits = [
        Fit("baseline", 16, False),
        Fit("packed", 20, False),
        Fit("tempo", 64, True),
        Fit("eager", 0, False),
    ]
    (panel,) = largest({"largest batch [sequences]": fits}, "baseline", looks).axes
    assert [width for _, width in spans(panel)] == [16, 20, 64, 0]
    assert texts(panel) == [
        "16",
        "20 (1.25\N{MULTIPLICATION SIGN})",
        "at least 64 (≥4\N{MULTIPLICATION SIGN})",
        "nothing tried fits",
    ]
    assert panel.get_xlabel() == "largest batch [sequences]"


def test_a_bounded_baseline_bounds_the_factors_from_the_other_side() -> None:
    looks = styles(["baseline", "packed", "tempo"], "baseline")
    fits = [Fit("baseline", 64, True), Fit("packed", 32, False), Fit("tempo", 64, True)]
    (panel,) = largest({"batch": fits}, "baseline", looks).axes
    assert texts(panel) == ["at least 64", "32 (≤0.5\N{MULTIPLICATION SIGN})", "at least 64"]


def test_a_panel_of_largest_keeps_the_rows_of_the_others() -> None:
    looks = styles(["baseline", "packed"], "baseline")
    panels = {
        "batch": [Fit("baseline", 1, False), Fit("packed", 2, False)],
        "context": [Fit("packed", 8, False)],
    }
    left, right = largest(panels, "baseline", looks).axes
    assert names(left) == ["baseline", "packed"]
    (bar,) = right.patches
    assert bar.get_y() + bar.get_height() / 2 == 1.0


EFFECTS = [
    Effect("test/accuracy", "fraction", "max", "packed", -0.25, -0.5, 0.125, 0.0625, "inconclusive"),
    Effect("test/accuracy", "fraction", "max", "torch rng", 0.0, 0.0, 0.0, 0.125, "identical"),
    Effect("memory/saved_bytes", "bytes", "min", "packed", -2 * MIB, -3 * MIB, -MIB, None, "better"),
    Effect("memory/saved_bytes", "bytes", "min", "one seed", MIB, None, None, None, "worse"),
]


def test_forest_groups_by_metric_with_estimates_intervals_and_zones() -> None:
    accuracy, memory = forest(EFFECTS).axes
    assert (names(accuracy), names(memory)) == (["packed", "torch rng"], ["packed", "one seed"])
    assert segments(accuracy) == [[-0.5, 0.125], [0.0, 0.0]]
    assert segments(memory) == [[-3.0, -1.0]]
    zones = [patch for patch in accuracy.patches if to_hex(patch.get_facecolor()) == LIGHT.lower()]
    assert [(zone.get_x(), zone.get_width(), zone.get_y() + 0.5) for zone in zones] == [
        (-0.0625, 0.125, 0.0),
        (-0.125, 0.25, 1.0),
    ]
    assert not memory.patches
    marks = [(line.get_marker(), float(np.asarray(line.get_xdata())[0])) for line in memory.lines[:2]]
    assert marks == [("s", -2.0), ("^", 1.0)]
    assert [line.get_marker() for line in accuracy.lines[:2]] == ["o", "D"]
    minus = "\N{MINUS SIGN}"
    assert texts(accuracy) == [f"{minus}0.25 [{minus}0.5, +0.125]", "inconclusive", "0 [0, 0]", "identical"]
    assert texts(memory) == [f"{minus}2 [{minus}3, {minus}1]", "better", "+1", "worse"]
    assert memory.get_xlabel() == "saved for backward [MiB], difference from the\nbaseline\n(less is better)"


def test_an_interval_that_leaves_the_axis_ends_in_an_arrow() -> None:
    effects = [
        Effect("train/loss", "nats", "min", f"v{k}", 0.0, -end, end, None, "inconclusive")
        for k, end in enumerate((1.0, 1.5, 2.0, 1000.0))
    ]
    (panel,) = forest(effects).axes
    limit = panel.get_xlim()[1]
    assert 2.0 < limit < 10.0
    assert segments(panel)[3] == [-limit, limit]
    assert [line.get_marker() for line in panel.lines].count("<") == 1
    assert [line.get_marker() for line in panel.lines].count(">") == 1


def test_every_estimate_is_on_the_axis() -> None:
    effects = [Effect("train/loss", "nats", "min", f"v{k}", value, value - 0.1, value + 0.1, None, "worse")
               for k, value in enumerate((0.1, 0.2, 50.0))]  # fmt: skip
    (panel,) = forest(effects).axes
    assert panel.get_xlim()[1] > 50.0
