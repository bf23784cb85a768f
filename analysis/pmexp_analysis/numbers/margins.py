"""The margins of an experiment: those criteria of its protocol that say `within` or `no_worse`."""

from dataclasses import dataclass

from pmexp.protocol import MARGINS, ProtocolConfig, Statistic, is_about
from pmexp_analysis.numbers.scores import resolve


@dataclass(frozen=True)
class Margin:
    """`threshold` is of `statistic`: a fraction, a difference in the metric's unit or a number of sigmas."""

    statistic: Statistic
    threshold: float

    @property
    def text(self) -> str:
        if self.statistic is Statistic.relative_change:
            return f"±{100 * self.threshold:g}%"
        return f"±{self.threshold:g}{' sigma' if self.statistic is Statistic.difference_in_sigma else ''}"


def margin_of(protocol: ProtocolConfig, task: str, metric: str, metrics: list[str]) -> Margin | None:
    """The margin of `metric` in a task that has `metrics`; None where none was written down."""
    return margins_of(protocol, task, metrics).get(metric)


def margins_of(protocol: ProtocolConfig, task: str, metrics: list[str]) -> dict[str, Margin]:
    """Metric -> margin, of those of a task's `metrics` that have one; of several the first counts."""
    margins: dict[str, Margin] = {}
    for criterion in protocol.criteria.values():
        if (
            criterion.comparison in MARGINS
            and criterion.metric is not None
            and criterion.against is None
            and criterion.drop_from is None
            and is_about(criterion, task)
            and (metric := resolve(criterion.metric, metrics)) is not None
        ):
            margins.setdefault(metric, Margin(criterion.statistic, criterion.threshold))
    return margins
