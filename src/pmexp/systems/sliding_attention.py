"""Computes Longformer's attention by scaled_dot_product_attention: a sliding window, and global tokens.

With a window of w positions on either side, the queries are cut into blocks of w. A block sees the 3w keys
of itself and its two neighbours, less what the band |query - key| <= w and the padding hide, and in front
of them the keys of the global tokens. The blocks are a batch dimension, so one call does them all. Global
tokens attend to every token, with projections of their own, and a second call does them.

Memory is linear in the sequence: each key and value stands in 3 blocks, and the kernel saves no
probabilities, except torch's math kernel (the CPU's under dropout), which saves those of the blocks.
Attention dropout is the kernel's own. Rows of padding give zeros, as they do in the eager attention.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from pmexp.systems.sdpa_kernels import flash_first

_PROJECTIONS = ("query", "key", "value", "query_global", "key_global", "value_global")


class SlidingAttention(nn.Module):
    """Stands in for a transformers LongformerSelfAttention: its parameters, arguments and result.

    It has the projections themselves, under the same names, so state_dict keys stay.
    """

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    query_global: nn.Linear
    key_global: nn.Linear
    value_global: nn.Linear
    attends_by_sdpa = True  # packed_dropout/surgery.py reads it

    def __init__(self, eager: Any) -> None:
        super().__init__()
        for name in _PROJECTIONS:
            self.add_module(name, getattr(eager, name))
        self.heads, self.head_dim = eager.num_heads, eager.head_dim
        self.window = eager.one_sided_attn_window_size
        self.dropout = eager.dropout
        self.train(eager.training)

    def extra_repr(self) -> str:
        return f"heads={self.heads}, window={self.window} on either side, dropout={self.dropout}"

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        is_index_masked: Tensor | None = None,
        is_index_global_attn: Tensor | None = None,
        is_global_attn: bool = False,
        output_attentions: bool = False,
    ) -> tuple[Tensor]:
        """Maps (batch, length, hidden) to the same shape, in a tuple.

        Args:
            hidden_states: of a length that is a multiple of the window; LongformerModel pads to it.
            attention_mask: not read, it says the same as the two below.
            is_index_masked: (batch, length) bool, padding.
            is_index_global_attn: (batch, length) bool, global tokens; none of them is padding.
            is_global_attn: whether there is any global token.

        Raises:
            ValueError: the length is no multiple of the window, or attentions, never made, are asked for.
        """
        assert is_index_masked is not None and is_index_global_attn is not None
        if output_attentions:
            raise ValueError("output_attentions=True: sliding-block attention makes no attention matrix")
        if hidden_states.shape[1] % self.window:
            raise ValueError(
                f"hidden_states: length {hidden_states.shape[1]} is no multiple of the window {self.window}"
            )
        query, key, value = (self._heads(part(hidden_states)) for part in (self.query, self.key, self.value))
        plan = _plan(is_index_masked, is_index_global_attn, self.window, query.dtype)
        dropout = self.dropout if self.training else 0.0
        with flash_first(self):
            output = _local_attention(query, key, value, plan, self.window, dropout)
            output = output.masked_fill(is_index_masked[:, :, None], 0)
            if is_global_attn:
                by_global = self._global_attention(hidden_states, plan, dropout)
                output = output.masked_scatter(is_index_global_attn[:, :, None], by_global[plan.used])
        return (output,)

    def _global_attention(self, hidden: Tensor, plan: "_Plan", dropout: float) -> Tensor:
        """Returns what the global tokens get, (batch, global tokens, hidden)."""
        query = self._heads(self.query_global(_at(hidden, plan.positions)))
        key, value = self._heads(self.key_global(hidden)), self._heads(self.value_global(hidden))
        query, key, value = (part.transpose(1, 2) for part in (query, key, value))
        output = F.scaled_dot_product_attention(
            query, key, value, attn_mask=plan.everywhere, dropout_p=dropout
        )
        return output.transpose(1, 2).flatten(2)

    def _heads(self, projected: Tensor) -> Tensor:
        return projected.view(*projected.shape[:-1], self.heads, self.head_dim)


@dataclass(frozen=True)
class _Plan:
    """Says which query sees which key in one batch. Masks are additive: 0 where it does, -inf elsewhere."""

    positions: Tensor  # (batch, global tokens) int64: their places; samples with fewer repeat other places
    used: Tensor  # (batch, global tokens) bool: which of `positions` are of global tokens
    blocks: Tensor  # (batch * blocks, 1, window, global tokens + 3 * window)
    everywhere: Tensor  # (batch, 1, 1, length): what a global token sees


# Plans are keyed by the two tensors that every layer gets: the first layer of a window makes one, and it goes
# with the batch.
_PLANS: Any = WeakIdKeyDictionary()


@torch.compiler.disable
def _plan(padding: Tensor, is_global: Tensor, window: int, dtype: torch.dtype) -> _Plan:
    plans = _PLANS.setdefault(padding, WeakIdKeyDictionary()).setdefault(is_global, {})
    if (window, dtype) not in plans:
        plans[window, dtype] = _make_plan(padding, is_global, window, dtype)
    plan: _Plan = plans[window, dtype]
    return plan


def _make_plan(padding: Tensor, is_global: Tensor, window: int, dtype: torch.dtype) -> _Plan:
    counts = is_global.sum(1, keepdim=True)
    most = int(counts.max())
    positions = is_global.byte().argsort(dim=1, descending=True, stable=True)[:, :most]
    used = torch.arange(most, device=padding.device) < counts
    # A global token is seen in front of the window, once. Every query sees itself: a softmax over nothing
    # would be NaN, and none of these rows (padding, global tokens) reaches the output.
    near = torch.cat(_neighbours(_blocks(~padding & ~is_global, window)), dim=2)
    offset = torch.arange(-window, 2 * window, device=padding.device)
    offset = offset - torch.arange(window, device=padding.device)[:, None]
    seen = (offset.abs() <= window) & (near[:, :, None] | (offset == 0))
    front = used[:, None, None].expand(*seen.shape[:3], most)
    blocks = _additive(torch.cat([front, seen], dim=-1).flatten(0, 1)[:, None], dtype)
    everywhere = ~padding | padding.all(1, keepdim=True)
    return _Plan(positions, used, blocks, _additive(everywhere[:, None, None], dtype))


def _additive(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns 0 where `seen`, -inf elsewhere.

    Rows are padded to multiples of 8 elements in memory: else CUDA's memory-efficient kernel would make such
    a copy for each layer and save it.
    """
    padded = F.pad(seen, (0, -seen.shape[-1] % 8))
    mask = torch.zeros(padded.shape, dtype=dtype, device=seen.device).masked_fill_(~padded, -torch.inf)
    return mask[..., : seen.shape[-1]]


