"""What the README shows of the demo: `python -m pmexp_analysis.pages.readme` takes it from a report.

It keeps the report's JSON and one figure under docs/results/ and writes what stands in the README between two
marks. A test renders the kept JSON again and compares.
"""

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pmexp.command_line import Command, Given, Key, importing
from pmexp.errors import UserError

with importing("report"):
    from pmexp_analysis.criteria import Judged, TaskResult
    from pmexp_analysis.numbers.compare import Comparison, Row
    from pmexp_analysis.numbers.sections import sections
    from pmexp_analysis.pages import formats, tables
    from pmexp_analysis.pages.changes import read_report
    from pmexp_analysis.pages.tables import Table

COMMAND = Command(
    "pmexp_analysis.pages.readme",
    "puts the results of a report into the README",
    (Key("report", "the report's folder", "reports/demo"), Key("readme", "the page", "README.md")),
)
_BEGIN, _END = "<!-- results of the demo: make readme -->", "<!-- end of the results -->"
_FIGURE = "pareto.png"


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 done, 2 where there is no such report or no place for it."""
    return COMMAND.run(arguments, _keep)


def _keep(given: Given) -> None:
    folder, page = (Path(os.path.expanduser(given[key])) for key in ("report", "readme"))
    kept = page.parent / "docs" / "results"
    try:
        report = read_report(folder / "report.json")
        text = with_block(page.read_text(encoding="utf-8"), block(report))
        kept.mkdir(parents=True, exist_ok=True)
        for source, name in (("report.json", "demo.json"), (f"figures/{_FIGURE}", "demo.png")):
            shutil.copyfile(folder / source, kept / name)
        page.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot use {error.filename}: {error.strerror or error}") from None


def with_block(readme: str, text: str) -> str:
    """`readme` with `text` between its marks. Raises UserError where it has none."""
    before, begin, rest = readme.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise UserError(f"the README has no place for the results: it needs '{_BEGIN}' and '{_END}'")
    return f"{before}{_BEGIN}\n{text}\n{_END}{after}"


def block(report: Mapping[str, Any]) -> str:
    """Verdict, criteria, results and where they were measured, in Markdown, out of a report.json."""
    rows = [Row(**row) for row in report["rows"]]
    comparisons = [Comparison(**one) for one in report["comparisons"]]
    parts = sections(rows, comparisons, report["protocol"]["baseline"])
    judged = [
        Judged(**{**one, "parts": [TaskResult(**p) for p in one["parts"]]}) for one in report["criteria"]
    ]
    criteria = tables.criteria_table(judged)
    shown = Table(criteria.headings[:5], [cells[:5] for cells in criteria.cells])
    blocks = [
        f"> {formats.line(report['question'])}",
        f"**{formats.inline(report['verdict']['sentence'])}**",
        formats.markdown(shown),
    ]
    blocks += [formats.markdown(tables.result_table(part)) for part in parts]
    blocks.append("![memory, throughput and accuracy of the variants](docs/results/demo.png)")
    blocks.append(f"*{_where(report)}*")
    return "\n\n".join(blocks)


def _where(report: Mapping[str, Any]) -> str:
    environment = report["environment"]

    def said(key: str) -> str:
        return ", ".join(map(str, environment.get(key, ["unknown"])))

    return (
        f"{said('cpu_count')} cores of {said('cpu')}, {said('device')}, {said('precision')}, torch "
        f"{said('version_torch')}, {report['generated'][:10]}. Peak memory: {said('peak_memory_source')}."
    )


if __name__ == "__main__":
    sys.exit(main())
