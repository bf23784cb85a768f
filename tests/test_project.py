"""The project itself: what is packaged, what its pages point to, what make says."""

import importlib.util
import re
import runpy
import subprocess
import sysconfig
import tomllib
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest
import setuptools
import yaml

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
    text = (ROOT / "README.md").read_text().partition("## Map")[2]
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
    extras = [extra for extra in project["optional-dependencies"] if extra != "all"]
    wanted = [
        *project["dependencies"],
        *(name for extra in extras for name in project["optional-dependencies"][extra]),
    ]
    assert {re.split(r"[<>=]", name)[0].lower() for name in wanted} - {"pmexp[all]"} <= pinned


@pytest.fixture
def distribution(monkeypatch: pytest.MonkeyPatch) -> setuptools.Distribution:
    """What setup.py gives to setuptools."""
    given: list[setuptools.Distribution] = []
    monkeypatch.setattr(setuptools, "setup", lambda **what: given.append(setuptools.Distribution(what)))
    monkeypatch.chdir(ROOT)
    runpy.run_path("setup.py")
    return given[0]


def test_one_wheel_serves_every_python(distribution: setuptools.Distribution) -> None:
    wheel = distribution.get_command_obj("bdist_wheel")
    wheel.ensure_finalized()
    assert wheel.get_tag()[:2] == ("py3", "none")
    assert wheel.get_tag()[2].startswith(sysconfig.get_platform().split("-")[0])
    build = distribution.get_command_obj("build_ext")
    assert build.get_ext_filename("pmexp.packed_dropout.cpu._core") == "pmexp/packed_dropout/cpu/_core.so"
    assert ".so" in EXTENSION_SUFFIXES  # where Python looks for it


def test_the_core_that_runs_is_the_one_of_any_python() -> None:
    assert importlib.util.find_spec("pmexp.packed_dropout.cpu._core").origin.endswith("/_core.so")


def test_a_package_index_shows_no_link_that_leads_nowhere(distribution: setuptools.Distribution) -> None:
    shown = distribution.metadata.long_description
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "![" not in shown
    assert all(target.startswith("http") for target in re.findall(r"\]\(([^)]+)", shown))
    lines = [line for line in readme.splitlines() if "](" not in line]
    assert set(lines) <= set(shown.splitlines())
    assert "docs/cluster.md" in shown


def test_the_version_is_said_once() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {version}" in (ROOT / "CHANGELOG.md").read_text()


def rows_of(page: str) -> list[list[str]]:
    """The cells of each row of a page's tables."""
    lines = (ROOT / "docs" / page).read_text(encoding="utf-8").splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]


SIMULATED = {  # the task as pages of results name it, its tokens, and the arms
    "tinybert-mrpc": ("TinyBERT on MRPC, batch 32", "128", ("baseline", "pm-drop")),
    "bert-base-sst2": ("BERT-Base on SST-2, batch 32", "128", ("baseline", "pm-drop")),
    "bert-large-wikitext103": ("BERT-Large on WikiText-103, batch 32", "512", ("baseline", "pm-drop")),
    "longformer-listops": ("Longformer on ListOps, 4 x 2", "16384", ("baseline-zero2", "pm-drop-zero2")),
    "vit-imagenet": ("ViT-B/16 on ImageNet, 4 x 64", "", ("baseline-zero2", "pm-drop-zero2")),
}


def test_the_sizes_for_a_cluster_are_those_of_the_results() -> None:
    peaks = {tuple(row[:3]): row[3] for number in (1, 2) for row in rows_of(f"results/fit-exp-{number}.md")}
    costs = {row[0].split("/")[0]: row for row in rows_of("results/cost-exp-1.md")}
    sizes = {row[0].strip("`"): row for row in rows_of("cluster.md")}
    for task, (name, tokens, arms) in SIMULATED.items():
        _, _, peak, steps, hours, _ = sizes[task]
        assert peak == ", ".join(peaks[name, tokens, arm] for arm in arms)
        if cost := costs.get(task.rpartition("-")[0]):
            of_all, runs = float(cost[4]), int(cost[1])
            assert steps == cost[2]
            assert hours == (f"{of_all / runs:.1f}" if of_all / runs >= 0.05 else "< 0.1")


def test_containers_copy_what_the_package_is_built_of() -> None:
    docker = (ROOT / "containers" / "Dockerfile").read_text()
    apptainer = (ROOT / "containers" / "pmexp.def").read_text()
    copied = {
        name for line in re.findall(r"^COPY (.+) /opt/\S+$", docker, re.MULTILINE) for name in line.split()
    }
    assert copied == set(re.findall(r"^    (\S+) /opt/pmexp/$", apptainer, re.MULTILINE))
    assert copied == set(re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    places = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"][
        "package-dir"
    ].values()
    assert {place.partition("/")[0] for place in places} < copied
    assert all((ROOT / name).exists() for name in copied)
    install = "pip install --no-cache-dir --constraint /opt/pmexp/constraints.txt '/opt/pmexp[all]'"
    native = "/opt/pmexp/native"  # whoever runs the image may write neither there nor, perhaps, at home
    build = "python -m pmexp.packed_dropout\n"
    assert install in docker and install in apptainer and build in docker
    assert docker.index(f"\nENV PMEXP_NATIVE_FOLDER={native}\n") < docker.index(build)
    assert f"PMEXP_NATIVE_FOLDER={native} {build}" in apptainer
    assert f"export PMEXP_NATIVE_FOLDER={native}\n" in apptainer


def test_a_public_host_runs_what_ci_runs() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    assert ".ci/run" in [step.get("run") for step in jobs["all"]["steps"]]
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    pythons = {line.rpartition(" ")[2] for line in classifiers if re.search(r":: 3\.\d+$", line)}
    assert set(jobs["method"]["strategy"]["matrix"]["python"]) == pythons
    tests = [
        word
        for step in jobs["method"]["steps"]
        for word in step.get("run", "").split()
        if word.startswith("tests/")
    ]
    assert tests and all((ROOT / test).is_file() for test in tests)


def test_hooks_are_what_make_check_runs() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"  # nothing is fetched
    recipe = (ROOT / "Makefile").read_text().partition("\ncheck:")[2].partition("\n\n")[0]
    tools = re.findall(r"\$\(VENV\)/bin/([\w-]+)(?: (check|format))?", recipe)
    assert [
        tuple(hook["entry"].removeprefix(".venv/bin/").split()[: 1 + bool(word)])
        for hook, (_, word) in zip(repository["hooks"], tools, strict=True)
    ] == [tuple(filter(None, tool)) for tool in tools]
