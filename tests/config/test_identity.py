"""One identity for one meaning: however it is typed it is the same run, and what means another thing is another."""

import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import hydra
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from pmexp.command.composition import introduce
from pmexp.command.schema import conf_folder
from pmexp.config import Part, RunConfig, TrackingConfig, from_dict, parse
from pmexp.errors import UserError

DIGITS: tuple[str, ...] = ()
TEXTS = ("model=tinybert", "model.pretrained=false", "dataset=mrpc")
PARSER = OverridesParser.create()


@cache
def composed(base: Sequence[str]) -> DictConfig:
    introduce()
    with hydra.initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return hydra.compose("config", overrides=list(base))


def typed(base: Sequence[str], overrides: str) -> RunConfig:
    """The run of the composed `base` with `overrides` of keys, which Hydra reads: composing takes half a second."""
    given = {each.key_or_group: each.value() for each in PARSER.parse_overrides(overrides.split())}
    return run_of(base, given)


def run_of(base: Sequence[str], given: Mapping[str, Any]) -> RunConfig:
    config = composed(tuple(base)).copy()
    for key, value in given.items():
        OmegaConf.update(config, key, value, force_add=True)
    return parse(config)


@pytest.mark.parametrize(
    "spellings",
    [
        ["system.parts=[tempo,bf16]", "system.parts=[bf16,tempo]", "system.parts=[Part.bf16,tempo]"],
        ["train.lr=0.3", "train.lr=0.30000000000000004", "train.lr=3e-1", "train.lr=.3", "train.lr='0.3'"],
        ["train.lr=1", "train.lr=1.0", "train.lr=1e0"],
        ["train.weight_decay=0", "train.weight_decay=-0.0", "train.weight_decay=0e5"],
        ["measure.updates=[1,10]", "measure.updates=[1,10,10]", "measure.updates=[10,1]"],
        ["measure.updates=[1,10,100,1000,10000]", ""],
        ["dataset.metrics=[accuracy,accuracy]", "dataset.metrics=[accuracy]", ""],
        ["seed=7", "seed=07", "seed=+7"],
        ["measure.flops=false", "measure.flops=no", "measure.flops=0"],
        ["", "train.lr=null", "train.lr=0.002", "model.lr=7"],
        ["train.lr=0.1", "model.scratch_lr=0.1", "train.lr=0.1 model.scratch_lr=0.2"],
        ["", "train.epochs=null", "train.epochs=10", "train.epochs=10 dataset.epochs=4"],
        ["train.batch_size=64", "dataset.batch_size=64"],
        ["", "variant.p=0.1", "model.hidden_dropout=0.1", "model.attention_dropout=0.1"],
        ["variant.p=0", "variant.p=0.0", "model.hidden_dropout=0 model.attention_dropout=0"],
        [
            "variant.p=0.2",
            "variant.p=0.2 model.hidden_dropout=0.5",
            "model.architecture.hidden_dropout_prob=0.2 model.architecture.attention_probs_dropout_prob=0.2",
        ],
        ["model.hidden_dropout=0", "model.architecture.hidden_dropout_prob=0"],
        ["train.select=last", "train.select=last train.patience=9", "train.select=last train.patience=null"],
        ["", "variant.where=attention", "variant.bits=4", "variant.where=hidden variant.flip_rate=0.5"],
        ["", "dataset.max_length=64", "dataset.label_column=x", "dataset.text_columns=[x]"],
        ["system.parts=[flash]", "system.parts=[flash] model.attention=sdpa"],
        ["", "model.lora.alpha=3", "model.lora.rank=null model.lora.targets=[x] model.lora.dropout=0.7"],
        ["model.lora.rank=4 model.lora.targets=[a,b]", "model.lora.rank=4 model.lora.targets=[b,a,b]"],
        [
            "model.lora.rank=4",
            "model.lora.rank=4 variant.p=0.1",
            "model.lora.rank=4 model.lora.dropout=0.3 variant.p=0.1",
        ],
    ],
    ids=lambda spellings: next(filter(None, spellings)),
)
def test_one_meaning_is_one_run(spellings: list[str]) -> None:
    runs = [typed(DIGITS, each) for each in spellings]
    assert {run.run_id for run in runs} == {runs[0].run_id}
    assert all(run.settings == runs[0].settings for run in runs)  # by which the report pairs them
    assert {run.system.name for run in runs} == {runs[0].system.name}


