"""The report as Markdown."""

from pmexp_analysis.pages import formats, tables
from pmexp_analysis.pages.content import Content
from pmexp_analysis.pages.headline import headlines


def as_markdown(content: Content) -> str:
    """report.md: the words and tables of the page, without its figures."""
    experiment = content.experiment
    blocks = [f"# {formats.inline(experiment.name)}", _items(content.warnings)]
    blocks.append(formats.line(experiment.protocol.question))
    blocks.append(f"**{formats.inline(content.sentence)}**")
    if content.criteria:
        blocks.append(formats.markdown(tables.criteria_table(content.criteria)))
    blocks += map(formats.line, experiment.remarks)
    if content.changes is not None:
        blocks += ["## Changed since the earlier report", _items(content.changes or ["Nothing."])]
    for section in content.sections:
        blocks += [
            formats.inline(f"## {section.task} / {section.system}"),
            _items([*headlines(section), *tables.remarks(section)]),
        ]
        blocks.append(formats.markdown(tables.result_table(section)))
        comparison = tables.comparison_table(section)
        if comparison.cells:
            blocks += [formats.inline(f"### Against {section.baseline}"), formats.markdown(comparison)]
    for grid in content.grids:
        blocks += [formats.inline(f"## Grid: {grid.task} / {grid.system} / {grid.variant}")]
        blocks.append(formats.markdown(tables.grid_table(grid)))
    if experiment.missing:
        blocks += ["## Missing runs", _items([tables.missing_line(run) for run in experiment.missing])]
    blocks += ["## Environment", _items(_environment(content))]
    blocks.append(formats.inline(f"Made {content.generated} from {experiment.source}."))
    return "\n\n".join(filter(None, blocks)) + "\n"


def _environment(content: Content) -> list[str]:
    return [f"{key}: {', '.join(map(str, values))}" for key, values in content.experiment.environment.items()]


def _items(lines: list[str]) -> str:
    return "\n".join(f"- {formats.line(line)}" for line in lines)
