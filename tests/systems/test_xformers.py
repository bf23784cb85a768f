"""The xformers part against eager attention, by a stand-in for xFormers' call, whose kernels are for CUDA alone."""

import copy
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2Model,
    LlamaConfig,
    LlamaModel,
    LongformerConfig,
    LongformerModel,
    ViltConfig,
    ViltModel,
    ViTConfig,
    ViTModel,
)

from pmexp.config import Device, Part, SystemConfig
from pmexp.errors import UserError
from pmexp.packed_dropout import PackedDropout, replace_dropout
from pmexp.systems import xformers
from pmexp.systems.system import System
from pmexp.systems.xformers import Xformers

CUDA = torch.device("cuda")
WIDTHS: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32,
}  # fmt: skip
BERT = WIDTHS | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "vocab_size": 50}
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
MODELS: dict[str, Any] = {
    "bert": lambda: BertModel(BertConfig(**BERT, attn_implementation="eager")),
    "gpt2": lambda: GPT2Model(GPT2Config(**GPT, vocab_size=50, attn_implementation="eager")),
    "llama": lambda: LlamaModel(  # two heads share their keys and values
        LlamaConfig(**WIDTHS, num_key_value_heads=2, vocab_size=50, attn_implementation="eager")
    ),
    "vit": lambda: ViTModel(
        ViTConfig(**WIDTHS, hidden_dropout_prob=0.0, image_size=8, patch_size=4, attn_implementation="eager")
    ),
}


def called(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_bias: Tensor | None = None,
    p: float = 0.0,
    scale: float | None = None,
) -> Tensor:
    """What memory_efficient_attention documents: its checks of the arguments, and its result."""
    if attn_bias is not None:
        if attn_bias.shape != (query.shape[0], query.shape[2], query.shape[1], key.shape[1]):
            raise ValueError(f"Invalid shape for attention bias: {attn_bias.shape}")
        if attn_bias.dtype != query.dtype or attn_bias.stride(-1) != 1:
            raise ValueError("Invalid attention bias")
        if any(stride % 8 for stride in attn_bias.stride()[:-1]):
            raise NotImplementedError("No operator found\n attn_bias.stride(-2) % 8 != 0")
    if key.shape[2] != query.shape[2] or {key.dtype, value.dtype} != {query.dtype}:
        raise ValueError("Incompatible shapes for attention inputs")
    query, key, value = (tensor.transpose(1, 2) for tensor in (query, key, value))
    scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    probabilities = (scores if attn_bias is None else scores + attn_bias).softmax(-1)
    return (F.dropout(probabilities, p) @ value).transpose(1, 2).contiguous()


