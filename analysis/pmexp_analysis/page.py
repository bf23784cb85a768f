"""The content of the two report files: a strict JSON object and one HTML page; no file is touched here."""

import base64
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import resources
from typing import Any

import jinja2
from matplotlib.figure import Figure

from pmexp_analysis import plots, tables
from pmexp_analysis.cells import mean_std
from pmexp_analysis.compare import Comparison, Row, label_of
from pmexp_analysis.headline import headlines
from pmexp_analysis.records import Experiment
from pmexp_analysis.stats import SIGNIFICANCE
from pmexp_analysis.tables import Section

_DOTS_PER_INCH = 160


def report_json(
    experiment: Experiment, rows: Sequence[Row], comparisons: Sequence[Comparison], generated: str
) -> str:
    """The report as strict JSON (no NaN, no Infinity): `generated` is an ISO time in UTC."""
    content = {
        "name": experiment.name,
        "generated": generated,
        "source": experiment.source,
        "rows": [asdict(row) for row in rows],
        "comparisons": [asdict(comparison) for comparison in comparisons],
        "missing": [asdict(run) for run in experiment.missing],
        "environment": experiment.environment,
    }
    return json.dumps(_strict(content), indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def _strict(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _strict(item) for key, item in value.items()}
    return [_strict(item) for item in value] if isinstance(value, list) else value


def page_html(experiment: Experiment, parts: Sequence[Section], generated: str) -> str:
    """The whole page: styles and figures are inside it, so it can be mailed as one file."""
    variants = sorted({variant for section in parts for variant in section.variants})
    looks = plots.styles(variants, parts[0].baseline)
    template = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).from_string(resources.files("pmexp_analysis").joinpath("report.html.j2").read_text(encoding="utf-8"))
    return template.render(
        name=experiment.name,
        source=experiment.source,
        generated=generated,
        compared=_compared(experiment, parts, variants),
        baseline=parts[0].baseline,
        significance=SIGNIFICANCE,
        sections=[_section(experiment, section, looks) for section in parts],
        missing=experiment.missing,
        environment=experiment.environment,
    )


def _compared(experiment: Experiment, parts: Sequence[Section], variants: Sequence[str]) -> str:
    finished = experiment.finals["run_id"].nunique()
    seeds = experiment.finals["seed"].nunique()
    tasks = len({section.task for section in parts})
    systems = len({section.system for section in parts})
    counts = [
        (len(variants), "variant"),
        (tasks, "task"),
        (systems, "system"),
        (seeds, "seed"),
        (finished, "finished run"),
    ]
    return ", ".join(f"{count} {what}{'' if count == 1 else 's'}" for count, what in counts)


def _section(experiment: Experiment, section: Section, looks: Mapping[str, plots.Style]) -> dict[str, Any]:
    mine = {variant: looks[variant] for variant in section.variants}
    return {
        "task": section.task,
        "system": section.system,
        "headlines": headlines(section),
        "identical": tables.identical(section),
        "results": tables.result_table(section),
        "comparisons": tables.comparison_table(section),
        "figures": [
            figure
            for figure in (_pareto(section, mine), _convergence(experiment, section, mine))
            if figure is not None
        ],
    }


def _pareto(section: Section, looks: Mapping[str, plots.Style]) -> dict[str, str] | None:
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
    figure = plots.pareto(axes, points, looks)
    about = "Means over seeds with one standard deviation; rings mark the Pareto front of each panel."
    return {"image": _data_uri(figure), "caption": f"What memory, speed and quality cost each other. {about}"}


def _convergence(
    experiment: Experiment, section: Section, looks: Mapping[str, plots.Style]
) -> dict[str, str] | None:
    curves = experiment.curves
    mine = curves[(curves["task"] == section.task) & (curves["system"] == section.system)]
    mine = mine[mine["step"].notna() & mine["value"].notna()]
    recorded = set(mine["metric"].unique())
    scores = [metric for metric in ("val/accuracy", "val/f1") if metric in recorded]
    metrics = [metric for metric in ("train/loss", "val/loss", *scores) if metric in recorded]
    if not metrics:
        return None
    figure = plots.convergence(mine, metrics, looks)
    about = "Lines are means over the seeds, bands reach from the least to the greatest of them."
    return {"image": _data_uri(figure), "caption": f"Convergence. {about}"}


def _data_uri(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DOTS_PER_INCH)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
