"""How alike the parameter updates of a variant and of the baseline are, over the steps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from pmexp_analysis.plots.looks import Style


@dataclass(frozen=True)
class Cosine:
    """The cosine between the updates of a run and of the baseline with the same seed, a value a step."""

    variant: str
    seed: int
    steps: Sequence[float]
    values: Sequence[float]


def update_cosine(cosines: Sequence[Cosine], looks: Mapping[str, Style]) -> Figure:
    """A line a variant: the mean over seeds, and the band from the least to the greatest.

    Steps at which every seed's cosine is exactly 1 have a marker of their own.
    """
    raise NotImplementedError
