"""Makes calls of scaled_dot_product_attention as the layers of BERT and Longformer make them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
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
class AttentionCall:
    """One call's tensors, of one dtype: (batch, heads, rows, head size), and the output's gradient."""

    layer: str  # in words
    query: Tensor
    key: Tensor
    value: Tensor
    grad: Tensor
    mask: Tensor | None  # bool, true where a query sees a key, or additive
    mask_words: str
    dropout: float

    def __str__(self) -> str:
        return f"{self.layer}, {self.dtype}, mask: {self.mask_words}, dropout {self.dropout:g}"

    @property
    def dtype(self) -> str:
        return str(self.query.dtype).removeprefix("torch.")

    def attend(self, value: Tensor | None = None) -> Tensor:
        """Returns the same call with other values where they are given."""
        return F.scaled_dot_product_attention(
            self.query,
            self.key,
            self.value if value is None else value,
            attn_mask=self.mask,
            dropout_p=self.dropout,
        )

    def both(self) -> list[Tensor]:
        """The output and the gradients of query, key and value."""
        output = self.attend()
        inputs = (self.query, self.key, self.value)
        return [output.detach(), *torch.autograd.grad(output, inputs, self.grad)]

    def without_dropout(self) -> "AttentionCall":
        return replace(self, dropout=0.0)

    def wide(self) -> "AttentionCall":
        """Returns the same call in float32, without dropout."""
        query, key, value = (_leaf(tensor.float()) for tensor in (self.query, self.key, self.value))
        mask = self.mask
        if mask is not None and mask.is_floating_point():
            mask = mask.float()
        plain, grad = self.without_dropout(), self.grad.float()
        return replace(plain, query=query, key=key, value=value, grad=grad, mask=mask)


@dataclass(frozen=True)
class LongformerSize:
    tokens: int
    batch: int


@dataclass(frozen=True)
class LongformerInput:
    """What one attention layer of Longformer gets: padding behind 7/8 of the tokens, one global token."""

    hidden: Tensor
    grad: Tensor  # has the output's shape and dtype
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

    def both(self, attention: Any) -> list[Tensor]:
        """The output and the gradient of the layer's input."""
        output = self.through(attention)
        return [output.detach(), *torch.autograd.grad(output, self.hidden, self.grad.to(output.dtype))]


def longformer_sizes(tiny: bool) -> list[LongformerSize]:
    """Returns windows and batches with the same number of tokens each."""
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
        given = LongformerInput(hidden, torch.randn_like(hidden), places >= size.tokens * 7 // 8, places == 0)
    return eager, SlidingAttention(eager), given


def calls(device: torch.device, tiny: bool) -> dict[str, Callable[[], AttentionCall]]:
    """What makes each call, by a name. One is made when it is needed: together they would fill the device."""
    makers: dict[str, Callable[[], AttentionCall]] = {}
    for dtype in (torch.bfloat16, torch.float16):
        for size in longformer_sizes(tiny):
            for rate in (RATE, 0.0):
                name = f"Longformer at {size.tokens:,} tokens, {dtype}, dropout {rate:g}"
                makers[name] = partial(_of_blocks, size, device, tiny, dtype, rate)
        for masked in (True, False):
            for rate in (RATE, 0.0):
                name = f"BERT with{'' if masked else 'out'} padding, {dtype}, dropout {rate:g}"
                makers[name] = partial(_of_bert, device, tiny, dtype, masked, rate)
    return makers


def _of_blocks(
    size: LongformerSize, device: torch.device, tiny: bool, dtype: torch.dtype, rate: float
) -> AttentionCall:
    """The call of all blocks of one layer, with the tensors and masks that the layer makes."""
    _, sliding, given = longformer(size, device, tiny, rate)
    with _FirstCall() as seen, torch.no_grad(), torch.autocast(device.type, dtype):
        given.through(sliding)
    query, key, value = (_leaf(tensor.to(dtype)) for tensor in seen.tensors[:3])
    mask = seen.tensors[3].to(dtype)
    layer = f"Longformer, {size.batch} x {size.tokens:,} tokens"
    return AttentionCall(layer, query, key, value, torch.randn_like(query), mask, "window and padding", rate)


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


def _of_bert(
    device: torch.device, tiny: bool, dtype: torch.dtype, masked: bool, rate: float
) -> AttentionCall:
    """A layer of BERT-Large's: heads are a view of (batch, tokens, hidden), as in transformers."""
    batch, tokens, heads, width = (2, 16, 2, 16) if tiny else (8, 512, 16, 64)
    torch.manual_seed(0)
    parts = torch.randn(4, batch, tokens, heads, width, device=device, dtype=dtype).transpose(2, 3).unbind()
    query, key, value = map(_leaf, parts[:3])
    ends = torch.linspace(tokens / 2, tokens, batch, device=device)
    seen = torch.arange(tokens, device=device) < ends[:, None]
    mask = seen[:, None, None].expand(-1, -1, tokens, -1).contiguous() if masked else None
    words = "padding" if masked else "none"
    return AttentionCall(
        f"BERT-Large, {batch} x {tokens:,} tokens", query, key, value, parts[3], mask, words, rate
    )


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().requires_grad_()
