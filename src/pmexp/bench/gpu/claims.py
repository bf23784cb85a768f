"""What the figures say of each claim, a pure function of the record."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

Rows = Sequence[dict[str, Any]]
CONFIRMED, REFUTED, NOT_SETTLED = "confirmed", "refuted", "not settled"
_LARGE = 2**26  # elements
_SLOWEST = 1 / 1.02  # times as fast as stock
_STOCK = ("baseline", "no dropout")


@dataclass(frozen=True)
class Bound:
    """A claim that figures lie on one side of a bound. Each is an estimate with an interval."""

    claim: str
    stage: str
    table: str
    estimate: str  # columns
    low: str
    high: str
    at_least: float
    of: Callable[[dict[str, Any]], bool]
    name: Callable[[dict[str, Any]], str]


_BOUNDS = (
    Bound(
        "packed dropout is at least 1.1 times as fast as nn.Dropout, both ways in bf16 at 2^26 elements",
        "bandwidth", "bandwidth", "times_nn_dropout", "low", "high", 1.1,
        lambda row: (row["contender"], row["dtype"], row["elements"]) == ("packed", "bf16", _LARGE),
        lambda row: "bf16",
    ),
    Bound(
        "and moves at least 85 % of a device copy's bytes a second",
        "bandwidth", "bandwidth", "share_of_copy", "share_low", "share_high", 0.85,
        lambda row: (row["contender"], row["dtype"], row["elements"]) == ("packed", "bf16", _LARGE),
        lambda row: "bf16",
    ),
    Bound(
        "no small step is slower than stock by more than 2 %, launched one kernel at a time",
        "launch_bound", "steps", "times_stock", "low", "high", _SLOWEST,
        lambda row: row["variant"] not in _STOCK and not row["graph"],
        lambda row: f"{row['model']} {row['batch']} {row['precision']} {row['variant']}",
    ),
    Bound(
        "no small step is slower than stock by more than 2 % as a CUDA graph",
        "launch_bound", "steps", "times_stock", "low", "high", _SLOWEST,
        lambda row: row["variant"] not in _STOCK and bool(row["graph"]),
        lambda row: f"{row['model']} {row['batch']} {row['precision']} {row['variant']}",
    ),
    Bound(
        "no step of BERT-Large at 512 tokens is slower than stock by more than 2 %",
        "memory", "steps", "times_as_fast", "from", "to", _SLOWEST,
        lambda row: row["variant"] not in _STOCK,
        lambda row: f"{row['attention']} {row['variant']}",
    ),
)  # fmt: skip


def claims(record: dict[str, Any]) -> list[dict[str, str]]:
    """A row a claim: what it says, "confirmed", "refuted" or "not settled", and the figures that say so.

    Nothing is settled by a stage that has not ended, nor at sizes that measure nothing.
    """
    stages = {stage["name"]: stage for stage in record["stages"]}
    if record.get("size") != "full":
        return []
    rows = [*_correct(stages), _mask_bytes(stages)]
    rows += [_bounded(bound, _rows(stages, bound.stage, bound.table)) for bound in _BOUNDS]
    return [*rows, _simulated(stages), _largest(stages)]


def _rows(stages: dict[str, Any], stage: str, table: str) -> Rows:
    rows: Rows = stages[stage]["tables"].get(table, []) if stage in stages else []
    return rows


def _row(claim: str, verdict: str, figures: str) -> dict[str, str]:
    return {"claim": claim, "verdict": verdict, "figures": figures}


def _correct(stages: dict[str, Any]) -> Iterator[dict[str, str]]:
    """Whether all checks of each stage held."""
    for stage in stages.values():
        checks = [check for check in stage["checks"] if not check["what"].startswith("simulated peak")]
        wrong = [check["what"] for check in checks if not check["held"]]
        whole = stage["ended"] == "done" and not stage["failed"]
        verdict = REFUTED if wrong else CONFIRMED if checks and whole else NOT_SETTLED
        figures = f"{len(checks) - len(wrong)} of {len(checks)} checks hold"
        if broken := [*wrong, *stage["failed"], *([] if whole else [f"the stage ended: {stage['ended']}"])]:
            figures += "; " + "; ".join(broken[:3])
        yield _row(f"{stage['title']}: what runs computes what it should", verdict, figures)


def _mask_bytes(stages: dict[str, Any]) -> dict[str, str]:
    claim = "a mask is at least 7.5 times smaller than nn.Dropout's"
    kept = {row["dropout"]: row["bytes_an_element"] for row in _rows(stages, "correctness", "mask_bytes")}
    if not kept.get("nn.Dropout") or not kept.get("packed"):
        return _row(claim, NOT_SETTLED, "not measured")
    ratio = kept["nn.Dropout"] / kept["packed"]
    return _row(claim, CONFIRMED if ratio >= 7.5 else REFUTED, f"{ratio:.2f} times")


def _bounded(bound: Bound, rows: Rows) -> dict[str, str]:
    """Confirmed where all intervals lie above the bound, refuted where one lies below."""
    judged = [row for row in rows if bound.of(row) and row.get(bound.estimate) is not None]
    if not judged:
        return _row(bound.claim, NOT_SETTLED, "not measured")
    below = [row for row in judged if row[bound.high] < bound.at_least]
    above = [row for row in judged if row[bound.low] >= bound.at_least]
    verdict = REFUTED if below else CONFIRMED if len(above) == len(judged) else NOT_SETTLED
    worst = min(judged, key=lambda row: row[bound.estimate])
    interval = f"{worst[bound.estimate]:.3f} [{worst[bound.low]:.3f}, {worst[bound.high]:.3f}]"
    figures = f"{len(above)} of {len(judged)} above {bound.at_least:.3g}, {len(below)} below"
    return _row(bound.claim, verdict, f"{figures}; the lowest: {bound.name(worst)} {interval}")


def _simulated(stages: dict[str, Any]) -> dict[str, str]:
    claim = "the simulated peak of six configurations is within 5 % of the measured one"
    errors = {r["configuration"]: r["error_percent"] for r in _rows(stages, "memory", "simulated")}
    if not errors:
        return _row(claim, NOT_SETTLED, "not measured")
    far = [name for name, error in errors.items() if abs(error) > 5]
    verdict = REFUTED if far else CONFIRMED if len(errors) >= 6 else NOT_SETTLED
    return _row(claim, verdict, ", ".join(f"{name} {error:+.2f} %" for name, error in errors.items()))


def _largest(stages: dict[str, Any]) -> dict[str, str]:
    claim = "with recomputation a batch at least 12 % larger fits"
    found = {row["variant"]: row for row in _rows(stages, "largest_batch", "largest_batch")}
    stock, ours = found.get("baseline"), found.get("pm-drop-recompute")
    if not stock or not ours or not stock["too_large"]:
        return _row(claim, NOT_SETTLED, "not measured")
    least, most = ours["largest"] / (stock["too_large"] - 1), (ours["too_large"] or 10**9) / stock["largest"]
    verdict = CONFIRMED if least >= 1.12 else REFUTED if most < 1.12 else NOT_SETTLED
    brackets = [
        f"{row['largest']} fit and {row['too_large'] or 'more was not tried'} do not" for row in (stock, ours)
    ]
    return _row(claim, verdict, f"stock: {brackets[0]}; pm-drop-recompute: {brackets[1]}")
