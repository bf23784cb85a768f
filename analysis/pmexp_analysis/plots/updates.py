"""How alike the parameter updates of a variant and of the baseline are, over the steps."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pmexp_analysis.plots.curves import draw_band, over_steps
from pmexp_analysis.plots.looks import GREY, TEXT_SIZE, Style, sheet
from pmexp_analysis.plots.shelf import shelf, shelf_height
from pmexp_analysis.plots.text import legend_below

_INSIDE = 1.6  # inches between the axes, without the shelf


@dataclass(frozen=True)
class Cosine:
    """The cosine between the updates of a run and of the baseline with the same seed, a value a step."""

    variant: str
    seed: int
    steps: Sequence[float]
    values: Sequence[float]


def update_cosine(
    cosines: Sequence[Cosine], looks: Mapping[str, Style], controls: Collection[str] = ()
) -> Figure:
    """Draws a line a variant: the mean over seeds, and the band from the least to the greatest.

    controls: variants that are the baseline with other masks; they are grey, and the legend says so.

    Steps at which every seed's cosine is exactly 1 have a mark above the panel's line at 1.
    """
    looks = {
        variant: replace(look, colour=GREY) if variant in controls else look
        for variant, look in looks.items()
    }
    seeds = {variant: _by_seed([c for c in cosines if c.variant == variant]) for variant in looks}
    seeds = {variant: table for variant, table in seeds.items() if len(table)}
    exact = {
        variant: table.index[(table.isna() | (table == 1.0)).all(axis=1)].tolist()
        for variant, table in seeds.items()
    }
    exact = {variant: steps for variant, steps in exact.items() if steps}
    figure, (panel,) = sheet(1, _INSIDE + 0.5 + shelf_height(len(exact)))
    handles: dict[str, Line2D] = {}
    for place, (variant, table) in enumerate(seeds.items()):
        handles[variant] = draw_band(panel, table, looks[variant], place + 1)  # the first is the baseline's
    least = min((float(table.min(axis=None)) for table in seeds.values()), default=0.0)
    span = 1.05 * (1.0 - least) or 0.1
    above = shelf_height(len(exact)) if exact else 0.05
    share = above / (_INSIDE + above)
    panel.set_ylim(1.0 - span, 1.0 + span * share / (1.0 - share))
    over_steps(panel)
    if exact:
        shelf(panel, 1.0, "exactly 1 at every seed", exact, looks)
    panel.set_xlabel("step", fontsize=TEXT_SIZE)
    panel.set_ylabel("cosine of updates\nto the baseline's", fontsize=TEXT_SIZE)
    names = [f"{variant} (control)" if variant in controls else variant for variant in handles]
    legend_below(figure, list(handles.values()), names)
    return figure


def _by_seed(cosines: Sequence[Cosine]) -> pd.DataFrame:
    """A row a step and a column a seed, without steps at which no seed has a value."""
    columns = {c.seed: pd.Series(list(c.values), index=list(c.steps), dtype="float64") for c in cosines}
    return pd.DataFrame(columns).dropna(how="all").sort_index()
