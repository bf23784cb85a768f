"""Judges each claim by the figures, a pure function of the record."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

Rows = Sequence[dict[str, Any]]
CONFIRMED, REFUTED, NOT_SETTLED = "confirmed", "refuted", "not settled"
_LARGE = 2**26  # elements
_SLOWEST = 1 / 1.02  # times as fast as stock
_OF_MEMORY = ("simulated peak", "nothing is left on the device", "the same bytes are on the device")  # checks
_STOCK = ("baseline", "no dropout")


@dataclass(frozen=True)
class ClaimBound:
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


def _small_step(row: dict[str, Any]) -> str:
    return f"{row['model']} {row['batch']} {row['precision']} {row['variant']}"


def _large_step(row: dict[str, Any]) -> str:
    return f"{row['attention']} {row['variant']}"


def _is_packed(row: dict[str, Any]) -> bool:
    return (row["contender"], row["dtype"], row["elements"]) == ("packed", "bf16", _LARGE)


def _of_ours(graph: bool) -> Callable[[dict[str, Any]], bool]:
    return lambda row: row["variant"] not in _STOCK and bool(row["graph"]) == graph


_BOUNDS = (
    ClaimBound(
        "packed dropout is at least 1.1 times as fast as nn.Dropout, both ways in bf16 at 2^26 elements",
        "bandwidth", "bandwidth", "times_nn_dropout", "low", "high", 1.1, _is_packed, lambda row: "bf16",
    ),
    ClaimBound(
        "and moves at least 85 % of a device copy's bytes a second",
        "bandwidth", "bandwidth", "share_of_copy", "share_low", "share_high", 0.85, _is_packed,
        lambda row: "bf16",
    ),
    *(
        ClaimBound(
            f"{what} is slower than stock by more than 2 %{how}",
            stage, "steps", estimate, "low", "high", _SLOWEST, _of_ours(graph), name,
        )
        for what, stage, estimate, name in (
            ("no small step", "launch_bound", "times_stock", _small_step),
            ("no step of BERT-Large at 512 tokens", "memory", "times_as_fast", _large_step),
        )
        for graph, how in ((False, ", launched one kernel at a time"), (True, " as a CUDA graph"))
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
    return [*rows, _simulated(stages), _offload(stages), *_lora(stages), _largest(stages)]


def _rows(stages: dict[str, Any], stage: str, table: str) -> Rows:
    rows: Rows = stages[stage]["tables"].get(table, []) if stage in stages else []
    return rows


def _row(claim: str, verdict: str, figures: str) -> dict[str, str]:
    return {"claim": claim, "verdict": verdict, "figures": figures}


def _correct(stages: dict[str, Any]) -> Iterator[dict[str, str]]:
    """Whether all checks of each stage held that are of what is computed."""
    for stage in stages.values():
        checks = [check for check in stage["checks"] if not check["what"].startswith(_OF_MEMORY)]
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


def _bounded(bound: ClaimBound, rows: Rows) -> dict[str, str]:
    """Judges a bound: confirmed where all intervals lie above it, refuted where one lies below.

    A figure of so few rounds that it has no interval settles nothing."""
    judged = [row for row in rows if bound.of(row) and row.get(bound.estimate) is not None]
    if not judged:
        return _row(bound.claim, NOT_SETTLED, "not measured")
    sure = [row for row in judged if row.get(bound.low) is not None]
    below = [row for row in sure if row[bound.high] < bound.at_least]
    above = [row for row in sure if row[bound.low] >= bound.at_least]
    verdict = REFUTED if below else CONFIRMED if len(above) == len(judged) else NOT_SETTLED
    worst = min(judged, key=lambda row: row[bound.estimate])
    interval = _interval(worst[bound.estimate], worst.get(bound.low), worst.get(bound.high))
    figures = f"{len(above)} of {len(judged)} above {bound.at_least:.3g}, {len(below)} below"
    return _row(bound.claim, verdict, f"{figures}; the lowest: {bound.name(worst)} {interval}")


def _interval(estimate: float, low: float | None, high: float | None) -> str:
    ends = "too few rounds for an interval" if low is None or high is None else f"[{low:.3f}, {high:.3f}]"
    return f"{estimate:.3f} {ends}"


def _simulated(stages: dict[str, Any]) -> dict[str, str]:
    claim = "the simulated peak of six configurations is within 5 % of the measured one"
    errors = {r["configuration"]: r["error_percent"] for r in _rows(stages, "memory", "simulated")}
    if not errors:
        return _row(claim, NOT_SETTLED, "not measured")
    far = [name for name, error in errors.items() if abs(error) > 5]
    verdict = REFUTED if far else CONFIRMED if len(errors) >= 6 else NOT_SETTLED
    return _row(claim, verdict, ", ".join(f"{name} {error:+.2f} %" for name, error in errors.items()))


def _offload(stages: dict[str, Any]) -> dict[str, str]:
    """Both have an interval against stock; where the two do not overlap, one is faster."""
    claim = "a step with offload is faster than one with torch's save_on_cpu"
    row_of = {row["step"]: row for row in _rows(stages, "systems", "offload")}
    ours, torchs = row_of.get("offload"), row_of.get("torch's save_on_cpu")
    if not ours or not torchs:
        return _row(claim, NOT_SETTLED, "not measured")
    said = [
        f"{name} {_interval(r['ratio'], r['low'], r['high'])}"
        for name, r in (("offload", ours), ("save_on_cpu", torchs))
    ]
    figures = f"times as fast as stock: {', '.join(said)}"
    if ours["low"] is None or torchs["low"] is None:
        return _row(claim, NOT_SETTLED, figures)
    faster, slower = ours["low"] > torchs["high"], ours["high"] < torchs["low"]
    return _row(claim, CONFIRMED if faster else REFUTED if slower else NOT_SETTLED, figures)


def _lora(stages: dict[str, Any]) -> Iterator[dict[str, str]]:
    """Compares bytes, which have no interval: those saved for backward, and the peak above a step's start."""
    row_of = {row["step"]: row for row in _rows(stages, "systems", "lora")}
    stock, ours = row_of.get("dropout 0.1"), row_of.get("dropout 0.1 by pm-drop")
    for what, column in (("saves less for backward", "saved_MiB"), ("has a lower peak", "above_start_MiB")):
        claim = f"a LoRA step by pm-drop {what} than stock"
        if not stock or not ours or stock[column] is None or ours[column] is None:
            yield _row(claim, NOT_SETTLED, "not measured")
            continue
        less = 100 * (1 - ours[column] / stock[column])
        figures = f"{ours[column]:,.0f} MiB against {stock[column]:,.0f}: {less:.1f} % less"
        yield _row(claim, CONFIRMED if less > 0 else REFUTED, figures)


def _largest(stages: dict[str, Any]) -> dict[str, str]:
    claim = "with recomputation a batch at least 12 % larger fits"
    row_of = {row["variant"]: row for row in _rows(stages, "largest_batch", "largest_batch")}
    stock, ours = row_of.get("baseline"), row_of.get("pm-drop-recompute")
    if not stock or not ours or not stock["too_large"]:
        return _row(claim, NOT_SETTLED, "not measured")
    least, most = ours["largest"] / (stock["too_large"] - 1), (ours["too_large"] or 10**9) / stock["largest"]
    verdict = CONFIRMED if least >= 1.12 else REFUTED if most < 1.12 else NOT_SETTLED
    brackets = [
        f"{row['largest']} fit and "
        + (f"{row['too_large']} do not" if row["too_large"] else "more were not tried")
        for row in (stock, ours)
    ]
    return _row(claim, verdict, f"stock: {brackets[0]}; pm-drop-recompute: {brackets[1]}")
