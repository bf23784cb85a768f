"""What a record says of each claim: one record for each verdict."""

from typing import Any

import pytest

from pmexp.bench.gpu.claims import CONFIRMED, NOT_SETTLED, REFUTED, claims
from pmexp.bench.gpu.page import page
from pmexp.bench.gpu.plan import STAGES

Row = dict[str, Any]
LARGE = 2**26
SMALL_EAGER = "no small step is slower than stock by more than 2 %, launched one kernel at a time"
SMALL_GRAPH = "no small step is slower than stock by more than 2 % as a CUDA graph"
BERT_EAGER = (
    "no step of BERT-Large at 512 tokens is slower than stock by more than 2 %, launched one kernel at a time"
)
BERT_GRAPH = "no step of BERT-Large at 512 tokens is slower than stock by more than 2 % as a CUDA graph"
FASTER = "packed dropout is at least 1.1 times as fast as nn.Dropout, both ways in bf16 at 2^26 elements"
COPY = "and moves at least 85 % of a device copy's bytes a second"
MASK = "a mask is at least 7.5 times smaller than nn.Dropout's"
SIMULATED = "the simulated peak of six configurations is within 5 % of the measured one"
OFFLOAD = "a step with offload is faster than one with torch's save_on_cpu"
LORA_SAVED = "a LoRA step by pm-drop saves less for backward than stock"
LORA_PEAK = "a LoRA step by pm-drop has a lower peak than stock"
LARGEST = "with recomputation a batch at least 12 % larger fits"


def record(tables: dict[tuple[str, str], list[Row]] | None = None, size: str = "full", **stage: Any) -> Row:
    """Returns the record of a bench whose stages are all done.

    tables: (stage, table) -> its rows; stage: what differs in each stage.
    """
    lists = {
        "checks": [{"what": "one", "held": True, "detail": ""}],
        "failed": [],
        "notes": [],
        "left_out": [],
    }
    stages = [
        {"name": each.name, "title": each.title, "ended": "done", "tables": {}, **lists, **stage}
        for each in STAGES
    ]
    for (name, table), rows in (tables or {}).items():
        (one,) = (each for each in stages if each["name"] == name)
        one["tables"] = {**one["tables"], table: rows}
    return {"size": size, "command": "", "date": "", "stages": stages}


def said(claim: str, stage: str, table: str, *rows: Row) -> tuple[str, str]:
    """Returns the verdict on `claim`, and its figures as text, where `table` of `stage` has `rows` alone."""
    (judged,) = (row for row in claims(record({(stage, table): [*rows]})) if row["claim"] == claim)
    return judged["verdict"], judged["figures"]


def small(
    low: float | None, ratio: float, high: float | None, graph: bool = False, variant: str = "pm-drop"
) -> Row:
    of = {"model": "tinybert", "batch": 32, "precision": "bf16", "graph": graph, "variant": variant}
    return {**of, "times_stock": ratio, "low": low, "high": high}


def large(
    low: float | None, ratio: float, high: float | None, graph: bool = False, variant: str = "pm-drop"
) -> Row:
    of = {"attention": "eager", "graph": graph, "variant": variant}
    return {**of, "times_as_fast": ratio, "low": low, "high": high}


def test_nothing_is_settled_by_what_was_not_measured_or_at_tiny_sizes() -> None:
    assert claims(record(size="tiny")) == []
    rows = claims(record())
    assert [row["verdict"] for row in rows[: len(STAGES)]] == [CONFIRMED] * len(STAGES)
    assert {row["verdict"] for row in rows[len(STAGES) :]} == {NOT_SETTLED}
    measured = (FASTER, COPY, MASK, SMALL_EAGER, SMALL_GRAPH, BERT_EAGER, BERT_GRAPH, SIMULATED, OFFLOAD, LORA_SAVED, LORA_PEAK, LARGEST)  # fmt: skip
    assert sorted(row["claim"] for row in rows[len(STAGES) :]) == sorted(measured)
    assert {row["figures"] for row in rows[len(STAGES) :]} == {"not measured"}


