"""Runs that waited for their data or for a core: their speed is that of the loader or of a loaded machine."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from pmexp.metrics.catalog import MOST_CORE_WAIT, MOST_DATA_WAIT
from pmexp.shown import first_three
from pmexp_analysis.criteria.result import TaskResult
from pmexp_analysis.numbers.load import is_time
from pmexp_analysis.numbers.scores import is_exact
from pmexp_analysis.numbers.series import Series
from pmexp_analysis.sources.values import SectionValues

DATA_WAIT, _WAITING, _SPEED = "speed/data_wait_share", "speed/data_wait_", "speed/"
Shares = Iterable[tuple[str, float]]  # a run in words, and the share of its steps' time that it waited


def where_fed(part: TaskResult, metric: str, shares: Shares) -> TaskResult:
    """Returns `part`, inconclusive where its metric is a speed and a run waited for more than MOST_DATA_WAIT
    of its steps' time."""
    if not metric.startswith(_SPEED) or metric.startswith(_WAITING) or is_exact(metric):
        return part
    return _unless(part, "for data", [(run, share) for run, share in shares if share > MOST_DATA_WAIT])


def where_idle(part: TaskResult, metric: str, shares: Shares) -> TaskResult:
    """Returns `part`, of runs that are judged without a partner, inconclusive where its metric is a time and
    other work had the cores of a run for more than MOST_CORE_WAIT of its steps' time."""
    if not is_time(metric):
        return part
    return _unless(part, "for a core", [(run, share) for run, share in shares if share > MOST_CORE_WAIT])


def _unless(part: TaskResult, what: str, waited: Sequence[tuple[str, float]]) -> TaskResult:
    if not waited or part.result == "not measured":
        return part
    named = first_three([f"{run} {share:.1%}" for run, share in waited])
    why = f"not settled: waited {what} ({named} of the steps' time); {part.why}"
    return replace(part, result="inconclusive", why=why, seeds_needed=None)


def shares_in(section: SectionValues, variants: Sequence[str], metric: str = DATA_WAIT) -> Shares:
    """Yields how long the runs of these variants waited, for data or, by CORE_WAIT, for a core. Those that
    recorded no waiting are believed."""
    shares = section.metrics.get(metric)
    for variant in dict.fromkeys(variants):
        for seed, share in sorted(shares.finite(variant).items() if shares else ()):
            yield f"{variant} seed {seed}", share


def shares_along(series: Series, variants: Sequence[str]) -> Shares:
    """Yields how long the runs of these variants waited, at every setting of the series."""
    for setting, member in series.members:
        if member.labels.variant in variants and DATA_WAIT in (finals := member.run.finals or {}):
            yield (
                f"{member.labels.variant} seed {member.labels.seed} at {series.over}={setting:g}",
                finals[DATA_WAIT],
            )
