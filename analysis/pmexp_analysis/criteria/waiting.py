"""Runs that waited for their data: their speed is that of their loader, and settles nothing."""

from collections.abc import Sequence
from dataclasses import replace

from pmexp.metrics.catalog import MOST_DATA_WAIT
from pmexp_analysis.criteria.result import TaskResult
from pmexp_analysis.numbers.scores import is_exact
from pmexp_analysis.sources.values import SectionValues

_SHARE, _WAITING, _SPEED = "speed/data_wait_share", "speed/data_wait_", "speed/"


def where_fed(part: TaskResult, metric: str, section: SectionValues, variants: Sequence[str]) -> TaskResult:
    """Returns `part`, inconclusive where its metric is a speed and a run of these variants waited for more
    than MOST_DATA_WAIT of its steps' time. Runs that recorded no waiting are believed."""
    if not metric.startswith(_SPEED) or metric.startswith(_WAITING) or is_exact(metric):
        return part
    shares = section.metrics.get(_SHARE)
    waited = [
        f"{variant} seed {seed} {share:.1%}"
        for variant in dict.fromkeys(variants)
        for seed, share in sorted(shares.finite(variant).items() if shares else ())
        if share > MOST_DATA_WAIT
    ]
    if not waited or part.result == "not measured":
        return part
    more = f" and {len(waited) - 3} more" if len(waited) > 3 else ""
    why = f"not settled: waited for data ({', '.join(waited[:3])}{more} of the steps' time); {part.why}"
    return replace(part, result="inconclusive", why=why, seeds_needed=None)
