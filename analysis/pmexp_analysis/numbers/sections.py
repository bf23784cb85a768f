"""The rows and comparisons of a report, in sections: one a task and system."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from pmexp_analysis.numbers.compare import Comparison, Row
from pmexp_analysis.numbers.evidence import Evidence
from pmexp_analysis.numbers.scores import in_order, scores


@dataclass(frozen=True)
class Section:
    """The rows and comparisons of one (task, system), and how its variants are ordered and named."""

    task: str
    system: str
    baseline: str
    variants: list[str]
    rows: dict[tuple[str, str], Row]
    comparisons: dict[tuple[str, str], Comparison]
    stands_for: Mapping[str, Sequence[str]] = field(default_factory=dict)  # variant -> others of one training
    remarks: Sequence[str] = ()  # which variants are one training, in words

    @cached_property
    def leaders(self) -> dict[str, str]:
        """The variants of different training, each with the names of all that it stands for."""
        followers = {other for others in self.stands_for.values() for other in others}
        return {
            variant: " = ".join([variant, *self.stands_for.get(variant, ())])
            for variant in self.variants
            if variant not in followers
        }

    @cached_property
    def metrics(self) -> list[str]:
        return in_order(dict.fromkeys(metric for _, metric in self.rows))

    @cached_property
    def scores(self) -> list[str]:
        """The task's main metrics, the first of them foremost."""
        return scores(self.metrics)

    @property
    def throughput(self) -> str:
        return self._first("speed/samples_per_s", "speed/tokens_per_s")

    @property
    def memory(self) -> str:
        return self._first("memory/saved_bytes", "memory/peak_tensor_bytes", "memory/peak_bytes")

    def _first(self, *metrics: str) -> str:
        return next((metric for metric in metrics if metric in self.metrics), metrics[0])


def sections(
    rows: Sequence[Row],
    comparisons: Sequence[Comparison],
    baseline: str,
    evidence: Evidence = Evidence(),  # noqa: B008  frozen
) -> list[Section]:
    """One Section a (task, system); the baseline comes first among its variants, then by name."""
    remarks = evidence.remarks()
    by_place: dict[tuple[str, str], dict[tuple[str, str], Row]] = defaultdict(dict)
    against: dict[tuple[str, str], dict[tuple[str, str], Comparison]] = defaultdict(dict)
    for row in rows:
        by_place[row.task, row.system][row.variant, row.metric] = row
    for one in comparisons:
        against[one.task, one.system][one.variant, one.metric] = one
    made = []
    for task, system in sorted(by_place):
        mine = by_place[task, system]
        variants = sorted({variant for variant, _ in mine}, key=lambda v: (v != baseline, v))
        stands_for = evidence.stands_for(task, system, variants)
        said = remarks.get((task, system), [])
        made.append(Section(task, system, baseline, variants, mine, against[task, system], stands_for, said))
    return made
