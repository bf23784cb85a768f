"""The figures of one task and system."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure

from pmexp.errors import UserError
from pmexp.protocol import Statistic
from pmexp_analysis import plots
from pmexp_analysis.numbers.cells import word
from pmexp_analysis.numbers.compare import Comparison
from pmexp_analysis.numbers.compared_cells import mean_std
from pmexp_analysis.numbers.margins import Margin, margin_of
from pmexp_analysis.numbers.scores import label_of
from pmexp_analysis.numbers.sections import Section
from pmexp_analysis.numbers.updates import cosines, is_control
from pmexp_analysis.plots.files import Drawn
from pmexp_analysis.sources.experiment import Experiment

Looks = Mapping[str, plots.Style]
_STACK = {
    "memory/parameters_bytes": "parameters",
    "memory/gradients_bytes": "gradients",
    "memory/optimizer_bytes": "optimizer",
    "memory/mask_bytes": "dropout masks",
}
_REST = "other tensors saved for backward"
_PEAKS = {  # the first that runs recorded is marked; what the operating system counts is the whole process
    "memory/peak_tensor_bytes": "peak of live tensors",
    "memory/peak_bytes": "peak of CUDA's allocator",
}
_FOREST = (
    "memory/saved_bytes",
    "memory/peak_tensor_bytes",
    "memory/peak_bytes",
    "speed/samples_per_s",
    "speed/step_ms",
)


def of_section(experiment: Experiment, section: Section, looks: Looks, prefix: str) -> Iterator[Drawn]:
    """The figures of one task and system, as far as its runs recorded what they show."""
    mine = {variant: looks[variant] for variant in section.variants}
    curves = _curves(experiment, section)
    drawers: tuple[tuple[str, Callable[[], tuple[Figure, str] | None]], ...] = (
        ("effects", lambda: _forest(experiment, section)),
        ("pareto", lambda: _pareto(section, mine)),
        ("convergence", lambda: _convergence(curves, section, mine)),
        ("loss-difference", lambda: _loss_difference(curves, section, mine)),
        ("memory", lambda: _breakdown(experiment, section)),
        ("kernels", lambda: _kernel_share(section)),
        ("updates", lambda: _update_cosine(experiment, section, mine)),
    )
    for name, draw in drawers:
        drawn = draw()
        if drawn is not None:
            yield Drawn(f"{prefix}{name}", drawn[1], drawn[0])


def _forest(experiment: Experiment, section: Section) -> tuple[Figure, str] | None:
    effects = []
    for metric in dict.fromkeys([*section.scores, *_FOREST]):
        margin = margin_of(experiment.protocol, section.task, metric, section.metrics)
        every = [section.comparisons.get((variant, metric)) for variant in section.variants]
        compared = [one for one in every if one is not None and one.mean_difference is not None]
        in_percent = metric not in section.scores and all(_has_ratio(one) for one in compared)
        effects += [_effect(one, margin, section, in_percent) for one in compared]
    if not effects:
        return None
    about = f"Mean differences from {section.baseline} with 95 % t intervals; the grey band is the margin."
    return plots.forest(effects), about


def _has_ratio(one: Comparison) -> bool:
    return one.relative_difference is not None and (one.n == 1 or one.relative_low is not None)


def _effect(one: Comparison, margin: Margin | None, section: Section, in_percent: bool) -> plots.Effect:
    """A row of the forest: in percent, as tables and criteria say a change, or in the metric's unit."""
    known = {
        "metric": one.metric,
        "direction": one.direction,
        "label": one.variant,
        "verdict": word(one.verdict),
    }
    if in_percent and one.relative_difference is not None:
        ends = [None if end is None else 100 * end for end in (one.relative_low, one.relative_high)]
        zone = (margin and margin.statistic is Statistic.relative_change and 100 * margin.threshold) or None
        estimate = 100 * one.relative_difference
        return plots.Effect(**known, unit="%", estimate=estimate, low=ends[0], high=ends[1], margin=zone)
    return plots.Effect(
        **known,
        unit=one.unit,
        estimate=one.mean_difference or 0.0,
        low=one.ci_low,
        high=one.ci_high,
        margin=_margin(margin, section, one.metric),
    )


def _margin(margin: Margin | None, section: Section, metric: str) -> float | None:
    """Returns half the width of the zone of no difference, in the metric's unit; None where there is none."""
    base = section.rows.get((section.baseline, metric))
    if margin is None or base is None or base.mean is None:
        return None
    if margin.statistic is Statistic.relative_change:
        return margin.threshold * abs(base.mean)
    if margin.statistic is Statistic.difference_in_sigma:
        return margin.threshold * base.std if base.std else None
    return margin.threshold


def _pareto(section: Section, looks: Looks) -> tuple[Figure, str] | None:
    metrics = [m for m in (section.memory, section.throughput, *section.scores[:1]) if m in section.metrics]
    points = []
    for variant in section.variants:
        rows = [section.rows.get((variant, metric)) for metric in metrics]
        places = tuple((row.mean, row.std or 0.0) for row in rows if row is not None and row.mean is not None)
        if len(places) == len(metrics):
            score = section.rows.get((variant, section.scores[0])) if section.scores else None
            legend = f"{variant}: {label_of(score.metric)} {mean_std(score)}" if score else variant
            points.append(plots.Point(variant, legend, places))
    if len(metrics) < 2 or not points:
        return None
    first = {metric: next(row for (_, m), row in section.rows.items() if m == metric) for metric in metrics}
    axes = [plots.Axis(metric, row.unit, row.direction) for metric, row in first.items()]
    about = (
        "Trade-offs between memory, speed and quality: means over seeds with one standard deviation; rings "
    )
    about += "mark the Pareto front of each panel, and the shaded region is dominated by it."
    return plots.pareto(axes, points, looks), about


