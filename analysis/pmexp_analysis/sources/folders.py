"""The run folders runs/<name>/<run id>/ as an Experiment; the journals are the truth."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pmexp.errors import UserError
from pmexp_analysis.sources.assemble import assemble
from pmexp_analysis.sources.experiment import Curve, Experiment, Labels, Run, State
from pmexp_analysis.sources.protocols import NO_CHOICE, Choice

_MARKS = ("summary.json", "failure.json", "journal.jsonl", "config.yaml")


def load_runs(runs_dir: Path, name: str, choice: Choice = NO_CHOICE) -> Experiment:
    """Read every run folder of experiment `name` in one pass, linear in runs and records.

    Raises UserError (one line) for an unknown experiment, a file that cannot be read, or no finished run.
    """
    folder = runs_dir / name
    if not folder.is_dir():
        others = (
            sorted(path.name for path in runs_dir.iterdir() if path.is_dir()) if runs_dir.is_dir() else []
        )
        there = f"there are: {', '.join(others)}" if others else "there is none yet: run one first"
        raise UserError(f"no experiment '{name}' in {runs_dir} ({there}); --runs-dir names another place")
    planned = _read_plan(folder / "plan.json")
    runs = [
        _read_run(path, planned.get(path.name))
        for path in sorted(folder.iterdir())
        if path.is_dir() and any((path / mark).exists() for mark in _MARKS)
    ]
    seen = {run.run_id for run in runs}
    never_started = [run for run_id, run in planned.items() if run_id not in seen]
    return assemble(name, str(folder), runs + never_started, choice)


def finite(value: float | None) -> float:
    """`value` as a float, NaN for None and for what is not finite."""
    return float(value) if value is not None and math.isfinite(value) else math.nan


def read_journal(path: Path) -> Curve:
    """The records of one journal. Exactly a cut off last line is ignored (the run was killed in writing it);
    any other line that is no record raises UserError with the file and the line number. No file: no records.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").removesuffix("\n").split("\n")
    except FileNotFoundError:
        return Curve()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    if lines == [""]:
        return Curve()
    records = _parse_at_once(lines)
    if records is None:
        records = _parse_by_line(path, lines)
    try:
        return _columns(records)
    except (KeyError, TypeError, ValueError):
        raise _not_a_record(path, records) from None


def _parse_at_once(lines: list[str]) -> list[Any] | None:
    """All lines in one call of the parser, about twice as quick as line by line; None if any is damaged."""
    try:
        records: list[Any] = json.loads(f"[{','.join(lines)}]")
    except ValueError:
        return None
    return records if len(records) == len(lines) else None


def _parse_by_line(path: Path, lines: list[str]) -> list[Any]:
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(json.loads(line))
        except ValueError:
            if number == len(lines):
                break
            raise UserError(
                f"{path}, line {number} is not JSON: the journal is damaged;"
                " remove this run's folder and run it again"
            ) from None
    return records


def _columns(records: list[Any]) -> Curve:
    values = np.array([record["value"] for record in records], dtype=np.float64)
    values[~np.isfinite(values)] = np.nan
    return Curve(
        metrics=[record["metric"] for record in records],
        units=[record["unit"] for record in records],
        directions=[record["direction"] for record in records],
        steps=np.array([record["step"] for record in records], dtype=np.float64),  # type: ignore[arg-type]
        values=values,  # type: ignore[arg-type]
        started=float(records[0].get("time", math.inf)) if records else math.inf,
    )


def _not_a_record(path: Path, records: list[Any]) -> UserError:
    number = next(number for number, record in enumerate(records, start=1) if not _is_record(record))
    return UserError(
        f"{path}, line {number} is no record (metric, value, unit, direction, step): the journal is damaged;"
        " remove this run's folder and run it again"
    )


def _is_record(record: Any) -> bool:
    try:
        _columns([record])
    except (KeyError, TypeError, ValueError):
        return False
    return True


def _read_run(folder: Path, planned: Run | None) -> Run:
    curve = read_journal(folder / "journal.jsonl")
    summary_path = folder / "summary.json"
    if not summary_path.exists():
        known = planned or Run(folder.name, _labels_of_config(folder / "config.yaml"))
        state, why = _why_unfinished(folder, curve)
        return replace(known, state=state, why=why, curve=curve, folder=folder)
    summary = _read_json(summary_path, dict)
    try:
        finals = {metric: finite(value) for metric, value in summary["metrics"].items()}
        labels = _labels(summary["labels"])
        environment, settings, tracking = (
            _mapping(summary, k) for k in ("environment", "settings", "tracking")
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{summary_path} is no summary of a run ({error!r}): run it again") from None
    run = Run(
        folder.name,
        labels,
        finals,
        curve=curve,
        environment=environment,
        settings=settings,
        tracking_uri=tracking.get("uri"),
        mlflow_id=_mlflow_id(folder),
        protocol=summary.get("protocol"),
        folder=folder,
    )
    if summary.get("status") == "oom":
        why = f"out of memory: {summary.get('error', '')}"
        return replace(run, finals=None, state="out of memory", why=why)
    return run


def _mapping(summary: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = summary.get(key) or {}
    if not isinstance(found, Mapping):
        raise TypeError(f"{key} is no object")
    return found


def _mlflow_id(folder: Path) -> str | None:
    mark = folder / "tracking.json"  # there once MLflow has all of the run
    found: str | None = _read_json(mark, dict).get("mlflow_run_id") if mark.exists() else None
    return found


def _why_unfinished(folder: Path, curve: Curve) -> tuple[State, str]:
    failure_path = folder / "failure.json"
    if failure_path.exists():
        failure = _read_json(failure_path, dict)
        log = f" (log: {failure['log']})" if failure.get("log") else ""
        said = f"{failure.get('status', 'failed')}: {failure.get('error', 'no reason recorded')}{log}"
        return "unfinished" if failure.get("status") == "interrupted" else "failed", said
    steps = np.asarray(curve.steps, dtype=np.float64)
    reached = (
        f"its journal ends at step {int(np.nanmax(steps))}" if np.isfinite(steps).any() else "no record yet"
    )
    return "unfinished", f"no summary: still running, or killed ({reached})"


def _labels(told: Mapping[str, Any]) -> Labels:
    return Labels(str(told["task"]), str(told["system"]), str(told["variant"]), int(told["seed"]))


def _labels_of_config(path: Path) -> Labels:
    import yaml  # only an unfinished, unplanned run is looked up here: YAML is slow

    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        names = {group: config[group]["name"] for group in ("model", "dataset", "system", "variant")}
        return _labels({"task": f"{names['model']}/{names['dataset']}", "seed": config["seed"], **names})
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError):
        raise UserError(
            f"{path} does not say which run this was: model.name, dataset.name, system.name, variant.name and"
            " seed are needed; remove the folder, or run it again"
        ) from None


def _read_plan(path: Path) -> dict[str, Run]:
    if not path.exists():
        return {}
    try:
        return {
            str(entry["run_id"]): Run(
                str(entry["run_id"]),
                _labels(entry),
                state="never started",
                why="planned, never started",
                settings=entry.get("settings") or {},
            )
            for entry in _read_json(path, list)
        }
    except (KeyError, TypeError, ValueError):
        raise UserError(
            f"{path} is no list of runs (run_id, task, system, variant, seed);"
            " remove it, or start the sweep again"
        ) from None


def _read_json(path: Path, kind: type) -> Any:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError:
        raise UserError(f"{path} is not JSON: remove the file and run that run again") from None
    if not isinstance(content, kind):
        raise UserError(f"{path} should hold a JSON {kind.__name__}: remove the file and run that run again")
    return content
