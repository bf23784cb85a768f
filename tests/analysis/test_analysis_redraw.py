"""What lies beside a report for a paper: the script that draws its figures again, and the links to them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from pmexp_analysis.pages import glossary
from pmexp_analysis.pages.tables import Table
from pmexp_analysis.report import main
from run_folders import Runs


def report(runs: Runs, figures: int) -> Path:
    out = runs.root.parent / "reports"
    assert main(["demo", f"runs_dir={runs.root}", f"out={out}", f"figures={figures}"]) == 0
    return out / "demo"


def test_the_script_beside_a_report_draws_its_main_figures_again(demo: Runs) -> None:
    folder = report(demo, 0)
    known = ["matplotlib", "pandas", "numpy"]
    (folder / "sitecustomize.py").write_text(
        "import atexit, json, sys\n"
        "atexit.register(lambda: print(json.dumps(sorted(n.split('.')[0] for n in sys.modules))))\n"
    )
    done = subprocess.run(
        [sys.executable, "figures.py", "--width", "3.25"],
        cwd=folder, capture_output=True, text=True, check=True, env={"PYTHONPATH": str(folder)},
    )  # fmt: skip
    *said, loaded = done.stdout.splitlines()
    assert said == ["1-effects: net/digits / plain", "1-tradeoff: net/digits / plain"]
    assert set(known) <= set(json.loads(loaded)) and not {"pmexp", "scipy", "torch"} & set(json.loads(loaded))
    drawn = sorted(path.name for path in (folder / "redrawn").iterdir())
    endings = ("pdf", "png", "svg")
    assert drawn == [f"1-{name}.{ending}" for name in ("effects", "tradeoff") for ending in endings]
    with Image.open(folder / "redrawn" / "1-tradeoff.png") as picture:
        assert picture.width == 650  # a column


def test_markdown_shows_and_links_every_figure_and_explains_its_words(demo: Runs) -> None:
    folder = report(demo, 1)
    text = (folder / "report.md").read_text()
    shown = re.findall(r"!\[[^\]]+\]\((figures/[^)]*)\)", text)
    linked = re.findall(r"(?<!!)\[[A-Z]+\]\((figures/[^)]*)\)", text)
    files = {f"figures/{path.name}" for path in (folder / "figures").iterdir()}
    assert len(shown) >= 4 and set(linked) == files and set(shown) < files
    assert "- baseline: what everything is compared with" in text and "- oom: " not in text


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        ("", []),
        ("two Pairs of it", ["pair"]),
        ("repair", []),
        (["a d b", Table(["d"], [["oom"]])], ["d", "oom"]),
        ({"x": ("Holm p=0.1",)}, ["Holm p"]),
    ],
)
def test_the_glossary_has_the_words_that_occur(shown: object, words: list[str]) -> None:
    assert [word for word, _ in glossary.occurring(shown)] == words
