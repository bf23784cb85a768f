"""What fits into memory is judged between the tries, and by the settings that only the method fits."""

import json
from typing import Any

import pytest

from judged_runs import BASE, BATCH, LENGTH, METHOD, MORE, STEP, judged, judged_all
from pmexp.command.compose import compose
from pmexp.fit.answer import Answer
from pmexp.fit.options import COMMAND, fit_options
from pmexp.fit.search import Probe
from pmexp.protocol import CriterionConfig, ProtocolConfig, Statistic
from run_folders import Runs

LARGER: dict[str, Any] = {"statistic": Statistic.largest_ratio, "over": BATCH, **MORE}


def tried(runs: Runs, baseline: str, packed: str) -> None:
    """Runs at batch 8, 16, 32, ...: f fits, o is out of memory."""
    for variant, outcomes in (("baseline", baseline), (METHOD, packed)):
        for place, outcome in enumerate(outcomes):
            settings = {BATCH: 8 * 2**place}
            if outcome == "f":
                runs.finished(variant, 0, {STEP: 1.0}, settings=settings)
            else:
                runs.out_of_memory(variant, 0, settings=settings)


@pytest.mark.parametrize(
    ("baseline", "packed", "threshold", "result", "ends"),
    [
        ("ffo", "ffff", 2.0, "pass", (64 / 31, None)),
        ("ffoo", "fffo", 1.12, "inconclusive", (32 / 31, 63 / 16)),
        ("ffoo", "fffo", 1.0, "pass", (32 / 31, 63 / 16)),
        ("ffoo", "fffo", 4.0, "fail", (32 / 31, 63 / 16)),
        ("ffff", "fffo", 1.12, "fail", (0.0, 63 / 64)),  # the method has the lower limit
        ("ffoo", "oooo", 1.12, "fail", (0.0, 7 / 16)),  # it fits nowhere
        ("oooo", "ffoo", 2.0, "pass", (16 / 7, None)),  # the baseline does
    ],
)
def test_the_largest_that_fits_lies_between_tries(
    runs: Runs, baseline: str, packed: str, threshold: float, result: str, ends: tuple[float, float | None]
) -> None:
    tried(runs, baseline, packed)
    one = judged(runs, threshold=threshold, **LARGER)
    assert one.result == result, one.why
    assert (one.parts[0].low, one.parts[0].high) == ends
    assert f"largest {BATCH} (run) " in one.why


@pytest.mark.parametrize(
    ("baseline", "packed", "why"),
    [
        ("fff", "fff", f"nothing ran out of memory: baseline still fits at {BATCH} (run) 32"),
        ("foo", "", f"no {BATCH} (run) at which packed fits"),
    ],
)
def test_limits_that_nobody_reached_are_not_measured(
    runs: Runs, baseline: str, packed: str, why: str
) -> None:
    tried(runs, baseline, packed)
    one = judged(runs, threshold=1.12, **LARGER)
    if packed:
        assert (one.result, one.why) == ("not measured", why)
    else:
        assert one.result in ("not measured", "inconclusive")


def test_only_the_method_fits(runs: Runs) -> None:
    only: dict[str, Any] = {"statistic": Statistic.only_fits, "threshold": 1, **MORE}
    tried(runs, "ffo", "fff")
    one = judged(runs, **only)
    assert (one.result, one.value) == ("pass", 1.0)
    assert one.why == "fits only with packed: net/digits train.batch_size=32"
    assert judged(runs, statistic=Statistic.only_fits, threshold=2, **MORE).result == "fail"
    assert judged(runs, tasks=["bert/*"], **only).result == "not measured"


def test_seeds_of_a_setting_that_only_fits_with_the_method_count_once(runs: Runs) -> None:
    for seed in range(3):
        for variant in ("baseline", METHOD):
            runs.finished(variant, seed, {STEP: 1.0}, settings={BATCH: 8})
        runs.out_of_memory("baseline", seed, settings={BATCH: 16})
        runs.finished(METHOD, seed, {STEP: 1.0}, settings={BATCH: 16})
    one = judged(runs, statistic=Statistic.only_fits, threshold=2, **MORE)
    assert (one.result, one.value) == ("fail", 1.0)


@pytest.mark.parametrize("variant", ["baseline", METHOD])
def test_a_setting_whose_seeds_disagree_is_no_lone_fit(runs: Runs, variant: str) -> None:
    for seed in range(2):
        runs.out_of_memory("baseline", seed, settings={BATCH: 16})
        runs.finished(METHOD, seed, {STEP: 1.0}, settings={BATCH: 16})
        for each in ("baseline", METHOD):  # else the batch is no part of the task
            runs.finished(each, seed, {STEP: 1.0}, settings={BATCH: 8})
    only: dict[str, Any] = {"statistic": Statistic.only_fits, "threshold": 1, **MORE}
    assert judged(runs, **only).result == "pass"
    if variant == METHOD:
        runs.out_of_memory(METHOD, 2, settings={BATCH: 16})
    else:
        runs.finished("baseline", 2, {STEP: 1.0}, settings={BATCH: 16})
    one = judged(runs, **only)
    assert (one.result, one.why) == (
        "not measured",
        "nothing settled ran out of memory with the baseline; "
        f"seeds or devices disagree, which counts for nothing: net/digits {BATCH}=16",
    )


@pytest.mark.parametrize(("device", "result"), [("large", "pass"), ("small", "not measured")])
def test_memory_of_another_device_is_no_lone_fit(runs: Runs, device: str, result: str) -> None:
    runs.out_of_memory("baseline", 0, settings={BATCH: 16}, environment={"device": device})
    runs.finished(METHOD, 0, {STEP: 1.0}, settings={BATCH: 16}, environment={"device": "large"})
    assert judged(runs, statistic=Statistic.only_fits, threshold=1, **MORE).result == result


