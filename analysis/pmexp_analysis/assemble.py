"""From the runs of any source to an Experiment: the two long tables, and everything missing by name."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from pmexp.errors import UserError
from pmexp.metrics.catalog import metric_of
from pmexp_analysis.distinguish import distinguish
from pmexp_analysis.records import COLUMNS, Curve, Experiment, Labels, Missing, Run

_TRAINING_SECTIONS = ("train/", "val/", "test/")


def assemble(name: str, source: str, runs: Sequence[Run]) -> Experiment:
    """The experiment made of `runs`, the planned and the unfinished ones among them: these are named.

    Raises UserError when no run has finished, or two finished runs cannot be told apart.
    """
    labels = distinguish({run.run_id: (run.labels, run.settings) for run in runs})
    runs = [replace(run, labels=labels[run.run_id]) for run in runs]
    finished = [run for run in runs if run.finals is not None]
    missing = _unfinished(runs)
    if not finished:
        known = "none was started"
        if missing:
            first = missing[0]
            known = f"{len(missing)} unfinished, the first: {first.variant} seed {first.seed}, {first.why}"
        raise UserError(
            f"experiment '{name}' has no finished run in {source} ({known});"
            " let its sweep finish, or start it again, then ask for the report"
        )
    _refuse_twins(finished)
    missing += _seeds_that_others_have(finished, missing) + _not_finite(finished)
    return Experiment(
        name=name,
        source=source,
        finals=_finals_table(finished),
        curves=_curves_table(finished),
        missing=sorted(missing, key=lambda m: (m.task, m.system, m.variant, m.seed, m.run_id or "")),
        environment=_distinct(run.environment for run in finished),
        tracking_uris=frozenset(run.tracking_uri for run in finished if run.tracking_uri),
    )


def _unfinished(runs: Sequence[Run]) -> list[Missing]:
    done = {run.labels: run.run_id for run in runs if run.finals is not None}
    missing = []
    for run in runs:
        if run.finals is None:
            labels, why = run.labels, run.why
            if labels in done:
                why += f"; run {done[labels]} of the same seed finished"
            missing.append(Missing(labels.task, labels.system, labels.variant, labels.seed, run.run_id, why))
    return missing


def _refuse_twins(finished: Sequence[Run]) -> None:
    first: dict[Labels, str] = {}
    for run in finished:
        twin = first.setdefault(run.labels, run.run_id)
        if twin != run.run_id:
            where = f"{run.labels.task} / {run.labels.system} / {run.labels.variant} / seed {run.labels.seed}"
            raise UserError(
                f"runs {twin} and {run.run_id} are both {where} and record no setting that differs, so which"
                " one to pair is unclear: give one sweep another name=, or remove the run that is out of date"
            )


def _seeds_that_others_have(finished: Sequence[Run], known: Sequence[Missing]) -> list[Missing]:
    variants_of: dict[tuple[str, str], dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    for run in finished:
        variants_of[run.labels.task, run.labels.system][run.labels.variant].add(run.labels.seed)
    named = {Labels(m.task, m.system, m.variant, m.seed) for m in known}
    missing = []
    for (task, system), seeds_of in variants_of.items():
        for seed in sorted(set().union(*seeds_of.values())):
            owners = ", ".join(sorted(variant for variant, seeds in seeds_of.items() if seed in seeds))
            missing += [
                Missing(task, system, variant, seed, None, f"no run of this seed, there is one of {owners}")
                for variant, seeds in seeds_of.items()
                if seed not in seeds and Labels(task, system, variant, seed) not in named
            ]
    return missing


def _not_finite(finished: Sequence[Run]) -> list[Missing]:
    """Runs that finished with a loss or score that is not a number: they diverged."""
    missing = []
    for run in finished:
        lost = [
            m for m, v in (run.finals or {}).items() if math.isnan(v) and m.startswith(_TRAINING_SECTIONS)
        ]
        if lost:
            labels, why = run.labels, f"finished, but not finite: {', '.join(sorted(lost))}"
            missing.append(Missing(labels.task, labels.system, labels.variant, labels.seed, run.run_id, why))
    return missing


def _finals_table(finished: Sequence[Run]) -> pd.DataFrame:
    curves = []
    for run in finished:
        told = dict(
            zip(run.curve.metrics, zip(run.curve.units, run.curve.directions, strict=True), strict=True)
        )
        names = list(run.finals or {})
        both = [told.get(name) or _from_catalog(name) for name in names]
        values = list((run.finals or {}).values())
        curves.append(
            Curve(names, [b[0] for b in both], [b[1] for b in both], [math.nan] * len(names), values)
        )
    return _long_table(finished, curves)


def _from_catalog(name: str) -> tuple[str, str]:
    try:
        metric = metric_of(name)
    except KeyError as error:
        raise UserError(str(error.args[0])) from None
    return metric.unit, metric.direction


def _curves_table(finished: Sequence[Run]) -> pd.DataFrame:
    table = _long_table(finished, [run.curve for run in finished])
    # A run resumed from a checkpoint writes the steps after it a second time: the later record counts.
    return table.drop_duplicates(["run_id", "metric", "step"], keep="last", ignore_index=True)


def _long_table(runs: Sequence[Run], curves: Sequence[Curve]) -> pd.DataFrame:
    owner = np.repeat(np.arange(len(runs)), [len(curve.values) for curve in curves])

    def label(values: list[str]) -> pd.Categorical:
        return pd.Categorical(values).take(owner)

    def column(name: str) -> pd.Categorical:
        return pd.Categorical([value for curve in curves for value in getattr(curve, name)])

    columns = {
        "run_id": label([run.run_id for run in runs]),
        "task": label([run.labels.task for run in runs]),
        "system": label([run.labels.system for run in runs]),
        "variant": label([run.labels.variant for run in runs]),
        "seed": np.array([run.labels.seed for run in runs], dtype=np.int64)[owner],
        "metric": column("metrics"),
        "unit": column("units"),
        "direction": column("directions"),
        "step": np.concatenate([np.asarray(curve.steps, dtype=np.float64) for curve in curves]),
        "value": np.concatenate([np.asarray(curve.values, dtype=np.float64) for curve in curves]),
    }
    return pd.DataFrame(columns, columns=list(COLUMNS))


def _distinct(environments: Iterable[Mapping[str, str | float]]) -> dict[str, list[str | float]]:
    values: dict[str, set[str | float]] = defaultdict(set)
    for environment in environments:
        for key, value in environment.items():
            values[key].add(value)
    return {key: sorted(values[key], key=str) for key in sorted(values)}
