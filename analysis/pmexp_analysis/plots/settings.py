"""A metric against a numeric setting: sequence length, batch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from pmexp_analysis.plots.estimate import Estimate
from pmexp_analysis.plots.looks import Style


@dataclass(frozen=True)
class Level:
    """A variant's metric at one setting, `panel` names the task; `value` None: out of memory there."""

    panel: str
    variant: str
    setting: float
    value: Estimate | None


def scaling(
    levels: Sequence[Level],
    setting: str,
    metric: str,
    unit: str,
    direction: str,
    capacity: float | None,
    looks: Mapping[str, Style],
) -> Figure:
    """A panel a task, a line a variant with errors; runs out of memory are marks on a line of their own.

    That line is at `capacity` (the device's memory in the metric's unit, None where it is unknown or the
    metric is no memory), else above the values. `setting` labels the other axis. Axes are logarithmic where
    the values span a decade or more (settings: a factor of 4).
    """
    raise NotImplementedError
