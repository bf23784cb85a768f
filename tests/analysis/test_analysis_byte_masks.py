"""What is left of a saving against a baseline whose masks take one byte an element, as CUDA keeps them."""

import json

import pytest

from pmexp_analysis.criteria import Judged
from pmexp_analysis.pages import tables
from pmexp_analysis.pages.content import as_json
from run_folders import Runs

PEAK, MEAN, SAVED = "memory/peak_tensor_bytes", "memory/mean_tensor_bytes", "memory/saved_bytes"
ELEMENTS = 100.0
COLUMN = "with byte masks"


def write(runs: Runs, mask_bytes: float | None, statistic: str = "relative_change") -> None:
    """Three seeds whose baseline keeps so many bytes an element, of a step that takes 1000 + seed."""
    bound = {"comparison": "at_most", "statistic": statistic}
    names = {"peak": PEAK, "mean": MEAN, "saved": SAVED, "speed": "speed/step_ms"}
    criteria = {name: {"metric": metric, **bound} for name, metric in names.items()}
    for seed in range(3):
        for variant in ("baseline", "pm-drop"):
            kept = mask_bytes if variant == "baseline" else 0.125
            total = 1000.0 + seed if variant == "baseline" else 540.0
            finals = {PEAK: total, MEAN: total, SAVED: total, "speed/step_ms": 10.0 + seed}
            if kept is not None:
                finals |= {"memory/mask_bytes": kept * ELEMENTS, "memory/mask_elements": ELEMENTS}
            runs.finished(variant, seed, finals, protocol={"method": "pm-drop", "criteria": criteria})


def judged(runs: Runs) -> dict[str, Judged]:
    content = runs.content()
    told = [one["value_with_byte_masks"] for one in json.loads(as_json(content))["criteria"]]
    assert told == [one.value_with_byte_masks for one in content.criteria]
    return {one.name: one for one in content.criteria}


def column(one: Judged) -> str:
    table = tables.criteria_table([one])
    return table.cells[0][table.headings.index(COLUMN)]


def test_the_float_masks_of_a_cpu_count_as_bytes_in_the_next_column(runs: Runs) -> None:
    """400 of 1000 bytes are masks, which as bytes would take 100: 540 is 46 % less, and 22.9 % less than 700."""
    write(runs, mask_bytes=4.0)
    judgements = judged(runs)
    for name in ("peak", "mean", "saved"):
        one = judgements[name]
        assert one.value == pytest.approx(540 / 1001 - 1, abs=1e-5)
        assert one.value_with_byte_masks == pytest.approx(540 / 701 - 1, abs=1e-5)
    # The bytes of masks that are alive at a peak are not known, so that a peak has a bound; saved ones are exact.
    assert column(judgements["peak"]) == column(judgements["mean"]) == "≤ -22.97%"
    assert column(judgements["saved"]) == "-22.97%"
    assert judgements["speed"].value_with_byte_masks is None and column(judgements["speed"]) == "-"


def test_a_bound_of_a_ratio_is_a_lower_one(runs: Runs) -> None:
    write(runs, mask_bytes=4.0, statistic="times_smaller")
    assert column(judged(runs)["peak"]) == "≥ 1.3x"


@pytest.mark.parametrize("mask_bytes", [1.0, 0.5])
def test_where_the_baseline_keeps_bytes_or_less_both_columns_are_equal(runs: Runs, mask_bytes: float) -> None:
    write(runs, mask_bytes)
    one = judged(runs)["peak"]
    assert one.value == one.value_with_byte_masks
    assert column(one) == tables.criteria_table([one]).cells[0][2] == "-46.05%"


def test_where_masks_are_not_told_apart_nothing_is_said(runs: Runs) -> None:
    write(runs, mask_bytes=None)
    assert [one.value_with_byte_masks for one in judged(runs).values()] == [None] * 4


def test_a_baseline_that_is_nothing_but_masks_leaves_no_ratio(runs: Runs) -> None:
    write(runs, mask_bytes=40.0)
    assert judged(runs)["peak"].value_with_byte_masks is None