@pytest.mark.parametrize(
    "spellings",
    [
        ["", "dataset.revision=main", "dataset.val_fraction=0.1", "model.hub_id=other/model"],
        ["dataset.metrics=[accuracy,f1]", "dataset.metrics=[accuracy,f1,f1]"],
        ["dataset.path=/d", "dataset.path=/d dataset.hub_id=a/b", "dataset.path=/d dataset.revision=abc"],
        [
            "model.pretrained=true",
            "model.pretrained=true model.architecture.hidden_size=7",
            "model.pretrained=true model.revision=main",
        ],
        [
            "model.pretrained=true model.path=/m",
            "model.pretrained=true model.path=/m model.hub_id=a/b model.revision=c",
        ],
    ],
    ids=lambda spellings: next(filter(None, spellings)),
)
def test_one_meaning_is_one_run_of_texts(spellings: list[str]) -> None:
    assert len({typed(TEXTS, each).run_id for each in spellings}) == 1


def test_keys_of_other_kinds_of_data_make_no_other_run() -> None:
    for base, keys in (
        ("dataset=wikitext103", "dataset.val_fraction=0.3 dataset.label_column=x"),
        ("dataset=reuters-r8", "dataset.text_columns=[x] dataset.label_column=x dataset.image_column=x"),
    ):
        assert typed([*TEXTS, base], keys).run_id == typed([*TEXTS, base], "").run_id


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("dataset.metrics=[accuracy,f1]", "dataset.metrics=[f1,accuracy]"),  # the first selects the model
        ("dataset.text_columns=[a,b]", "dataset.text_columns=[b,a]"),  # a pair has a first text
        (
            "dataset.path=/d dataset.hub_config=mrpc",
            "dataset.path=/d dataset.hub_config=sst2",
        ),  # a file's name
        ("train.lr=0.3", "train.lr=0.300000000000001"),
        ("model.hidden_dropout=0.2", "variant.p=0.2"),
        ("model.hub_id=a/b model.pretrained=true", "model.hub_id=a/c model.pretrained=true"),
        (
            "model.pretrained=true model.architecture.hidden_dropout_prob=0.3",  # counts more than a checkpoint's
            "model.pretrained=true model.architecture.hidden_dropout_prob=0.1",
        ),
        ("dataset.val_fraction=0.1", "dataset.val_fraction=0.2"),
        ("train.patience=2", "train.patience=3"),
        ("train.warmup_fraction=0.2 train.schedule=constant", "train.schedule=constant"),
        ("model.attention=sdpa", "model.attention=eager"),
        ("model.lora.rank=4", ""),
        ("model.lora.rank=4", "model.lora.rank=5"),
        ("model.lora.rank=4", "model.lora.rank=4 model.lora.dropout=0.2"),
        ("model.lora.rank=4", "model.lora.rank=4 model.lora.targets=[query]"),
        (
            "model.lora.rank=4 system.parts=[bf16]",
            "model.lora.rank=4 system.parts=[bf16] model.lora.frozen_weights=bf16",
        ),
        ("variant.dropout=packed variant.where=hidden", "variant.dropout=packed"),
        ("system.device=cpu", "system.device=auto"),  # which is another device elsewhere
        ("dataset.name=other", "dataset.name=mrpc"),  # another line of the report
    ],
)
def test_another_meaning_is_another_run(one: str, other: str) -> None:
    first, second = (typed(TEXTS, each) for each in (one, other))
    assert first.run_id != second.run_id and first.settings != second.settings


@pytest.mark.parametrize(
    ("base", "run_id"),
    [
        (DIGITS, "baseline-s0-f26d6cfed28d"),
        (TEXTS, "baseline-s0-410ed081c1e6"),
        ((*TEXTS, "+dataset@robustness.ood=mrpc"), "baseline-s0-aba4d170f26d"),
        (("task=bert-large-wikitext103", "+dataset@robustness.ood=wikitext103"), "baseline-s0-fcd2749ab929"),
    ],
    ids=["digits", "texts", "ood", "language"],
)
def test_keys_that_came_later_leave_the_ids_of_before(base: Sequence[str], run_id: str) -> None:
    """These ids were taken before there were system.matmul, system.deterministic, train.evaluate_every,
    dataset.padding, keys of the texts that a model writes, and model.lora."""
    defaults = "system.matmul=highest system.deterministic=false dataset.max_target_length=null"
    if "task" not in str(base):
        defaults += " train.evaluate_every=null"
    assert typed(base, "").run_id == typed(base, defaults).run_id == run_id
    for key in ("system.matmul=high", "system.deterministic=true", "train.evaluate_every=0.5"):
        other = typed(base, key)
        assert other.run_id != run_id and other.settings != typed(base, "").settings


