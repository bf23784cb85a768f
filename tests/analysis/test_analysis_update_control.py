"""The control of update cosines: the baseline with other masks, so that mask noise is not read as packing's doing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex

from pmexp_analysis import plots
from pmexp_analysis.figures import Drawn, of_section
from pmexp_analysis.numbers.updates import is_control
from pmexp_analysis.pages.content import content_of
from pmexp_analysis.plots.looks import GREY
from run_folders import Runs

STOCK: dict[str, Any] = {"variant.name": "baseline", "variant.dropout": "stock", "variant.p": 0.1}
OTHER = STOCK | {"variant.name": "baseline-other-masks", "variant.mask_stream": 1}
PACKED = STOCK | {"variant.name": "pm-drop", "variant.dropout": "packed", "variant.rng": "philox"}
SAME = PACKED | {"variant.name": "pm-drop-same-masks", "variant.rng": "torch"}


def run(runs: Runs, settings: dict[str, Any], updates: list[list[float]]) -> None:
    told = {key: value for key, value in settings.items() if key != "variant.p"}
    path = runs.finished(settings["variant.name"], 0, {"test/accuracy": 0.5}, settings=told)
    kept = Path(path) / "artifacts"
    kept.mkdir()
    np.savez(kept / "updates.npz", steps=np.arange(1, 3), updates=np.array(updates, np.float32))


def drawn(runs: Runs) -> Drawn:
    experiment = runs.experiment()
    content = content_of(experiment, "now", None, None)
    looks = plots.styles(content.variants, "baseline")
    (one,) = [one for one in of_section(experiment, content.sections[0], looks, "") if one.name == "updates"]
    return one


def test_the_control_is_drawn_and_said_beside_the_same_masks(runs: Runs) -> None:
    run(runs, STOCK, [[1.0, 0.0], [1.0, 0.0]])
    run(runs, PACKED, [[1.0, 1.0], [0.2, 1.0]])
    run(runs, OTHER, [[1.0, 1.0], [0.2, 1.0]])
    run(runs, SAME, [[1.0, 0.0], [1.0, 0.0]])
    one = drawn(runs)
    assert "The control, baseline-other-masks, is baseline itself with other masks" in one.caption
    assert "With the masks of baseline itself (pm-drop-same-masks) it has to be 1." in one.caption
    legend = one.figure.legends[0]
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["baseline-other-masks (control)", "pm-drop", "pm-drop-same-masks"]
    assert to_hex(legend.legend_handles[0].get_color()) == GREY
    assert "exactly 1 at every seed" in [text.get_text() for text in one.figure.axes[0].texts]


def test_without_the_control_the_page_says_which_run_to_add(runs: Runs) -> None:
    run(runs, STOCK, [[1.0, 0.0], [1.0, 0.0]])
    run(runs, PACKED, [[1.0, 1.0], [0.2, 1.0]])
    said = drawn(runs).caption
    assert "add one run of baseline with variant.mask_stream=1 (variant=baseline-other-masks seed=0)" in said
    assert said.endswith("is pm-drop-same-masks.")


@pytest.mark.parametrize(
    ("settings", "expected"), [(OTHER, True), (PACKED, False), (PACKED | {"variant.mask_stream": 1}, False)]
)
def test_a_control_differs_in_its_masks_alone(settings: dict[str, Any], expected: bool) -> None:
    assert is_control(settings, STOCK) is expected
