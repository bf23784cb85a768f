"""The figures over tasks: metrics against a setting, the largest that fits, grids of hyperparameters."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from pmexp.metrics.catalog import metric_of
from pmexp_analysis import plots
from pmexp_analysis.numbers.fits import Limits
from pmexp_analysis.numbers.hparams import Grid
from pmexp_analysis.numbers.scores import label_of
from pmexp_analysis.numbers.series import Series, series_over
from pmexp_analysis.numbers.stats import describe
from pmexp_analysis.plots.files import Drawn
from pmexp_analysis.sources.experiment import OUT_OF_MEMORY, Experiment

# The peak is that of tensors, as criteria judge it; a run without it has no point, whatever its process took.
_METRICS = ("memory/peak_tensor_bytes", "memory/saved_bytes", "speed/samples_per_s")
_SCALES = {"dataset.max_length": "sequence length [tokens]", "train.batch_size": "batch [samples]"}


def of_experiment(
    experiment: Experiment, limits: Sequence[Limits], grids: Sequence[Grid], looks: Mapping[str, plots.Style]
) -> Iterator[Drawn]:
    """The figures over tasks: metrics against a setting, the largest that fits, grids of hyperparameters."""
    for over, axis in _SCALES.items():
        series = series_over(experiment.members, over)
        for metric in _METRICS if series else ():
            levels = [level for one in series for level in _levels(one, metric)]
            if any(level.value is not None for level in levels):
                told = metric_of(metric)
                figure = plots.scaling(levels, axis, metric, told.unit, told.direction, looks)
                about = f"{label_of(metric).capitalize()} against {axis.split(' [')[0]}."
                yield Drawn(f"{metric.split('/')[1]}-over-{over.split('.')[1]}", about, figure)
    panels = _largest(limits, experiment.protocol.baseline)
    if panels:
        figure = plots.largest(panels, experiment.protocol.baseline, looks)
        yield Drawn(
            "largest", "The largest setting that fits into memory, and its ratio to the baseline's.", figure
        )
    yield from _of_grids(grids, looks)


def _of_grids(grids: Sequence[Grid], looks: Mapping[str, plots.Style]) -> Iterator[Drawn]:
    """A heat map a grid of two keys; of grids of one key a figure a key, with a line a variant."""
    lines: dict[tuple[str, str], list[plots.Level]] = defaultdict(list)
    for place, grid in enumerate(grids, start=1):
        if len(grid.keys) == 2:
            about = (
                f"{grid.task}, {grid.system}, {grid.variant}: {label_of(grid.metric)} over the grid, mean and"
            )
            about += " standard deviation over seeds; the ring marks the best on validation"
            about += f" ({grid.rule}: {_listed(grid)})." if grid.tied else "."
            yield Drawn(f"grid-{place}", about, _heat_map(grid))
        elif len(grid.keys) == 1:
            for setting in grid.settings:
                mean = None if setting.mean is None else (setting.mean, setting.std or 0.0)
                level = plots.Level(_panel(grid.task, grid.system), grid.variant, setting.values[0], mean)
                if mean is not None or "out of memory" in setting.why:
                    lines[grid.keys[0], grid.metric].append(level)
    for (key, metric), levels in lines.items():
        told = metric_of(metric)
        figure = plots.scaling(levels, key, metric, told.unit, told.direction, looks)
        about = f"{told.label.capitalize()} against {key}, mean and standard deviation over seeds."
        yield Drawn(f"{metric.replace('/', '-')}-over-{key.split('.')[1]}", about, figure)


def _levels(series: Series, metric: str) -> list[plots.Level]:
    values: dict[tuple[str, float], list[float]] = defaultdict(list)
    lacking: set[tuple[str, float]] = set()
    for setting, member in series.members:
        value = (member.run.finals or {}).get(metric)
        if member.state == OUT_OF_MEMORY:
            lacking.add((member.labels.variant, setting))
        elif value is not None and math.isfinite(value):
            values[member.labels.variant, setting].append(value)
    panel = _panel(series.task, series.system)
    drawn = []
    for variant, setting in sorted(values.keys() | lacking):
        sample = describe(np.array(values[variant, setting]))
        mean = None if sample.mean is None else (sample.mean, sample.std or 0.0)
        drawn.append(plots.Level(panel, variant, setting, mean))
    return drawn


def _largest(limits: Sequence[Limits], baseline: str) -> dict[str, list[plots.Fit]]:
    """The panels of the limits that some variant ran into."""
    panels = {}
    for one in limits:
        if any(tries.lacks for tries in one.tries.values()):
            word = _SCALES[one.over].split(" [")[0]
            order = sorted(one.tries, key=lambda variant: (variant != baseline, variant))
            panels[f"largest {word}: {_panel(one.task, one.system)} ({one.how})"] = [
                plots.Fit(variant, one.tries[variant].largest, math.isinf(one.tries[variant].first_lack))
                for variant in order
            ]
    return panels


def _listed(grid: Grid) -> str:
    """Lists all settings that tie, as key=value."""
    return "; ".join(
        ", ".join(f"{key}={value:g}" for key, value in zip(grid.keys, values, strict=True))
        for values in grid.tied
    )


def _heat_map(grid: Grid) -> Figure:
    cells = [
        plots.Cell(
            setting.values[1],
            setting.values[0],
            None if setting.mean is None else (setting.mean, setting.std or 0.0),
            setting.why,
        )
        for setting in grid.settings
    ]
    told = metric_of(grid.metric)
    chosen = (grid.chosen[1], grid.chosen[0]) if grid.chosen else None
    return plots.heat_map(cells, grid.keys[1], grid.keys[0], grid.metric, told.unit, told.direction, chosen)


def _panel(task: str, system: str) -> str:
    return task if system == "plain" else f"{task}, {system}"
