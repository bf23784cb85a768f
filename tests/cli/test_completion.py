"""Completion completes: subcommands, keys, options of groups, values of enums, flags; in a real bash too."""

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import is_dataclass
from pathlib import Path

import pytest

from pmexp.cli.completion import completions, in_place_of
from pmexp.cli.offer import Offer
from pmexp.cli.subcommands import SUBCOMMANDS
from pmexp.command.schema import keys, options, type_at
from pmexp.config import Schedule


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("pmexp ", [*SUBCOMMANDS, "--help", "--version"]),
        ("pmexp tr", ["train"]),
        ("pmexp nonsense ", []),
        ("pmexp packed-dropout ", []),
        ("pmexp train variant=", [f"variant={name}" for name in options("variant")]),
        ("pmexp sweep variant=baseline,see", ["variant=baseline,seed-only"]),
        ("pmexp train task=smoke/t5", ["task=smoke/t5-small-wmt16"]),
        ("pmexp train trai", ["train."]),
        ("pmexp train vari", ["variant.", "variant="]),
        ("pmexp train train.sche", ["train.schedule="]),
        ("pmexp fit train.schedule=", sorted(f"train.schedule={one.name}" for one in Schedule)),
        ("pmexp train variant.dropout=by", ["variant.dropout=byte_mask"]),
        ("pmexp train measure.profile=t", ["measure.profile=true"]),
        ("pmexp train system.parts=[flash,te", ["system.parts=[flash,tempo"]),
        ("pmexp train criteria@protocol.criteria=[qua", ["criteria@protocol.criteria=[quality"]),
        ("pmexp sweep hydra/launcher=", ["hydra/launcher=local", "hydra/launcher=slurm"]),
        ("pmexp sweep hydra.launcher.n_j", ["hydra.launcher.n_jobs="]),
        ("pmexp train --see", ["--seed"]),
        ("pmexp train --train.sch", ["--train.schedule"]),
        ("pmexp train --train.schedule co", ["constant", "cosine"]),
        ("pmexp train --variant=seed", ["--variant=seed-only"]),
        ("pmexp train --multi", ["--multirun"]),
        ("pmexp train --multirun vari", ["variant.", "variant="]),
        ("pmexp train --cfg ", ["all", "hydra", "job"]),
        ("pmexp train --config-dir ", []),  # the shell knows the folders
        ("pmexp train seed=", []),
        ("pmexp runs re", ["repair", "retry"]),
        ("pmexp runs retry hydra.launcher.n_", ["hydra.launcher.n_jobs="]),
        ("pmexp runs retry my train.sch", ["train.schedule="]),
        ("pmexp train hydra.launcher._", []),
        ("pmexp train tracking=[mlflow,cs", ["tracking=[mlflow,csv"]),
        ("pmexp train tracking=[mlflow,o", []),
        (
            "pmexp train tracking=[mlflow,",
            [f"tracking=[mlflow,{name}" for name in ("csv", "tensorboard", "wandb")],
        ),
        ("pmexp train tracking=o", ["tracking=off"]),
        ("pmexp sweep train.schedule=linear,l", []),
        ("pmexp runs my state=fi", ["state=finished"]),
        ("pmexp runs my state=oom,fa", ["state=oom,failed"]),
        ("pmexp runs retry my --state fi", []),
        ("pmexp runs retry my --state st", ["stale"]),
        ("pmexp runs --js", ["--json"]),
        ("pmexp runs json=", ["json=false", "json=true"]),
        ("pmexp bench level=m", ["level=memory", "level=micro"]),
        ("pmexp bench level=step agai", ["against="]),
        ("pmexp bench level=micro agai", []),
        ("pmexp parity b=seed", ["b=seed-only"]),
        ("pmexp bench level=step against=seed", ["against=seed-only"]),
        ("pmexp data listops-", ["listops-16k", "listops-32k"]),
        ("pmexp completion f", ["fish"]),
    ],
)
def test_it_knows_what_may_follow(line: str, expected: list[str]) -> None:
    assert completions(line) == expected


def test_every_key_of_a_run_is_reached_dot_by_dot() -> None:
    offer = Offer(SUBCOMMANDS["train"], [])  # its lists are made once
    for key in keys():
        typed = ""
        while not is_dataclass(type_at(key)) and "._" not in key and not typed.endswith("="):
            longer = [one for one in in_place_of(typed, offer) if f"{key}=".startswith(one) and one != typed]
            assert longer, f"{key}: nothing behind {typed!r}"
            typed = longer[0]


def test_options_of_ones_own_are_offered(tmp_path: Path) -> None:
    for name in ("variant/mine", "study"):
        file = tmp_path / f"{name}.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text("")
    for flag in (f"--config-dir {tmp_path}", f"--config-dir={tmp_path}", f"-cd {tmp_path}"):
        assert completions(f"pmexp train {flag} variant=mi") == ["variant=mine"]
        assert completions(f"pmexp parity {flag} b=mi") == ["b=mine"]
        assert completions(f"pmexp train {flag} --config-name st") == ["study"]
    assert completions("pmexp train variant=mi") == []


def test_experiments_are_offered_by_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert completions("pmexp report my") == []
    for name in ("my-study", "other"):
        run = tmp_path / "runs" / name / "0123456789ab"
        run.mkdir(parents=True)
        (run / "config.yaml").write_text("")
    assert completions("pmexp report my") == ["my-study"]
    assert completions("pmexp runs retry my") == ["my-study"]
    assert completions("pmexp runs --name ot") == ["other"]
    assert completions(f"pmexp runs runs_dir={tmp_path / 'none'} my") == []


class Bash:
    """A bash at a terminal, to be typed at."""

    def __init__(self, terminal: int) -> None:
        self._terminal = terminal

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def read_to(self, mark: str) -> str:
        """What it shows up to the mark."""
        shown, deadline = b"", time.monotonic() + 60
        while mark.encode() not in shown:
            assert time.monotonic() < deadline, shown
            if select.select([self._terminal], [], [], 1)[0]:
                shown += os.read(self._terminal, 4096)
        return shown.decode()


@contextmanager
def bash(folder: Path) -> Iterator[Bash]:
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.environ |= {"PS1": "", "TERM": "dumb", "OMP_NUM_THREADS": "1"}
        os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])
    try:
        yield Bash(terminal)
    finally:
        os.close(terminal)
        os.waitpid(pid, 0)


def test_a_real_bash_completes(tmp_path: Path) -> None:
    """What it has made of each line is written to a file, as a terminal also shows what is typed."""
    typed = {
        "pmexp repo": "pmexp report ",
        "pmexp sweep variant=baseline,see": "pmexp sweep variant=baseline,seed-only ",
        "pmexp train train.sched": "pmexp train train.schedule=",
        "pmexp data path=some": "pmexp data path=some-folder/",  # no value that we know: bash has the files
    }
    (tmp_path / "some-folder").mkdir()
    (tmp_path / "pmexp").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m pmexp "$@"\n')
    (tmp_path / "pmexp").chmod(0o755)
    with bash(tmp_path) as shell:
        shell.type('PATH=$PWD:$PATH; eval "$(pmexp completion bash)"; echo read""y\r')
        shell.read_to("ready")
        for line in typed:
            shell.type(f"{line}\t\x01echo '\x05' >> lines; echo writ\"\"ten\r")
            shell.read_to("written")
    assert (tmp_path / "lines").read_text().splitlines() == list(typed.values())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    from pmexp.cli.completion import main

    assert main([shell]) == 0
    script = capsys.readouterr().out
    assert "completion" in script and "line=" in script
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
