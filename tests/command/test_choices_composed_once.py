"""Runs that differ in values share what Hydra composed, and are what Hydra composes of all that was typed."""

from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import hydra
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import open_dict

from pmexp.command import composition, override_effect
from pmexp.command import sweep_product as sweeping
from pmexp.command.compose import compose, compose_sweep
from pmexp.command.composition import OWN, Source, ready, whole
from pmexp.command.explain import explained
from pmexp.command.overrides import parsed
from pmexp.config import parse
from pmexp.errors import UserError

VALUES = (
    "seed=3", "seed=03", "name=1e3", "train.lr=0.1", "train.lr=null", "train.lr='0.3'", "train.epochs=2", "train.select=last",
    "train.schedule=cosine", "system.deterministic=yes", "variant.p=0.2", "variant.bits=2", "dataset.max_length=64",
    "dataset.revision=12e4567", "dataset.label_column=a.b", "model.revision=main", "runs_dir=x/../y", "tracking.uri=null",
    "model.architecture.hidden_size=32", "model.architecture.hidden_size=1.5", "model.architecture.hidden_size=null",
    "robustness.ood.epochs=4", "robustness.ood.val_fraction=0.3",
)  # fmt: skip
OTHERS = (
    "model=tinybert", "dataset=mrpc", "variant=pm-drop", "system=bf16", "task=tinybert-mrpc", "task=null", "experiment=demo",
    "experiment=exp-1-sequence-length", "tracking=off", "+dataset@robustness.ood=digits", "criteria@protocol.criteria=[quality]",
    "train.batch_size=${dataset.batch_size}", "train.lr=${model.scratch_lr}", "model.positions=${dataset.max_length}",
    "robustness.ood=${dataset}", "seed=${train.log_every}", "+model.architecture.extra=1", "++model.architecture.hidden_size=64",
    "~model.architecture.hidden_size", "model.architecture={hidden_size: 48}", "train={lr: 0.5}", "train={lr: 0.1}",
    "dataset.metrics=[accuracy]", "measure.updates=[1,10]", "system.parts=[bf16]", "model.lora={rank: 4}",
)  # fmt: skip
WRONG = (
    "seed=-1", "seed=1.5", "name=''", "train.lr=abc", "train.lr=nan", "train.select=first", "system.deterministic=7",
    "dataset.epochs=null", "checkpoint.keep=0", "hidden_size=3", "train.learning_rate=3", "train.lr.x=1", "dataset.name=???",
    "robustness.ood.seed=4", "model.architecture.new=1", "model=none", "dataset.val_fraction=${nothing}", "+train.lr=0.5", "+foo=1",
    "~train.patience", "~seed", "train={lr: x}", "dataset.metrics=null", "dataset.text_columns=[a,1]", "system.parts.0=bf16",
)  # fmt: skip


def by_hydra(overrides: Sequence[str], source: Source = OWN) -> Any:
    """The run as Hydra composes it of all overrides and OmegaConf makes it."""
    typed = parsed(overrides)
    with ready(typed, source):
        config = whole(typed, source)
        parameters = sweeping.with_parameters(config.hydra.sweeper.params, typed)
        override_effect.check_pinned(config, typed, sweeping.size(parameters))
        with open_dict(config):
            del config["hydra"]
        return parse(config)


def result(compose: Any, overrides: Sequence[str], source: Source = OWN) -> Any:
    """The configuration with its types, or the error."""
    try:
        with explained():
            return repr(compose(overrides, source))  # equal numbers of two types are different here
    except UserError as error:
        return error.args


@given(
    st.lists(st.sampled_from(VALUES), max_size=4),
    st.lists(st.sampled_from(OTHERS), max_size=2),
    st.lists(st.sampled_from(WRONG), max_size=1),
    st.randoms(),
)
@settings(max_examples=10, deadline=None)
def test_a_run_is_what_hydra_composes(
    values: list[str], others: list[str], wrong: list[str], order: Random
) -> None:
    overrides = [*values, *others, *wrong]
    order.shuffle(overrides)
    expected = result(by_hydra, overrides)
    assert result(compose, overrides) == expected
    assert result(compose, overrides) == expected  # the first one has left nothing in what both share


@pytest.mark.parametrize(
    "overrides",
    [
        ("model.architecture={hidden_size: 48}", "model.architecture.hidden_size=64"),
        ("train={lr: 0.1}", "train.lr=0.1"),
        ("robustness.ood=${dataset}", "robustness.ood.max_length=64"),
        ("seed=${train.log_every}", "train.log_every=7"),
        ("+dataset@robustness.ood=digits", "robustness.ood.val_fraction=0.3"),
        (
            "experiment=exp-1-sequence-length",
            "task=tinybert-mrpc",
            "variant=baseline",
            "seed=1",
            "dataset.max_length=64",
        ),
        ("experiment=demo", "train.lr=abc"),
        ("train.lr=nan", "seed=abc", "+foo=1"),
    ],
)
def test_values_beside_others_that_concern_them(overrides: tuple[str, ...]) -> None:
    assert result(compose, overrides) == result(by_hydra, overrides)


def test_runs_that_differ_in_values_are_composed_once(compositions: list[str]) -> None:
    runs = compose_sweep(["variant=baseline,pm-drop", "seed=range(0,9)", "train.lr=0.1,0.2", "name=x"]).runs
    assert len(compositions) == 2 and len({run.run_id for run in runs}) == len(runs) == 36
    assert {(run.variant.name, run.seed, run.train.lr) for run in runs} == {
        (variant, seed, lr) for variant in ("baseline", "pm-drop") for seed in range(9) for lr in (0.1, 0.2)
    }
    runs[0].model.architecture["hidden_size"] = runs[0].train.lr = 7
    assert runs[1].model.architecture["hidden_size"] != 7  # no two share a list, a mapping or a group
    again = compose(["name=x", "seed=3"])
    assert len(compositions) == 3 and compose(["seed=4"]) != again == compose(["name=x", "seed=3"])
    assert len(compositions) == 3


def test_files_of_ones_own_are_read_again(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "seed").mkdir()  # a group of options named like a key
    (tmp_path / "seed" / "7.yaml").write_text("# @package _global_\ntrain: {epochs: 9}\n")
    source = Source(folder=tmp_path)
    for width in (32, 64):
        file = tmp_path / "model" / "mine.yaml"
        file.write_text(f"defaults: [vit-digits, _self_]\narchitecture: {{hidden_size: {width}}}\n")
        overrides = ["model=mine", "train.lr=0.1"]
        assert compose(overrides, source).model.architecture["hidden_size"] == width
        assert result(compose, overrides, source) == result(by_hydra, overrides, source)
    assert result(compose, ["+seed=7"], source) == result(by_hydra, ["+seed=7"], source)
    assert result(compose, ["seed=7"], source) == result(by_hydra, ["seed=7"], source)


@pytest.fixture
def compositions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What Hydra is asked to compose; nothing was composed before."""
    asked: list[str] = []
    of_hydra = hydra.compose

    def compose_of_hydra(name: str, **options: Any) -> Any:
        asked.append(name)
        return of_hydra(name, **options)

    composition._kept.cache_clear()
    monkeypatch.setattr(hydra, "compose", compose_of_hydra)
    return asked
