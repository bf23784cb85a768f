"""Dropouts and methods of somebody's own, named by import path: they run, and the record says what ran."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from own_methods import KeepsBytes, halve_saved
from pmexp.measure.saved_for_backward import SavedForBackward
from small_runs import TINY_BERT, TINY_VIT, Runs

SHORT = [*TINY_VIT, "train.max_steps=2", "train.select=last", "tracking=off", "dataset=digits"]


@pytest.fixture
def runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Runs:
    return Runs(tmp_path, capsys)


def trained(runs: Runs, *arguments: str) -> dict[str, Any]:
    code, _, err = runs.train(*SHORT, *arguments)
    assert code == 0, err
    (summary,) = (each for name, each in runs.summaries().items() if not name.startswith("baseline"))
    return summary


def weights(runs: Runs) -> list[str]:
    return [summary["outcome"]["weights_sha256"] for summary in runs.summaries().values()]


def test_own_dropout_runs_with_its_options_and_is_on_record(runs: Runs) -> None:
    told = trained(runs, "variant.dropout=own_methods.KeepsBytes", "variant.options.width=4")
    assert told["labels"]["variant"] == "KeepsBytes" and told["run_id"].startswith("KeepsBytes-s0-")
    assert told["settings"]["variant.options.width"] == 4
    assert told["settings"]["code.own_methods.KeepsBytes"].startswith("own_methods of a folder, sha256 ")
    assert told["replacement"]["by"] == "KeepsBytes" and told["replacement"]["modules"]
    assert told["metrics"]["memory/mask_bytes_per_element"] == 4.0
    assert told["metrics"]["check/gradient_error"] < 1e-5


def test_a_method_changes_what_is_saved_and_the_ledger_sees_it(runs: Runs) -> None:
    assert runs.train(*SHORT, "variant=baseline")[0] == 0
    told = trained(
        runs, "variant=own", "variant.apply=own_methods.halve_saved", "variant.options={above: 64}"
    )
    before = runs.summaries()["baseline-s0"]["metrics"]["memory/saved_bytes"]
    assert told["replacement"]["method"] == {"above": 64}
    assert 0.45 * before < told["metrics"]["memory/saved_bytes"] < 0.65 * before


def test_an_optimizer_of_ones_own_takes_the_steps(runs: Runs) -> None:
    told = trained(runs, "variant=own", "variant.apply=own_methods.signed_descent")
    assert told["metrics"].get("memory/optimizer_bytes", 0) == 0


def test_parameters_that_an_optimizer_leaves_out_are_on_record(runs: Runs) -> None:
    told = trained(runs, "variant=own", "variant.apply=own_methods.matrices_alone", "train.clip_norm=null")
    assert told["environment"]["not_updated"].startswith("the optimizer leaves out ")
    assert "cls_token" in told["environment"]["not_updated"]
    assert told["settings"]["train.clip_norm"] is None


@pytest.mark.parametrize(
    ("from_step", "rates", "when"),
    [(0, {"0": 2, "0.1": 1}, "in the first step"), (1, {"0.1": 3}, "after step 2")],
)
def test_the_rates_that_ran_are_on_record_where_a_method_sets_them(
    runs: Runs, from_step: int, rates: dict[str, int], when: str, caplog: pytest.LogCaptureFixture
) -> None:
    arguments = ["variant.apply=own_methods.drops_nothing", f"variant.options.from_step={from_step}"]
    told = trained(runs, "variant=own", "variant.p=0.1", *arguments)["replacement"]
    said = f"variant.p: {when} the rate of 2 of 3 dropouts is another; 0 in place of 0.1: vit.embeddings."
    assert told["rates"] == rates and told["other_rates"].startswith(said)
    assert (said in caplog.text) == (from_step == 0)


@pytest.mark.parametrize(
    ("name", "rates", "said"),
    [
        (
            "rests",
            {"0": 2, "0.1": 1},
            "variant.p: in the first step 2 dropout modules in eval mode drop nothing: ",
        ),
        (
            "takes_dropout_out",
            {"0.1": 1},
            "variant.p: in the first step the rate of 2 of 3 dropouts is another; none, as it is taken out,",
        ),
    ],
)
def test_a_method_that_leaves_no_dropout_is_told(
    runs: Runs, name: str, rates: dict[str, int], said: str
) -> None:
    told = trained(runs, "variant=own", f"variant.apply=own_methods.{name}")
    assert told["replacement"]["rates"] == rates and told["replacement"]["other_rates"].startswith(said)
    assert "check/gradient_error" not in told["metrics"]
    assert told["environment"]["gradient_check"].startswith(
        "not checked: the dropout is torch's, and variant."
    )


def test_a_dropout_of_another_rate_than_it_was_given_is_told(runs: Runs) -> None:
    told = trained(runs, "variant.dropout=own_methods.AtItsOwnRate")["replacement"]
    assert told["rates"] == {"0.1": 1, "0.75": 2} and "0.75 in place of 0.1" in told["other_rates"]


def test_a_dropout_of_another_shape_is_one_line(runs: Runs) -> None:
    code, _, err = runs.train(*SHORT, "variant.dropout=own_methods.Widens")
    assert code == 2 and "variant.dropout: of shape (61, 67) it makes shape (2, 61, 67); return" in err


@pytest.mark.parametrize("variant", ["pm-drop", "baseline", "hidden-only", "attention-only"])
def test_rates_that_nobody_changed_are_on_record_alone(variant: str, runs: Runs) -> None:
    """They are those of two modules and of the functional dropout of attention."""
    assert runs.train(*SHORT, f"variant={variant}", "variant.p=0.2")[0] == 0
    (summary,) = runs.summaries().values()
    told = summary["replacement"]
    assert told["rates"] == {"0.2": 3} and "other_rates" not in told


def test_a_careless_method_has_on_record_what_it_does(runs: Runs, caplog: pytest.LogCaptureFixture) -> None:
    told = trained(runs, "variant=own", "variant.apply=own_methods.careless", "train.max_steps=4")[
        "environment"
    ]
    assert told["unscheduled"].startswith(
        "variant.apply: SGD inside of Wraps does not follow the schedule: its"
    )
    assert told["changed_in_evaluation"].startswith("the first evaluation changes 1 weight of the model: ")
    assert told["unscheduled"] in caplog.text and told["changed_in_evaluation"] in caplog.text
    assert "reseeded" not in told and "masks_in_graphs" not in told


def test_a_loss_of_ones_own_that_is_the_same_trains_the_same(runs: Runs) -> None:
    assert runs.train(*SHORT, "variant=baseline")[0] == 0
    trained(runs, "variant=own", "variant.apply=own_methods.own_loss")
    assert len(weights(runs)) == 2 and len(set(weights(runs))) == 1


LOADED = ["dataset.loader=own_methods.load_stripes", "dataset.options.samples=40", "dataset.name=stripes"]


def test_a_dataset_of_ones_own_loader_is_on_record_with_its_digest(runs: Runs) -> None:
    told = trained(runs, "variant=pm-drop", *LOADED, "train.batch_size=20")
    assert told["environment"]["data"] == "own_methods.load_stripes"
    assert told["environment"]["data_digest"].startswith("sha256:")
    assert told["environment"]["data_classes"] == "0: none, 1: stripe"
    leaks = "20 of 20 samples of the {} split are in the train split too"
    assert told["environment"]["data_doubts"] == f"{leaks.format('val')}; {leaks.format('test')}"
    assert told["settings"]["dataset.options.samples"] == 40
    assert "code.own_methods.load_stripes" in told["settings"]


def test_a_system_part_of_ones_own_names_the_stack_and_has_its_record(runs: Runs) -> None:
    told = trained(runs, "variant=pm-drop", "system.own_parts=[own_methods.Counting]")
    assert told["labels"]["system"] == "Counting" and told["environment"][
        "own_methods.Counting.counted"
    ].endswith(" forwards")
    assert told["environment"]["device"] == "cpu"  # which its record names too
    assert "code.own_methods.Counting" in told["settings"]


def test_changed_code_is_another_run(runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "study"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "path", [str(here), *sys.path])
    (here / "of_a_study.py").write_text("from torch import nn\nclass Mine(nn.Dropout): pass\n")
    arguments = ["variant=own", "variant.dropout=of_a_study.Mine"]
    assert runs.train(*SHORT, *arguments)[0] == 0
    (here / "of_a_study.py").write_text("from torch import nn\nclass Mine(nn.Dropout):\n    'changed'\n")
    del sys.modules["of_a_study"]  # the next command is a process of its own
    assert runs.train(*SHORT, *arguments)[0] == 0
    assert len(runs.run_folders()) == 2
    assert runs.train(*SHORT, *arguments)[0] == 0
    assert len(runs.run_folders()) == 2


def test_a_run_that_was_begun_with_other_code_is_named(runs: Runs, caplog: pytest.LogCaptureFixture) -> None:
    arguments = [*SHORT, "variant=own", "variant.apply=own_methods.freeze_nothing"]
    assert runs.train(*arguments)[0] == 0
    (folder,) = runs.run_folders()
    (folder / "summary.json").unlink()
    told = yaml.safe_load((folder / "config.yaml").read_text())
    other = folder.with_name(f"{folder.name.rpartition('-')[0]}-000000000000")
    folder.rename(other)
    told["code"] = dict.fromkeys(told["code"], "own_methods of a folder, sha256 0 of 1 file")
    (other / "config.yaml").write_text(yaml.safe_dump(told))
    assert runs.train(*arguments)[0] == 0
    assert f"{other.name} was begun with other code and stays as it is" in caplog.text
    caplog.clear()
    assert runs.train(*arguments, "train.max_steps=3")[0] == 0
    assert "other code" not in caplog.text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["variant.dropout=packd"], "variant.dropout: 'packd' is no dropout; allowed are stock, byte_mask"),
        (["variant.dropout=no_such.Dropout"], "there is no module no_such in the working folder"),
        (["variant.dropout=own_methods.Nothing"], "own_methods has no Nothing"),
        (
            ["variant.dropout=own_methods.fails"],
            "is a function; name a class made from torch.nn.",
        ),
        (["variant.dropout=own_methods.Counting"], "is no subclass of torch.nn.Dropout; name a class"),
        (
            ["variant.dropout=own_methods.KeepsBytes", "variant.options={width: 3}"],
            "variant.dropout: own_methods.KeepsBytes: fails (KeyError: 3, at",
        ),
        (
            ["variant.dropout=own_methods.KeepsBytes", "variant.options={wide: 3}"],
            "variant.options={'wide': 3}: got an unexpected keyword argument 'wide'; it is KeepsBytes(",
        ),
        (["variant.apply=own_methods.fails"], "fails (ZeroDivisionError: nothing to divide, at"),
        (["variant.apply=own_methods.returns_text"], "returns no report ("),
        (["variant.apply=own_methods.returns_model"], "returns a Sequential; change the model in place"),
        (["variant.dropout=own_methods.OtherDrop"], "too many positional arguments; it is drop("),
        (["variant.apply=fails"], "variant.apply: 'fails' is no import path"),
        ([], "there is no code of your own to be called after; add variant.dropout=mypkg.MyDropout"),
        (
            ["variant.dropout=own_methods.KeepsBytes", "variant.apply=own_methods.fails"],
            "would share variant.options",
        ),
        (["variant.dropout=own_methods.KeepsBytes", "variant.bits=4"], "variant=KeepsBytes does not take it"),
        (["+code.x=y"], "code"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(runs: Runs, arguments: list[str], said: str) -> None:
    code, _, err = runs.train(*SHORT, "variant=own", *arguments)
    assert code == 2 and said in err and err.count("\n") == 1, err
    assert not runs.run_folders()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["dataset.loader=own_methods.load_nothing"], "returns a list; return a pmexp.datasets.base.Dataset"),
        ([*LOADED[:1], "dataset.options.rows=4"], "got an unexpected keyword argument 'rows'"),
        (["dataset.loader=own_methods.load_flat"], "its train has inputs of shape (60, 64); give a NumPy"),
        (["dataset.options.samples=4"], "dataset=digits has no loader of its own"),
        (["dataset.loader=own_methods.load_too_few_labels"], "its train has 60 inputs and 50 labels"),
        (["dataset.loader=own_methods.load_too_few_classes"], "labels int64 of 0 to 2 for 2 classes"),
        (
            ["dataset.loader=own_methods.load_short_labels"],
            "labels int32 of 0 to 1 for 2 classes; give int64",
        ),
        (
            ["dataset.loader=own_methods.load_in_lists"],
            "its train has inputs list; give a NumPy array of (samples,",
        ),
        (
            ["dataset.loader=own_methods.load_in_lists", "dataset.options.labels=true"],
            "its train has labels in a list; give a NumPy array",
        ),
        (["system.own_parts=[own_methods.KeepsBytes]"], "is no subclass of pmexp.systems.base.SystemPart"),
        (["system.own_parts=[own_methods.NoContext]"], "its forward returns a NoneType; return a context"),
        (["system.own_parts=[own_methods.FailsToPrepare]"], "FailsToPrepare: fails (RuntimeError: boom, at"),
        (["system.own_parts=[mine]"], "system.own_parts: 'mine' is no import path"),
    ],
)
def test_other_bad_input_is_one_line_too(runs: Runs, arguments: list[str], said: str) -> None:
    code, _, err = runs.train(*SHORT, "variant=pm-drop", *arguments)
    assert code == 2 and said in err and err.count("\n") == 1, err
    assert not runs.run_folders()


@pytest.mark.parametrize(("form", "said"), [("plain", "(str)"), ("arrays", "(tuple)")])
def test_texts_of_ones_own_loader_are_tuples_of_texts(runs: Runs, form: str, said: str) -> None:
    loaded = ["dataset.loader=own_methods.load_texts", f"dataset.options.form={form}"]
    code, _, err = runs.train(*TINY_BERT, "tracking=off", "variant=pm-drop", *loaded)
    assert code == 2 and f"its train has inputs whose sample 0 is no tuple of texts {said}; give a" in err, (
        err
    )
    assert err.count("\n") == 1


def test_own_code_does_not_go_by_the_name_of_a_variant(runs: Runs) -> None:
    code, _, err = runs.train(*SHORT, "variant=baseline", "variant.dropout=own_methods.KeepsBytes")
    assert code == 2 and "would be taken for variant=baseline" in err and "write variant=own" in err


def test_a_ledger_counts_the_mask_of_any_dropout_and_what_any_hook_keeps() -> None:
    model = nn.Sequential(nn.Linear(8, 8), KeepsBytes(0.5, width=2), nn.Linear(8, 8))
    x = torch.randn(4, 8)
    with SavedForBackward(model) as plain:
        model(x)
    assert (plain.mask_bytes, plain.mask_elements) == (4 * 8 * 2, 4 * 8)
    method = halve_saved(model)
    with SavedForBackward(model) as ledger, method.forward():
        model(x).sum().backward()
    of_weight = 8 * 8 * 2  # the hook keeps a half-precision copy of what torch keeps as it is
    assert ledger.total_bytes == (plain.total_bytes - plain.mask_bytes) / 2 + plain.mask_bytes + of_weight
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert "forward" in vars(KeepsBytes) and KeepsBytes.forward.__module__ == "own_methods"


def test_a_metric_of_ones_own_changes_no_other(runs: Runs) -> None:
    code, _, err = runs.train(*SHORT, "variant=pm-drop", "dataset.metrics=[own_methods.spoils,accuracy]")
    assert code == 2 and "own_methods.spoils: fails (ValueError: assignment destination is read-only" in err


def test_a_dropout_that_drops_in_evaluation_is_told(runs: Runs) -> None:
    told = trained(runs, "variant.dropout=own_methods.AlwaysDrops")
    assert "AlwaysDrops changes its input in evaluation too" in told["environment"]["evaluation"]
