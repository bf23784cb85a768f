"""Writes runs as lines for a person and as JSON for a program."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from pmexp.run_folder.differences import Differing, keys_of, said, told_apart
from pmexp.run_folder.found import FoundRun
from pmexp.runs.choice import STATES, UNTOLD, value_of
from pmexp.shown import aligned, printable

_REACHED = ("step", "loss", "host", "time", "attempt", "waited", "error")
_RIGHT = ("step", "loss", "time", "attempt", "waited", *(state.name for state in STATES), "runs")
_WAITED = "speed/data_wait_share"


def run_lines(runs: Sequence[FoundRun], among: Sequence[FoundRun] | None = None) -> list[str]:
    """A heading and a line for each run, with a column for each key in which they differ, or those of
    `among` do."""
    keys = keys_of(_apart(runs if among is None else among).values())
    cells = [(run.run_id, run.state.name, *(_said(run, key) for key in keys), *_reached(run)) for run in runs]
    return _aligned([("run", "state", *keys, *_REACHED), *cells])


def experiment_lines(runs_of: Mapping[str, Sequence[FoundRun]]) -> list[str]:
    """A heading and a line for each experiment: how many of its runs are in which state."""
    rows = [("experiment", "runs", *(state.name for state in STATES))]
    for name, runs in runs_of.items():
        count = Counter(run.state for run in runs)
        rows.append((name, str(len(runs)), *(str(count[state] or "") for state in STATES)))
    return _aligned(rows)


def counts(runs: Sequence[FoundRun]) -> str:
    """How many runs are in which state, such as "20 runs: 18 finished, 2 failed"."""
    count = Counter(run.state for run in runs)
    by_state = ", ".join(f"{count[state]} {state.name}" for state in STATES if count[state])
    return f"{len(runs)} run{'s' * (len(runs) != 1)}" + (f": {by_state}" if by_state else "")


def runs_json(runs: Sequence[FoundRun]) -> str:
    """A list of objects; null where something is not known."""
    apart = _apart(runs)
    return _json([_object(run, apart[run.path]) for run in runs])


def experiments_json(runs_of: Mapping[str, Sequence[FoundRun]]) -> str:
    """Returns, as JSON, how many runs each experiment has and in which states they are."""
    listed = []
    for name, runs in runs_of.items():
        count = Counter(run.state for run in runs)
        listed.append({"name": name, "runs": len(runs), **{state.name: count[state] for state in STATES}})
    return _json(listed)


def _apart(runs: Sequence[FoundRun]) -> dict[Path, Differing]:
    return told_apart({run.path: (run.labels, run.settings) for run in runs})


def _said(run: FoundRun, key: str) -> str:
    value = value_of(run, key)
    return "" if value is UNTOLD else said(value)


def _object(run: FoundRun, differing: Differing) -> dict[str, object]:
    return {
        "run_id": run.run_id,
        "state": run.state.name,
        **run.labels,
        "differs": dict(differing),
        "step": run.progress.step,
        "steps_total": run.progress.total or None,
        "loss": run.progress.loss if math.isfinite(run.progress.loss) else None,
        "host": _host(run) or None,
        "attempt": _attempt(run),
        "seconds": round(run.seconds, 1) if math.isfinite(run.seconds) else None,
        "data_wait_share": share if math.isfinite(share := _wait_share(run)) else None,
        "error": run.error or None,
        "not_finite": run.not_finite or None,
        "folder": str(run.path),
    }


def _json(content: object) -> str:
    return json.dumps(content, indent=1, allow_nan=False)


def _reached(run: FoundRun) -> tuple[str, ...]:
    reached = run.progress
    step = f"{reached.step}/{reached.total or '?'}" if reached.step else ""
    loss = f"{reached.loss:.4f}" if reached.step else ""
    start, share = str(_attempt(run) or ""), _wait_share(run)
    waited = f"{share:.1%}" if math.isfinite(share) else ""
    said = run.error or (f"not finite: {run.not_finite}" if run.not_finite else "")
    return step, loss, _host(run), _duration(run.seconds), start, waited, said


def _wait_share(run: FoundRun) -> float:
    """The share of its steps' time that a run waited for data; NaN before its end."""
    return run.summary.metrics.get(_WAITED, math.nan) if run.summary else math.nan


def _host(run: FoundRun) -> str:
    return str(run.owner.get("host", ""))


def _attempt(run: FoundRun) -> int:
    return int(run.owner.get("attempt", 0))


def _duration(seconds: float) -> str:
    if not math.isfinite(seconds):
        return ""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The cells in columns, without what a terminal would take for a command."""
    shown = [list(map(printable, row)) for row in rows]
    return [line.rstrip() for line in aligned(shown, [heading in _RIGHT for heading in rows[0]])]
