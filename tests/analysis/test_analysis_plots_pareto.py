"""The Pareto panels say what the numbers say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_hex

from pmexp_analysis.plots import Axis, Point, pareto, styles

MIB = 2.0**20
AXES = [
    Axis("memory/saved_bytes", "bytes", "min"),
    Axis("speed/samples_per_s", "samples/s", "max"),
    Axis("test/accuracy", "fraction", "max"),
]
POINTS = [
    Point("baseline", "baseline: 0.9", ((100 * MIB, MIB), (500.0, 5.0), (0.9, 0.01))),
    Point("packed", "packed: 0.9", ((60 * MIB, 0.0), (480.0, 5.0), (0.9, 0.02))),
    Point("slow", "slow: 0.8", ((80 * MIB, 0.0), (400.0, 5.0), (0.8, float("nan")))),
]


def rings(panel: Axes) -> list[list[float]]:
    (collection,) = [c for c in panel.collections if isinstance(c, PathCollection)]
    return sorted(np.asarray(collection.get_offsets()).tolist())


def bars(panel: Axes, colour: str) -> list[list[list[float]]]:
    drawn = [
        c for c in panel.collections if isinstance(c, LineCollection) and to_hex(c.get_color()[0]) == colour
    ]
    return [segment.tolist() for c in drawn for segment in c.get_segments()]


def test_a_panel_for_each_pair_with_labels_units_and_mebibytes() -> None:
    figure = pareto(AXES, POINTS, styles(["baseline", "packed", "slow"], "baseline"))
    whole = [(panel.get_xlabel(), panel.get_ylabel()) for panel in figure.axes]  # broken into lines
    labels = [tuple(text.replace("\n", " ").partition(" (")[0] for text in pair) for pair in whole]
    memory, speed, quality = "saved for backward [MiB]", "throughput [samples/s]", "test accuracy"
    assert labels == [(memory, speed), (memory, quality), (speed, quality)]
    assert [rings(panel) for panel in figure.axes] == [
        [[60.0, 480.0], [100.0, 500.0]],
        [[60.0, 0.9]],
        [[500.0, 0.9]],
    ]
    texts = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert texts == ["on the Pareto front", "dominated", "baseline: 0.9", "packed: 0.9", "slow: 0.8"]


def test_means_and_errors_are_where_they_were_measured() -> None:
    looks = styles(["baseline", "packed", "slow"], "baseline")
    panel = pareto(AXES, POINTS, looks).axes[1]  # memory and accuracy
    marks = [line for line in panel.lines if line.get_marker() in "*os" and line.get_linestyle() == "None"]
    assert [(*line.get_xdata(), *line.get_ydata()) for line in marks] == [
        (100.0, 0.9),
        (60.0, 0.9),
        (80.0, 0.8),
    ]
    assert bars(panel, "#000000") == [[[99.0, 0.9], [101.0, 0.9]], [[100.0, 0.9 - 0.01], [100.0, 0.9 + 0.01]]]
    assert bars(panel, to_hex(looks["packed"].colour)) == [[[60.0, 0.9 - 0.02], [60.0, 0.9 + 0.02]]]
    assert bars(panel, to_hex(looks["slow"].colour)) == []


def test_a_mean_under_others_is_drawn_larger_than_they_are() -> None:
    same = [Point(name, name, ((1.0, 0.0), (2.0, 0.0))) for name in ("a", "b", "c")]
    panel = pareto(AXES[:2], same, styles(["a", "b", "c"], "none")).axes[0]
    sizes = [line.get_markersize() for line in panel.lines if line.get_linestyle() == "None"]
    assert sizes[0] > sizes[1] + 2 and sizes[1] > sizes[2] + 2


place = st.tuples(st.integers(1, 9), st.integers(1, 9))


@settings(max_examples=15, deadline=None)
@given(
    st.lists(place, min_size=1, max_size=8), st.sampled_from(["min", "max"]), st.sampled_from(["min", "max"])
)
def test_what_is_shaded_is_what_some_mean_dominates(
    places: list[tuple[int, int]], across: str, up: str
) -> None:
    axes = [Axis("speed/step_ms", "ms", across), Axis("train/loss", "nats", up)]
    points = [Point(f"v{k}", f"v{k}", ((float(x), 0.0), (float(y), 0.0))) for k, (x, y) in enumerate(places)]
    panel = pareto(axes, points, styles([point.variant for point in points], "v0")).axes[0]
    (shade,) = panel.patches
    (left, right), (bottom, top) = panel.get_xlim(), panel.get_ylim()
    asked = [
        (x + 0.5, y + 0.5)
        for x in range(10)
        for y in range(10)
        if left < x + 0.5 < right and bottom < y + 0.5 < top
    ]
    asked += [(x, y) for x in np.linspace(left, right, 7)[1:-1] for y in np.linspace(bottom, top, 7)[1:-1]]
    asked = [(x, y) for x, y in asked if not {x, y} & {float(v) for pair in places for v in pair}]
    signs = np.array([1 if across == "min" else -1, 1 if up == "min" else -1])
    for one in asked:
        dominated = any((signs * mean <= signs * np.array(one)).all() for mean in np.array(places))
        assert shade.get_path().contains_point(one) == dominated, one


def test_the_shade_reaches_the_edges_of_its_panel() -> None:
    panel = pareto(AXES[:2], POINTS, styles(["baseline", "packed", "slow"], "baseline")).axes[0]
    corners = np.asarray(panel.patches[0].get_xy())
    assert (corners[:, 0].max(), corners[:, 1].min()) == (panel.get_xlim()[1], panel.get_ylim()[0])


def test_values_over_decades_have_logarithmic_axes() -> None:
    points = [Point(f"v{k}", f"v{k}", ((10.0**k * MIB, 0.0), (float(k), 0.1))) for k in range(5)]
    panel = pareto(AXES[:2], points, styles([p.variant for p in points], "v0")).axes[0]
    assert (panel.get_xscale(), panel.get_yscale()) == ("log", "linear")
    assert all(low < high for low, high in (panel.get_xlim(), panel.get_ylim()))


def test_a_mean_that_is_not_finite_is_left_out_and_said() -> None:
    lost = Point("lost", "lost", ((1.0, 0.0), (float("nan"), 0.0), (0.9, 0.0)))
    figure = pareto(AXES, [POINTS[0], lost], styles(["baseline", "lost"], "baseline"))
    assert [len([o for o in panel.lines if o.get_marker() == "o"]) for panel in figure.axes] == [0, 1, 0]
    said = figure.legends[0].get_texts()[-1].get_text()
    assert said == "lost (not in every panel: not finite)"


def test_one_axis_has_no_pair() -> None:
    with pytest.raises(ValueError, match="no panel"):
        pareto(AXES[:1], POINTS, styles(["baseline", "packed", "slow"], "baseline"))
