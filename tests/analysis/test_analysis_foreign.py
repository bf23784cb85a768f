"""A run folder of a stranger: whatever its fields hold, the report shows it as text, in every format."""

import csv
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from pmexp.runs import command
from pmexp_analysis.pages import latex
from pmexp_analysis.plots import png
from pmexp_analysis.plots.text import legend_below, named_ticks
from pmexp_analysis.report import main
from pmexp_analysis.sources.foreign import words
from run_folders import Runs

HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=y> &amp; [x](javascript:y) ![i](http://e.org/x.png) **b** _u_ `c` "
    r"~~s~~ | # $\frac{1}{$ \input{/etc/passwd} % ^ {{7*7}} [red]r[/red] :bomb: \"q\" 'a' -- ü µ 中 🦀 me@e.org www.e.org"
)
STEERING = "\x1b]0;title\x07\x9b31m\u202e\r\n\ud800"


@pytest.fixture
def foreign(demo: Runs) -> Runs:
    """The demo's runs, and those of a variant with hostile words wherever a run folder has words."""
    told = {
        "environment": {HOSTILE: HOSTILE, "host": [STEERING]},
        "tracking": {"uri": "http://me:hunter2x@127.0.0.1:9"},
    }
    protocol = {
        "question": f"# {HOSTILE}",
        "criteria": {HOSTILE: {"metric": "memory/saved_bytes", "claim": HOSTILE, "threshold": 0.1}},
    }
    for seed in range(2):
        name = HOSTILE.replace("/", "_")[:200] + str(seed)
        folder = demo.finished(
            "x", seed, {"memory/saved_bytes": 1.0, "test/accuracy": 0.5}, run_id=name, **told
        )
        summary = json.loads((folder / "summary.json").read_text())
        summary["labels"] |= {"variant": f"={HOSTILE}{STEERING}"}
        (folder / "summary.json").write_text(json.dumps(summary | {"protocol": protocol}))
        (folder / "tracking.json").write_text(json.dumps({"mlflow_run_id": '"><script>'}))
    failure = {
        "status": "failed",
        "kind": "code",
        "error": f"{HOSTILE}{STEERING} password: hunter2",
        "log": HOSTILE,
    }
    demo.unfinished("packed", 5, failure=failure)
    return demo


def report(runs: Runs) -> Path:
    """Writes the report without most figures, which take seconds, and returns its folder."""
    given = ["demo", "--runs-dir", str(runs.root), "--out", str(runs.root / "reports"), "--figures", "0"]
    assert main(given) == 0
    return runs.root / "reports" / "demo"


class Page(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [str(value) for name, value in attrs if name in ("href", "src")]
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_every_format_shows_hostile_words_as_text(foreign: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    folder = report(foreign)
    shown = f"={words(HOSTILE + STEERING)}"
    assert shown.isprintable() and shown.startswith(f"={HOSTILE}")
    out = capsys.readouterr().out
    assert "not attached in MLflow at http://me:***@127.0.0.1:9" in out and "hunter2" not in out
    assert shown in out and out.replace("\n", "").isprintable()

    page = Page((folder / "index.html").read_text())
    assert not page.tags & {"script", "iframe", "b", "red"} and shown in page.text
    assert all(
        address.startswith(("#", "data:image/png;base64,", "http://me:***@127.0.0.1:9/#/runs/"))
        for address in page.addresses
    )

    markdown = (folder / "report.md").read_text()
    tokens = MarkdownIt("commonmark", {"linkify": False}).enable(["table", "strikethrough"]).parse(markdown)
    inline = [part for token in tokens for part in token.children or []]
    assert {part.type for part in inline} <= {
        "text",
        "text_special",
        "softbreak",
        "strong_open",
        "strong_close",
    }
    assert {token.tag for token in tokens} <= {
        "h1",
        "h2",
        "h3",
        "p",
        "ul",
        "li",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "",
    }
    cells = [
        "".join(part.content for part in token.children or []) for token in tokens if token.type == "inline"
    ]
    assert (
        shown in cells
        and f"# {HOSTILE}" in cells
        and any(cell.startswith(f"{HOSTILE}: {HOSTILE}") for cell in cells)
    )

    for name in ("tables.tex", "appendix.tex"):
        tables = (folder / name).read_text()
        assert latex.broken(shown) in tables and r"\input" not in tables and tables.isascii()

    told = json.loads((folder / "report.json").read_text())
    assert shown in {row["variant"] for row in told["rows"]} and told["environment"][HOSTILE] == [HOSTILE]
    for name in ("results.csv", "comparisons.csv"):
        with (folder / name).open(newline="") as stream:
            assert f"'{shown}" in {row["variant"] for row in csv.DictReader(stream)}
    files = {file.name: file.read_text() for file in folder.iterdir() if file.is_file()}
    assert [name for name, text in files.items() if "hunter2" in text] == []


def test_names_are_drawn_as_they_are() -> None:
    """None is left out of the legend, from which matplotlib drops names that begin with an underscore."""
    names = [r"$\frac{$ _x^2", "_hidden", r"\alpha", "a&b<c>"]
    figure = Figure()
    panel = figure.add_subplot()
    named_ticks(panel.xaxis, range(len(names)), names)
    panel.set_title(names[0])
    legend_below(figure, [Patch() for _ in names], names)
    png(figure)
    (legend,) = figure.legends
    assert [text.get_text().strip() for text in legend.get_texts()] == names


def test_two_names_that_differ_in_steering_letters_alone_stay_two() -> None:
    assert words("a\x1b") != words("a\x1c") != words("a") and words("a\nb") == "a b"


def test_the_list_of_runs_shows_hostile_words_as_text(
    foreign: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["demo", "--runs-dir", str(foreign.root)]) == 0
    out = capsys.readouterr().out
    assert HOSTILE in out and "hunter2" not in out and out.replace("\n", "").isprintable()
    assert command.main(["demo", "--runs-dir", str(foreign.root), "--json"]) == 0
    said = capsys.readouterr().out
    assert said.isascii() and "hunter2" not in said
    assert any(run["error"] and run["error"].startswith(HOSTILE) for run in json.loads(said))


def test_fields_of_another_kind_cost_their_own_runs_alone(
    demo: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    damages: list[dict[str, Any]] = [{"environment": 3}, {"settings": "x"}, {"tracking": "x"}, {"labels": 1}]
    finished = sorted(demo.folder.glob("*/summary.json"))
    for file, damage in zip(finished, damages, strict=False):
        file.write_text(json.dumps(json.loads(file.read_text()) | damage))
    assert main(["demo", "--runs-dir", str(demo.root), "--out", str(demo.root)]) == 0
    said = capsys.readouterr().out
    for damage in damages:
        assert f"summary.json is damaged: {next(iter(damage))}" in said
    assert said.count("is damaged") == len(damages) < len(finished)


def test_an_error_about_foreign_names_does_not_steer_the_terminal(
    demo: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    (demo.root / "a\x1b[31m").mkdir()
    (demo.root / "a\x1b[31m" / "plan.json").write_text("[]")
    assert main(["none", "--runs-dir", str(demo.root)]) == 2
    assert command.main(["none", "--runs-dir", str(demo.root)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 2 and "\x1b" not in err
