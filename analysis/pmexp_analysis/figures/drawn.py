"""A figure of a report."""

from dataclasses import dataclass

from matplotlib.figure import Figure


@dataclass(frozen=True)
class Drawn:
    """A figure with the name of its files and what a reader is to see in it."""

    name: str
    caption: str
    figure: Figure
