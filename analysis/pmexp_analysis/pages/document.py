"""The report as Markdown, and its tables as LaTeX."""

from pmexp_analysis.pages import formats, latex, tables
from pmexp_analysis.pages.content import Content
from pmexp_analysis.pages.headline import headlines

_MOST_SECTIONS = 40  # with their comparisons in full, and as LaTeX


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
            blocks += [formats.inline(f"### Against {section.baseline}"), formats.markdown(comparison)]
    if (more := len(content.sections) - _MOST_SECTIONS) > 0:
        blocks.append(f"The comparisons of {more} more tasks and systems are in comparisons.csv.")
    for grid in content.grids:
        blocks += [formats.inline(f"## Grid: {grid.task} / {grid.system} / {grid.variant}")]
        blocks.append(formats.markdown(tables.grid_table(grid)))
    if experiment.missing:
        blocks += ["## Missing runs", _items([tables.missing_line(run) for run in experiment.missing])]
    blocks += ["## Environment", _items(_environment(content))]
    blocks.append(formats.inline(f"Made {content.generated} from {experiment.source}."))
    return "\n\n".join(filter(None, blocks)) + "\n"


def as_latex(content: Content) -> str:
    """tables.tex: the criteria, then results and comparisons of each task and system, for booktabs."""
    name = content.experiment.name
    parts = ["% needs \\usepackage{booktabs}"]

    def add(table: tables.Table, caption: str, *called: str) -> None:
        parts.append(latex.table(table.headings, table.cells, caption, "tab:" + latex.label(name, *called)))

    if content.criteria:
        add(tables.criteria_table(content.criteria), content.sentence, "criteria")
    if len(content.sections) > _MOST_SECTIONS:
        parts.append(f"% the first {_MOST_SECTIONS} of {len(content.sections)} tasks and systems")
    for place, section in enumerate(content.sections[:_MOST_SECTIONS], start=1):
        where = f"{section.task}, {section.system}"
        add(tables.result_table(section), f"Results: {where}", "results", str(place))
        comparison = tables.comparison_table(section)
        if comparison.cells:
            add(comparison, f"Against {section.baseline}: {where}", "comparisons", str(place))
    return "\n".join(parts)


def _environment(content: Content) -> list[str]:
    return [f"{key}: {', '.join(map(str, values))}" for key, values in content.experiment.environment.items()]


def _items(lines: list[str]) -> str:
    return "\n".join(f"- {formats.line(line)}" for line in lines)
