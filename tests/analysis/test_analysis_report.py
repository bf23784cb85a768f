"""The command from arguments to files."""

import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pmexp_analysis.report import main
from run_folders import Runs

ROW = {"task", "system", "variant", "metric", "unit", "direction", "n", "seeds", "mean", "std", "min", "max"}
COMPARISON = {
    "task", "system", "metric", "variant", "baseline", "n", "missing_seeds", "mean_difference",
    "relative_difference", "ci_low", "ci_high", "paired_t", "paired_p", "welch_t", "welch_p", "holm_p",
    "effect_size", "verdict", "note", "bootstrap_low", "bootstrap_high", "margin", "tost_p",
    "probability_greater", "detectable",
}  # fmt: skip


def report(runs: Runs, *options: str) -> Path:
    """Makes the report and returns its folder."""
    out = runs.root.parent / "reports"
    assert main(["demo", "--runs-dir", str(runs.root), "--out", str(out), *options]) == 0
    return out / "demo"


def strict(text: str) -> Any:
    def refuse(literal: str) -> None:
        raise AssertionError(f"{literal} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_report_json_keeps_its_contract(demo: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    demo.finished("baseline", 9, {"train/loss": None})  # diverged: its row has neither mean nor std
    folder = report(demo, "--figures", "0")
    content = strict((folder / "report.json").read_text())
    keys = {
        "name", "rows", "comparisons", "missing", "environment", "generated", "source", "question", "verdict",
        "criteria", "protocol", "grids", "limits", "warnings", "one_training",
    }  # fmt: skip
    assert set(content) == keys
    assert (content["name"], content["source"]) == ("demo", str(demo.folder))
    assert all(set(row) >= ROW for row in content["rows"])
    assert all(set(one) >= COMPARISON for one in content["comparisons"])
    assert {(row["variant"], row["metric"]) for row in content["rows"]} >= {("packed", "test/accuracy")}
    assert [set(run) for run in content["missing"]] == [
        {"task", "system", "variant", "seed", "run_id", "why", "state"} for _ in content["missing"]
    ]
    assert ("packed", 3) in {(run["variant"], run["seed"]) for run in content["missing"]}
    assert content["environment"] == {"host": ["host0", "host1"], "threads": [4]}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", content["generated"])
    printed = capsys.readouterr().out
    assert str(folder / "report.json") in printed and str(folder / "index.html") in printed
    assert "failed: MemoryError: no room" in printed


def test_of_many_tasks_figures_and_long_tables_are_made_on_demand(runs: Runs) -> None:
    for task in range(41):
        for variant in ("baseline", "packed"):
            runs.finished(variant, 0, {"test/accuracy": 0.9}, losses=[2.0, 1.0], task=f"net/data{task:02}")
    folder = report(runs)
    assert not (folder / "figures").exists()
    page = (folder / "index.html").read_text()
    assert "Figures are drawn of 0 of 41 tasks and systems; figures=N draws those of the first N." in page
    markdown = (folder / "report.md").read_text()
    assert markdown.count("### Compared with baseline") == 40 and markdown.count("## net/data") == 41
    assert "comparisons.csv has 1 more comparison of a task and a system." in markdown
    compared = (folder / "comparisons.csv").read_text()
    assert all(f"net/data{task:02}," in compared for task in range(41))


def test_a_report_without_figures_loads_no_library_of_drawing(demo: Runs) -> None:
    heavy = {"pandas", "matplotlib", "statsmodels", "mlflow", "scipy.stats"}
    code = "import sys; from pmexp_analysis.report import main; assert main(sys.argv[1:]) == 0; "
    code += f"assert not sys.modules.keys() & {heavy}, sys.modules.keys() & {heavy}"
    given = ["demo", f"runs_dir={demo.root}", f"out={demo.root.parent / 'reports'}", "figures=0"]
    subprocess.run([sys.executable, "-c", code, *given], check=True, stdout=subprocess.DEVNULL)


def test_the_page_is_one_file_with_its_figures_inside(demo: Runs) -> None:
    folder = report(demo)
    page = (folder / "index.html").read_text()
    assert "://" not in page and "<script" not in page and "<link" not in page and "@import" not in page
    images = re.findall(r'<img src="([^"]*)"', page)
    assert len(images) == page.count("<img") == len(list((folder / "figures").glob("*.png"))) > 2
    for image in images:
        kind, data = image.split(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(data).startswith(b"\x89PNG")
    assert not re.findall(r"url\(|src=(?!\"data:)|href=(?!\"#)", page)
    anchors = re.findall(r'href="#([^"]*)"', page)
    assert len(anchors) >= 4 and all(f'id="{anchor}"' in page for anchor in anchors)
    assert "packed stores 0.125 bytes of dropout mask per element versus 4 (32.0x smaller)" in page
    assert "MemoryError: no room" in page and "host0, host1" in page


def test_names_are_escaped_in_the_page(runs: Runs) -> None:
    runs.finished("baseline", 0, {"test/accuracy": 0.9}, run_id="a")
    runs.finished("<b>bold</b>", 0, {"test/accuracy": 0.9}, run_id="b")
    page = (report(runs) / "index.html").read_text()
    assert "<b>" not in page and "&lt;b&gt;bold" in page


def test_what_a_run_said_is_text_in_the_page_and_in_the_terminal(
    demo: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    failure = {"status": "failed", "error": "<script>alert(1)</script> \x1b]0;title\x07", "log": "log.txt"}
    demo.unfinished("packed", 4, failure=failure)
    page = (report(demo) / "index.html").read_text()
    assert "<script" not in page and "&lt;script&gt;alert(1)" in page
    assert "\x1b" not in page + capsys.readouterr().out


def test_a_run_without_curves_or_speed_still_has_a_page(runs: Runs) -> None:
    runs.finished("packed", 0, {"test/accuracy": 0.9}, losses=[])
    page = (report(runs) / "index.html").read_text()
    assert "<img" not in page and "no finished run of the baseline" in page


def test_another_baseline_turns_the_differences(runs: Runs) -> None:
    for seed in range(3):
        for variant, saved in (("baseline", 100), ("packed", 60)):
            runs.finished(variant, seed, {"memory/saved_bytes": saved * 2.0**20}, losses=[])

    def difference(*options: str) -> dict[str, float]:
        comparisons = strict((report(runs, *options) / "report.json").read_text())["comparisons"]
        return {
            c["variant"]: c["mean_difference"] for c in comparisons if c["metric"] == "memory/saved_bytes"
        }

    assert difference() == {"packed": -40 * 2.0**20}
    assert difference("--baseline", "packed") == {"baseline": 40 * 2.0**20}


@pytest.mark.parametrize("key", ["method", "baseline"])
def test_a_side_that_no_run_has_is_one_line(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    runs.finished("baseline", 0, {"test/accuracy": 1.0})
    runs.unfinished("packed", 0)
    typed = ["demo", f"runs_dir={runs.root}", f"out={tmp_path / 'out'}"]
    assert main([*typed, f"{key}=pakced"]) == 2
    said = f"error: {key}=pakced: no run is of it; those of demo are baseline, packed\n"
    assert capsys.readouterr().err == said and not (tmp_path / "out").exists()
    assert main([*typed, f"{key}=packed"]) == 0  # its runs are planned or under way


@pytest.mark.parametrize("why", ["unknown", "unfinished", "damaged", "no file for out"])
def test_input_that_cannot_be_used_is_one_line(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str], why: str
) -> None:
    out = tmp_path / "out"
    if why == "unfinished":
        runs.unfinished("packed", 0)
    elif why == "damaged":
        (runs.finished("packed", 0, {"test/accuracy": 1.0}) / "journal.jsonl").write_text("{}\n{}\n")
    elif why == "no file for out":
        runs.finished("packed", 0, {"test/accuracy": 1.0})
        out.write_text("a file in the way")
    assert main(["demo", "--runs-dir", str(runs.root), "--out", str(out)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    names = {
        "unknown": "'demo'",
        "unfinished": "'demo'",
        "damaged": "journal.jsonl, line 1",
        "no file for out": "out",
    }
    assert names[why] in printed.err


def test_a_failing_write_leaves_the_old_report(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    runs.finished("packed", 0, {"test/accuracy": 0.9}, losses=[])
    folder = report(runs)
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert set(before) == {
        "report.json", "index.html", "report.md", "results.csv", "comparisons.csv", "tables.tex",
        "appendix.tex", "figures.py",
    }  # fmt: skip

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "report.json")

    monkeypatch.setattr(os, "replace", full)
    runs.finished("packed", 1, {"test/accuracy": 0.8}, losses=[])
    assert main(["demo", "--runs-dir", str(runs.root), "--out", str(folder.parent)]) == 3
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_help_imports_nothing_heavy() -> None:
    heavy = python(
        "import sys, contextlib, io\n"
        "from pmexp_analysis.report import main\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()): main(['--help'])\n"
        "heavy = {'pandas', 'numpy', 'scipy', 'matplotlib', 'mlflow', 'torch', 'jinja2'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert heavy.strip() == "[]"


def test_a_report_imports_neither_torch_nor_mlflow(demo: Runs) -> None:
    arguments = ["demo", "--runs-dir", str(demo.root), "--out", str(demo.root / "reports")]
    loaded = python(
        "import sys\n"
        "from pmexp_analysis.report import main\n"
        f"assert main({arguments!r}) == 0\n"
        "print(sorted({'torch', 'mlflow', 'pandas'} & set(sys.modules)))"
    )
    assert loaded.splitlines()[-1] == "['pandas']"


def test_the_module_runs_and_survives_a_closed_pipe(demo: Runs) -> None:
    command = [sys.executable, "-m", "pmexp_analysis", "demo", "--figures", "0", "--runs-dir", str(demo.root)]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*command, "--out", str(demo.root / "out")], stdout=write, stderr=subprocess.PIPE, text=True
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")
    assert (demo.root / "out" / "demo" / "index.html").is_file()