WRITES = ("model=t5-small", "dataset=wmt16-ro-en")


@pytest.mark.parametrize(
    ("key", "same"),
    [
        ("dataset.max_target_length=64", "dataset.max_target_length=64 dataset.generation.max_length=64"),
        ("dataset.generation.beams=1", "dataset.generation.beams=1 dataset.max_target_length=128"),
        ("dataset.source_prefix=x", "dataset.source_prefix=x dataset.generation.max_length=128"),
        ("dataset.text_columns=[en,ro]", "dataset.text_columns=[en,ro] dataset.val_fraction=0.1"),
        ("model.hidden_dropout=0.2", "variant.p=0.2"),  # T5 has one rate
    ],
)
def test_what_a_model_writes_is_part_of_the_identity_where_it_writes(key: str, same: str) -> None:
    run = typed(WRITES, key)
    assert (
        typed(WRITES, "").run_id
        != run.run_id
        == typed(WRITES, same).run_id
        == from_dict(run.to_dict()).run_id
    )
    other = typed([*TEXTS, "dataset=wikitext103"], key)
    if "generation" in key or "target" in key or "prefix" in key:
        assert other.run_id == typed([*TEXTS, "dataset=wikitext103"], "").run_id
        name = key.partition("=")[0]
        assert other.unused(name) == "dataset.objective=masked_lm writes no texts" and not run.unused(name)


