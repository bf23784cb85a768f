"""The keys of a run are flags too, for every command that takes them, beside those of Hydra."""

from pathlib import Path

import pytest

from pmexp.bench.options import COMMANDS as BENCH
from pmexp.command.compose import compose
from pmexp.command.composition import Source
from pmexp.command.flags import _parser, read
from pmexp.command.schema import key_of_flag
from pmexp.command_line import Command
from pmexp.errors import (
    UserError,
)
from pmexp.fit import command as fit
from pmexp.parity.options import COMMAND as PARITY
from pmexp.runs import command as runs
from typed_commands import train_main


@pytest.mark.parametrize(
    ("flags", "overrides"),
    [
        (["--seed", "3"], ["seed=3"]),
        (["--seed=3", "-m", "--train.lr", "1e-3"], ["seed=3", "train.lr=1e-3"]),
        (["--train.batch-size", "-4"], ["train.batch_size=-4"]),
        (["--measure.profile", "--name", "x"], ["measure.profile=true", "name=x"]),
        (["--measure.profile", "true,false", "-m"], ["measure.profile=true,false"]),
        (["-m", "--hydra/launcher", "slurm", "--hydra.launcher.dry-run"],
         ["hydra/launcher=slurm", "hydra.launcher.dry_run=true"]),
        (["--experiment", "exp-1-main-perf", "--smoke"], ["experiment=smoke/exp-1-main-perf"]),
    ],
)  # fmt: skip
def test_train_takes_flags_for_its_keys_beside_those_of_hydra(flags: list[str], overrides: list[str]) -> None:
    line = read(flags)
    assert line.overrides == overrides and line.sweeps == ("-m" in flags)
    shown = read([*(flag for flag in flags if flag != "-m"), "--cfg", "job", "--config-name", "config"])
    assert shown.overrides == overrides and shown.shows == ["--cfg=job"]


def test_no_flag_of_hydra_is_a_key() -> None:
    flags = [flag[2:] for each in _parser()._actions for flag in each.option_strings if flag.startswith("--")]
    assert "multirun" in flags and [flag for flag in flags if key_of_flag(flag)] == []


@pytest.mark.parametrize("command", [fit.COMMAND, BENCH["step"], PARITY])
def test_commands_that_take_a_runs_keys_take_them_as_flags(command: Command) -> None:
    level = [f"level={key.allowed[0]}" for key in command.keys if key.name == "level"]
    given = command.read([*level, "--train.batch-size", "8", "--measure.profile", "--seed=3"])
    assert given.others == ("train.batch_size=8", "measure.profile=true", "seed=3")


def test_one_side_of_a_certificate_takes_flags_too() -> None:
    given = PARITY.read(["--b", "baseline", "--b.train.batch-size", "8"])
    assert given["b"] == "baseline" and given.others == ("b.train.batch_size=8",)
    assert runs.RETRY.read(["demo", "--hydra.launcher.n-jobs", "4"]).others == ("hydra.launcher.n_jobs=4",)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sede", "3"], "--sede: sede is not a key; did you mean seed? --help lists the keys"),
        (["--seed", "-m"], "--seed: has no value; write seed=VALUE or leave it out"),
        (["model={a:1}"], "model.a is not a key; did you mean model."),
        (["+foo=1"], "+foo=1: foo is not a key; --help lists the keys"),
        (["~foo"], "~foo: is not there; leave it out"),
        (["name=secret", "name=b"], "name=secret and name=b are given for the same key; leave one of them out"),
        (["+password=a", "+password=b"], "+password=*** and +password=*** are given for the same key; leave"),
        (["measure.profile=2"], "measure.profile=2: 2 is no switch; write true or false"),
        (["measure={profile:0}"], "measure={profile:0}: 0 is no switch; write true or false"),
        (["measure.profile='1'"], "measure.profile='1': '1' is no switch; write true or false"),
        (["-m", "hydra/launcher=slurm", "hydra.launcher.detach=7"], "hydra.launcher.detach=7: 7 is no switch"),
    ],
)  # fmt: skip
def test_what_train_cannot_take_is_one_whole_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}") and error.count("\n") == 1


@pytest.mark.parametrize("word", ["yes", "Off", "true", "on", "no"])
def test_a_switch_takes_what_yaml_does(word: str) -> None:
    assert compose([f"measure.profile={word}"]).measure.profile is (word in ("yes", "true", "on"))


def test_a_number_is_no_switch_in_a_file_either(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("defaults: [config, _self_]\nmeasure: {profile: 2}\n")
    with pytest.raises(UserError, match=r"mine.yaml: measure.profile: 2 is no switch; write true or false"):
        compose([], Source("mine", tmp_path))
