"""`python -m pmexp.slurm_resources` writes files that the launcher reads, and overwrites nobody's."""

import shlex
from pathlib import Path

import pytest

from hydra_plugins.pmexp_launchers.slurm_resources import PACKAGED, load
from pmexp.command.overrides import parsed
from pmexp.config import Part, SystemConfig
from pmexp.slurm_resources import main


def test_the_launcher_reads_what_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = tmp_path / "deep" / "site"
    assert main([str(site)]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith(f"hydra.launcher.resources={site}")
    assert {file.name for file in site.iterdir()} == {file.name for file in PACKAGED.glob("*.yaml")}
    for parts in ([], [Part.zero2], [Part.offload]):
        system = SystemConfig(parts=parts, processes=2 if Part.zero2 in parts else 1)
        assert load(site, system, {}) == load(PACKAGED, system, {})
    assert main([f"folder={site}"]) == 0  # again, nothing to lose


def test_what_a_site_has_adapted_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "zero2.yaml").write_text("nodes: 2\n")
    assert main([str(tmp_path)]) == 2
    assert "zero2.yaml is there with other content" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["zero2.yaml"]
    assert (tmp_path / "zero2.yaml").read_text() == "nodes: 2\n"


def test_a_folder_in_the_place_of_a_file_is_other_content(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "zero2.yaml").mkdir()
    assert main([str(tmp_path)]) == 2
    assert "zero2.yaml is there with other content" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["my site, b=c", "it's", 'a "b"', "[x]", "ü{1}"])
def test_the_next_command_can_be_pasted(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = tmp_path / name
    assert main([f"folder={site}"]) == 0
    line = capsys.readouterr().out.splitlines()[-1].partition("then: ")[2]
    *_, launcher, resources = parsed(shlex.split(line)[2:], sweep=True)
    assert (launcher.value(), resources.value()) == ("slurm", str(site))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "folder: name the folder"),
        (["{file}"], "folder: nothing can be written in {file}"),
        (["{file}/below/it"], "folder: nothing can be written in {file}/below/it"),
        (["site", "b"], "b: b is not a key"),
    ],
)
def test_wrong_input_is_one_line(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.touch()
    assert main([one.format(file=file) for one in arguments]) == 2
    err = capsys.readouterr().err
    assert said.format(file=file) in err and err.count("\n") == 1
