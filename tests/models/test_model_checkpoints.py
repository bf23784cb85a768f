"""A checkpoint's folder gives weights and sizes; everything else is the run's choice, and nothing else is read."""

import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    GPT2Config,
    GPT2Model,
    ViTConfig,
    ViTModel,
)

from composed import config
from pmexp import models
from pmexp.config import DatasetConfig, ModelKind, Objective, RunConfig
from pmexp.datasets.base import Dataset, Split
from pmexp.errors import UserError
from pmexp.models.base import TaskModel
from pmexp.models.text import train_tokenizer
from small_checkpoints import DATA, TRAIN, rewrite, saved
from small_runs import TINY_BERT, Runs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    saved(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


BASE = config("model=tinybert", "dataset=reuters-r8", "dataset.max_length=32")
LANGUAGE = replace(BASE.dataset, objective=Objective.masked_lm, metrics=["perplexity"])


def run_of(folder: Path, dataset: DatasetConfig = BASE.dataset, **model: Any) -> RunConfig:
    return replace(BASE, model=replace(BASE.model, path=str(folder), **model), dataset=dataset)


def built(folder: Path, dataset: DatasetConfig = BASE.dataset) -> TaskModel:
    return models.build(run_of(folder, dataset), DATA)


def dtypes(module: nn.Module) -> set[torch.dtype]:
    return {
        tensor.dtype for tensor in (*module.parameters(), *module.buffers()) if tensor.is_floating_point()
    }


@pytest.fixture(params=[torch.float32, torch.float16, torch.bfloat16, torch.float64], ids=str)
def default_dtype(request: pytest.FixtureRequest) -> Iterator[torch.dtype]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(before)


SYMBOLS = config(
    *("model=longformer-base-4096", "dataset=listops", "model.pretrained=false"),
    *("model.architecture.num_hidden_layers=1", "model.architecture.hidden_size=24"),
)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_weights_are_fp32_whatever_they_were_saved_in(dtype: torch.dtype, tmp_path: Path) -> None:
    before = saved(tmp_path / "half", dtype=dtype).state_dict()
    loaded = built(tmp_path / "half")
    assert dtypes(loaded.module) == {torch.float32}
    after = loaded.module.state_dict()
    assert all(torch.equal(after[name], tensor.float()) for name, tensor in before.items())
    assert loaded.weights == f"{tmp_path / 'half'}, saved in {str(dtype).removeprefix('torch.')}"


def test_weights_are_fp32_whatever_torch_makes_by_default(folder: Path, default_dtype: torch.dtype) -> None:
    pretrained = built(folder).module
    random = models.untrained(replace(BASE, model=replace(BASE.model, pretrained=False)), classes=2)
    symbols = models.untrained(SYMBOLS, classes=2)
    assert [dtypes(module) for module in (pretrained, random, symbols)] == [{torch.float32}] * 3
    assert torch.get_default_dtype() == default_dtype


@pytest.mark.parametrize("key", ["dtype", "output_attentions", "return_dict", "problem_type"])
def test_what_is_no_part_of_an_architecture_is_no_key_of_it(key: str) -> None:
    run = config(*TINY_BERT, f"+model.architecture.{key}=float16")
    with pytest.raises(UserError, match=rf"^model\.architecture\.{key}: is not a field of BertConfig"):
        models.untrained(run, classes=2)


def test_the_record_counts_what_the_parameters_are(
    runs: Runs, few_news: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    half = tmp_path / "half"
    parameters = sum(p.numel() for p in saved(half, dtype=torch.bfloat16).parameters()) + 6 * 17  # 8 classes
    rewrite(half / "config.json", attn_implementation="sdpa", hidden_dropout_prob=0.0)
    base = ["model=tinybert", "dataset=reuters-r8", few_news, "dataset.max_length=32", f"model.path={half}"]
    code, _, err = runs.train(*base, "train.max_steps=1", "train.threads=1", "tracking=off")
    assert code == 0, err
    assert f"the checkpoint in {half} has hidden_size 16 (model=tinybert: 312)" in caplog.text
    record = next(iter(runs.summaries().values()))["environment"]
    assert record["precision"] == "fp32" and record["parameters_float32"] == parameters
    assert [key for key in record if key.startswith("parameters_")] == ["parameters_float32"]
    assert (
        record["attention"] == "eager" and "num_hidden_layers 2 (model=tinybert: 4)" in record["architecture"]
    )
    assert record["weights"].startswith(f"{half}, saved in bfloat16, random: classifier.bias")


def test_a_checkpoint_that_is_changed_afterwards_changes_no_model(folder: Path) -> None:
    module = built(folder).module
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(-1000, 2)
        file.write(b"\0" * 1000)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert str(folder) not in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize(
    "overrides",
    [["model.attention=sdpa", "model.kind=longformer"], ["model.architecture.num_attention_heads=5"]],
)
def test_values_that_do_not_go_together_are_one_line(overrides: list[str]) -> None:
    run = config(*TINY_BERT, *overrides)
    with pytest.raises(
        UserError, match=r"^model\.architecture: \w+Config refuses it: .*(attention|hidden size)"
    ):
        models.untrained(run, classes=2)


HOSTILE: dict[str, dict[str, Any]] = {
    "attention": {"attn_implementation": "flash_attention_2", "_attn_implementation": "flash_attention_2"},
    "kernels": {"attn_implementation": "kernels-community/flash-attn3", "use_kernels": True},
    "dtype": {"dtype": "float16", "torch_dtype": "float16"},
    "code": {"auto_map": {"AutoConfig": "evil.Evil", "AutoModelForSequenceClassification": "evil.Evil"}},
    "fusions": {"fusion_config": {"patch_embeddings": True}},
    "weights elsewhere": {
        "transformers_weights": "../other/model.safetensors",
        "_name_or_path": "/elsewhere",
    },
    "outputs": {"return_dict": False, "output_attentions": True, "output_hidden_states": True},
    "task": {"problem_type": "regression", "num_labels": 5, "id2label": {"0": "a"}},
    "rates": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.5, "classifier_dropout": 0.9},
}


@pytest.mark.parametrize("values", HOSTILE.values(), ids=HOSTILE)
def test_a_configuration_decides_nothing_but_sizes(values: dict[str, Any], folder: Path) -> None:
    plain = built(folder)
    rewrite(folder / "config.json", **values)
    loaded = built(folder)
    assert loaded.module.config.to_dict() == plain.module.config.to_dict()
    assert loaded.module.config._attn_implementation == "eager" and loaded.weights == plain.weights
    assert {m.p for m in loaded.module.modules() if isinstance(m, nn.Dropout)} == {0.1}
    ids = torch.arange(10)[None]
    assert torch.equal(loaded.module.eval()(ids).logits, plain.module.eval()(ids).logits)


def lose(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def reweigh(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return spoil


QUERY = "bert.encoder.layer.0.attention.self.query.weight"
REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a layer too many": (lambda f: rewrite(f / "config.json", num_hidden_layers=1), "hold bert.encoder.layer.1"),
    "a layer too few": (lambda f: rewrite(f / "config.json", num_hidden_layers=3), "lack bert.encoder.layer.2"),
    "other widths": (lambda f: rewrite(f / "config.json", intermediate_size=8), "lack bert.encoder.layer.0.*shape"),
    "weights of another attention": (
        reweigh(lambda t: t.update({"bert.encoder.layer.0.attention.self.distance_embedding.weight": t[QUERY] + 0})),
        "hold bert.encoder.layer.0.attention.self.distance_embedding.weight",
    ),
    "what wraps a model": (
        reweigh(lambda t: [t.update({f"module.{name}": t.pop(name)}) for name in [*t]]),
        "lack bert.*they hold module.bert.*: save the model without what wraps it",
    ),
    "int8": (reweigh(lambda t: t.update({QUERY: t[QUERY].to(torch.int8)})), "quantised .*query.weight is int8"),
    "fp8": (reweigh(lambda t: t.update({QUERY: t[QUERY].to(torch.float8_e4m3fn)})), "quantised .*float8_e4m3fn"),
    "said to be quantised": (
        lambda f: rewrite(f / "config.json", quantization_config={"quant_method": "gptq", "bits": 4}),
        "quantised .its config.json says so",
    ),
    "an adapter": (
        lambda f: rewrite(f / "adapter_config.json", base_model_name_or_path="/elsewhere", peft_type="LORA"),
        "holds a peft adapter",
    ),
    "a value of another type": (  # which older transformers leave to torch
        lambda f: rewrite(f / "config.json", hidden_size="wide"),
        "(hidden_size|argument 'size').*int",
    ),
    "an unknown activation": (lambda f: rewrite(f / "config.json", hidden_act="nope"), "KeyError: 'nope'"),
    "no vocabulary": (lose("tokenizer.json"), "it has no vocabulary: tokenizer.json, vocab.txt"),
    "no vocabulary and no word of it": (
        lambda f: [lose(name)(f) for name in ("tokenizer.json", "tokenizer_config.json")] + [(f / "notes.txt").touch()],
        "it has no vocabulary: tokenizer.json, vocab.txt",
    ),
    "options of another library": (
        lambda f: rewrite(f / "tokenizer_config.json", mecab_kwargs={"mecab_option": "-d /elsewhere"}),
        "mecab_kwargs of its settings may name files, and is not read",
    ),
    "a larger vocabulary": (
        lambda f: train_tokenizer(Split([("abcdefghijklmnopqrstuvwxyz " * 9,)], np.zeros(1)), 300).save_pretrained(f),
        "tokens and the model 80",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "message"), REFUSED.values(), ids=REFUSED)
def test_what_would_be_another_model_is_one_line(
    spoil: Callable[[Path], object], message: str, folder: Path
) -> None:
    spoil(folder)
    with pytest.raises(UserError, match=rf"^model\.path: .*{message}") as refused:
        built(folder)
    assert str(folder) in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("model", "dataset", "words"),
    [
        (BertModel, BASE.dataset, ", random: classifier.bias, classifier.weight"),
        (BertForMaskedLM, BASE.dataset, ", random: bert.pooler.dense.bias, .*, left out: cls"),
        (BertForMaskedLM, LANGUAGE, ""),
        (BertForSequenceClassification, BASE.dataset, ""),
    ],
)
def test_heads_may_be_others_and_are_said(
    model: type[Any], dataset: DatasetConfig, words: str, tmp_path: Path
) -> None:
    saved(tmp_path / "any", model)
    assert re.fullmatch(f"{tmp_path / 'any'}{words}", built(tmp_path / "any", dataset).weights)


def test_old_names_constants_and_pickles_of_tensors_are_taken(folder: Path) -> None:
    plain = built(folder).module.state_dict()
    tensors = load_file(folder / "model.safetensors")
    old = {name.replace("LayerNorm.weight", "LayerNorm.gamma"): tensor for name, tensor in tensors.items()}
    old["bert.embeddings.position_ids"] = torch.arange(64)[None]
    (folder / "model.safetensors").unlink()
    torch.save(old, folder / "pytorch_model.bin")
    loaded = built(folder)
    assert loaded.weights == str(folder)
    assert all(torch.equal(tensor, plain[name]) for name, tensor in loaded.module.state_dict().items())


def test_shards_are_files_of_the_folder(folder: Path) -> None:
    plain = built(folder).module.state_dict()
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weight_map = {}
    for number, some in enumerate((sorted(tensors)[::2], sorted(tensors)[1::2])):
        save_file({name: tensors[name] for name in some}, folder / f"model-{number}.safetensors")
        weight_map |= dict.fromkeys(some, f"model-{number}.safetensors")
    index = folder / "model.safetensors.index.json"
    rewrite(index, weight_map=weight_map)
    assert all(torch.equal(tensor, plain[name]) for name, tensor in built(folder).module.state_dict().items())
    shutil.copy(folder / "model-0.safetensors", folder.parent)
    for elsewhere in ("../model-0.safetensors", str(folder.parent / "model-0.safetensors")):
        rewrite(index, weight_map=dict.fromkeys(weight_map, elsewhere))
        with pytest.raises(UserError, match=f"index.json names {elsewhere}, which is no file of this folder"):
            built(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_link_out_of_the_folder_is_refused(name: str, folder: Path) -> None:
    outside = folder.parent / name
    (folder / name).rename(outside)
    (folder / name).symlink_to(outside)
    with pytest.raises(UserError, match=f"^model.path: {folder / name} is a link to {outside}, outside"):
        built(folder)


def test_the_hubs_cache_is_links_and_so_may_the_folder_be(folder: Path, tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--a--b"
    snapshot = repository / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for file in folder.iterdir():
        blob = repository / "blobs" / f"{abs(hash(file.name)):x}"
        shutil.copy(file, blob)
        (snapshot / file.name).symlink_to(Path("../../blobs") / blob.name)
    (tmp_path / "link").symlink_to(snapshot)
    for place in (snapshot, tmp_path / "link"):
        assert built(place).weights == str(place)


def test_a_tokenizers_settings_name_no_files_and_no_code(folder: Path) -> None:
    secret = folder.parent / "tokenizer.1.0.json"
    secret.write_text("secret")
    plain = built(folder).examples(TRAIN, 32).batch(torch.arange(3), 0).inputs
    files = {
        "vocab": str(secret), "vocab_file": str(secret), "merges": str(secret), "tokenizer_file": str(secret),
        "fast_tokenizer_files": ["../tokenizer.1.0.json"], "chat_template": "{{ 1 / 0 }}",
        "auto_map": {"AutoTokenizer": ["evil.Evil", None]},
    }  # fmt: skip
    rewrite(folder / "tokenizer_config.json", **files)
    rewrite(folder / "special_tokens_map.json", **files)
    opened: list[str] = []
    sys.addaudithook(lambda event, given: opened.append(str(given[0])) if event == "open" else None)
    inputs = built(folder).examples(TRAIN, 32).batch(torch.arange(3), 0).inputs
    assert str(secret) not in opened and any(name.startswith(str(folder)) for name in opened)
    assert all(torch.equal(inputs[name], plain[name]) for name in plain)


def test_a_vocabulary_alone_makes_the_tokenizer(folder: Path) -> None:
    plain = built(folder).examples(TRAIN, 32).batch(torch.arange(3), 0).inputs["input_ids"]
    tokenizer = train_tokenizer(TRAIN, 80)
    words = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    (folder / "vocab.txt").write_text("\n".join(words))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    actual = built(folder).examples(TRAIN, 32).batch(torch.arange(3), 0).inputs["input_ids"]
    assert torch.equal(actual, plain)


@pytest.mark.parametrize("pad", [True, False])
def test_a_decoder_classifies_padded_texts_or_says_what_it_lacks(pad: bool, tmp_path: Path) -> None:
    GPT2Model(GPT2Config(vocab_size=80, n_embd=16, n_layer=1, n_head=2)).save_pretrained(tmp_path / "gpt2")
    tokenizer = train_tokenizer(TRAIN, 80)
    if not pad:
        tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path / "gpt2")
    short = replace(BASE.dataset, max_length=16)
    run = run_of(tmp_path / "gpt2", short, kind=ModelKind.gpt2, architecture={"n_layer": 1})
    if not pad:
        with pytest.raises(UserError, match="has no pad_token"):
            models.build(run, DATA)
        return
    model = models.build(run, DATA)
    batch = model.examples(TRAIN, 16).batch(torch.arange(4), 0)
    inputs = {name: tensor for name, tensor in batch.inputs.items() if name != "token_type_ids"}
    assert model.module(**inputs).logits.shape == (4, 2)


def test_a_picture_models_checkpoint_is_read_the_same_way(tmp_path: Path) -> None:
    sizes = {"image_size": 8, "patch_size": 4, "num_channels": 1, "hidden_size": 16, "num_hidden_layers": 1}
    vit = ViTModel(ViTConfig(**sizes, num_attention_heads=2, intermediate_size=16)).to(torch.bfloat16)
    vit.save_pretrained(tmp_path / "vit")
    rewrite(tmp_path / "vit" / "config.json", attn_implementation="flash_attention_2")
    run = config("model=vit-digits", "model.pretrained=true", f"model.path={tmp_path / 'vit'}")
    images = np.zeros((4, 1, 8, 8), dtype=np.float32)
    split = Split(images, np.zeros(4, dtype=np.int64))
    loaded = models.build(run, Dataset(split, split, None, ["0", "1"]))
    assert dtypes(loaded.module) == {torch.float32} and loaded.module.config._attn_implementation == "eager"
    words = "saved in bfloat16, random: classifier.bias, classifier.weight, left out: pooler"
    assert loaded.weights == f"{tmp_path / 'vit'}, {words}"
    assert {m.p for m in loaded.module.modules() if isinstance(m, nn.Dropout)} == {0.1}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_one_line(value: float, folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["bert.embeddings.word_embeddings.weight"][3, 2] = value
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"word_embeddings\.weight holds values that are not finite"):
        built(folder)
