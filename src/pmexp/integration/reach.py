"""Finds which dropouts of a model a variant reaches: by its report, and by the elements of one forward in
training.

The forward runs on fake tensors, which have shapes and no numbers, at full depth and width. A model that
decides by the values of its inputs runs as a copy with two layers on the CPU.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from pmexp import models
from pmexp.config import INPUTS_OF, Inputs, ModelKind, Objective, RunConfig, VariantConfig
from pmexp.models.architectures import vision_of
from pmexp.models.base import from_architecture
from pmexp.packed_dropout import ReplacementReport, packed_dropout
from pmexp.packed_dropout.origins import Origin
from pmexp.packed_dropout.rebuild import watching
from pmexp.packed_dropout.recompute import packed_dropout_and_bits
from pmexp.simulation.internals import fake_tensors
from pmexp.systems.system import System
from pmexp.variants.replace import apply_variant

# Longformer's forward asks whether there is a global token, ViLT's which patches are no padding.
ASKS_FOR_VALUES = (ModelKind.longformer, ModelKind.vilt)
CUT_LAYERS = 2  # is the depth of the copy on the CPU

_PACKED = (packed_dropout, packed_dropout_and_bits)
_STOCK = (
    *(F.dropout, torch.dropout, torch.dropout_, torch.native_dropout),
    *(torch.ops.aten.dropout, torch.ops.aten.dropout_),  # the routes of replace_dropout call these
)
_ATTENTION = (F.scaled_dot_product_attention, torch.ops.aten.scaled_dot_product_attention)
_CLASSES = 2


@dataclass(frozen=True)
class DropoutCall:
    """One call of a dropout in training."""

    place: str  # qualified name of the module whose forward makes it
    packed: bool  # dropped by the method; else by torch
    in_attention: bool  # inside of scaled_dot_product_attention
    p: float
    elements: int


@dataclass(frozen=True)
class Reach:
    """What a variant did to a model, and what one forward of it called."""

    report: ReplacementReport  # says what became of the whole model
    calls: tuple[DropoutCall, ...]
    recomputed_elements: int  # whose dropped values are made again in backward, and not saved

    @property
    def elements(self) -> int:
        """The number of elements that pass a dropout whose rate is above 0."""
        return sum(call.elements for call in self.calls if call.p > 0)

    @property
    def packed_elements(self) -> int:
        """The number of those elements that the method drops."""
        return sum(call.elements for call in self.calls if call.p > 0 and call.packed)

    @property
    def attention_elements(self) -> int:
        """The number of those elements that torch drops inside of scaled_dot_product_attention."""
        return sum(call.elements for call in self.calls if call.p > 0 and call.in_attention)


def reach(config: RunConfig, variant: VariantConfig, length: int) -> Reach:
    """Returns what `variant` reaches in the model of `config` under its system parts, on one sample.

    length: tokens of the sample; an image model takes one image of its size.

    Raises UserError for a part that the model cannot have, or where there is nothing to replace.
    """
    module = on_meta(config)
    report = _put_in(module, config, variant)
    if config.model.kind not in ASKS_FOR_VALUES:
        with fake_tensors():
            return Reach(report, *_forward(module.to_empty(device="cpu"), config, length))
    cut = models.untrained(_cut(config), _CLASSES)
    _put_in(cut, config, variant)
    return Reach(report, *_forward(cut, config, length))


def on_meta(config: RunConfig) -> PreTrainedModel:
    """Returns the whole model, untrained, on the meta device: with shapes and without numbers."""
    with torch.device("meta"):
        return models.untrained(config, _CLASSES)


def _put_in(module: nn.Module, config: RunConfig, variant: VariantConfig) -> ReplacementReport:
    System(config.system).before_variant(module)
    return apply_variant(module, variant)


def _forward(module: nn.Module, config: RunConfig, length: int) -> tuple[tuple[DropoutCall, ...], int]:
    sample = _sample(config, length)
    rebuilt: list[Origin] = []  # one for each operand
    with _places(module.train()) as places, _Calls(places) as noted, watching(rebuilt.append):
        module(**sample)
    return tuple(noted.calls), sum(origin.elements for origin in set(rebuilt))


def _cut(config: RunConfig) -> RunConfig:
    """The same run with fewer layers and a small vocabulary, which no dropout depends on."""
    smaller = config.model.architecture | {"num_hidden_layers": CUT_LAYERS, "vocab_size": 100}
    return replace(config, model=replace(config.model, architecture=smaller))


def _sample(config: RunConfig, length: int) -> dict[str, Tensor]:
    inputs = INPUTS_OF[config.dataset.kind]
    sample = {}
    if inputs in (Inputs.images, Inputs.image_texts):
        vit = vision_of(from_architecture(config))
        sample["pixel_values"] = torch.ones(1, vit.num_channels, vit.image_size, vit.image_size)
    if inputs is not Inputs.images:
        sample["input_ids"] = torch.ones(1, length, dtype=torch.int64)
    if config.dataset.objective is Objective.seq2seq:
        sample["decoder_input_ids"] = torch.ones(1, length, dtype=torch.int64)
    return sample


@contextmanager
def _places(module: nn.Module) -> Iterator[list[str]]:
    """Yields the names of the modules whose forward runs, the innermost last; the list changes as they
    run."""
    running: list[str] = []

    def enter(name: str) -> Any:
        return lambda *_: running.append(name)

    def leave(*_: Any) -> None:
        running.pop()

    for name, part in module.named_modules():
        part.register_forward_pre_hook(enter(name))
        part.register_forward_hook(leave)
    yield running


class _Calls(TorchFunctionMode):
    """Notes every call of a dropout in training."""

    def __init__(self, places: list[str]) -> None:
        super().__init__()
        self.places = places
        self.calls: list[DropoutCall] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _PACKED or func in _STOCK:
            self._note(func in _PACKED, False, *_of_dropout(*args, **kwargs))
        elif func in _ATTENTION:
            self._note(False, True, *_of_attention(*args, **kwargs))
        return func(*args, **kwargs)

    def _note(self, packed: bool, in_attention: bool, elements: int, p: float, training: bool) -> None:
        if training:
            self.calls.append(DropoutCall(self.places[-1], packed, in_attention, p, elements))


def _of_dropout(input: Tensor, p: float = 0.5, training: bool = True, *_: Any, **options: Any) -> Any:
    """Returns elements, rate and whether it is in training, of a call with these arguments."""
    return input.numel(), p, options.get("train", training)


def _of_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    *_: Any,
    **__: Any,
) -> Any:
    """Returns the same of attention, whose elements are its probabilities', (..., queries, keys)."""
    return query[..., 0].numel() * key.shape[-2], dropout_p, True