def _local_attention(
    query: Tensor, key: Tensor, value: Tensor, plan: _Plan, window: int, dropout: float
) -> Tensor:
    """Maps three of (batch, length, heads, head dim) to (batch, length, hidden)."""

    def seen(part: Tensor) -> Tensor:  # gives (batch * blocks, heads, global tokens + 3 * window, head dim)
        near = _neighbours(_blocks(part, window).transpose(2, 3))
        front = _at(part, plan.positions).transpose(1, 2)[:, None].expand(-1, near[0].shape[1], -1, -1, -1)
        return torch.cat([front, *near], dim=3).flatten(0, 1)

    blocks = query.unflatten(1, (-1, window)).flatten(0, 1).transpose(1, 2)
    output = F.scaled_dot_product_attention(
        blocks, seen(key), seen(value), attn_mask=plan.blocks, dropout_p=dropout
    )
    return output.transpose(1, 2).reshape(*query.shape[:2], -1)


def _blocks(x: Tensor, window: int) -> Tensor:
    """Maps (batch, length, ...) to (batch, blocks + 2, window, ...), with an empty block before and after."""
    around = [0, 0] * (x.dim() - 2) + [window, window]
    return F.pad(x, around).reshape(len(x), -1, window, *x.shape[2:])


def _neighbours(blocks: Tensor) -> list[Tensor]:
    """Returns, aligned by block, the block before each, the block itself and the block after it."""
    return [blocks[:, :-2], blocks[:, 1:-1], blocks[:, 2:]]


def _at(x: Tensor, positions: Tensor) -> Tensor:
    """Returns the rows of `x` (batch, length, ...) at `positions` (batch, n)."""
    return x[torch.arange(len(x), device=x.device)[:, None], positions]