def test_a_limit_at_which_seeds_disagree_lies_on_either_side_of_it(runs: Runs) -> None:
    tried(runs, "ffo", "fffo")
    assert judged(runs, threshold=1.12, **LARGER).parts[0].low == 32 / 31
    runs.out_of_memory(METHOD, 1, settings={BATCH: 32})
    runs.out_of_memory("baseline", 1, settings={BATCH: 16})
    one = judged(runs, threshold=1.0, **LARGER)
    assert (one.parts[0].low, one.parts[0].high) == (16 / 31, 63 / 8)
    assert one.result == "inconclusive"
    assert "seeds of packed disagree whether 32 fits; seeds of baseline disagree whether 16 fits" in one.why


def test_nothing_fits_with_the_method_alone(runs: Runs) -> None:
    only: dict[str, Any] = {"statistic": Statistic.only_fits, "threshold": 1, **MORE}
    tried(runs, "fff", "fff")
    assert judged(runs, **only).why == "nothing ran out of memory with the baseline"
    runs.out_of_memory("baseline", 0, settings={BATCH: 64})
    runs.out_of_memory(METHOD, 0, settings={BATCH: 64})
    one = judged(runs, **only)
    assert (one.result, one.why) == (
        "inconclusive",
        "of 1 that run out of memory with baseline, none fits with packed",
    )


def test_memory_that_only_the_method_lacks_is_no_case_for_it(runs: Runs) -> None:
    tried(runs, "fff", "ffo")
    one = judged(runs, statistic=Statistic.only_fits, threshold=1, **MORE)
    assert (one.result, one.why) == ("not measured", "nothing ran out of memory with the baseline")


def fit_answer(runs: Runs, variant: str, fits: dict[int, bool], name: str = "", **more: Any) -> None:
    """An answer in the form of `python -m pmexp.fit out=...`."""
    (runs.folder / "fit").mkdir(exist_ok=True)
    labels = {"task": "net/digits", "system": "plain", "variant": variant, "seed": 0}
    told = {"method": "simulate", "what": "length", "budget_bytes": 80e9, "labels": labels}
    probes = [{"value": value, "fits": yes, "peak_bytes": 1.0} for value, yes in fits.items()]
    content = json.dumps({**told, "probes": probes, **more})
    (runs.folder / "fit" / f"{variant}{name}.json").write_text(content)


def test_answers_of_pmexp_fit_count(runs: Runs) -> None:
    runs.sample(STEP, baseline=BASE, packed=BASE)
    fit_answer(runs, "baseline", {512: True, 576: False, 1024: False})
    fit_answer(runs, METHOD, {512: True, 704: True, 768: False})
    longer = {"statistic": Statistic.largest_ratio, "over": LENGTH, **MORE}
    one = judged(runs, threshold=1.2, **longer)
    assert (one.result, one.value) == ("pass", 704 / 512)
    assert one.why.startswith("largest dataset.max_length (simulated for 74.51 GiB) 704")
    assert (one.parts[0].low, one.parts[0].high) == (704 / 575, 767 / 512)
    assert judged(runs, threshold=1.5, **longer).result == "fail"
    only = judged(runs, statistic=Statistic.only_fits, threshold=1, **MORE)
    assert only.why == "fits only with packed: net/digits at dataset.max_length=704 (simulated for 74.51 GiB)"
    other = judged(runs, statistic=Statistic.largest_ratio, over=BATCH, threshold=1.2, **MORE)
    assert other.result == "not measured"


def test_answers_about_other_settings_are_kept_apart(runs: Runs) -> None:
    runs.sample(STEP, baseline=BASE, packed=BASE)
    for length, factor in ((128, 4), (512, 1)):
        settings = {LENGTH: length, BATCH: 8, "seed": 0}
        more = {"name": str(length), "what": "batch", "settings": settings}
        fit_answer(runs, "baseline", {8 * factor: True, 9 * factor: False}, **more)
        fit_answer(runs, METHOD, {10 * factor: True, 11 * factor: False}, **more)
    one = judged(runs, threshold=1.12, **LARGER)
    assert [part.task for part in one.parts] == [f"net/digits {LENGTH}={length}" for length in (128, 512)]
    assert [part.value for part in one.parts] == [1.25, 1.25] and one.result == "pass"


def test_the_format_is_that_of_pmexp_fit(runs: Runs) -> None:
    runs.sample(STEP, baseline=BASE, packed=BASE)
    (runs.folder / "fit").mkdir()
    for variant, largest in (("baseline", 512), ("pm-drop", 704)):
        config = compose([f"variant={variant}", "dataset=mrpc", "model=tinybert"])
        probes = [Probe(largest, 1, {}, fits=True), Probe(largest + 64, None, {}, fits=False)]
        options = fit_options(COMMAND.read(["method=measure", "what=length", "budget=80e9"]))
        told = Answer(probes[0], largest, probes, config).record(options)
        (runs.folder / "fit" / f"{variant}.json").write_text(json.dumps(told))
    protocol = ProtocolConfig(criteria={"it": CriterionConfig(**{**LARGER, "over": LENGTH}, threshold=1.2)})
    (one,) = judged_all(runs, protocol)[1]
    assert (one.result, one.value, one.parts[0].task) == ("pass", 704 / 512, "tinybert/mrpc")
    assert "dataset.max_length (measured for 74.51 GiB) 704 versus 512" in one.why
