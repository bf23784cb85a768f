"""The loss of each variant less that of the baseline with the same seed, over the steps."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from pmexp_analysis.plots.looks import Style


def loss_difference(curves: pd.DataFrame, metric: str, baseline: str, looks: Mapping[str, Style]) -> Figure:
    """A panel a variant of `looks`: a thin line a seed, their mean, and as a yardstick the baseline's own
    spread over seeds (one standard deviation to either side, where it has two seeds or more).

    `curves` has the long table's columns, of one (task, system). Above each panel stands how many seeds are
    identical to the baseline, or the largest difference. A variant that shares no seed is said, not drawn.
    """
    raise NotImplementedError
