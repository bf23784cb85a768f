"""The tables of a paper: one of at most seven columns for its body, and long tables for its appendix.

Both are as wide as a line and no wider; see latex_tables.py.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate

from pmexp.shown import counted
from pmexp_analysis.numbers.cells import NOTHING
from pmexp_analysis.numbers.scores import label_of
from pmexp_analysis.numbers.sections import Section
from pmexp_analysis.pages import latex, latex_tables, tables
from pmexp_analysis.pages.content import Content
from pmexp_analysis.pages.latex_tables import NEEDS, Line
from pmexp_analysis.pages.tables import Table

_MOST_SECTIONS, _MOST_LINES = 40, 36  # in the appendix; on a page
_LETTERS = 12  # so many of a name fit a line of its column
_MEMORY = ("memory/saved_bytes", "memory/peak_tensor_bytes", "memory/peak_bytes")
_HEADINGS = {
    "memory/mask_bytes_per_element": "mask [bytes/element]",
    "memory/saved_bytes": "saved for backward [MiB]",
    "memory/peak_tensor_bytes": "peak tensor memory [MiB]",
    "memory/peak_bytes": "peak of the process [MiB]",
    "speed/samples_per_s": "throughput [samples/s]",
    "speed/tokens_per_s": "throughput [tokens/s]",
}


def main_table(content: Content) -> str:
    """tables.tex: score, memory and throughput of every variant, or of method and baseline where all are
    more than a page holds; the best mean of a column is bold where it is significant."""
    protocol, parts = content.experiment.protocol, content.sections
    variants, shown = content.variants, parts
    if sum(_heights(parts, variants)) > _MOST_LINES:
        variants = [variant for variant in variants if variant in (protocol.baseline, protocol.method)]
        up_to = accumulate(_heights(parts, variants))
        shown = parts[: max(1, sum(height <= _MOST_LINES for height in up_to))]
    metrics = _metrics(parts)
    headings, lines = _of_metrics(shown, variants, metrics)
    while not latex_tables.fits(headings, lines):  # as powers of ten in every column are too wide
        metrics.remove(next(metric for metric in (*reversed(_MEMORY), *metrics) if metric in metrics))
        headings, lines = _of_metrics(shown, variants, metrics)
    caption = (
        f"{content.experiment.name}: mean and standard deviation over n seeds. Bold: the best mean of its "
        f"column, if it differs significantly from {protocol.baseline} (paired t-test, Holm, 5 %)."
    )
    if len(shown) < len(parts):
        caption += f" The appendix has {counted(len(parts) - len(shown), 'more task')}."
    name = "tab:" + latex.label(content.experiment.name, "main")
    return NEEDS + latex_tables.table(headings, lines, caption, name)


def _of_metrics(
    parts: Sequence[Section], variants: Sequence[str], metrics: Sequence[str]
) -> tuple[list[str], list[Line | str]]:
    """Headings and lines of the main table, with these metrics beside the score."""
    lines: list[Line | str] = []
    for part in parts:
        own = [part.scores[0] if part.scores else "", *metrics]
        scored = f": {label_of(own[0])}" if own[0] else ""
        lines.append(f"{part.task}, {part.system}{scored}")
        lines += _lines(part, [variant for variant in part.variants if variant in variants], own)
    return ["variant", "n", "score", *(_HEADINGS[metric] for metric in metrics)], lines


def _heights(parts: Sequence[Section], variants: Sequence[str]) -> Iterator[int]:
    """Yields about how many lines of text these variants of each task take."""
    for part in parts:
        names = [part.task + part.system, *filter(variants.__contains__, part.variants)]
        yield sum(1 + len(name) // _LETTERS for name in names)


def _metrics(parts: Sequence[Section]) -> list[str]:
    """The columns beside the score: masks, at most two of memory, throughput, as far as recorded."""
    known = {metric for part in parts for metric in part.metrics}
    throughput = [part.throughput for part in parts if part.throughput in known][:1]
    memory = [metric for metric in _MEMORY if metric in known][:2]
    return [m for m in ("memory/mask_bytes_per_element",) if m in known] + memory + throughput


def _lines(part: Section, variants: Sequence[str], metrics: Sequence[str]) -> Iterator[Line]:
    best = {metric: _best(part, metric) for metric in metrics}
    for variant in variants:
        rows = [part.rows.get((variant, metric)) for metric in metrics]
        n = max((row.n for row in rows if row), default=0)
        bold = frozenset(at for at, metric in enumerate(metrics, start=2) if variant in best[metric])
        yield Line([variant, str(n), *(tables.mean_over(row, n) for row in rows)], bold)


def _best(part: Section, metric: str) -> set[str]:
    """The variants with the best mean, where it is significantly better than the baseline's or, where it is
    the baseline's own, every other is significantly worse."""
    rows = {v: row for (v, m), row in part.rows.items() if m == metric and row.mean is not None}
    directions = {row.direction for row in rows.values()}
    if len(rows) < 2 or directions - {"min", "max"}:
        return set()
    sign = 1 if directions == {"min"} else -1
    means = {variant: sign * (row.mean or 0.0) for variant, row in rows.items()}
    best = {variant for variant, mean in means.items() if mean == min(means.values())}
    verdicts = {
        variant: one.verdict
        for variant in rows
        if (one := part.comparisons.get((variant, metric))) is not None
    }
    if part.baseline in best:
        return best if all(verdicts.get(v) == "worse" for v in rows if v != part.baseline) else set()
    return {variant for variant in best if verdicts.get(variant) == "better"}


def appendix(content: Content) -> str:
    """appendix.tex: the criteria with their reasons, all results, comparisons, grids and missing runs."""
    name = content.experiment.name
    parts = [NEEDS.rstrip()]

    def add(table: Table, caption: str, keys: int, *called: str) -> None:
        label = "tab:" + latex.label(name, *called)
        parts.extend(latex_tables.longtables(table.headings, table.cells, caption, label, keys))

    if content.criteria:
        judged = tables.criteria_table(content.criteria)
        add(_columns(judged, [0, 1, 2, 3, 4]), content.sentence, 1, "criteria")
        add(_columns(judged, [0, 5]), "What each result rests on", 1, "reasons")
    if len(content.sections) > _MOST_SECTIONS:
        parts.append(f"% the first {_MOST_SECTIONS} of {len(content.sections)} tasks and systems")
    for place, section in enumerate(content.sections[:_MOST_SECTIONS], start=1):
        where = f"{section.task}, {section.system}"
        add(tables.result_table(section), f"Results: {where}", 1, "results", str(place))
        comparison = tables.comparison_table(section)
        if comparison.cells:
            caption = f"Compared with {section.baseline}, over the seeds that both have: {where}"
            add(comparison, caption, 2, "comparisons", str(place))
    for place, grid in enumerate(content.grids, start=1):
        caption = f"Grid: {grid.task}, {grid.system}, {grid.variant}"
        add(tables.grid_table(grid), caption, len(grid.keys), "grid", str(place))
    missing = content.experiment.missing
    if missing:
        cells = [[m.task, m.system, m.variant, str(m.seed), m.why or NOTHING] for m in missing]
        add(Table(["task", "system", "variant", "seed", "reason"], cells), "Missing runs", 1, "missing")
    return "\n".join(parts)


def _columns(table: Table, places: Sequence[int]) -> Table:
    """The table with these columns alone."""
    cells = [[line[place] for place in places] for line in table.cells]
    return Table([table.headings[place] for place in places], cells)
