"""The figures over steps say what the numbers say."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D

from pmexp_analysis.plots import Cosine, convergence, loss_difference, styles, update_cosine
from pmexp_analysis.plots.looks import GREY

COLUMNS = ["variant", "seed", "metric", "unit", "step", "value"]


def curves(steps: int) -> pd.DataFrame:
    rows = [
        ("a", seed, "train/loss", "nats", step, float(step + 10 * seed))
        for seed in (0, 1, 2)
        for step in range(steps)
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def corners(panel: Axes, place: int = 0) -> set[tuple[float, float]]:
    """The corners of a band."""
    return {(float(x), float(y)) for x, y in panel.collections[place].get_paths()[0].vertices}


def values(line: Line2D) -> list[float]:
    return np.asarray(line.get_ydata()).tolist()


def test_convergence_draws_the_mean_and_the_range_of_the_seeds() -> None:
    figure = convergence(curves(5), ["train/loss"], styles(["a"], "baseline"))
    (panel,) = figure.axes
    assert (panel.get_xlabel(), panel.get_ylabel()) == ("step", "training loss [nats]")
    (line,) = panel.lines
    assert values(line) == [10.0, 11.0, 12.0, 13.0, 14.0]
    assert {(0.0, 0.0), (0.0, 20.0), (4.0, 4.0), (4.0, 24.0)} <= corners(panel)


def test_long_curves_are_averaged_in_bins_and_say_so() -> None:
    figure = convergence(curves(1500), ["train/loss"], styles(["a"], "baseline"))
    (panel,) = figure.axes
    assert panel.get_xlabel() == "step (means of 10 steps)"
    x, y = panel.lines[0].get_data()
    assert len(np.asarray(x)) == 150
    assert (np.asarray(x)[0], np.asarray(y)[0]) == (4.5, 14.5)  # steps 0..9, their mean over three seeds


def test_a_metric_without_records_is_named() -> None:
    with pytest.raises(KeyError, match="val/loss"):
        convergence(curves(3), ["val/loss"], styles(["a"], "baseline"))


def differing(shifts: dict[str, list[float]]) -> pd.DataFrame:
    """Losses of seeds 0, 1, ... over three steps: the baseline's step + seed, the variants' shifted."""
    rows = [
        (variant, seed, "train/loss", "nats", step, 8.0 + step + seed + shift)
        for variant, shifted in {"baseline": [0.0, 0.0], **shifts}.items()
        for seed, shift in enumerate(shifted)
        for step in range(3)
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def test_differences_are_of_the_same_seed_with_their_mean_and_the_baselines_spread() -> None:
    table = differing({"shifted": [0.5, -0.25], "same": [0.0, 0.0], "half": [0.0, 0.125]})
    figure = loss_difference(
        table, "train/loss", "baseline", styles(["baseline", "shifted", "same", "half"], "baseline")
    )
    titles = [panel.get_title().replace("\n", " ") for panel in figure.axes]
    assert titles == [
        "shifted differs by up to 0.5 nats",
        "same identical in all 2 seeds",
        "half 1 of 2 seeds identical, others differ by up to 0.125 nats",
    ]
    drawn = [[values(line) for line in panel.lines[1:]] for panel in figure.axes]  # the first is at zero
    assert drawn[0] == [[0.5] * 3, [-0.25] * 3, [0.125] * 3]
    assert drawn[1] == [[0.0] * 3] * 3
    assert all(values(panel.lines[0]) == [0.0, 0.0] for panel in figure.axes)
    spread = float(np.std([0.0, 1.0], ddof=1))
    assert {(0.0, -spread), (0.0, spread), (2.0, spread)} <= corners(figure.axes[0])


def test_differences_are_judged_before_they_are_averaged() -> None:
    steps = np.arange(300.0)
    rows = [("baseline", 0, "train/loss", "nats", step, 1.0) for step in steps]
    rows += [("noisy", 0, "train/loss", "nats", step, 1.5 - step % 2) for step in steps]
    table = pd.DataFrame(rows, columns=COLUMNS)
    figure = loss_difference(table, "train/loss", "baseline", styles(["baseline", "noisy"], "baseline"))
    assert figure.axes[0].get_title() == "noisy\ndiffers by up to 0.5 nats"
    assert not figure.axes[0].collections  # one seed has no spread


def test_a_run_that_diverged_is_not_called_identical() -> None:
    table = differing({"same": [0.0, 0.0]})
    table.loc[(table["variant"] == "same") & (table["seed"] == 1) & (table["step"] == 2), "value"] = float(
        "nan"
    )
    figure = loss_difference(table, "train/loss", "baseline", styles(["baseline", "same"], "baseline"))
    said = figure.axes[0].get_title().replace("\n", " ")
    assert said == "same 1 of 2 seeds identical, others differ by up to 0 nats, not finite at some steps"


def test_a_variant_without_a_common_seed_is_said() -> None:
    table = differing({"shifted": [0.5]})
    table.loc[table["variant"] == "shifted", "seed"] = 7
    figure = loss_difference(table, "train/loss", "baseline", styles(["baseline", "shifted"], "baseline"))
    assert "no seed has runs of both" in figure.axes[0].get_title().replace("\n", " ")


def test_cosines_have_mean_and_range_and_marks_where_all_are_exactly_one() -> None:
    cosines = [Cosine("a", 0, [0, 10, 20], [1.0, 1.0, 0.5]), Cosine("a", 1, [0, 10, 20], [1.0, 0.75, 0.25])]
    (panel,) = update_cosine(cosines, styles(["baseline", "a"], "baseline")).axes
    mean, threshold, marks = panel.lines
    assert values(mean) == [1.0, 0.875, 0.375]
    assert {(20.0, 0.25), (20.0, 0.5), (10.0, 0.75)} <= corners(panel)
    assert to_hex(threshold.get_color()) == GREY and values(threshold) == [1.0, 1.0]
    assert np.asarray(marks.get_data()).tolist() == [[0.0], [1.0]]
    assert [text.get_text() for text in panel.texts] == ["exactly 1 at every seed"]


def test_without_a_cosine_of_exactly_one_there_is_no_mark() -> None:
    cosines = [Cosine("a", 0, [0, 10], [1.0 - 2**-53, 0.9])]
    (panel,) = update_cosine(cosines, styles(["baseline", "a"], "baseline")).axes
    assert len(panel.lines) == 1 and not panel.texts
