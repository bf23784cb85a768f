"""Tables as Markdown, LaTeX and CSV, and what changed between two reports."""

import copy
import csv
import io
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmexp.errors import UserError
from pmexp_analysis.numbers.cells import word
from pmexp_analysis.numbers.compare import comparisons, rows
from pmexp_analysis.pages import formats, latex, latex_tables
from pmexp_analysis.pages.changes import changes, read_report
from pmexp_analysis.pages.content import as_dict
from pmexp_analysis.pages.formats import inline, markdown, records_csv
from pmexp_analysis.pages.latex_tables import Line
from pmexp_analysis.pages.tables import Table
from pmexp_analysis.sources.folders import load_runs
from run_folders import Runs


def test_a_pipe_and_a_line_break_do_not_end_a_cell_of_markdown() -> None:
    table = Table(["metric", "value"], [["a|b", "1"], ["two\nlines", "-"]])
    lines = markdown(table).split("\n")
    assert lines == ["| metric | value |", "| --- | ---: |", r"| a\|b | 1 |", "| two lines | - |"]


def test_latex_is_escaped_ruled_and_numbered() -> None:
    cells = [["50 %", "<0.001"], ["a±2", "-1.5±0.2"]]
    text = latex_tables.table(["a & b", "x_1"], [Line(line) for line in cells], "R&D of x_1", "tab:x")
    for part in (r"\begin{table}[t]", r"\toprule", r"\midrule", r"\bottomrule", r"\label{tab:x}"):
        assert text.count(part) == 1
    assert r"\caption{R\&D of x\_\allowbreak{}1}" in text
    assert r"a \& b & x\_\allowbreak{}1 \\" in text
    assert r"50 \% & $<$\num{0.001} \\" in text and r"a$\pm$2 & \num{-1.5} $\pm$\,\num{0.2} \\" in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pm-drop", r"pm-\allowbreak{}drop"),
        ("by -0.5 (-1)", "by $-$0.5 ($-$1)"),
        ("a_b/c", r"a\_\allowbreak{}b/\allowbreak{}c"),
        ("x" * 13, r"\allowbreak{}".join("x" * 13)),
        ("1.5, x", "1.5, x"),
    ],
)
def test_a_line_is_broken_in_names_and_nowhere_in_numbers(text: str, expected: str) -> None:
    assert latex.broken(text) == expected


LATEX = {  # the letters that LaTeX would not set as they are
    **{letter: f"\\{letter}" for letter in "&%$#_{}"}, **{letter: f"${letter}$" for letter in "<>"},
    **{letter: f"{{{letter}}}" for letter in "[]*"}, "\\": r"\textbackslash{}", "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}", "|": r"\textbar{}", "'": r"\textquotesingle{}", "`": r"\textasciigrave{}",
    '"': r"{\ttfamily\char34}",
}  # fmt: skip


@pytest.mark.parametrize("code", range(32, 127))
def test_every_letter_of_ascii_is_set_as_it_is_read(code: int) -> None:
    """All of them in one table came out of pdfTeX as they went in."""
    letter = chr(code)
    if letter != " ":
        assert latex.escaped(letter) == LATEX.get(letter, letter)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a--b---c", "a-{}-b-{}-{}-c"), (",,x", ",{},x"), ("a\n\tb", "a b"), ("\x1b[0m", "U+001B{[}0m"), ("\0", ""),
        ("µ µ", r"$\mu$ $\mu$"), ("üÉñçåšž", r'\"{u}\'{E}\~{n}\c{c}\r{a}\v{s}\v{z}'), ("ßøł", r"\ss{}\o{}\l{}"),
        ("u\N{COMBINING DIAERESIS}", r'\"{u}'), ("\U0001f600", "U+1F600"), ("\u202e", "U+202E"), ("中", "U+4E2D"),
        ("≥ ≤ ±", r"$\geq$ $\leq$ $\pm$"), (r"\input{x}", r"\textbackslash{}input\{x\}"),
    ],
)  # fmt: skip
def test_other_letters_are_commands_accents_or_codes(text: str, expected: str) -> None:
    assert latex.escaped(text) == expected


