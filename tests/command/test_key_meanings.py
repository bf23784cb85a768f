"""Every key of a run has a meaning, which --help shows behind it and in no value."""

from dataclasses import is_dataclass

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from pmexp.command.meanings import annotated, meaning
from pmexp.command.schema import keys, type_at
from typed_commands import train_main


def test_every_key_of_a_run_has_a_meaning() -> None:
    assert [
        key
        for key in keys()
        if not key.startswith("hydra.") and not is_dataclass(type_at(key)) and not meaning(key)
    ] == []


def test_help_shows_the_keys_of_the_launchers(capsys: pytest.CaptureFixture[str]) -> None:
    assert train_main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "hydra.launcher.max_retries: 2  # a run whose job or node failed is tried again so often" in lines
    shown = [line for line in lines if line.startswith("hydra.launcher.")]
    of_launchers = {key for key in keys() if key.startswith("hydra.launcher.") and "_target_" not in key}
    assert {line.partition(":")[0] for line in shown} == of_launchers
    assert all(line.partition("  # ")[2] for line in shown)
    assert sum(line.startswith("== hydra/launcher=") for line in lines) == 2


@given(st.lists(st.text(st.sampled_from("abc: -'\"#\\\u00fc"), max_size=30), max_size=12).map(" ".join))
@example("with the same dropout masks as the baseline, training is identical bit for bit, in 'every' case")
# A line of it ends with a backslash.
@example(" :::::: ::::::::' ::::::::::'' ::::::::::::::::''' :::::::::\\ :")
@example("a" * 90 + "  two: blanks #" + " b" * 60)
@settings(max_examples=50)
def test_a_meaning_stands_in_no_value(claim: str) -> None:
    """YAML folds a long text over several lines, and a comment inside it would cut it or become a part of it."""
    told = {
        "seed": 1,
        "protocol": {"criteria": {"own": {"claim": claim, "threshold": 0.5}}, "question": claim},
    }
    text = annotated(OmegaConf.to_yaml(told))
    assert yaml.safe_load(text) == told
    assert len(text.splitlines()) == 7 and all(
        "  # " in line for line in text.splitlines() if "claim:" in line
    )


def test_meanings_stand_behind_their_keys() -> None:
    text = "seed: 0\ntrain:\n  lr: null\n  schedule: linear\n  - 3\nlr: 3\n"
    assert annotated(text) == (
        f"seed: 0  # {meaning('seed')}\ntrain:\n  lr: null  # peak learning rate; null: the model's\n"
        f"  schedule: linear  # {meaning('train.schedule')}\n  - 3\nlr: 3\n"
    )
    assert meaning("train.schedule").endswith("allowed are linear, cosine, constant")
