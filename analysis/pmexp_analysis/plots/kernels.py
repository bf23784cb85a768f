"""What packing and unpacking masks takes of a step."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from pmexp_analysis.plots.estimate import Estimate


@dataclass(frozen=True)
class Share:
    """A variant's profile/packing_share and profile/unpacking_share, fractions of a step."""

    variant: str
    packing: Estimate
    unpacking: Estimate


def kernel_share(shares: Sequence[Share]) -> Figure:
    """Two bars a variant, packing and unpacking, with their errors."""
    raise NotImplementedError
