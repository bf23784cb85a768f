"""Casts, views and scalings in front of and behind a dropout are followed where autograd's graph is no help."""

from collections.abc import Callable
from typing import Any

import peft
import pytest
import torch
import torch.nn.functional as F
import transformers as hf
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pmexp.measure.saved_for_backward import SavedForBackward
from pmexp.packed_dropout import PackedDropout, replace_dropout
from pmexp.packed_dropout.rebuild import watching
from pmexp.systems.checkpointing import checkpoint_layers

TARGETS = [f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")]
STEPS: dict[str, Callable[[Tensor], Tensor]] = {
    "fp32": lambda x: x.float(),
    "bf16": lambda x: x.to(torch.bfloat16),
    "fp64": lambda x: x.type(torch.float64),
    "turned": lambda x: x.transpose(0, -2).contiguous(),
    "flat": lambda x: x.reshape(-1, 8),
    "scaled": lambda x: x * 0.3,
    "divided": lambda x: x / 7,
}


class Head(nn.Module):
    """A linear layer of a dropped input, after some steps on either side."""

    def __init__(self, before: list[str], after: list[str]) -> None:
        super().__init__()
        self.dropout, self.linear, self.steps = nn.Dropout(0.3), nn.Linear(8, 8), (before, after)

    def forward(self, x: Tensor) -> Tensor:
        before, after = self.steps
        for name in before:
            x = STEPS[name](x)
        y = self.dropout(x)
        for name in after:
            y = STEPS[name](y)
        return F.linear(y, self.linear.weight.to(y.dtype))


def train(x: Tensor, *parts: Head, autocast: bool, **options: Any) -> tuple[list[Tensor], SavedForBackward]:
    """Output and gradients of a second forward of some heads of one input, and what it saved."""
    model = nn.ModuleList(parts)
    for part in parts:
        if options:
            replace_dropout(part.train(), PackedDropout, rng="torch", **options)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            part(x)  # which shows whether to follow
    torch.manual_seed(3)
    leaf = x.detach().requires_grad_(x.requires_grad)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast), SavedForBackward(model) as ledger:
        shared = leaf * 1
        outputs = [part(shared) for part in parts]
    weights = [leaf] * x.requires_grad + [part.linear.weight for part in parts]
    loss = sum(output.double().square().sum() for output in outputs)
    return [*outputs, *torch.autograd.grad(loss, weights)], ledger


def heads(before: list[str], after: list[str], number: int = 1) -> list[Head]:
    torch.manual_seed(1)
    return [Head(before, after) for _ in range(number)]


@settings(max_examples=40, deadline=None)
@given(
    before=st.lists(st.sampled_from(sorted(STEPS)), max_size=3),
    after=st.lists(st.sampled_from(sorted(STEPS)), max_size=2),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    graded=st.booleans(),
    autocast=st.booleans(),
)
def test_whatever_is_followed_the_numbers_stay(
    before: list[str], after: list[str], dtype: torch.dtype, graded: bool, autocast: bool
) -> None:
    x = torch.linspace(-1, 1, 6 * 8 * 8).view(6, 8, 8).to(dtype).requires_grad_(graded)
    plain, _ = train(x, *heads(before, after), autocast=autocast, recompute=False)
    again, _ = train(x, *heads(before, after), autocast=autocast, recompute=True)
    assert all(torch.equal(one, other) for one, other in zip(plain, again, strict=True))


@pytest.mark.parametrize("autocast", [False, True], ids=["", "autocast"])
@pytest.mark.parametrize("graded", [False, True], ids=["constant", "graded"])
@pytest.mark.parametrize("before", [["fp32"], ["scaled", "fp32"], ["turned", "fp32"]], ids=str)
def test_casts_of_one_input_in_16_bits_are_made_again_of_that_input(
    before: list[str], graded: bool, autocast: bool
) -> None:
    x = torch.linspace(-1, 1, 8 * 8 * 8).view(8, 8, 8).bfloat16().requires_grad_(graded)
    _, ledger = train(x, *heads(before, [], 3), autocast=autocast, recompute=True)
    assert ledger.recomputed_products == 3 and not ledger.saved_whole
    # Three plain heads keep three casts of two bytes under autocast, of four without it.
    weights = 3 * 64 * 2 * autocast
    assert ledger.total_bytes <= 512 * 2 + 3 * 512 // 8 + weights * graded


def test_a_constant_that_autocast_casts_is_made_again() -> None:
    """As frozen embeddings are in the first layer: in their own dtype, or in one that they were cast to."""
    x = torch.linspace(-1, 1, 512).view(8, 8, 8)
    _, ledger = train(x.bfloat16(), *heads(["fp32"], [], 1), autocast=True, recompute=True)
    assert ledger.recomputed_products == 1
    _, ledger = train(x, *heads([], [], 1), autocast=True, recompute=True)
    assert ledger.recomputed_products == 0
    assert list(ledger.saved_whole) == ["the input of its dropout is larger, and not known to be kept anyhow"]


def test_a_forward_in_which_it_serves_nothing_is_not_followed_again() -> None:
    calls: list[int] = []

    class Noted(Head):
        def forward(self, x: Tensor) -> Tensor:
            calls.append(torch._C._len_torch_function_stack())
            return super().forward(x)

    part = Noted([], [])
    replace_dropout(part.train(), PackedDropout, recompute=True)
    x = torch.ones(4, 8, requires_grad=True)
    for each in (x, x, x.bfloat16()):
        part(each)
    part.eval()(x)
    assert [count > calls[1] for count in calls] == [True, False, True, False]


def adapted(rate: float) -> tuple[nn.Module, Tensor]:
    """A Llama of two layers in bf16, with adapters in fp32 at all of its seven kinds of linear layer."""
    torch.manual_seed(1)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = hf.LlamaModel(hf.LlamaConfig(vocab_size=50, attn_implementation="eager", **sizes)).bfloat16()
    config = peft.LoraConfig(r=2, lora_dropout=rate, target_modules=TARGETS, init_lora_weights=False)
    model = peft.inject_adapter_in_model(config, model).train()
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model, torch.arange(48).view(2, 24)


@pytest.mark.parametrize("checkpoints", [False, True], ids=["", "checkpoints"])
@pytest.mark.parametrize("autocast", [False, True], ids=["", "autocast"])
def test_adapters_over_frozen_weights_in_16_bits(autocast: bool, checkpoints: bool) -> None:
    """All 14 operands are made again, of the input that several adapters share, for less than p = 0 keeps."""
    saved, gradients = [], []
    for rate, swapped in ((0.0, False), (0.1, False), (0.1, True)):
        model, ids = adapted(rate)
        made: list[Any] = []
        if checkpoints:
            checkpoint_layers(model)
        if swapped:
            replace_dropout(model, PackedDropout, rng="torch", recompute=True)
        for _ in range(2):
            model.zero_grad()
            torch.manual_seed(2)
            made.clear()
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast), watching(made.append):
                with SavedForBackward(model) as ledger:
                    y = model(ids)[0]
                y.float().square().sum().backward()
        gradients.append([part.grad for part in model.parameters() if part.requires_grad])
        saved.append(ledger.total_bytes)
    assert all(torch.equal(one, other) for one, other in zip(*gradients[1:], strict=True))
    assert len(made) == 14 * (1 + checkpoints)  # a checkpoint runs each layer twice
    assert checkpoints or saved[2] < 0.9 * saved[0] < saved[1]