@pytest.fixture(autouse=True)
def package(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The stand-in, as `xformers.ops`."""
    parent, ops = ModuleType("xformers"), ModuleType("xformers.ops")
    parent.__spec__ = ModuleSpec("xformers", None)
    ops.memory_efficient_attention = called  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "xformers", parent)
    monkeypatch.setitem(sys.modules, "xformers.ops", ops)
    return ops


def inputs(kind: str, length: int) -> dict[str, Tensor]:
    if kind == "vit":
        return {"pixel_values": torch.randn(2, 3, 8, 8)}
    mask = (torch.arange(length) < torch.tensor([[length], [length // 2]])).long()
    return {"input_ids": torch.randint(3, 50, (2, length)), "attention_mask": mask}


@pytest.mark.parametrize("length", [16, 13])
@pytest.mark.parametrize("kind", MODELS)
def test_outputs_and_gradients_are_those_of_eager(kind: str, length: int) -> None:
    torch.manual_seed(0)
    eager = MODELS[kind]().train()
    ours = copy.deepcopy(eager)
    Xformers().before_variant(ours, CUDA, half=False)
    given = inputs(kind, length)
    outputs = [model(**given)[0] for model in (eager, ours)]
    torch.testing.assert_close(outputs[1], outputs[0], rtol=0, atol=2e-6)
    for output in outputs:
        output.square().mean().backward()
    for (name, one), other in zip(eager.named_parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-4, atol=1e-6, msg=name)
    layers = 2
    said = Xformers().record(ours)["attention"]
    assert said.endswith(f"memory_efficient_attention in {layers} modules") and said.startswith("xformers ")
    assert Xformers().record(eager)["attention"].endswith(" in 0 modules")


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 9), st.integers(1, 19)),
    st.tuples(*[st.booleans()] * 4),
    st.sampled_from([torch.float32, torch.bfloat16]),
    st.integers(0, 2**20),
)
def test_every_mask_that_broadcasts_is_added_as_it_is(
    sizes: tuple[int, ...], kept: tuple[bool, ...], dtype: torch.dtype, seed: int
) -> None:
    torch.manual_seed(seed)
    batch, heads, queries, keys = sizes
    query, key, value = (torch.randn(batch, heads, n, 8).to(dtype) for n in (queries, keys, keys))
    shape = [size if keep else 1 for size, keep in zip(sizes, kept, strict=True)]
    lowest = torch.finfo(torch.float32).min  # what transformers writes, which bf16 does not reach
    mask = torch.where(torch.rand(shape) < 0.4, lowest, torch.randn(shape))
    ours, _ = xformers._attention(nn.Module().train(), query, key, value, mask, scaling=0.5)
    scores = 0.5 * query.float() @ key.float().mT
    added = mask.clamp(min=torch.finfo(dtype).min).to(dtype).float()
    expected = ((scores + added).softmax(-1) @ value.float()).transpose(1, 2)
    assert ours.isfinite().all()
    accuracy = 1e-5 if dtype is torch.float32 else 6e-2
    torch.testing.assert_close(ours.float(), expected, rtol=accuracy, atol=accuracy)


@pytest.mark.parametrize(
    "mask",
    [
        torch.zeros(2, 5),
        torch.zeros(2, 4, 5),
        torch.zeros(2, 1, 4, 6),
        torch.zeros(3, 1, 4, 5),
        torch.zeros(2, 2, 4, 5),
        torch.zeros(1, 1, 1, 1, 5),
        torch.ones(2, 1, 4, 5, dtype=torch.bool),
    ],
    ids=lambda mask: str(tuple(mask.shape)),
)
def test_a_mask_that_the_kernel_cannot_take_is_an_error(mask: Tensor) -> None:
    query, keys = torch.randn(2, 3, 4, 8), torch.randn(2, 3, 5, 8)
    with pytest.raises(UserError, match=r"takes masks of numbers that broadcast to \(2, 3, 4, 5\)"):
        xformers._attention(nn.Module(), query, keys, keys, mask)
    with pytest.raises(UserError, match="xformers has no position_bias"):
        xformers._attention(nn.Module(), query, keys, keys, None, position_bias=mask)


def test_dropout_goes_to_the_kernel_in_training_alone(
    package: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = []

    def noted(*args: Any, p: float, **options: Any) -> Tensor:
        rates.append(p)
        return called(*args, **options)  # a kernel's dropout is not seen from outside

    monkeypatch.setattr(package, "memory_efficient_attention", noted)
    model = BertModel(BertConfig(**BERT | {"attention_probs_dropout_prob": 0.25}))
    Xformers().before_variant(model, CUDA, half=False)
    report = replace_dropout(model, PackedDropout)
    for training in (True, False):
        model.train(training)(**inputs("bert", 13))
    assert rates == [0.25, 0.25, 0.0, 0.0]
    assert "no dropout was called in attention" in report.left["config.attention_probs_dropout_prob"]


def test_a_call_without_a_kernel_is_one_line(package: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: Any, **options: Any) -> Tensor:
        raise NotImplementedError("No operator found for these inputs:\n  query: ...\n  `cutlassF-pt`: ...")

    monkeypatch.setattr(package, "memory_efficient_attention", refused)
    query = torch.randn(1, 2, 3, 8, dtype=torch.float64)
    with pytest.raises(
        UserError, match=r"no kernel for \(1, 2, 3, 8\) of torch.float64 on cpu \(No operator"
    ) as error:
        xformers._attention(nn.Module(), query, query, query, None)
    assert "\n" not in str(error.value)


LONGFORMER = LongformerConfig(**BERT, attention_window=8)
VILT = ViltConfig(**BERT, image_size=8, patch_size=4)


@pytest.mark.parametrize(("model", "config"), [(LongformerModel, LONGFORMER), (ViltModel, VILT)])
def test_a_model_with_eager_attention_alone_is_refused(model: Any, config: Any) -> None:
    with pytest.raises(UserError, match="xformers has no attention for"):
        Xformers().before_variant(model(config), CUDA, half=False)


def test_a_machine_without_the_package_or_without_cuda_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    config = SystemConfig(parts=[Part.xformers], device=Device.cpu)
    with pytest.raises(UserError, match="xformers has kernels for CUDA alone and the run is on cpu"):
        System(config)
    monkeypatch.setattr(xformers, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="xformers is not installed; pip install xformers"):
        System(config)
    with pytest.raises(UserError, match="flash and xformers exclude each other"):
        SystemConfig(parts=[Part.flash, Part.xformers])
