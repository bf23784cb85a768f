"""Light installs: what is imported before anything is asked for is torch, or comes with the extra that is named."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from forked_python import ForkedPython
from pmexp.command_line import exit_code
from pmexp.errors import UserError
from pmexp.extras import EXTRAS, missing_named, need

ROOT = Path(__file__).parents[1]
PLACES = {"pmexp": "src", "pmexp_analysis": "analysis", "hydra_plugins": "launchers"}
DISTRIBUTIONS = {
    "hydra": "hydra-core",
    "antlr4": "hydra-core",  # which pins it
    "huggingface_hub": "transformers",  # which needs it
    "google": "wandb",  # which needs protobuf
    "yaml": "pyyaml",
    "PIL": "pillow",
    "sklearn": "scikit-learn",
    "pynvml": "nvidia-ml-py",
}
WITH_TORCH = {"torch", "filelock"}  # which torch depends on
NO_EXTRA = {"triton", "xformers"}  # which come with a torch for CUDA, or beside one
COMMANDS = {
    "pmexp.packed_dropout": (),
    "pmexp.packed_dropout.__main__": (),
    "pmexp.activation_offload": (),
    "pmexp.variants.hooks": (),
    "pmexp.variants.seeded": (),
    "pmexp.command_line": (),
    "pmexp.cli.main": (),
    "pmexp.own_code": (),
    "pmexp.api": ("train",),
    "pmexp.tracking.trackers": ("train",),
    "pmexp.train": ("train",),
    "pmexp.training.run": ("train",),
    "pmexp.data": ("train",),
    "pmexp.runs.command": ("train",),
    "pmexp.fit.command": ("train",),
    "pmexp.parity.command": ("train",),
    "pmexp.bench.command": ("train",),
    "pmexp.tracking.ui": ("train",),
    "hydra_plugins.pmexp_launchers.local": ("train",),
    "hydra_plugins.pmexp_launchers.slurm": ("train", "slurm"),
    "pmexp_analysis.report": ("report",),
    "pmexp_analysis.figures.sections": ("report",),
    "pmexp_analysis.pages.page": ("report",),
    "pmexp_analysis.sources.mlflow": ("report", "mlflow", "train"),
}


def file_of(module: str) -> Path | None:
    path = ROOT / PLACES.get(module.partition(".")[0], "nowhere") / module.replace(".", "/")
    places = (path.with_suffix(".py"), path / "__init__.py")
    return next((place for place in places if place.is_file()), None)


def executed(body: list[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
    """The import statements that are executed when a module is imported."""
    for statement in body:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            yield statement
        elif isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.unparse(statement.test):
            yield from executed(statement.orelse)
        elif not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            for name in ("body", "orelse", "finalbody", "handlers"):
                for part in getattr(statement, name, []):
                    yield from executed(part.body if isinstance(part, ast.ExceptHandler) else [part])


@cache
def imported_by(module: str) -> frozenset[str]:
    """The modules, ours and others', that a module of ours imports when it is imported."""
    file = file_of(module)
    names = {module.rpartition(".")[0]} - {""}
    for statement in executed(ast.parse(file.read_text()).body) if file else ():
        if isinstance(statement, ast.Import):
            names.update(alias.name for alias in statement.names)
        elif statement.module:
            names.add(statement.module)
            names.update(f"{statement.module}.{alias.name}" for alias in statement.names)
    return frozenset(names)


def packages_for(module: str) -> set[str]:
    """The packages of others that importing a module imports."""
    seen, waiting = set(), [module]
    packages = set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        top = name.partition(".")[0]
        if top in PLACES:
            waiting.extend(imported_by(name))
        elif top not in sys.stdlib_module_names:
            packages.add(top)
    return packages


@pytest.mark.parametrize(("module", "extras"), COMMANDS.items())
def test_importing_needs_no_more_than_the_extras(module: str, extras: tuple[str, ...]) -> None:
    assert file_of(module), module
    allowed = {"torch"}.union(*(EXTRAS[extra] for extra in extras))
    assert packages_for(module) <= allowed


def test_every_package_is_torchs_or_comes_with_an_extra() -> None:
    known = WITH_TORCH.union(NO_EXTRA, *EXTRAS.values())
    for root in PLACES.values():
        for file in (ROOT / root).rglob("*.py"):
            if "zoo" in file.parts:  # make zoo installs what it examines
                continue
            nodes = (
                node
                for node in ast.walk(ast.parse(file.read_text()))
                if isinstance(node, ast.Import | ast.ImportFrom)
            )
            for node in nodes:
                names = (
                    [alias.name for alias in node.names]
                    if isinstance(node, ast.Import)
                    else [node.module or ""]
                )
                tops = {name.partition(".")[0] for name in names} - set(PLACES) - set(sys.stdlib_module_names)
                assert tops <= known, f"{file}: {tops}"


def test_the_extras_bring_what_they_are_said_to() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert [re.split("[<>=]", one)[0] for one in project["dependencies"]] == ["torch"]
    declared = project["optional-dependencies"]
    for extra, packages in EXTRAS.items():
        listed = {re.split(r"[<>=\[]", requirement)[0] for requirement in declared[extra]}
        assert {DISTRIBUTIONS.get(package, package) for package in packages} == listed, extra
    assert declared["all"] == [f"pmexp[{','.join(EXTRAS)}]"]
    assert "pmexp[all]" in declared["dev"]