def _convergence(curves: pd.DataFrame, section: Section, looks: Looks) -> tuple[Figure, str] | None:
    recorded = set(curves["metric"].unique())
    metrics = [m for m in ("train/loss", "val/loss", "val/accuracy", "val/f1") if m in recorded]
    if not metrics:
        return None
    about = "Training curves: means over seeds; the bands show the range from minimum to maximum."
    apart = {variant: look for variant, look in looks.items() if variant in section.leaders}
    return plots.convergence(curves, metrics, apart, section.leaders), about


def _loss_difference(curves: pd.DataFrame, section: Section, looks: Looks) -> tuple[Figure, str] | None:
    others = {variant: look for variant, look in looks.items() if variant != section.baseline}
    if "train/loss" not in set(curves["metric"].unique()) or section.baseline not in looks or not others:
        return None
    about = (
        f"Training loss minus that of {section.baseline} with the same seed, step by step; the "
        "band shows the "
    )
    about += "standard deviation of the baseline over seeds."
    names = section.leaders | {other: other for other in section.stands_for.get(section.baseline, ())}
    apart = {variant: look for variant, look in looks.items() if variant in names}
    return plots.loss_difference(curves, "train/loss", section.baseline, apart, names), about


def _breakdown(experiment: Experiment, section: Section) -> tuple[Figure, str] | None:
    is_known = {"memory/peak_tensor_bytes", *experiment.counted}.intersection(section.metrics)
    marked = next((metric for metric in _PEAKS if metric in is_known), "")
    stacks = []
    for variant in section.variants:
        means = {m: row.mean for (v, m), row in section.rows.items() if v == variant and row.mean is not None}
        if "memory/saved_bytes" not in means:
            continue
        parts = {word: means[metric] for metric, word in _STACK.items() if metric in means}
        parts[_REST] = means["memory/saved_bytes"] - means.get("memory/mask_bytes", 0.0)
        stacks.append(plots.Stack(variant, parts, means.get(marked)))
    if not stacks:
        return None
    label = _PEAKS.get(marked, "")
    about = "Memory by content, counted in one training step"
    about += f"; diamonds mark the {label}." if label else "."
    categories = [word for word in (*_STACK.values(), _REST) if any(word in stack.parts for stack in stacks)]
    return plots.breakdown(stacks, categories, label), about


def _kernel_share(section: Section) -> tuple[Figure, str] | None:
    shares = []
    for variant in section.variants:
        both = [section.rows.get((variant, f"profile/{what}_share")) for what in ("packing", "unpacking")]
        means = [(row.mean, row.std or 0.0) for row in both if row is not None and row.mean is not None]
        if len(means) == 2:
            shares.append(plots.Share(variant, *means))
    return (
        (plots.kernel_share(shares), "Share of a training step spent on packing and unpacking masks.")
        if shares
        else None
    )


def _update_cosine(experiment: Experiment, section: Section, looks: Looks) -> tuple[Figure, str] | None:
    runs = {
        (m.labels.variant, m.labels.seed): m.run
        for m in experiment.members
        if (m.labels.task, m.labels.system) == (section.task, section.system) and m.run.finals is not None
    }
    shown, controls, same_masks = [], set(), set()
    for (variant, seed), run in sorted(runs.items()):
        base = runs.get((section.baseline, seed))
        if variant == section.baseline or base is None or run.folder is None or base.folder is None:
            continue
        try:
            steps, values = cosines(run.folder, base.folder)
        except UserError:  # one of the two kept none
            continue
        shown.append(plots.Cosine(variant, seed, steps.tolist(), values.tolist()))
        if is_control(run.settings, base.settings):
            controls.add(variant)
        if run.settings.get("variant.rng") == "torch":
            same_masks.add(variant)
    if not shown:
        return None
    about = f"Cosine between the updates of each variant and of {section.baseline} with the same seed, from "
    about += "random sums of them; the band reaches over the seeds. "
    about += _about_masks(section.baseline, sorted(controls), sorted(same_masks))
    return plots.update_cosine(shown, looks, controls), about


def _about_masks(baseline: str, controls: Sequence[str], same_masks: Sequence[str]) -> str:
    """Says how much of a low cosine comes from other masks, or which run to add to learn that."""
    if controls:
        said = (
            f"The control, {', '.join(controls)}, is {baseline} itself with other masks: a cosine as low as "
        )
        said += "its own is the noise of masks and no effect of packing. "
    else:
        said = "The control was not run, so a low cosine may be the noise of masks alone: add one run of "
        said += f"{baseline} with variant.mask_stream=1 (variant=baseline-other-masks seed=0). "
    if same_masks:
        return f"{said}With the masks of {baseline} itself ({', '.join(same_masks)}) it has to be 1."
    return f"{said}A run with the masks of {baseline} itself, which has to be at 1, is pm-drop-same-masks."


def _curves(experiment: Experiment, section: Section) -> pd.DataFrame:
    curves = experiment.curves
    mine = curves[(curves["task"] == section.task) & (curves["system"] == section.system)]
    return mine[mine["step"].notna() & mine["value"].notna()]
