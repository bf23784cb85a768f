"""The figures say what the numbers say."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from pmexp_analysis.plots import Axis, Point, convergence, pareto, styles

AXES = [
    Axis("memory/saved_bytes", "bytes", "min"),
    Axis("speed/samples_per_s", "samples/s", "max"),
    Axis("test/accuracy", "fraction", "max"),
]


def curves(steps: int) -> pd.DataFrame:
    rows = [
        ("a", seed, "train/loss", "nats", step, float(step + 10 * seed))
        for seed in (0, 1, 2)
        for step in range(steps)
    ]
    return pd.DataFrame(rows, columns=["variant", "seed", "metric", "unit", "step", "value"])


def test_pareto_has_three_panels_with_labels_units_and_mebibytes() -> None:
    points = [
        Point("baseline", "baseline: 0.9", ((100 * 2.0**20, 2.0**20), (500.0, 5.0), (0.9, 0.01))),
        Point("packed", "packed: 0.9", ((60 * 2.0**20, 0.0), (480.0, 5.0), (0.9, 0.02))),
        Point("slow", "slow: 0.8", ((80 * 2.0**20, 0.0), (400.0, 5.0), (0.8, 0.02))),
    ]
    figure = pareto(AXES, points, styles(["baseline", "packed", "slow"], "baseline"))
    labels = [(panel.get_xlabel().split("\n")[0], panel.get_ylabel().split("\n")[0]) for panel in figure.axes]
    memory, speed, quality = "saved for backward [MiB]", "throughput [samples/s]", "test accuracy"
    assert labels == [(memory, speed), (memory, quality), (speed, quality)]
    rings = [panel.collections[0].get_offsets() for panel in figure.axes]
    assert np.asarray(rings[0]).tolist() == [[60.0, 480.0], [100.0, 500.0]]
    assert np.asarray(rings[1]).tolist() == [[60.0, 0.9]]
    assert np.asarray(rings[2]).tolist() == [[500.0, 0.9]]
    (bars, *_) = figure.axes[0].containers
    assert bars.lines[2][0].get_segments()[0][:, 0].tolist() == [99.0, 101.0]
    texts = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert texts == ["on the Pareto front", "baseline: 0.9", "packed: 0.9", "slow: 0.8"]


def test_convergence_draws_the_mean_and_the_range_of_the_seeds() -> None:
    figure = convergence(curves(5), ["train/loss"], styles(["a"], "baseline"))
    (panel,) = figure.axes
    assert (panel.get_xlabel(), panel.get_ylabel()) == ("step", "training loss [nats]")
    (line,) = panel.lines
    assert np.asarray(line.get_ydata()).tolist() == [10.0, 11.0, 12.0, 13.0, 14.0]
    (band,) = panel.collections
    corners = {tuple(corner) for corner in band.get_paths()[0].vertices.tolist()}
    assert {(0.0, 0.0), (0.0, 20.0), (4.0, 4.0), (4.0, 24.0)} <= corners


def test_long_curves_are_averaged_in_bins_and_say_so() -> None:
    figure = convergence(curves(1500), ["train/loss"], styles(["a"], "baseline"))
    (panel,) = figure.axes
    assert panel.get_xlabel() == "step (means of 10 steps)"
    x, y = panel.lines[0].get_data()
    assert len(np.asarray(x)) == 150
    assert (np.asarray(x)[0], np.asarray(y)[0]) == (4.5, 14.5)  # steps 0..9, their mean over three seeds


@pytest.mark.parametrize("count", [1, 8, 20])
def test_every_variant_looks_different(count: int) -> None:
    variants = ["baseline", *(f"v{number}" for number in range(count))]
    looks = styles(variants, "baseline")
    assert list(looks) == variants
    assert to_hex(looks["baseline"].colour) == "#000000"
    assert len({(look.colour, look.marker) for look in looks.values()}) == count + 1
