"""Scaling and heat map say what the numbers say, and what has no number."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from pmexp_analysis.plots import Cell, Level, heat_map, scaling, styles
from pmexp_analysis.plots.grids import luminance
from pmexp_analysis.plots.looks import GREY

MIB = 2.0**20
LOOKS = styles(["baseline", "packed"], "baseline")


def scaled_up() -> Axes:
    levels = [
        Level("bert", "baseline", 128, (100 * MIB, 4 * MIB)),
        Level("bert", "baseline", 256, (500 * MIB, 0.0)),
        Level("bert", "baseline", 1024, None),
        Level("bert", "packed", 1024, (900 * MIB, 10 * MIB)),
        Level("bert", "packed", 128, (60 * MIB, 0.0)),
        Level("bert", "packed", 512, (float("nan"), 0.0)),
    ]
    figure = scaling(levels, "sequence length [tokens]", "memory/peak_bytes", "bytes", "min", LOOKS)
    return figure.axes[0]


def line_of(panel: Axes, variant: str) -> list[list[float]]:
    """The line through a variant's means."""
    (line,) = [o for o in panel.lines if o.get_linestyle() not in ("None", "-") or o.get_linewidth() > 2
               if to_hex(o.get_color()) == to_hex(LOOKS[variant].colour)]  # fmt: skip
    return [np.asarray(axis, dtype=float).tolist() for axis in line.get_data()]


def out_of_memory(panel: Axes) -> tuple[list[Line2D], float]:
    """The marks, and where their zone starts."""
    (threshold,) = [line for line in panel.lines if to_hex(line.get_color()) == GREY]
    marks = [line for line in panel.lines if line.get_marker() in "*o" and line.get_linestyle() == "None"]
    return marks, float(np.asarray(threshold.get_ydata())[0])


def test_lines_run_through_the_means_in_the_order_of_the_setting() -> None:
    panel = scaled_up()
    assert line_of(panel, "baseline") == [[128, 256], [100, 500]]
    assert line_of(panel, "packed") == [[128, 1024], [60, 900]]
    ends = [segment[:, 1].tolist() for bars in panel.collections[:2] for segment in bars.get_segments()]
    assert ends == [[96, 104], [890, 910]]
    assert (panel.get_title(), panel.get_xlabel()) == ("bert", "sequence length [tokens]")
    assert panel.get_ylabel() == "peak memory of the whole\nprocess [MiB]\n(less is better)"
    assert (panel.get_xscale(), panel.get_yscale()) == ("log", "log")
    assert [tick.get_text() for tick in panel.get_xticklabels()] == ["128", "256", "512", "1024"]


def test_what_was_out_of_memory_is_marked_on_a_line_above_the_values() -> None:
    panel = scaled_up()
    marks, threshold = out_of_memory(panel)
    assert [np.asarray(mark.get_data()).tolist() for mark in marks] == [[[1024.0], [threshold]]]
    assert marks[0].get_marker() == LOOKS["baseline"].marker
    assert threshold > 910
    assert [text.get_text() for text in panel.texts] == ["out of memory"]
    assert panel.get_ylim()[1] > threshold >= max(panel.get_yticks())


def test_settings_that_are_near_each_other_share_a_tick() -> None:
    levels = [Level("t", "baseline", setting, (1.0, 0.0)) for setting in (100, 101, 102, 110)]
    panel = scaling(levels, "s", "train/loss", "nats", "min", LOOKS).axes[0]
    assert [tick.get_text() for tick in panel.get_xticklabels()] == ["100", "102", "110"]
    assert panel.get_xscale() == "linear"


CELLS = [
    Cell(1e-5, 0.1, (0.8, 0.02)),
    Cell(1e-4, 0.1, (0.9, 0.0)),
    Cell(1e-5, 0.0, None, "diverged"),
]


def map_of(cells: list[Cell], unit: str = "fraction") -> Figure:
    return heat_map(cells, "learning rate", "dropout", "test/accuracy", unit, "max", (1e-4, 0.1))


def test_each_cell_has_its_mean_and_error_and_what_is_missing_is_named() -> None:
    panel, bar = map_of(CELLS).axes
    (mesh,) = [c for c in panel.collections if isinstance(c, QuadMesh)]
    array = np.ma.filled(np.ma.asarray(mesh.get_array()), np.nan)
    np.testing.assert_array_equal(array, [[np.nan, np.nan], [0.8, 0.9]])
    assert [(text.get_position(), text.get_text()) for text in panel.texts] == [
        ((0.5, 0.5), "diverged"),
        ((1.5, 0.5), "no run"),
        ((0.5, 1.5), "0.800\n±0.020"),
        ((1.5, 1.5), "0.9"),
    ]
    assert [tick.get_text() for tick in panel.get_xticklabels()] == ["1e\N{MINUS SIGN}5", "1e\N{MINUS SIGN}4"]
    assert [tick.get_text() for tick in panel.get_yticklabels()] == ["0", "0.1"]
    assert bar.get_ylabel() == "test accuracy\n(more is better)"


def test_the_chosen_cell_is_ringed_and_the_missing_ones_are_hatched() -> None:
    panel = map_of(CELLS).axes[0]
    patches = [patch for patch in panel.patches if isinstance(patch, Rectangle)]
    assert {patch.get_xy() for patch in patches if not patch.get_fill()} == {(1, 1)}
    assert [patch.get_xy() for patch in patches if patch.get_hatch()] == [(0.02, 0.02), (1.02, 0.02)]


def test_the_text_in_every_cell_is_readable() -> None:
    cells = [Cell(float(k), 0.0, (float(k), 0.1)) for k in range(40)]
    panel = map_of(cells).axes[0]
    (mesh,) = [c for c in panel.collections if isinstance(c, QuadMesh)]
    for k, text in enumerate(panel.texts):
        ground, ink = luminance(mesh.to_rgba(float(k))[:3]), luminance(to_rgb(text.get_color()))
        assert (max(ground, ink) + 0.05) / (min(ground, ink) + 0.05) >= 4.5  # WCAG 2.2, level AA
