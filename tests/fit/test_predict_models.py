"""Peaks of thirteen models, predicted and by torch's own memory tracker, which runs them for real on the CPU.

Both count storages by a dispatch mode, so that they agree but for a scalar or two.
"""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers as hf
from torch import Tensor, nn
from torch.distributed._tools.mem_tracker import MemTracker

from pmexp.fit import predict

IDS = torch.ones(2, 16, dtype=torch.int64)
TEXT = {"input_ids": IDS, "labels": IDS}
CLASSES = torch.zeros(2, dtype=torch.int64)
IMAGES = torch.zeros(2, 3, 16, 16)
TOKENS: dict[str, Any] = {"vocab_size": 99, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
SIDES = {
    f"{side}_{what}": n
    for side in ("encoder", "decoder")
    for what, n in (("layers", 1), ("attention_heads", 2), ("ffn_dim", 64))
}


class Translator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Transformer(32, 2, 1, 1, 64, batch_first=True), nn.Linear(32, 9)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        return self.head(self.body(source, target)).flatten(0, 1)  # type: ignore[no-any-return]


class Watched(nn.Module):
    """Holds what its layers put out, for somebody to look at, until the next forward is through."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(32, 32) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        outputs = [x]
        for layer in self.layers:
            outputs.append(torch.tanh(layer(outputs[-1])))
        self.outputs = outputs[1:]
        return outputs[-1]


def convolutions() -> nn.Module:
    block = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*block, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.1), nn.Linear(8, 9))


Case = tuple[Callable[[], nn.Module], Any, Callable[..., Tensor] | None]


def of(model: Any, config: Any, batch: Any = TEXT, **fields: Any) -> Case:
    return lambda: model(config(**fields)), batch, None


CASES: dict[str, Case] = {
    "bert": of(hf.BertForMaskedLM, hf.BertConfig, **TOKENS, **SMALL),
    "gpt2": of(hf.GPT2LMHeadModel, hf.GPT2Config, **TOKENS, n_embd=32, n_layer=1, n_head=2),
    "llama": of(hf.LlamaForCausalLM, hf.LlamaConfig, **TOKENS, **SMALL),
    "mixtral": of(
        hf.MixtralForCausalLM, hf.MixtralConfig, num_key_value_heads=2, num_local_experts=4, **TOKENS, **SMALL
    ),
    "modernbert": of(
        hf.ModernBertForMaskedLM, hf.ModernBertConfig, cls_token_id=1, sep_token_id=2, **TOKENS, **SMALL
    ),
    "albert": of(hf.AlbertForMaskedLM, hf.AlbertConfig, embedding_size=16, **TOKENS, **SMALL),
    "bart": of(hf.BartForConditionalGeneration, hf.BartConfig, d_model=32, **TOKENS, **SIDES),
    "t5": of(
        hf.T5ForConditionalGeneration, hf.T5Config, decoder_start_token_id=0, d_model=32, d_kv=16, d_ff=64,
        num_layers=1, num_heads=2, **TOKENS,
    ),
    "vit": of(
        hf.ViTForImageClassification, hf.ViTConfig, {"pixel_values": IMAGES, "labels": CLASSES},
        image_size=16, patch_size=8, **SMALL,
    ),
    "torch's Transformer": (
        Translator, (torch.zeros(2, 16, 32), torch.zeros(2, 16, 32), torch.zeros(32, dtype=torch.int64)), F.cross_entropy,
    ),
    "holds its outputs": (Watched, (torch.zeros(64, 32), torch.zeros(64, 32)), F.mse_loss),
    "convolutions": (convolutions, (IMAGES, CLASSES), F.cross_entropy),
    "squared errors": (lambda: nn.Conv2d(3, 3, 3, padding=1), (IMAGES, IMAGES.clone()), F.mse_loss),
}  # fmt: skip


def adamw(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, foreach=False)


def tracked(
    model: nn.Module, batch: Any, loss: Callable[..., Tensor] | None, make_optimizer: Any = adamw
) -> int:
    """The peak of a second step, by torch.distributed._tools.mem_tracker."""
    optimizer = make_optimizer(model.train().parameters())

    def step() -> None:
        value = model(**batch).loss if loss is None else loss(model(*batch[:-1]), batch[-1])
        value.backward()
        del value
        nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=False)
        optimizer.step()
        optimizer.zero_grad()

    for parameter in model.parameters():  # one that a step does not use has its state all the same
        parameter.grad = torch.zeros_like(parameter)
    step()
    tracker = MemTracker()
    known = (*(batch.values() if loss is None else batch), *getattr(model, "outputs", []))
    tracker.track_external(model, optimizer, *known)
    del known  # the outputs are the model's alone
    with tracker, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of modules that are gone
        step()
    (by_type,) = tracker.get_tracker_snapshot("peak").values()
    return int(by_type["Total"])


@pytest.mark.parametrize("name", list(CASES))
def test_the_peak_is_that_of_torchs_memory_tracker(name: str) -> None:
    build, batch, loss = CASES[name]
    predicted = predict(build(), batch, loss=loss, like="cpu", methods=()).asked.peak_bytes
    assert predicted == pytest.approx(tracked(build(), batch, loss), rel=0, abs=8)


@pytest.mark.parametrize(
    "make",
    [torch.optim.Adafactor, hf.Adafactor, lambda them: hf.Adafactor(them, lr=0.1, relative_step=False)],
)
@pytest.mark.parametrize("name", ["bert", "convolutions"])
def test_so_it_is_with_an_optimizer_that_scales_by_norms(name: str, make: Any) -> None:
    build, batch, loss = CASES[name]
    predicted = predict(build(), batch, loss=loss, optimizer=make, like="cpu", methods=()).asked.peak_bytes
    assert predicted == pytest.approx(tracked(build(), batch, loss, make), rel=0, abs=64)


def test_a_second_step_is_simulated_only_where_the_model_holds_something_of_the_first() -> None:
    forwards: list[str] = []

    def seen(name: str) -> Callable[..., Tensor]:
        def loss(output: Tensor, target: Tensor) -> Tensor:
            forwards.append(name)
            return F.mse_loss(output, target)

        return loss

    _, batch, _ = CASES["holds its outputs"]
    predict(Watched(), batch, loss=seen("holding"), methods=())
    predict(nn.Linear(32, 32), batch, loss=seen("plain"), methods=())
    assert forwards == ["holding", "holding", "plain"]