@pytest.mark.parametrize("ended", ["out of time", "failed", "not begun", "ended by signal 11"])
def test_a_stage_that_has_not_ended_settles_not_that_all_is_right(ended: str) -> None:
    (row, *_) = claims(record(ended=ended))
    assert row["verdict"] == NOT_SETTLED and row["figures"] == f"1 of 1 checks hold; the stage ended: {ended}"


def test_a_check_that_does_not_hold_refutes_and_a_part_that_failed_settles_nothing() -> None:
    wrong = [{"what": "two", "held": False, "detail": "no"}, {"what": "one", "held": True, "detail": ""}]
    (row, *_) = claims(record(checks=wrong))
    assert (row["verdict"], row["figures"]) == (REFUTED, "1 of 2 checks hold; two")
    of_memory = [{"what": "nothing is left on the device before LoRA", "held": False, "detail": "9 MiB"}]
    (row, *_) = claims(record(checks=wrong[1:] + of_memory))
    assert (row["verdict"], row["figures"]) == (CONFIRMED, "1 of 1 checks hold")
    (row, *_) = claims(record(failed=["a part: ValueError: no"]))
    assert row["verdict"] == NOT_SETTLED
    (row, *_) = claims(record(checks=[]))
    assert row["verdict"] == NOT_SETTLED


def test_steps_are_judged_by_their_intervals() -> None:
    table = (SMALL_EAGER, "launch_bound", "steps")
    above, across, below = small(0.99, 1.0, 1.01), small(0.97, 0.99, 1.01), small(0.9, 0.95, 0.97)
    assert said(*table, above)[0] == CONFIRMED
    assert said(*table, above, across)[0] == NOT_SETTLED
    assert said(*table, above, across, below) == (
        REFUTED,
        "1 of 3 above 0.98, 1 below; the lowest: tinybert 32 bf16 pm-drop 0.950 [0.900, 0.970]",
    )
    stock = [small(0.1, 0.1, 0.1, variant=name) for name in ("baseline", "no dropout")]
    assert said(*table, above, *stock)[0] == CONFIRMED
    assert said(*table, small(0.1, 0.1, 0.1, graph=True)) == (NOT_SETTLED, "not measured")


def test_a_figure_without_an_interval_settles_nothing() -> None:
    table = (SMALL_EAGER, "launch_bound", "steps")
    verdict, figures = said(*table, small(None, 0.5, None), small(0.99, 1.0, 1.01))
    assert verdict == NOT_SETTLED
    assert figures.endswith("the lowest: tinybert 32 bf16 pm-drop 0.500 too few rounds for an interval")
    assert said(*table, small(None, 1.5, None))[0] == NOT_SETTLED
    assert said(*table, small(None, 0.5, None), small(0.5, 0.5, 0.5))[0] == REFUTED


@pytest.mark.parametrize(
    ("claims_", "stage", "row"),
    [((SMALL_EAGER, SMALL_GRAPH), "launch_bound", small), ((BERT_EAGER, BERT_GRAPH), "memory", large)],
)
def test_steps_and_their_graphs_are_two_claims(claims_: tuple[str, str], stage: str, row: Any) -> None:
    rows = row(0.7, 0.8, 0.9), row(1.0, 1.01, 1.02, graph=True)
    assert [said(claim, stage, "steps", *rows)[0] for claim in claims_] == [REFUTED, CONFIRMED]


def test_bandwidth() -> None:
    def row(low: float, high: float, **other: Any) -> Row:
        of = {"contender": "packed", "dtype": "bf16", "elements": LARGE, **other}
        ends = {"low": low, "high": high, "share_low": low, "share_high": high}
        return {**of, **ends, "times_nn_dropout": (low + high) / 2, "share_of_copy": (low + high) / 2}

    others = [row(0.1, 0.2, contender="seeded"), row(0.1, 0.2, dtype="fp32"), row(0.1, 0.2, elements=2**10)]
    table = ("bandwidth", "bandwidth")
    assert said(FASTER, *table, row(1.1, 1.2), *others)[0] == CONFIRMED
    assert said(FASTER, *table, row(1.05, 1.2))[0] == NOT_SETTLED
    assert (
        said(FASTER, *table, row(0.9, 1.0))[0] == REFUTED
        and said(COPY, *table, row(0.9, 1.0))[0] == CONFIRMED
    )
    assert said(COPY, *table, row(0.7, 0.8))[0] == REFUTED


