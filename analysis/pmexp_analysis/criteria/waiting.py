"""Runs that waited for their data: their speed is that of their loader, and settles nothing."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from pmexp.metrics.catalog import MOST_DATA_WAIT
from pmexp.shown import first_three
from pmexp_analysis.criteria.result import TaskResult
from pmexp_analysis.numbers.scores import is_exact
from pmexp_analysis.numbers.series import Series
from pmexp_analysis.sources.values import SectionValues

_SHARE, _WAITING, _SPEED = "speed/data_wait_share", "speed/data_wait_", "speed/"
Shares = Iterable[tuple[str, float]]  # a run in words, and the share of its steps' time that it waited


def where_fed(part: TaskResult, metric: str, shares: Shares) -> TaskResult:
    """Returns `part`, inconclusive where its metric is a speed and a run waited for more than MOST_DATA_WAIT
    of its steps' time."""
    if not metric.startswith(_SPEED) or metric.startswith(_WAITING) or is_exact(metric):
        return part
    waited = [f"{run} {share:.1%}" for run, share in shares if share > MOST_DATA_WAIT]
    if not waited or part.result == "not measured":
        return part
    why = f"not settled: waited for data ({first_three(waited)} of the steps' time); {part.why}"
    return replace(part, result="inconclusive", why=why, seeds_needed=None)


def shares_in(section: SectionValues, variants: Sequence[str]) -> Shares:
    """Yields how long the runs of these variants waited. Those that recorded no waiting are believed."""
    shares = section.metrics.get(_SHARE)
    for variant in dict.fromkeys(variants):
        for seed, share in sorted(shares.finite(variant).items() if shares else ()):
            yield f"{variant} seed {seed}", share


def shares_along(series: Series, variants: Sequence[str]) -> Shares:
    """Yields how long the runs of these variants waited, at every setting of the series."""
    for setting, member in series.members:
        if member.labels.variant in variants and _SHARE in (finals := member.run.finals or {}):
            yield (
                f"{member.labels.variant} seed {member.labels.seed} at {series.over}={setting:g}",
                finals[_SHARE],
            )
