"""A model and a metric of one's own, named by import path: they train, select and score, and are on record."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from composed import config
from own_files import write
from own_models import of_class_zero
from pmexp.command.compose import compose_run
from pmexp.config import RunConfig
from pmexp.errors import UserError
from pmexp.metrics.catalog import metric_of
from pmexp.training.loop import Training
from pmexp.training.prepared import prepare
from small_architectures import OBJECTIVES, SHORT
from small_runs import Runs

MIXER = ["model=own", "model.builder=own_models.build_mixer", "model.options.width=6", "dataset=digits"]
METRIC = "dataset.metrics=[own_models.of_class_zero,accuracy]"
FAST = ["train.max_steps=4", "train.threads=1", "train.lr=0.01", "tracking=off"]


def test_a_model_and_a_metric_of_ones_own_train_and_are_on_record(runs: Runs) -> None:
    code, _, err = runs.train(
        *MIXER, METRIC, *FAST, "variant=pm-drop", "train.evaluate_every=2", "variant.p=0.4"
    )
    assert code == 0, err
    (told,) = runs.summaries().values()
    assert told["labels"]["model"] == "build_mixer" and told["labels"]["task"] == "build_mixer/digits"
    assert told["environment"]["weights"] == "by own_models.build_mixer"
    assert told["settings"]["model.options.width"] == 6
    assert {"code.own_models.build_mixer", "code.own_models.of_class_zero"} <= set(told["settings"])
    assert told["metrics"]["memory/mask_bytes_per_element"] == 0.125
    curve = runs.curve("pm-drop-s0", "val/own_models.of_class_zero")
    assert len(curve) == 2 and told["metrics"]["val/own_models.of_class_zero"] == max(
        value for _, value in curve
    )
    assert 0 <= told["metrics"]["test/own_models.of_class_zero"] <= 1
    assert set(told["outcome"]["chance"]) == {"val/accuracy", "test/accuracy"}
    metric = metric_of("test/own_models.of_class_zero")
    assert (metric.label, metric.direction) == ("test own_models.of_class_zero", "max")


@pytest.mark.parametrize("variant", ["baseline", "pm-drop"])
@pytest.mark.parametrize("p", [0.0, 0.4])
def test_places_that_variant_p_does_not_reach_are_told(
    variant: str, p: float, runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    arguments = [*MIXER[:1], "model.builder=own_models.build_elsewhere", MIXER[-1], *FAST, f"variant.p={p}"]
    code, _, err = runs.train(*arguments, f"variant={variant}")
    assert code == 0, err
    (told,) = runs.summaries().values()
    said = (
        f"variant.p: {p:g} was chosen, and the first step drops at others too: 0.15 in attention "
        "(MultiheadAttention), 0.25 in channels (Dropout2d), 0.35 by functions; give them config.variant.p"
    )
    assert said in told["replacement"]["other_rates"] and said in caplog.text
    assert "every rate" not in str(told["replacement"])


def test_frozen_parts_that_do_not_stay_in_eval_mode_are_told(
    runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    arguments = [*MIXER[:1], "model.builder=own_models.build_on_a_frozen_body", MIXER[-1], *FAST]
    assert runs.train(*arguments, "variant=pm-drop")[0] == 0
    (told,) = runs.summaries().values()
    said = "model.builder: frozen parts that it left in eval mode are in training mode in each step: body; override"
    assert told["environment"]["woken"].startswith(said) and said in caplog.text


def test_no_other_part_is_told_of(runs: Runs, caplog: pytest.LogCaptureFixture) -> None:
    assert runs.train(*MIXER, *FAST, "variant=pm-drop")[0] == 0
    (told,) = runs.summaries().values()
    assert "woken" not in told["environment"] and "eval mode" not in caplog.text


def bag(objective: str, folder: Path, *more: str) -> RunConfig:
    overrides = ["model=own", "model.builder=own_models.build_bag", "++model.architecture.vocab_size=90"]
    run = config(*overrides, *OBJECTIVES[objective], *SHORT, "dataset.max_length=16", *more)
    run.dataset.path = str(write(folder, "jsonl"))
    return run


@pytest.mark.parametrize("objective", ["regression", "token_classification"])
def test_a_module_of_texts_gets_tokens_as_pmexps_own(objective: str, tmp_path: Path) -> None:
    training: Training = prepare(bag(objective, tmp_path, "variant=pm-drop", "variant.p=0.4")).training
    dropouts = [part for part in training.module.modules() if isinstance(part, nn.Dropout)]
    assert [part.p for part in dropouts] == [0.4] and training.replacement is not None
    assert training.replacement.modules == ["dropout"]
    before = training.evaluator.evaluate(training.val)["loss"]
    for _ in training.steps():
        pass
    assert training.evaluator.evaluate(training.val)["loss"] < before


@pytest.mark.parametrize(
    ("objective", "shape", "said"),
    [
        ("regression", 2, r"shape \(samples, 1\), here \(2, 1\)"),
        ("token_classification", 3, r"shape \(samples, positions, classes\), here \(2, \d+, 3\)"),
        ("causal_lm", 3, r"shape \(samples, positions, vocabulary\), here \(2, \d+, "),
    ],
)
def test_logits_are_those_of_the_objective(objective: str, shape: int, said: str, tmp_path: Path) -> None:
    run = bag(objective, tmp_path)
    run.model.builder, run.model.options, run.code = "own_models.build_answers", {"width": shape}, {}
    run.model.architecture["vocab_size"] = 300
    with pytest.raises(UserError, match=rf"model\.builder: .* of shape \(2, {shape}\) .* {said}"):
        prepare(run)


def test_its_options_and_its_code_are_its_identity() -> None:
    same = [config(*MIXER, *more).run_id for more in ([], ["seed=0"])]
    others = [config(*MIXER[:2], "dataset=digits").run_id, config(*MIXER, METRIC).run_id]
    assert len({*same}) == 1 and len({*same, *others}) == 3
    assert config(*MIXER).code.keys() == {"own_models.build_mixer"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["model.builder=own_models.build_nothing"], "returns an int; return a torch.nn.Module, or a pmexp"),
        (["model.builder=own_models.Nothing"], "model.builder: own_models.Nothing: own_models has no Nothing"),
        (["model.builder=mine"], "model.builder: 'mine' is no import path"),
        ([*MIXER[1:2], "model.options.depth=2"], "got an unexpected keyword argument 'depth'"),
        (["model.builder=own_models.build_bag"], "fails (KeyError: 'vocab_size', at"),
        ([*MIXER[1:2], "model.lora.rank=2"], "model.lora.rank: adapters are for models of transformers"),
        ([*MIXER[1:2], "dataset.metrics=[own_models.missing]"], "own_models has no missing"),
        ([*MIXER[1:2], "dataset.metrics=[own_models.Mixer]"], "dataset.metrics: own_models.Mixer: missing a required"),
        ([*MIXER[1:2], "dataset.metrics=[exactness]"], "or a function of your own, such as mypkg.my_metric"),
        ([], "model.architecture.model_type: is missing"),
        (["model.builder=own_models.build_answers"], "returns logits of shape (2, 3) for 2 samples of dataset=digits; "
         "return logits of shape (samples, classes), here (2, 10)"),
        (["model.builder=own_models.build_answers", "model.options.bare=true"], "its module returns a Tensor without "
         "logits; return an object that has logits of shape (samples, classes), such as types.SimpleNamespace"),
        (["model.builder=own_models.build_misfit"], "build_misfit: fails (RuntimeError: mat1 and mat2 shapes"),
        (["model.builder=own_models.build_probabilities"], "its module returns probabilities, which the loss would "
         "take for logits; return what softmax is given"),
        (["model.builder=own_models.build_frozen"], "its module has no weights that train"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_leaves_no_run(runs: Runs, arguments: list[str], said: str) -> None:
    code, _, err = runs.train("model=own", "dataset=digits", *FAST, *arguments)
    assert code == 2 and said in err and err.count("\n") == 1, err
    assert not runs.summaries()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("as_text", "returns a str; return a number"),
        ("huge", "int too large to convert to float; return a smaller number"),
        ("broken", r"fails \(IndexError: .* at .*own_models.py:"),
    ],
)
def test_a_metric_that_fails_says_so_in_one_line(name: str, said: str) -> None:
    training = prepare(config(*MIXER, *FAST, f"dataset.metrics=[own_models.{name}]")).training
    with pytest.raises(UserError, match=f"dataset.metrics: own_models.{name}: {said}"):
        training.evaluator.evaluate(training.val)


def test_a_builder_beside_another_model_is_one_line() -> None:
    with pytest.raises(
        UserError, match=r"model=vit-digits is another; write model=own model.builder=own_models"
    ):
        config("model.builder=own_models.build_mixer")
    with pytest.raises(UserError, match="model=vit-digits has no builder of its own"):
        compose_run(["model.options.width=3"])


def test_a_metric_sees_the_whole_evaluation(tmp_path: Path) -> None:
    training = prepare(config(*MIXER, *FAST, METRIC)).training
    result: Any = training.evaluator.predict(training.val)
    zeros = result.true == 0
    assert of_class_zero(result) == np.mean(result.scores[zeros].argmax(1) == 0)
    assert training.evaluator.evaluate(training.val)["own_models.of_class_zero"] == of_class_zero(result)


def test_a_metric_cannot_write_into_what_others_read(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr("own_models.of_class_zero", lambda evaluation: seen.append(evaluation) or 0.0)
    training = prepare(config(*MIXER, *FAST, METRIC)).training
    training.evaluator.evaluate(training.val)
    assert isinstance(seen[0].classes, tuple) and not seen[0].scores.flags.writeable