def test_bytes_of_a_mask() -> None:
    def rows(packed: float) -> list[Row]:
        return [
            {"dropout": "nn.Dropout", "bytes_an_element": 1.0},
            {"dropout": "packed", "bytes_an_element": packed},
        ]

    assert said(MASK, "correctness", "mask_bytes", *rows(0.125)) == (CONFIRMED, "8.00 times")
    assert said(MASK, "correctness", "mask_bytes", *rows(0.2))[0] == REFUTED


def test_simulated_peaks() -> None:
    def rows(*errors: float) -> list[Row]:
        return [{"configuration": f"c{i}", "error_percent": error} for i, error in enumerate(errors)]

    table = (SIMULATED, "memory", "simulated")
    assert said(*table, *rows(0, 1, -2, 3, 4, -5))[0] == CONFIRMED
    assert said(*table, *rows(0, 1)) == (NOT_SETTLED, "c0 +0.00 %, c1 +1.00 %")
    assert said(*table, *rows(0, -5.1))[0] == REFUTED


def test_offload_against_torchs_own() -> None:
    def rows(ours: tuple[float | None, ...], torchs: tuple[float | None, ...]) -> list[Row]:
        named = (("offload", ours), ("torch's save_on_cpu", torchs), ("stock", (1.0, 1.0)))
        return [{"step": name, "ratio": 0.5, "low": low, "high": high} for name, (low, high) in named]

    table = (OFFLOAD, "systems", "offload")
    assert said(*table, *rows((0.5, 0.6), (0.3, 0.4))) == (
        CONFIRMED,
        "times as fast as stock: offload 0.500 [0.500, 0.600], save_on_cpu 0.500 [0.300, 0.400]",
    )
    assert said(*table, *rows((0.3, 0.4), (0.5, 0.6)))[0] == REFUTED
    assert said(*table, *rows((0.3, 0.5), (0.4, 0.6)))[0] == NOT_SETTLED
    assert said(*table, *rows((None, None), (0.4, 0.6)))[0] == NOT_SETTLED


def test_lora_by_bytes() -> None:
    def rows(stock: float | None, ours: float) -> list[Row]:
        named = (("dropout 0.1", stock), ("dropout 0.1 by pm-drop", ours))
        return [{"step": name, "saved_MiB": held, "above_start_MiB": held} for name, held in named]

    for claim in (LORA_SAVED, LORA_PEAK):
        assert said(claim, "systems", "lora", *rows(2000.0, 1500.0)) == (
            CONFIRMED,
            "1,500 MiB against 2,000: 25.0 % less",
        )
        assert said(claim, "systems", "lora", *rows(1500.0, 1500.0))[0] == REFUTED
        assert said(claim, "systems", "lora", *rows(None, 1500.0)) == (NOT_SETTLED, "not measured")


def test_the_largest_batch_by_its_brackets() -> None:
    def rows(stock: tuple[int, int | None], ours: tuple[int, int | None]) -> list[Row]:
        named = (("baseline", stock), ("pm-drop-recompute", ours))
        return [{"variant": name, "largest": fits, "too_large": too} for name, (fits, too) in named]

    table = (LARGEST, "largest_batch", "largest_batch")
    assert said(*table, *rows((54, 55), (69, 71))) == (
        CONFIRMED,
        "stock: 54 fit and 55 do not; pm-drop-recompute: 69 fit and 71 do not",
    )
    assert said(*table, *rows((54, 55), (55, 56)))[0] == REFUTED
    assert said(*table, *rows((54, 55), (58, 70)))[0] == NOT_SETTLED
    assert said(*table, *rows((54, 55), (58, None))) == (
        NOT_SETTLED,
        "stock: 54 fit and 55 do not; pm-drop-recompute: 58 fit and more were not tried",
    )
    assert said(*table, *rows((54, None), (69, 71)))[0] == NOT_SETTLED


def test_a_page_without_a_claim_or_a_row_has_no_empty_table() -> None:
    written = record({("systems", "tempo"): []}, size="tiny")
    text = page({**written, "claims": claims(written)})
    assert "| |" not in text and "|  |" not in text
    assert "## Claims\n\nNone: sizes that try the code settle nothing." in text
