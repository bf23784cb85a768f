"""`pmexp`: one table of subcommands, each of which is what `python -m` runs, under the name that was typed."""

import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path
from pkgutil import resolve_name

import pytest

import pmexp
from pmexp.cli.main import main
from pmexp.cli.offer import commands_of
from pmexp.cli.subcommands import SUBCOMMANDS, Subcommand

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _own_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["pmexp"])


def ended(*arguments: str) -> int:
    """Runs `pmexp` in this process: the code that it ends with."""
    try:
        return main(arguments)
    except SystemExit as end:
        return int(str(end.code))


def test_it_is_installed_as_pmexp() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert {name: resolve_name(place) for name, place in scripts.items()} == {"pmexp": main}


def test_help_lists_every_subcommand(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended("--help") == 0
    printed = capsys.readouterr().out
    assert ended() == 0 and capsys.readouterr().out == printed
    listed = [line.split()[0] for line in printed.splitlines() if line.startswith("  ")]
    assert listed == list(SUBCOMMANDS)


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_a_subcommand_is_the_module_that_its_keys_are_of(name: str) -> None:
    chosen = SUBCOMMANDS[name]
    assert find_spec(chosen.module)
    assert {command.module for command in commands_of(chosen)} <= {chosen.module}


@pytest.mark.parametrize("name", [name for name, chosen in SUBCOMMANDS.items() if chosen.keys])
def test_a_subcommand_speaks_of_itself_as_it_was_typed(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, SUBCOMMANDS[name].module, raising=False)  # runpy warns of a second time
    assert ended(name, "--help") == 0
    printed = capsys.readouterr().out
    typed = "pmexp train" if name == "sweep" else f"pmexp {name}"
    assert printed.startswith(typed) and f"python -m {SUBCOMMANDS[name].module}" not in printed


def test_a_subcommand_ends_with_its_own_code_and_its_own_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "pmexp.train", raising=False)
    assert ended("sweep", "seed=0,1", "variant=pm-dorp") == 2  # -m: two seeds are a sweep
    assert capsys.readouterr().err.startswith(
        "error: variant=pm-dorp: is not an option; did you mean pm-drop?"
    )


def test_a_subcommand_that_lacks_a_package_names_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lacking.py").write_text("import peft\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(SUBCOMMANDS, "lacking", Subcommand("lacking", "needs what is not there"))
    monkeypatch.setitem(sys.modules, "peft", None)
    assert ended("lacking") == 2
    assert capsys.readouterr().err == "error: peft is not installed; pip install 'pmexp[lora]' brings it\n"


def test_what_is_no_subcommand_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended("tarin") == 2
    said = "error: tarin: is not a command; did you mean train? allowed are train, sweep, runs, "
    assert capsys.readouterr().err.startswith(said)


@pytest.mark.parametrize(
    ("typed", "meant"), [("help", "--help"), ("version", "--version"), ("--Version", "--version")]
)
def test_words_for_help_and_version_lead_there(
    typed: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(typed, "train") == 2
    assert f"{typed}: is not a command; did you mean {meant}? " in capsys.readouterr().err


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    """The metadata are pyproject.toml's; `make setup` renews them where that has changed."""
    assert ended("--version") == 0
    assert capsys.readouterr().out == f"pmexp {pmexp.__version__}\n"
    assert pmexp.__version__.count(".") == 2
    with pytest.raises(AttributeError, match="has no attribute 'version'"):
        pmexp.version  # noqa: B018


def test_help_imports_no_subcommand() -> None:
    code = (
        "import sys; from pmexp.cli.main import main; code = main(['--help']);"
        "loaded = {name for name in sys.modules if name.startswith('pmexp')};"
        "assert not {'hydra', 'omegaconf', 'torch', 'yaml', 'numpy'} & set(sys.modules);"
        "assert not {'pmexp.train', 'pmexp.command', 'pmexp.config', 'pmexp.runs'} & loaded, loaded; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
