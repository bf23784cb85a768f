"""Calls of scaled_dot_product_attention as the layers of BERT and Longformer make them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from transformers import LongformerConfig
from transformers.models.longformer.modeling_longformer import LongformerSelfAttention

from pmexp.systems.sliding_attention import SlidingAttention

RATE = 0.1


@dataclass(frozen=True)
class Call:
    """One call's tensors: query, key and value of one dtype, (batch, heads, rows, head size)."""

    layer: str  # in words
    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None  # bool, true where a query sees a key, or additive
    mask_words: str
    dropout: float
    alternatives: bool = False  # whether the kernels that were not chosen are measured too

    def __str__(self) -> str:
        return f"{self.layer}, {self.dtype}, mask: {self.mask_words}, dropout {self.dropout:g}"

    @property
    def dtype(self) -> str:
        return str(self.query.dtype).removeprefix("torch.")

    @property
    def inputs(self) -> list[Tensor]:
        return [self.query, self.key, self.value]

    def attend(self, value: Tensor | None = None) -> Tensor:
        value = self.value if value is None else value
        return F.scaled_dot_product_attention(
            self.query, self.key, value, attn_mask=self.mask, dropout_p=self.dropout
        )

    def with_dropout(self, rate: float, alternatives: bool = False) -> "Call":
        return replace(self, dropout=rate, alternatives=alternatives)

    def wide(self) -> "Call":
        """The same numbers in float32, without dropout."""
        inputs = [tensor.detach().float().requires_grad_() for tensor in self.inputs]
        additive = self.mask is not None and self.mask.is_floating_point()
        mask = self.mask.float() if additive and self.mask is not None else self.mask
        return Call(self.layer, *inputs, mask, self.mask_words, 0.0)


@dataclass(frozen=True)
class LongformerSize:
    tokens: int
    batch: int


@dataclass(frozen=True)
class LongformerInput:
    """What one attention layer of Longformer gets: padding behind 7/8 of the tokens, one global token."""

    hidden: Tensor
    padding: Tensor
    is_global: Tensor

    def through(self, attention: Any) -> Tensor:
        output: Tensor = attention(
            self.hidden,
            attention_mask=(self.is_global.float() - self.padding.float()) * 10000,
            is_index_masked=self.padding,
            is_index_global_attn=self.is_global,
            is_global_attn=True,
        )[0]
        return output


def longformer_sizes(tiny: bool) -> list[LongformerSize]:
    """The same number of tokens each."""
    return [LongformerSize(32, 2)] if tiny else [LongformerSize(4096, 4), LongformerSize(16384, 1)]


def longformer(
    size: LongformerSize, device: torch.device, tiny: bool, dropout: float
) -> tuple[Any, SlidingAttention, LongformerInput]:
    """The eager attention of longformer-base-4096, the one in blocks over the same weights, and an input."""
    sizes = {"hidden_size": 32, "num_attention_heads": 2} if tiny else {}
    window = 8 if tiny else 512
    config = LongformerConfig(attention_window=[window], attention_probs_dropout_prob=dropout, **sizes)
    torch.manual_seed(0)
    with torch.device(device):
        eager = LongformerSelfAttention(config, 0).train()
        hidden = torch.randn(size.batch, size.tokens, config.hidden_size, requires_grad=True)
        places = torch.arange(size.tokens).expand(size.batch, -1)
        given = LongformerInput(hidden, places >= size.tokens * 7 // 8, places == 0)
    return eager, SlidingAttention(eager), given


def calls(device: torch.device, tiny: bool) -> Iterator[Call]:
    """All of them, each when it is asked for: what a layer needs is given back in between."""
    for size in longformer_sizes(tiny):
        for dtype in (torch.bfloat16, torch.float16):
            blocks = _of_blocks(size, device, tiny, dtype)
            yield blocks.with_dropout(RATE, alternatives=dtype is torch.bfloat16)
            if dtype is torch.bfloat16:
                yield blocks.with_dropout(0.0)
            del blocks
    for dtype in (torch.bfloat16, torch.float16):
        for masked in (True, False):
            for rate in (RATE, 0.0):
                yield _of_bert(device, tiny, dtype, masked, rate)


def _of_blocks(size: LongformerSize, device: torch.device, tiny: bool, dtype: torch.dtype) -> Call:
    """The call of all blocks of one layer, with the tensors and masks that the layer makes."""
    _, sliding, given = longformer(size, device, tiny, 0.0)
    with _FirstCall() as seen, torch.no_grad(), torch.autocast(device.type, dtype):
        given.through(sliding)
    query, key, value, mask = seen.tensors
    inputs = [tensor.to(dtype).contiguous().requires_grad_() for tensor in (query, key, value)]
    layer = f"Longformer, {size.batch} x {size.tokens:,} tokens"
    return Call(layer, *inputs, mask.to(dtype) if mask.dtype != dtype else mask, "window and padding", 0.0)


class _FirstCall(TorchFunctionMode):
    """Keeps the tensors of the first call of scaled_dot_product_attention."""

    def __init__(self) -> None:
        super().__init__()
        self.tensors: list[Tensor] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.scaled_dot_product_attention and not self.tensors:
            self.tensors = [*args[:3], (kwargs or {})["attn_mask"]]
        return func(*args, **(kwargs or {}))


def _of_bert(device: torch.device, tiny: bool, dtype: torch.dtype, masked: bool, rate: float) -> Call:
    """A layer of BERT-Large's: heads are a view of (batch, tokens, hidden), as in transformers."""
    batch, tokens, heads, width = (2, 16, 2, 16) if tiny else (8, 512, 16, 64)
    torch.manual_seed(0)
    parts = torch.randn(3, batch, tokens, heads, width, device=device, dtype=dtype).unbind()
    inputs = [part.transpose(1, 2).requires_grad_() for part in parts]
    ends = torch.linspace(tokens / 2, tokens, batch, device=device)
    seen = torch.arange(tokens, device=device) < ends[:, None]
    mask = seen[:, None, None].expand(-1, -1, tokens, -1) if masked else None
    words = "padding" if masked else "none"
    alternatives = dtype is torch.bfloat16 and rate > 0
    return Call(f"BERT-Large, {batch} x {tokens:,} tokens", *inputs, mask, words, rate, alternatives)
