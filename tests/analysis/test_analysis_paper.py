"""The tables of a paper: pdfTeX sets them on the line of `article` and on that of NeurIPS, and no box sticks out.

The style file of NeurIPS cannot be had here; its text block is built of what it states: 5.5 by 9 in, 10 pt Times.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from pmexp_analysis.pages.paper import appendix, main_table
from run_folders import Runs

INSTALL = (
    "apt-get install -y --no-install-recommends texlive-latex-base texlive-latex-recommended texlive-science"
)
NASTY = r"näme_with~all%of&them#{and}$more^than\one-" + "verylongwordwithoutanybreak" + "-中\U0001f600"
SIGNIFICANT = {"mask": "memory/mask_bytes_per_element", "saved": "memory/saved_bytes"}


def criterion(claim: str, **more: object) -> dict[str, object]:
    known = {"metric": "speed/samples_per_s", "statistic": "relative_change", "comparison": "no_worse"}
    return {"claim": claim, **known, "threshold": 0.02, **more}


def like_the_demo(runs: Runs) -> None:
    protocol = {"method": "packed", "criteria": {"throughput": criterion("throughput is at most 2 % lower")}}
    for seed in range(5):
        for place, (variant, mask) in enumerate((("baseline", 4.0), ("packed", 0.125), ("4bit", 0.5))):
            finals = {
                "test/accuracy": 0.9 + seed / 100 + place * (seed % 2) / 360,
                "train/loss": 0.5,
                "memory/mask_bytes_per_element": mask,
                "memory/saved_bytes": (100.0 + 3 * mask) * 2**20,
                "memory/peak_tensor_bytes": 120.0 * 2**20,
                "memory/peak_bytes": 527e6 + 1e5 * seed,
                "speed/step_ms": 29.7 + seed - place,
                "speed/samples_per_s": 1096.0 + 31 * seed - place * seed,
            }
            runs.finished(variant, seed, finals, protocol=protocol)


def with_long_names(runs: Runs) -> None:
    """Twelve variants, eight tasks, sixteen criteria, names with every letter that means something to TeX."""
    criteria = {f"{NASTY}{k}": criterion(f"{NASTY} is at most {k} % lower " * 2) for k in range(16)}
    protocol = {"method": f"{NASTY}1", "criteria": criteria, "question": NASTY}
    for seed in range(3):
        for place in range(12):
            finals = {
                "test/accuracy": 0.123456 + seed / 7e4 * place,
                "memory/mask_bytes_per_element": 4.0 / (place + 1),
                "memory/saved_bytes": 123456789012.0 - place * seed * 1e9,
                "memory/peak_tensor_bytes": 987654321098.0 + seed * 1e8,
                "speed/samples_per_s": 123456.7 + 7 * seed * place,
                "grad/norm": 1e-7 * (seed + place),
            }
            variant = f"{NASTY}{place}" if place else "baseline"
            for task in ("a", "b"):
                where = {"task": f"{NASTY.replace('/', '')}{task}/{task}", "system": NASTY}
                if seed < 2 or place % 2:  # others lack a run
                    runs.finished(
                        variant, seed, finals, run_id=f"{task}{place}-{seed}", protocol=protocol, **where
                    )


EXPERIMENTS = {"demo": like_the_demo, "long names": with_long_names}


STYLES = {  # `article` has lines of 345 pt, NeurIPS of 397.5
    "article": "",
    "NeurIPS": r"\usepackage[letterpaper,textwidth=5.5in,textheight=9in]{geometry}\usepackage{times}",
}


def set_by_pdftex(folder: Path, style: str, *bodies: str) -> str:
    """Sets `bodies` in one of STYLES, and returns the log of pdfTeX."""
    if shutil.which("pdflatex") is None:
        pytest.skip(f"no pdflatex here; as root: {INSTALL}")
    head = r"\documentclass{article}\usepackage{array,booktabs,longtable,siunitx}"
    begin = STYLES[style] + r"\begin{document}\typeout{line \the\linewidth}" + "\n"
    (folder / "paper.tex").write_text(head + begin + "\n".join(bodies) + r"\end{document}" + "\n")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    log = (folder / "paper.log").read_text(errors="replace")
    assert done.returncode == 0, log[-3000:]
    return log


@pytest.mark.parametrize(("style", "line"), [("article", "345.0pt"), ("NeurIPS", "397.48")])
@pytest.mark.parametrize("made", EXPERIMENTS)
def test_no_box_is_overfull(runs: Runs, tmp_path: Path, made: str, style: str, line: str) -> None:
    EXPERIMENTS[made](runs)
    report = runs.content()
    log = set_by_pdftex(tmp_path, style, main_table(report), appendix(report))
    assert f"line {line}" in log
    assert (
        re.findall(r"Overfull.*|Float too large.*|LaTeX Warning: .*multiply.*|Missing character.*", log) == []
    )


@pytest.mark.parametrize("made", EXPERIMENTS)
def test_the_main_table_has_at_most_seven_columns_and_text_at_the_left(runs: Runs, made: str) -> None:
    EXPERIMENTS[made](runs)
    table = main_table(runs.content())
    (preamble,) = re.findall(r"\\begin\{tabular\}\{(.*)\}", table)
    sides = re.findall(r"\\ragged(left|right)\\arraybackslash\}p\{0\.\d+\\linewidth\}", preamble)
    assert sides[0] == "right" and set(sides[1:]) == {"left"} and 4 <= len(sides) <= 7


def test_only_a_significant_best_is_bold_and_a_minus_is_one(runs: Runs) -> None:
    like_the_demo(runs)
    table = main_table(runs.content())
    (packed,) = re.findall(r"^packed & .*$", table, re.MULTILINE)
    bold = re.findall(r"\\textbf\{([^&]*)\} &", packed)
    assert bold == ["0.125", "100.4"]  # masks and saved bytes; neither score nor peak
    assert table.count(r"\textbf") == 2
    assert r"\num{-0." in appendix(runs.content()) and r"\num{+" in appendix(runs.content())


def test_a_baseline_is_bold_where_all_others_are_worse(runs: Runs) -> None:
    runs.sample("memory/saved_bytes", baseline=[1e6] * 3, packed=[2e6] * 3, wide=[3e6] * 3)
    assert re.findall(r"^(\w+) &.*textbf", main_table(runs.content()), re.MULTILINE) == ["baseline"]


def test_a_cell_over_fewer_seeds_than_its_line_says_over_how_many(runs: Runs, tmp_path: Path) -> None:
    like_the_demo(runs)
    lacking = {"test/accuracy": 0.91, "speed/samples_per_s": float("inf")}
    runs.finished("packed", 5, lacking)
    report = runs.content()
    (packed,) = re.findall(r"^packed & .*$", main_table(report), re.MULTILINE)
    _, n, score, *others = packed.split(" & ")
    assert n == r"\num{6}" and "(n=" not in score
    assert all(re.search(r"\(n=(\\allowbreak\{\})?(\\num\{)?5\}?\)", cell) for cell in others), packed
    log = set_by_pdftex(tmp_path, "article", main_table(report), appendix(report))
    assert re.findall(r"Overfull.*", log) == []


def test_numbers_of_any_size_have_a_main_table(runs: Runs, tmp_path: Path) -> None:
    """Bytes below a billionth of a MiB are powers of ten in both columns of memory; one cell has no number."""
    for seed, size in enumerate((2.7e-10, 1.52e-09, 2.64e-09)):
        finals = {
            "test/accuracy": -0.0007801 * (seed + 1), "memory/mask_bytes_per_element": 0.0001113 + seed / 1e7,
            "memory/saved_bytes": size * 2**20, "memory/peak_bytes": -1.1 * size * 2**20,
            "speed/samples_per_s": -0.0003965 if seed else float("nan"),
        }  # fmt: skip
        runs.finished(("baseline", "4bit", "pm-drop")[seed], 0, finals)
    report = runs.content()
    assert "(n=0)" not in main_table(report) and "(n=" not in appendix(report)
    log = set_by_pdftex(tmp_path, "article", main_table(report), appendix(report))
    assert re.findall(r"Overfull.*", log) == []
