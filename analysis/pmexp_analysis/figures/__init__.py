"""Which figures a report has: here numbers are chosen out of an experiment, `plots` draws them."""

from pmexp_analysis.figures.over_settings import of_experiment
from pmexp_analysis.figures.sections import of_section
from pmexp_analysis.plots.files import Drawn

__all__ = ["Drawn", "of_experiment", "of_section"]
