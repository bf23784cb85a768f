"""Sentences of reports and criteria in plain English: what strangers could not read does not come back."""

import io
import json
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import yaml

from pmexp.metrics.catalog import _CATALOG
from pmexp_analysis.report import main
from run_folders import demo_in

ROOT = Path(__file__).parents[2]
RIDDLES = (
    "an element", "in all on", "finitely", "less the baseline's", "less that of", "in pairs", "tells of",
    "as the tries lie", "lacks seed", "so large:", "counted in one p", "by the margin", "as they are",
    "other conditions than", "ran as", "mask bytes an", "a sample", "whose answer", "no worse end",
)  # fmt: skip


@pytest.fixture(scope="module")
def read_by_strangers(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """All that a report prints and writes and the plan as one text, and the report's folder."""
    runs = demo_in(tmp_path_factory.mktemp("strangers"))
    criteria = {
        path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / "conf/criteria").glob("*.yaml")
    }
    for summary in sorted(runs.folder.glob("*/summary.json")):
        told = yaml.safe_load(summary.read_text())
        merged = {name: one for several in criteria.values() for name, one in several.items()}
        told["protocol"] = {"method": "packed", "criteria": merged}
        summary.write_text(json.dumps(told))
    given = ["demo", f"runs_dir={runs.root}", f"out={runs.root.parent / 'reports'}", "figures=1"]
    with redirect_stdout(io.StringIO()) as printed:
        assert main(given) == 0 and main([*given, "plan=true"]) == 0
    folder = runs.root.parent / "reports" / "demo"
    files = [(folder / name).read_text() for name in ("report.md", "report.json")]
    return "\n".join([*files, printed.getvalue()]), folder


def test_no_riddle_is_in_a_report_or_its_plan(read_by_strangers: tuple[str, Path]) -> None:
    text, _ = read_by_strangers
    assert [riddle for riddle in RIDDLES if riddle in text] == []


def test_no_riddle_is_in_a_criterion_or_a_metric() -> None:
    texts = [metric.label for metric in _CATALOG]
    for path in (ROOT / "conf/criteria").glob("*.yaml"):
        assert not path.read_text().startswith("# Of ")
        texts += [one["claim"] for one in yaml.safe_load(path.read_text()).values()]
    assert len(texts) > 50
    assert [text for text in texts if any(riddle in text for riddle in RIDDLES)] == []
    assert [text for text in texts if len(text) > 110 or text != text.strip(" .")] == []


def test_what_is_open_has_one_word_on_every_page(read_by_strangers: tuple[str, Path]) -> None:
    told, folder = read_by_strangers
    names = ("report.md", "index.html", "appendix.tex", "tables.tex")
    pages = [(folder / name).read_text().replace(".inconclusive", "") for name in names]
    assert not any("inconclusive" in page.lower() for page in pages)
    assert all("not settled" in page for page in pages[:3])
    assert '"inconclusive"' in told and "not settled" in told  # report.json has the short word
