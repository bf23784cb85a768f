"""Figures as pure functions: numbers in, a matplotlib Figure out; only `save` writes.

looks (colours, markers, sizes), text (labels, ticks), estimate (a mean with its error), files (PNG and PDF);
then a file a figure. Sizes are those of print: a column or a page wide, higher with more content.
Something to draw is asked for (ValueError); of what is there, anything may be NaN.
"""

import matplotlib

from pmexp_analysis.plots.curves import convergence
from pmexp_analysis.plots.differences import loss_difference
from pmexp_analysis.plots.effects import Effect, forest
from pmexp_analysis.plots.estimate import Estimate
from pmexp_analysis.plots.files import png, save
from pmexp_analysis.plots.grids import Cell, heat_map
from pmexp_analysis.plots.kernels import Share, kernel_share
from pmexp_analysis.plots.limits import Fit, largest
from pmexp_analysis.plots.looks import Style, styles
from pmexp_analysis.plots.settings import Level, scaling
from pmexp_analysis.plots.stacks import Stack, breakdown
from pmexp_analysis.plots.tradeoffs import Axis, Point, pareto
from pmexp_analysis.plots.updates import Cosine, update_cosine

matplotlib.rcParams["text.parse_math"] = False  # a name may hold dollars

__all__ = [
    "Axis",
    "Cell",
    "Cosine",
    "Effect",
    "Estimate",
    "Fit",
    "Level",
    "Point",
    "Share",
    "Stack",
    "Style",
    "breakdown",
    "convergence",
    "forest",
    "heat_map",
    "kernel_share",
    "largest",
    "loss_difference",
    "pareto",
    "png",
    "save",
    "scaling",
    "styles",
    "update_cosine",
]
