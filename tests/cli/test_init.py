"""`pmexp init`: a study of one's own that runs as it is written, is judged, and is tested by its own test."""

import json
import os
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest

from forked_python import ForkedPython
from pmexp.cli import init
from pmexp_analysis.report import main as report
from small_runs import Runs

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "own-study"
FEW_STEPS = ["train.max_steps=2", "train.evaluate_every=1.0", "tracking=off"]


def contents(files: Iterable[Path], folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in files if file.is_file()}


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study that was just written, as the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "my-study"), *sys.path])
    assert init.main(["my-study"]) == 0
    monkeypatch.chdir("my-study")
    monkeypatch.delitem(sys.modules, "paired_dropout", raising=False)
    return tmp_path / "my-study"


def test_it_writes_the_example(study: Path) -> None:
    assert contents(study.rglob("*"), study) == contents(init.study_files(), EXAMPLE) != {}


@pytest.mark.parametrize("name", ["x" * 300, "loop/x", "~nobody-at-all/x"])
def test_a_folder_that_cannot_be_is_one_line(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    code, err = init.main([f"folder={name}"]), capsys.readouterr().err
    if name.startswith("~"):  # a name as any other, where nobody is called so
        assert (code, err) == (0, "") and (tmp_path / name / "README.md").is_file()
    else:
        assert code == 2 and err.startswith("error: ") and err.count("\n") == 1


def test_the_wheel_has_every_file_of_it() -> None:
    packaging = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert packaging["package-dir"]["pmexp.own_study"] == "examples/own-study"
    packaged = {
        file for pattern in packaging["package-data"]["pmexp.own_study"] for file in EXAMPLE.glob(pattern)
    }
    packaged |= set(EXAMPLE.glob("*.py"))  # as of any package
    assert packaged == set(init.study_files())


def test_the_study_trains_its_own_dropout_and_judges_its_own_claim(study: Path, runs: Runs) -> None:
    runs.folder, runs.name = study / "runs", "own-study"
    for variant in ("paired", "baseline"):
        code, _, err = runs.train(
            "--config-dir", "conf", "experiment=own-study", f"variant={variant}", "seed=0", *FEW_STEPS
        )
        assert code == 0, err
    told = runs.summaries()["paired-s0"]
    assert told["metrics"]["memory/mask_bytes_per_element"] == 0.5
    assert told["settings"]["code.paired_dropout.PairedDropout"].startswith(
        "paired_dropout of a folder, sha256 "
    )
    assert report(["own-study", "figures=0"]) == 0
    judged = json.loads((study / "reports" / "own-study" / "report.json").read_text())["criteria"]
    assert {one["name"]: one["value"] for one in judged}["half-a-mask"] == 2.0  # two steps settle no more


def test_its_own_test_passes(study: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={study}"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    assert ForkedPython(command, env=environment).wait() == 0


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ([], "folder: is missing; write pmexp init my-study"),
        (["here"], "folder: here is there already; name a new one"),
        (["here/file"], "folder: here/file is there already; name a new one"),
        (["here/file/below"], "folder: "),
    ],
)
def test_what_cannot_be_written_is_one_line(
    typed: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "file").write_text("mine")
    assert init.main(typed) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {said}") and error.count("\n") == 1
    assert [file.name for file in tmp_path.rglob("*")] == ["here", "file"]


def test_an_empty_folder_is_taken_and_half_a_study_is_not_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert init.main([str(tmp_path / "empty")]) == 0 and (tmp_path / "empty" / "README.md").is_file()
    assert capsys.readouterr().out.endswith("  pmexp sweep --config-dir conf experiment=own-study\n")
    monkeypatch.setattr(
        init.shutil, "copyfile", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space"))
    )
    assert init.main([str(tmp_path / "full")]) == 3
    assert not (tmp_path / "full").exists()
