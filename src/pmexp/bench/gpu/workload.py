"""Takes training steps of a BERT as a masked language model on random tokens, under one variant or
another."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM

from pmexp.bench.gpu.ways import trees_of
from pmexp.measure.saved_for_backward import SavedForBackward
from pmexp.packed_dropout import PackedDropout, replace_dropout
from pmexp.variants.seeded import SeededDropout

BASELINE = "baseline"
VARIANTS: Mapping[str, Callable[[nn.Module], object]] = {
    BASELINE: lambda module: None,
    "pm-drop": partial(replace_dropout, dropout=PackedDropout),
    "seed-only": partial(replace_dropout, dropout=SeededDropout),
    "pm-drop-recompute": partial(replace_dropout, dropout=PackedDropout, recompute=True),
}
CHECKPOINTING, CHECKPOINTED_PACKED = "checkpointing", "checkpointing, packed"
TORCH_MASKS = "pm-drop with rng=torch"  # is for the check alone: it draws the masks of nn.Dropout
NO_DROPOUT = "no dropout"  # what all of dropout costs a step


def _drop_nothing(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0


def _checkpoint(module: nn.Module) -> None:
    """Has every layer keep its input alone. transformers 5.17 has the older of the two names alone."""
    newer = getattr(module, "activation_checkpointing_enable", None)
    (newer or module.gradient_checkpointing_enable)({"use_reentrant": False})  # type: ignore[operator]


def _checkpoint_packed(module: nn.Module) -> None:
    _checkpoint(module)
    replace_dropout(module, PackedDropout)


PUT_IN: dict[str, Callable[[nn.Module], object]] = {
    **VARIANTS,
    CHECKPOINTING: _checkpoint,
    CHECKPOINTED_PACKED: _checkpoint_packed,
    NO_DROPOUT: _drop_nothing,
    TORCH_MASKS: partial(replace_dropout, dropout=PackedDropout, rng="torch"),
}

_HIDDEN_SHARE = 0.15  # is the share of tokens that are guessed
_NO_LABEL = -100
_LR, _CLIP_NORM = 1e-4, 1.0


@dataclass(frozen=True)
class Size:
    """A model, and the batch that its steps are measured with."""

    name: str
    batch: int  # samples
    length: int  # tokens
    architecture: Mapping[str, int] = field(hash=False)  # fields of BertConfig; its rates are 0.1


def _bert(name: str, batch: int, width: int, layers: int, heads: int) -> Size:
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
    return Size(name, batch, 512, {**sizes, "intermediate_size": 4 * width, "vocab_size": 30522})


SIZES = (_bert("bert-base", 32, 768, 12, 12), _bert("bert-large", 16, 1024, 24, 16))


def bert_large(tiny: bool) -> Size:
    """Returns BERT-Large, or with `tiny` the small model that stands in for it where the code is tried."""
    return replace(_bert("tiny", 4, 16, 4, 2), length=16) if tiny else SIZES[-1]


def untrained(size: Size, attention: str) -> BertForMaskedLM:
    """Returns the model with random weights, on the default device."""
    return BertForMaskedLM(BertConfig(**size.architecture, attn_implementation=attention))


class Workload:
    """One set of weights and one AdamW, and over them a module tree for each variant.

    So the variants take turns in the memory of one model: nothing of the others lies beside a step's peak.
    """

    def __init__(
        self,
        size: Size,
        attention: str,
        precision: str,
        device: torch.device,
        variants: Sequence[str],
        capturable: bool = False,
    ) -> None:
        """precision: "bf16" is autocast over fp32 weights, "fp32" is not. capturable: a step may be captured
        into a CUDA graph, once steps were taken; AdamW then counts its steps on the device."""
        self.size, self.attention, self.precision, self.device = size, attention, precision, device
        torch.manual_seed(0)
        with torch.device(device):
            module = untrained(size, attention).float().train()
        self._modules = trees_of(module, variants)
        for variant, own in self._modules.items():
            PUT_IN[variant](own)
        self._optimizer = torch.optim.AdamW(module.parameters(), lr=_LR, capturable=capturable)
        self._capturable = capturable
        self._inputs: tuple[int, Tensor, Tensor] | None = None  # the last batch: samples, tokens, labels

    def __str__(self) -> str:
        return f"{self.size.name}, {self.attention}, {self.precision}"

    @property
    def variants(self) -> list[str]:
        return list(self._modules)

    def step(self, variant: str, batch: int, enter: Callable[[str], object] = lambda phase: None) -> Tensor:
        """Takes a step with a batch of that many samples; returns the loss, in nats.

        Gradients are gone afterwards, also where memory did not suffice. `enter` is called with the name of
        each phase, "forward", "backward" and "update", as it begins.
        """
        module = self._modules[variant]
        try:
            enter("forward")
            loss = self._loss(module, batch)
            enter("backward")
            loss.backward()
            enter("update")
            nn.utils.clip_grad_norm_(module.parameters(), _CLIP_NORM)
            self._optimizer.step()
            return loss.detach()
        finally:
            self._optimizer.zero_grad(set_to_none=True)

    def saved_for_backward(self, variant: str, batch: int) -> SavedForBackward:
        """Returns the ledger of what one forward saves for backward."""
        with SavedForBackward(self._modules[variant]) as ledger:
            self._loss(self._modules[variant], batch)
        return ledger

    def state(self) -> list[Tensor]:
        """Returns what a step changes: the parameters, and AdamW's state once a step was taken."""
        parameters = [p for group in self._optimizer.param_groups for p in group["params"]]
        kept = (value for of_one in self._optimizer.state.values() for value in of_one.values())
        return [tensor.detach() for tensor in (*parameters, *kept)]

    def _batch(self, batch: int) -> tuple[Tensor, Tensor]:
        """Returns tokens and labels, int64 (samples, tokens), the same ones for one number of samples."""
        if self._inputs is None or self._inputs[0] != batch:
            self._inputs = None
            generator = torch.Generator(self.device).manual_seed(batch)
            draw = partial(torch.rand, batch, self.size.length, generator=generator, device=self.device)
            tokens = (draw() * self.size.architecture["vocab_size"]).long()
            self._inputs = batch, tokens, tokens.masked_fill(draw() >= _HIDDEN_SHARE, _NO_LABEL)
        return self._inputs[1:]

    def _no_padding(self, tokens: Tensor) -> Tensor | None:
        """Returns the mask, float32 (samples, 1, tokens, tokens), that transformers else makes in each
        forward of eager attention, from a number that it copies to the device, which no capture allows."""
        if self.attention != "eager":
            return None
        batch, length = tokens.shape
        return tokens.new_zeros(batch, 1, length, length, dtype=torch.float32)

    def _loss(self, module: nn.Module, batch: int) -> Tensor:
        """Returns the loss that pmexp.training.loop computes."""
        tokens, labels = self._batch(batch)
        given = {"attention_mask": self._no_padding(tokens)} if self._capturable else {}
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            logits = module(input_ids=tokens, **given).logits.float()
            return F.cross_entropy(logits.flatten(0, -2), labels.flatten(), ignore_index=_NO_LABEL)