def numbers(version: str) -> tuple[int, ...]:
    """The numbers of a version, without zeros at its end."""
    parts = [int(number) for number in version.split(".")]
    while parts and not parts[-1]:
        parts.pop()
    return tuple(parts)


def pins(file: str) -> dict[str, str]:
    lines = (ROOT / file).read_text().splitlines()
    return dict(line.lower().replace("_", "-").split("==") for line in lines if "==" in line)


def test_bounds_are_the_pinned_versions_and_the_next_major() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    newest, oldest = pins("constraints.txt"), pins("constraints-oldest.txt")
    requirements = [
        *project["dependencies"],
        *(one for extra in EXTRAS for one in project["optional-dependencies"][extra]),
    ]
    for requirement in requirements:
        bounds = re.fullmatch(r"([\w-]+)>=([\d.]+),<([\d.]+)", requirement)
        assert bounds, requirement
        name, low, high = bounds.groups()
        assert numbers(low) == numbers(oldest[name]), requirement
        assert numbers(low) <= numbers(newest[name]) < numbers(high), requirement


def test_what_is_missing_is_one_line_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("peft", "deepspeed", "accelerate"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError) as one:
        need("model.lora", "peft")
    assert (
        str(one.value) == "model.lora needs peft, which is not installed; pip install 'pmexp[lora]' brings it"
    )
    with pytest.raises(
        UserError, match=r"needs deepspeed and accelerate, which are not installed; .*distributed"
    ):
        need("system.parts: zero1", "deepspeed", "accelerate")
    need("model.lora", "numpy")


def test_a_failed_import_inside_a_command_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)

    def work() -> None:
        import yaml  # noqa: F401

    assert exit_code(work) == 2
    assert capsys.readouterr().err == "error: yaml is not installed; pip install 'pmexp[train]' brings it\n"
    with pytest.raises(UserError, match="pmexp\\[report\\]"), missing_named("report"):
        work()


def test_a_module_of_no_extra_stays_a_fault() -> None:
    with pytest.raises(ModuleNotFoundError), missing_named():
        import pmexp.no_such_module  # type: ignore[import-not-found]  # noqa: F401


# Started by commands that have imported what they need, and a script that stands alone beside a report.
PROCESSES = {
    "pmexp.training.rank",
    "pmexp.bench.bare_start",
    "pmexp.bench.gpu.compile_share",
    "pmexp.bench.gpu.stage_process",
    "pmexp_analysis.pages.redraw",
}
WITH_TORCH_ALONE = {
    *("pmexp", "pmexp.packed_dropout", "pmexp.slurm_resources", "pmexp.cli.init", "pmexp.cli.completion"),
    *("pmexp.bench.gpu", "pmexp.bench.host", "pmexp.bench.kernel_code"),
}
BARE = """
import sys
for name in [name for name in sys.modules if name.partition(".")[0] in {removed!r}]:
    if not name.startswith("pmexp.packed_dropout"):  # whose operators torch takes once a process
        del sys.modules[name]
sys.modules.update(dict.fromkeys({packages!r}))
"""


def with_a_main() -> Iterator[str]:
    for top, root in PLACES.items():
        for file in sorted((ROOT / root / top).rglob("*.py")):
            module = ".".join(file.relative_to(ROOT / root).with_suffix("").parts)
            if file.name == "__main__.py" or '\nif __name__ == "__main__":' in file.read_text():
                yield module.removesuffix(".__main__")


def started_bare(folder: Path, *typed: str) -> tuple[int, str, str]:
    """Executes a module where no extra is installed. Returns its exit code, stdout and stderr."""
    packages = {package for packages in EXTRAS.values() for package in packages} - WITH_TORCH
    (folder / "sitecustomize.py").write_text(
        BARE.format(removed=packages.union(PLACES), packages=sorted(packages))
    )
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with ForkedPython([sys.executable, "-m", *typed], env=environment, text=True, **streams) as process:
        out, error = process.communicate()
    return process.returncode, out, error


def is_one_line(error: str, extra: str) -> bool:
    lacks = r"(\w+ is not installed|tracking needs mlflow, which is not installed)"
    return bool(re.fullmatch(rf"error: {lacks}; pip install 'pmexp\[{extra}\]' brings it\n", error))


@pytest.mark.parametrize("module", sorted({*with_a_main()} - PROCESSES))
def test_a_module_without_its_extra_is_one_line(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, error = started_bare(tmp_path, module, "nothing")
    if module in WITH_TORCH_ALONE:
        assert code in (0, 2) and "installed" not in error and "Traceback" not in error
        return
    extra = "report" if module.startswith("pmexp_analysis") else "train"
    assert (code, out) == (2, "")
    assert is_one_line(error, "mlflow" if module == "pmexp.tracking.ui" else extra)


@pytest.mark.parametrize(("command", "extra"), [("report", "report"), ("ui", "mlflow")])
def test_a_command_without_its_extra_is_one_line(command: str, extra: str, tmp_path: Path) -> None:
    code, out, error = started_bare(tmp_path, "pmexp", command, "nothing")
    assert (code, out) == (2, "") and is_one_line(error, extra)
