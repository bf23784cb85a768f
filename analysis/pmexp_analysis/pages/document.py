"""The report as Markdown."""

from collections.abc import Sequence

from pmexp.shown import counted
from pmexp_analysis.pages import formats, glossary, tables
from pmexp_analysis.pages.content import Content
from pmexp_analysis.pages.headline import headlines
from pmexp_analysis.pages.page import Image

_MOST_SECTIONS = 40  # so many have their comparisons in full


def as_markdown(
    content: Content, of_sections: Sequence[Sequence[Image]] = (), of_all: Sequence[Image] = ()
) -> str:
    """report.md: the words and tables of the page; it links the files of its figures."""
    experiment = content.experiment
    blocks = [f"# {formats.inline(experiment.name)}", _items(content.warnings)]
    blocks.append(formats.line(experiment.protocol.question))
    blocks.append(f"**{formats.inline(content.sentence)}**")
    if content.criteria:
        blocks.append(formats.markdown(tables.criteria_table(content.criteria)))
    blocks += map(formats.line, experiment.remarks)
    blocks.append(_items(content.compared))
    if content.changes is not None:
        blocks += ["## Changed since the earlier report", _items(content.changes or ["Nothing."])]
    for place, section in enumerate(content.sections):
        blocks += [
            formats.inline(f"## {section.task} / {section.system}"),
            _items([*headlines(section), *tables.remarks(section)]),
        ]
        blocks.append(formats.markdown(tables.result_table(section)))
        if place >= _MOST_SECTIONS:
            continue
        comparison = tables.comparison_table(section)
        if comparison.cells:
            blocks += [formats.inline(f"### Compared with {section.baseline}"), formats.markdown(comparison)]
        blocks += map(_figure, of_sections[place] if place < len(of_sections) else ())
    if (more := len(content.sections) - _MOST_SECTIONS) > 0:
        blocks.append(f"comparisons.csv has {counted(more, 'more comparison')} of a task and a system.")
    blocks += ["## Across tasks and settings"] * bool(of_all)
    blocks += map(_figure, of_all)
    for grid in content.grids:
        blocks += [formats.inline(f"## Grid: {grid.task} / {grid.system} / {grid.variant}")]
        blocks.append(formats.markdown(tables.grid_table(grid)))
    if experiment.missing:
        blocks += ["## Missing runs", _items([tables.missing_line(run) for run in experiment.missing])]
    blocks += ["## Environment", _items(_environment(content))]
    words = glossary.occurring(blocks)
    if words:
        blocks += ["## What the words mean", _items([f"{word}: {meaning}" for word, meaning in words])]
    blocks.append(formats.inline(f"Made {content.generated} from {experiment.source}."))
    return "\n\n".join(filter(None, blocks)) + "\n"


def _figure(image: Image) -> str:
    files = " ".join(f"[{name.rpartition('.')[2].upper()}](figures/{name})" for name in image.files)
    return f"![{formats.inline(image.caption)}](figures/{image.files[0]})\n{files}"


def _environment(content: Content) -> list[str]:
    return [f"{key}: {', '.join(map(str, values))}" for key, values in content.experiment.environment.items()]


def _items(lines: list[str]) -> str:
    return "\n".join(f"- {formats.line(line)}" for line in lines)
