"""`python -m pmexp.train` up to the run, for tests of what is typed."""

import logging
import sys
from pathlib import Path

import pytest

from hydra_plugins.pmexp_launchers.sweep_launcher import SweepLauncher
from pmexp import train
from pmexp.config import RunConfig
from pmexp.training import run as experiment
from typed_commands import Command


@pytest.fixture
def nothing_is_executed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes execution away from runs and sweeps: only what comes before is tested here."""

    def execute(run: RunConfig) -> None:
        pass

    def sweep(launcher: SweepLauncher, runs: list[RunConfig]) -> None:
        launcher.check()

    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # Hydra shows what it is asked for by a logger
    monkeypatch.setattr(logging.getLogger(), "level", logging.WARNING)
    monkeypatch.setattr(experiment, "run", execute)
    monkeypatch.setattr(train, "result_line", lambda config: "")  # No run leaves one.
    monkeypatch.setattr(SweepLauncher, "sweep", sweep)


@pytest.fixture
def command(
    nothing_is_executed: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Command:
    """`python -m pmexp.train` up to the run, in an empty folder that has to stay so: (exit code, stdout, stderr)."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def train_on(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["train", *words])
        code = train.main()
        assert not list(folder.iterdir())
        return code, *capsys.readouterr()

    return train_on