@pytest.mark.parametrize(
    ("base", "key", "message"),
    [
        (
            WRITES,
            "dataset.objective=causal_lm dataset.metrics=[perplexity]",
            "causal_lm does not fit dataset.kind=translation, whose samples are for seq2seq;",
        ),
        (TEXTS, "dataset.objective=seq2seq dataset.metrics=[bleu]", "seq2seq does not fit dataset.kind=text"),
        (
            TEXTS,
            "dataset.metrics=[bleu]",
            "dataset.metrics: .'bleu'. is no list of metrics of classification",
        ),
        (
            WRITES,
            "model.attention_dropout=0.1",
            "model=t5-small has one rate for all places; set model.hidden_dropout",
        ),
        (WRITES, "system.parts=[compile]", "system.parts: compile is not for dataset.objective=seq2seq"),
        (WRITES, "dataset.generation.beams=0", "dataset.generation.beams: 0 must be at least 1"),
        (WRITES, "dataset.max_target_length=1", "dataset.max_target_length: 1 must be at least 2"),
    ],
)
def test_keys_that_do_not_go_together_are_one_line(base: Sequence[str], key: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        typed(base, key)


def test_padding_is_of_texts_with_a_label_alone() -> None:
    padded = [typed(TEXTS, f"dataset.padding={padding}").run_id for padding in ("max", "longest", "bucketed")]
    assert len(set(padded)) == 3 and padded[0] == typed(TEXTS, "").run_id
    for base in (DIGITS, [*TEXTS, "dataset=wikitext103"]):
        assert typed(base, "dataset.padding=longest").run_id == typed(base, "").run_id


def test_case_of_labels_is_of_named_classes_alone() -> None:
    assert typed(TEXTS, "dataset.case_sensitive_labels=true").run_id != typed(TEXTS, "").run_id
    for base in (DIGITS, [*TEXTS, "dataset=wikitext103"], [*TEXTS, "dataset=stsb"]):
        assert typed(base, "dataset.case_sensitive_labels=true").run_id == typed(base, "").run_id


PARTS = [Part.bf16, Part.tempo, Part.flash, Part.checkpointing, Part.offload, Part.compile]


MEANINGS = st.tuples(
    st.sets(st.sampled_from(PARTS), max_size=2),
    st.sets(st.integers(1, 9), max_size=2),  # updates
    st.integers(1, 5),  # tenths of the learning rate
    st.permutations(["accuracy", "f1"]),
    st.sampled_from(["a", "b", "a/b"]),
)
Meaning = tuple[set[Part], set[int], int, list[str], str]


def spelled(meaning: Meaning, data: st.DataObject) -> RunConfig:
    """Returns the run that is composed where `meaning` is typed in one of its many ways."""
    parts, updates, tenths, metrics, path = meaning
    for _ in range(data.draw(st.integers(0, 3))):
        path = data.draw(st.sampled_from([f"./{path}", f"x/../{path}", path.replace("/", "//"), f"{path}/"]))
    path = data.draw(st.sampled_from([path, os.path.join(os.getcwd(), path)]))
    repeated = data.draw(st.lists(st.sampled_from(metrics), max_size=2))
    given = {
        "system.parts": data.draw(st.permutations([part.name for part in parts])),
        "measure.updates": [*data.draw(st.permutations(sorted(updates))), *updates],
        "train.lr": data.draw(st.sampled_from([tenths / 10, sum([0.1] * tenths), 1 - (10 - tenths) / 10])),
        "dataset.metrics": [*metrics, *repeated],
        "dataset.path": path,
    }
    return run_of(TEXTS, given)


@settings(max_examples=15)
@given(MEANINGS, st.data())
def test_any_two_spellings_of_a_meaning_are_one_run(meaning: Meaning, data: st.DataObject) -> None:
    one, other = spelled(meaning, data), spelled(meaning, data)
    assert one.folder == other.folder == from_dict(one.to_dict()).folder


@settings(max_examples=15)
@given(MEANINGS, MEANINGS, st.data())
def test_any_two_meanings_are_two_runs(one: Meaning, other: Meaning, data: st.DataObject) -> None:
    assert (spelled(one, data).folder == spelled(other, data).folder) == (one == other)


PATHS = {
    "dataset.path": TEXTS,
    "model.path": (*TEXTS, "model.pretrained=true"),
    "robustness.ood.path": (*TEXTS, "+dataset@robustness.ood=mrpc"),
    "runs_dir": DIGITS,
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, and home, whose name has an umlaut; in it are the folder `x` and a link to it."""
    here = tmp_path / "plätze"
    (here / "x").mkdir(parents=True)
    (here / "link").symlink_to("x")
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(here))
    return here


@pytest.mark.parametrize("key", PATHS)
def test_a_folder_is_one_however_its_path_is_typed(key: str, place: Path) -> None:
    spelled = ["x", "./x", "x/", "x//", "link", "link/.", "none/../x", "~/x", str(place / "x"), "../plätze/x"]
    runs = [run_of(PATHS[key], {key: each}) for each in spelled]
    assert {run.folder for run in runs} == {runs[0].folder}
    assert {OmegaConf.select(OmegaConf.create(run.to_dict()), key) for run in runs} == {str(place / "x")}
    assert run_of(PATHS[key], {key: "y"}).folder != runs[0].folder


@pytest.mark.parametrize("key", PATHS)
def test_the_same_relative_path_in_two_folders_is_two(
    key: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"runs_dir": str(place), key: "x"}
    first = run_of(PATHS[key], given)
    monkeypatch.chdir(place / "x")
    assert run_of(PATHS[key], given).folder != first.folder


def test_a_run_that_is_read_back_keeps_its_identity_when_links_have_changed(place: Path) -> None:
    run = typed(TEXTS, "dataset.path=x runs_dir=x")
    (place / "x").rename(place / "moved")
    (place / "x").symlink_to("moved")
    assert from_dict(run.to_dict()).folder == run.folder
    assert typed(TEXTS, "dataset.path=x runs_dir=x").folder != run.folder


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            "dataset.path=/x",
            "dataset.path: /x would not be read, dataset=digits is bundled with scikit-learn",
        ),
        ("dataset.revision=abc", "dataset.revision: abc would not be read, dataset=digits is not on the hub"),
        ("dataset.hub_id=a/b", "dataset.hub_id: a/b would not be read"),
        ("model.hub_id=./x", "model.hub_id: './x' is no id such as owner/name; for a folder set model.path"),
        ("dataset.hub_id=/x", "dataset.hub_id: '/x' is no id"),
        ("model.path=/x", "model.path: /x would not be read, since model.pretrained=false"),
        ("runs_dir=", "runs_dir: '' names no folder"),
        ("dataset.path=", "dataset.path: '' names no folder"),
        ("model.revision=", "model.revision: is empty; give a value, or null for none"),
        ("tracking.uri=sqlite:///", "tracking.uri: 'sqlite:///' names no file"),
    ],
)
def test_what_would_have_no_effect_is_refused_where_it_misleads(given: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        typed(DIGITS, given)


def test_a_file_of_a_tracker_is_the_same_for_readers_in_other_folders(place: Path) -> None:
    for spelled in ("sqlite:///x/mlflow.db", "sqlite:///~/x/mlflow.db", f"sqlite:///{place}/x/mlflow.db"):
        assert TrackingConfig(uri=spelled).uri == f"sqlite:///{place}/x/mlflow.db"
    assert TrackingConfig(uri="http://host:5000").uri == "http://host:5000"
