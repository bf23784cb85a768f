"""The project itself: what is packaged, what its pages point to, what make says."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_every_package_is_packaged() -> None:
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    there = {"pmexp.conf", "pmexp.own_study"}
    for root in ("src", "launchers", "analysis"):
        for file in (ROOT / root).rglob("__init__.py"):
            there.add(".".join(file.parent.relative_to(ROOT / root).parts))
    assert listed == there


@pytest.mark.parametrize(
    "page", sorted(ROOT.glob("*.md")) + sorted((ROOT / "docs").glob("**/*.md")), ids=lambda p: p.name
)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        assert target.startswith("http") or (page.parent / target).exists(), target


def test_the_map_of_the_readme_names_what_is_there() -> None:
    for path in re.findall(
        r"`((?:src|conf|launchers|analysis|tests)/[\w/.]*)`", (ROOT / "README.md").read_text()
    ):
        assert (ROOT / path).exists(), path


def test_the_map_of_the_readme_has_every_entry() -> None:
    text = (ROOT / "README.md").read_text().partition("## Map")[2].partition("## How to add")[0]
    for place in (ROOT / "src" / "pmexp", ROOT / "analysis" / "pmexp_analysis", ROOT / "launchers"):
        for entry in place.iterdir():
            name = f"{entry.name}/" if entry.is_dir() else entry.name
            if entry.suffix in ("", ".py") and not name.startswith("_"):
                own = place.name == "pmexp_analysis" and entry.is_file()
                assert own or re.search(rf"[`/]{re.escape(name)}`", text) or place.name == "launchers", name


def test_make_help_lists_every_target() -> None:
    text = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = re.findall(r"^\.PHONY: (.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)[0].split()
    assert re.findall(r"^  make ([\w-]+)", text, re.MULTILINE) == targets


def test_constraints_pin_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    assert {re.split(r"[<>=]", name)[0].lower() for name in wanted} <= pinned
