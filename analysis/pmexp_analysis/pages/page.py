"""The report as one HTML page: styles and figures are inside it, so that it can be mailed as one file."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import jinja2

from pmexp.shown import counted
from pmexp_analysis.numbers.stats import FEWEST_PAIRS, POWER, SIGNIFICANCE
from pmexp_analysis.pages import glossary, tables
from pmexp_analysis.pages.content import Content
from pmexp_analysis.pages.headline import headlines
from pmexp_analysis.pages.links import run_links

_MOST_SECTIONS, _MOST_MISSING, _MOST_CHANGES, _MOST_RUNS, _MOST_WARNINGS = 40, 200, 60, 200, 20


_WORDED = (  # what of the page a glossary is about
    "warnings", "question", "sentence", "criteria", "counts", "remarks", "sections", "grids", "figures",
    "missing",
)  # fmt: skip


@dataclass(frozen=True)
class Image:
    """A figure as it stands in the page: the bytes of a PNG, and the names of its files, the PNG's first."""

    files: Sequence[str]
    caption: str
    png: bytes
    inches: float  # wide, in print

    @property
    def uri(self) -> str:
        return f"data:image/png;base64,{base64.b64encode(self.png).decode('ascii')}"


def page_html(content: Content, of_sections: Sequence[Sequence[Image]], of_all: Sequence[Image]) -> str:
    """`of_sections`: the figures of the first sections, as many as there are; `of_all`: those over tasks."""
    experiment = content.experiment
    protocol = experiment.protocol
    template = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).from_string(
        resources.files("pmexp_analysis.pages").joinpath("report.html.j2").read_text(encoding="utf-8")
    )
    links = run_links(experiment)
    context: dict[str, Any] = {
        "name": experiment.name,
        "source": experiment.source,
        "generated": content.generated,
        "warnings": _first(content.warnings, _MOST_WARNINGS),
        "question": protocol.question,
        "result": content.result,
        "sentence": content.sentence,
        "criteria": tables.criteria_table(content.criteria),
        "counts": _counts(content),
        "baseline": protocol.baseline,
        "family": protocol.family.name,
        "remarks": experiment.remarks,
        "compared": _first(content.compared, _MOST_WARNINGS),
        "changes": None if content.changes is None else _first(content.changes, _MOST_CHANGES),
        "significance": SIGNIFICANCE,
        "fewest": FEWEST_PAIRS,
        "power": POWER,
        "sections": _sections(content, of_sections),
        "left_out": max(0, len(content.sections) - _MOST_SECTIONS),
        "undrawn": max(0, len(content.sections) - len(of_sections)),
        "figures": of_all,
        "grids": [(f"{g.task}, {g.system}: {g.variant}", tables.grid_table(g)) for g in content.grids],
        "missing": experiment.missing[:_MOST_MISSING],
        "more_missing": max(0, len(experiment.missing) - _MOST_MISSING),
        "environment": experiment.environment,
        "links": links[:_MOST_RUNS],
        "more_links": max(0, len(links) - _MOST_RUNS),
    }
    words = glossary.occurring({key: context[key] for key in _WORDED})
    return template.render(context, glossary=words, contents=_contents(content, bool(of_all), bool(links)))


def _contents(content: Content, has_figures: bool, has_links: bool) -> list[tuple[str, str]]:
    """(anchor, title) of what the page has."""
    titles = [("changes", "Changed since the earlier report")] * (content.changes is not None)
    for place, section in enumerate(content.sections[:_MOST_SECTIONS], start=1):
        titles.append((f"task-{place}", f"{section.task} ({section.system})"))
    titles += [("across", "Across tasks and settings")] * has_figures
    titles += [("grids", "Hyperparameters")] * bool(content.grids)
    titles += [("missing", "Missing runs"), ("environment", "Environment")]
    titles += [("mlflow", "Runs in MLflow")] * has_links
    return [*titles, ("words", "What the words mean"), ("reading", "How to read criteria and comparisons")]


def _sections(content: Content, of_sections: Sequence[Sequence[Image]]) -> list[dict[str, Any]]:
    return [
        {
            "task": section.task,
            "system": section.system,
            "headlines": headlines(section),
            "remarks": tables.remarks(section),
            "results": tables.result_table(section),
            "comparisons": tables.comparison_table(section),
            "figures": of_sections[place] if place < len(of_sections) else [],
        }
        for place, section in enumerate(content.sections[:_MOST_SECTIONS])
    ]


def _counts(content: Content) -> str:
    experiment = content.experiment
    counts = [
        (len(content.variants), "variant"),
        (len({section.task for section in content.sections}), "task"),
        (len({section.system for section in content.sections}), "system"),
        (len({member.labels.seed for member in experiment.finished}), "seed"),
        (len(experiment.finished), "finished run"),
    ]
    said = [counted(count, what) for count, what in counts]
    return ", ".join([*said, *([f"{len(experiment.missing)} missing"] if experiment.missing else [])])


def _first(lines: Sequence[str], most: int) -> list[str]:
    more = [f"and {len(lines) - most} more"] if len(lines) > most else []
    return [*lines[:most], *more]