@given(st.text())
def test_nothing_of_a_name_is_left_to_latex(text: str) -> None:
    said = latex.escaped(text)
    assert said.isascii() and said.isprintable()
    known = [*LATEX.values(), *latex._LETTERS.values(), "{}"]
    rest = re.sub(r"\\[`'^~=u.\"rHvc]\{[A-Za-z]\}", "", said)
    rest = re.sub("|".join(map(re.escape, sorted(known, key=len, reverse=True))), "", rest)
    assert not set(rest) & set("\\&%$#_{}~^<>|\"'`[]*")


def test_names_for_references_are_plain() -> None:
    assert latex.label("a b%{}\\", "results", "1") == "a-b--results-1"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<b>&amp;", "&lt;b>&amp;amp;"), ("a|b", r"a\|b"), ("[x](javascript:y)", r"[x\](javascript:y)"), ("*a* `b`", r"\*a\* \`b\`"),
        ("_a_ b_c", r"\_a\_ b_c"), ("$x$", r"\$x\$"), ("http://x www.x me@x", r"http\://x www\.x me\@x"), ("a\nb", "a b"),
        ("-16.1% +0.2% pm-drop", "-16.1% +0.2% pm-drop"), ("c:\\x", r"c:\\x"),
    ],
)  # fmt: skip
def test_markdown_takes_text_for_text(text: str, expected: str) -> None:
    assert inline(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# a", r"\# a"),
        ("- a", r"\- a"),
        ("1. a", r"1\. a"),
        ("> a", "&gt; a"),
        ("=a", r"\=a"),
        ("-", "-"),
        ("-5 %", "-5 %"),
    ],
)
def test_a_line_of_markdown_begins_nothing(text: str, expected: str) -> None:
    assert formats.line(text) == expected


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\t"])
def test_no_text_is_a_formula_to_a_spreadsheet(sign: str) -> None:
    record = SimpleNamespace(name=f"{sign}1+1", value=-1.5, none=None)
    (row,) = csv.DictReader(io.StringIO(records_csv([record]), newline=""))
    assert row == {"name": f"'{sign}1+1", "value": "-1.5", "none": ""}


def test_csv_comes_back_as_it_went(demo: Runs) -> None:
    experiment = load_runs(demo.root, "demo")
    for records in (rows(experiment.values), comparisons(experiment.values, experiment.protocol)):
        read = list(csv.DictReader(io.StringIO(records_csv(records))))
        assert len(read) == len(records)
        for line, record in zip(read, records, strict=True):
            told = vars(record)
            assert set(line) == set(told)
            for name, value in told.items():
                if isinstance(value, float):
                    assert float(line[name]) == value
                elif isinstance(value, str | int) or value is None:
                    assert line[name] == ("" if value is None else str(value))
    assert records_csv([]) == ""


@pytest.mark.parametrize("text", ["a,b", 'a "b"', "two\nlines", "two\rlines", "", " x "])
def test_csv_keeps_every_text(text: str) -> None:
    records = [SimpleNamespace(name=text, seeds=[1, 2], n=1), SimpleNamespace(name="b", seeds=[], n=None)]
    first, second = csv.DictReader(io.StringIO(records_csv(records), newline=""))
    assert first == {"name": text, "seeds": "1 2", "n": "1"} and second == {"name": "b", "seeds": "", "n": ""}


def test_csv_names_the_seeds_of_either_side(runs: Runs) -> None:
    runs.finished("baseline", 0, {"test/loss": 1.0})
    runs.finished('pa,ck"ed', 1, {"test/loss": 2.0}, run_id="odd")
    experiment = runs.experiment()
    (line,) = csv.DictReader(io.StringIO(records_csv(comparisons(experiment.values, experiment.protocol))))
    assert (line["variant"], line["missing_seeds"]) == ('pa,ck"ed', "variant:0 baseline:1")


# --- what changed

CRITERION = {
    "less": {"metric": "memory/saved_bytes", "statistic": "relative_change", "threshold": -0.1},
    "fast": {
        "metric": "speed/samples_per_s",
        "statistic": "mean",
        "comparison": "at_least",
        "threshold": 100,
    },
}


def report(runs: Runs) -> dict[str, Any]:
    return json.loads(json.dumps(as_dict(runs.content())))


@pytest.fixture
def old(demo: Runs) -> dict[str, Any]:
    for summary in demo.folder.glob("*/summary.json"):
        told = {**json.loads(summary.read_text()), "protocol": {"method": "packed", "criteria": CRITERION}}
        summary.write_text(json.dumps(told))
    return report(demo)


def test_nothing_changed(old: dict[str, Any]) -> None:
    assert changes(old, copy.deepcopy(old)) == []


def test_every_change_is_a_sentence(old: dict[str, Any]) -> None:
    new = copy.deepcopy(old)
    new["verdict"]["result"] = "fail"
    less, fast = new["criteria"]
    less.update(result="fail", value=-0.05, threshold=-0.2, comparison="at_least")
    new["criteria"] = [less, {**fast, "name": "quick"}]
    one = next(c for c in new["comparisons"] if c["metric"] == "test/accuracy")
    one["verdict"] = "worse"
    row = next(r for r in new["rows"] if (r["variant"], r["metric"]) == ("packed", "test/accuracy"))
    row.update(n=2, mean=0.5)
    new["missing"] = []
    gone = new["rows"].pop(0)
    sentences = changes(old, new)
    assert sentences[0] == "The verdict was pass and is fail."
    assert sentences[1:6] == [
        "quick: is new (pass).",
        "fast: is gone (it was pass).",
        "less: its threshold was -0.1, is -0.2.",
        "less: its comparison was at_most, is at_least.",
        "less: was pass and is fail (-0.4, now -0.05).",
    ]
    at = "net/digits / plain / packed / test/accuracy"
    assert f"{at}: was {word(old_verdict(old))} and is worse." in sentences
    assert f"{at}: 3 runs were counted, now 2." in sentences
    assert f"{at}: the mean was 0.9233 and is 0.5." in sentences
    assert f"net/digits / plain / {gone['variant']} / {gone['metric']}: is gone." in sentences
    assert sentences[-1] == "net/digits / plain / packed seed 3 is no longer missing."
    assert len(sentences) == 11


def old_verdict(old: dict[str, Any]) -> str:
    return next(str(c["verdict"]) for c in old["comparisons"] if c["metric"] == "test/accuracy")


def test_a_mean_that_only_rounds_differently_has_not_changed(old: dict[str, Any]) -> None:
    new = copy.deepcopy(old)
    for row in new["rows"]:
        row["mean"] *= 1 + 1e-12
    assert changes(old, new) == []


def test_a_report_from_before_the_criteria_can_be_compared(old: dict[str, Any]) -> None:
    before = {key: old[key] for key in ("rows", "comparisons", "missing")}
    assert changes(before, old) == [
        "The verdict was none and is pass.",
        "less: is new (pass).",
        "fast: is new (pass).",
    ]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"rows": 3, "comparisons": []}', "\x00"])
def test_what_is_no_report_is_refused_in_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "report.json").write_text(content)
    with pytest.raises(UserError, match=r"compare=.*report.json is no report") as refused:
        read_report(tmp_path / "report.json")
    assert "\n" not in str(refused.value)
    with pytest.raises(UserError, match=r"compare=.*none.json: No such file"):
        read_report(tmp_path / "none.json")


@pytest.mark.parametrize("damage", [{"rows": [3]}, {"comparisons": [{}]}, {"criteria": [{}]}, {"missing": 1}])
def test_a_damaged_report_is_refused_in_one_line(old: dict[str, Any], damage: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="compare: the old report is damaged"):
        changes({**old, **damage}, old)
