"""Adapters of peft, in every way they are put in: their dropped inputs are made again, with exact gradients."""

import warnings
from collections.abc import Callable
from typing import Any

import peft
import pytest
import torch
import transformers as hf
from torch import Tensor, nn

from pmexp.measure.saved_for_backward import SavedForBackward
from pmexp.packed_dropout import PackedDropout, replace_dropout

IDS = torch.arange(2, 34).view(2, 16)
PICTURES = torch.linspace(-1, 1, 2 * 3 * 6 * 6).view(2, 3, 6, 6)
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        config = hf.LlamaConfig(
            hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=50
        )
        self.model = hf.LlamaForCausalLM(config)

    def forward(self) -> Tensor:
        return self.model(input_ids=IDS, labels=IDS, use_cache=False).loss


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

    def forward(self) -> Tensor:
        return self.other(self.one(PICTURES).sin()).square().mean()


def adapt(model: nn.Module, names: list[str], targets: list[str], **options: Any) -> None:
    settings = peft.LoraConfig(
        r=2, lora_dropout=0.25, target_modules=targets, init_lora_weights=False, **options
    )
    for name in names:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config`")  # it is meant
            peft.inject_adapter_in_model(settings, model, name)
    for layer in layers_of(model):
        layer.set_adapter(names)


def layers_of(model: nn.Module) -> list[Any]:
    return [part for part in model.modules() if isinstance(part, peft.tuners.lora.LoraLayer)]


def merge_and_take_apart(model: nn.Module) -> None:
    for layer in layers_of(model):
        layer.merge()
    model()
    for layer in layers_of(model):
        layer.unmerge()


def leave(model: nn.Module) -> None:
    pass


CASES: dict[
    str, tuple[type[nn.Module], list[str], list[str], dict[str, Any], Callable[[nn.Module], None]]
] = {
    "LoRA": (Decoder, ["default"], LINEAR, {}, leave),
    "DoRA": (Decoder, ["default"], LINEAR, {"use_dora": True}, leave),
    "rsLoRA": (Decoder, ["default"], LINEAR, {"use_rslora": True}, leave),
    "three adapters at once": (Decoder, ["default", "second", "third"], LINEAR, {}, leave),
    "merged and taken apart": (Decoder, ["default"], LINEAR, {}, merge_and_take_apart),
    "embeddings, too": (Decoder, ["default"], [*LINEAR, "embed_tokens"], {}, leave),
    "convolutions": (Convolutions, ["default"], ["one", "other"], {}, leave),
    "convolutions, DoRA": (Convolutions, ["default"], ["one", "other"], {"use_dora": True}, leave),
}


def train(case: str, half: bool, **options: Any) -> tuple[list[Tensor], SavedForBackward]:
    """Loss and gradients of a step, and what it saved; without options by stock dropout."""
    cls, names, targets, chosen, before = CASES[case]
    torch.manual_seed(0)
    model = cls()
    adapt(model, names, targets, **chosen)
    if options:
        report = replace_dropout(model.train(), PackedDropout, **options)
        dropped = {name for name, part in model.named_modules() if type(part) is PackedDropout}
        assert set(report.modules) == dropped and len(dropped) >= len(names) * (len(targets) - 1)
    before(model.train())
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16, enabled=half), SavedForBackward(model) as ledger:
        loss = model()
    loss.backward()
    return [loss.detach(), *(part.grad for part in model.parameters() if part.grad is not None)], ledger


@pytest.mark.parametrize("half", [False, True], ids=["fp32", "bf16 autocast"])
@pytest.mark.parametrize("case", CASES)
def test_a_step_stays_bit_identical_and_saves_less(case: str, half: bool) -> None:
    stock, _ = train(case, half)
    packed, bits = train(case, half, rng="torch")
    rebuilt, ledger = train(case, half, rng="torch", recompute=True)
    for other in (packed, rebuilt):
        assert all(torch.equal(a, b) for a, b in zip(stock, other, strict=True))
    assert ledger.recomputed_products > bits.recomputed_products == 0
    assert ledger.total_bytes < bits.total_bytes


def test_a_merged_adapter_drops_nothing() -> None:
    model = Decoder()
    adapt(model, ["default"], LINEAR)
    replace_dropout(model.train(), PackedDropout, recompute=True)
    for layer in layers_of(model):
        layer.merge()
    with SavedForBackward(model) as ledger:
        losses = [model(), model()]
    assert torch.equal(*losses) and ledger.mask_bytes == 0


def adapted_llama(rate: float) -> nn.Module:
    """Two layers, frozen, with adapters at all seven linear layers of each."""
    torch.manual_seed(1)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = hf.LlamaModel(hf.LlamaConfig(vocab_size=50, attn_implementation="eager", **sizes))
    targets = [*(f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down"))]
    config = peft.LoraConfig(r=2, lora_dropout=rate, target_modules=targets, init_lora_weights=False)
    return peft.inject_adapter_in_model(config, model).train()


def test_adapters_of_a_frozen_model_save_no_dropped_operand() -> None:
    """Nor those of the first layer, whose inputs have no gradient: hardly more than without dropout."""
    ids, saved, gradients = torch.arange(48).view(2, 24), [], []
    for rate, swapped in ((0.0, False), (0.1, False), (0.1, True)):
        model = adapted_llama(rate)
        if swapped:
            report = replace_dropout(model, PackedDropout, rng="torch", recompute=True)
            model(ids)
        torch.manual_seed(2)
        with SavedForBackward(model) as ledger:
            y = model(ids)[0]
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        gradients.append(torch.autograd.grad(y.square().sum(), trained))
        saved.append(ledger.total_bytes)
    assert ledger.recomputed_products == 14 and not ledger.saved_whole and not report.saved_whole
    assert all(torch.equal(one, other) for one, other in zip(*gradients[1:], strict=True))
    assert saved[2] <= 1.02 * saved[0] < saved[1]
