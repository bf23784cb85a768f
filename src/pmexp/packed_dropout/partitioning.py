"""Tells the partitioner of torch.compile what of a dropout to keep and what to make again in backward.

A compiled step is one graph that the partitioner cuts in two. What it does not save, backward computes again,
a draw of random numbers too where less memory is asked for (`activation_memory_budget`,
`aggressive_recomputation`): it knows a few random operators by name. So compiled dropout calls operators of
its own, whose nodes get the tags of selective checkpointing as they are recorded:

    draw_seed(below, device)             -> one int64 of torch's generator; saved, and where nothing may be,
                                            drawn again from the generator's state of then
    pack_draw(keep, bits)                -> pack_bits of a mask that torch's own operators draw; refused there
    drop_by_bits(x, packed, scale, bits) -> scale_packed_mask, made again in backward wherever that needs it
"""

from typing import Any

import torch
import torch._functorch.config as partitioner
from torch import Tensor
from torch.fx import traceback
from torch.fx.experimental.proxy_tensor import ProxyTorchDispatchMode
from torch.utils.checkpoint import CheckpointPolicy

from pmexp.packed_dropout import ops, reference

_library = torch.library.Library("pmexp", "FRAGMENT")
_SCHEMAS = (
    "pack_draw(Tensor keep, int bits) -> Tensor",
    "drop_by_bits(Tensor x, Tensor packed, float scale, int bits) -> Tensor",
)
NAMES = [_schema.partition("(")[0] for _schema in _SCHEMAS]
for _schema in _SCHEMAS:
    _library.define(_schema, tags=(torch.Tag.pt2_compliant_tag,))
# `call` tells calls apart, which the compiler would merge into one.
_SEED = "draw_seed(int below, *, Device device, int call=0) -> Tensor"
_library.define(_SEED, tags=(torch.Tag.pt2_compliant_tag, torch.Tag.nondeterministic_seeded))


def draw_seed(below: int, device: torch.device) -> Tensor:
    """Returns torch.randint's (1,) int64 in [0, below) on `device`, in a graph that is being compiled."""
    seed: Tensor = torch.ops.pmexp.draw_seed.default(below, device=device)
    return seed


def pack_drawn(keep: Tensor, bits: int) -> Tensor:
    """Packs a mask that operators of torch have drawn; compiled, where they are not drawn anew."""
    pack = torch.ops.pmexp.pack_draw.default if torch.compiler.is_compiling() else ops.pack_bits
    packed: Tensor = pack(keep, bits)
    return packed


drop_by_bits = torch.ops.pmexp.drop_by_bits.default


def _draw_seed(below: int, *, device: torch.device, call: int = 0) -> Tensor:
    return torch.randint(0, below, (1,), dtype=torch.int64, device=device)


def _pack_draw(keep: Tensor, bits: int) -> Tensor:
    packed: Tensor = ops.operators_for(keep).pack_bits(keep, bits)
    return packed


def _drop_by_bits(x: Tensor, packed: Tensor, scale: float, bits: int) -> Tensor:
    y: Tensor = ops.operators_for(x).scale_packed_mask(x, packed, scale, bits)
    return y


for _function in (_draw_seed, _pack_draw, _drop_by_bits):
    torch.library.impl(_library, _function.__name__[1:], "CompositeExplicitAutograd")(_function)
for _key in ("BackendSelect", "FuncTorchVmapMode"):  # no tensor says where a seed is drawn, or for how many
    torch.library.impl(_library, "draw_seed", _key)(_draw_seed)


@torch.library.register_fake("pmexp::draw_seed", lib=_library)
def _draw_seed_fake(below: int, *, device: torch.device, call: int = 0) -> Tensor:
    return torch.empty((1,), dtype=torch.int64, device=device)


@torch.library.register_fake("pmexp::pack_draw", lib=_library)
def _pack_draw_fake(keep: Tensor, bits: int) -> Tensor:
    return keep.new_empty((reference.packed_bytes(keep.numel(), bits),), dtype=torch.uint8)


@torch.library.register_fake("pmexp::drop_by_bits", lib=_library)
def _drop_by_bits_fake(x: Tensor, packed: Tensor, scale: float, bits: int) -> Tensor:
    return torch.empty_like(x)


def _memory_budget() -> float:
    """The share of activations that the graph being recorded may keep."""
    custom = traceback.current_meta.get("custom") or {}
    key = getattr(traceback, "MEMORY_BUDGET_ANNOTATION_KEY", None)  # torch has it from 2.13 on
    budget: float = custom.get(key, partitioner.activation_memory_budget)
    return budget


def _recorded(mode: Any, func: Any, types: Any, args: Any, kwargs: Any, policy: Any) -> Any:
    result = mode.__torch_dispatch__(func, types, args, kwargs)
    next(iter(reversed(mode.tracer.graph.nodes))).meta["recompute"] = policy  # no iterator before 2.12
    return result


@torch.library.register_torch_dispatch("pmexp::draw_seed", ProxyTorchDispatchMode, lib=_library)
def _record_seed(mode: Any, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
    # With a budget of 0 the partitioner saves inputs alone, whatever their tags, and repeats a draw by the
    # generator's state where the tag says that it is made again.
    nothing_is_saved = _memory_budget() == 0.0
    policy = CheckpointPolicy.MUST_RECOMPUTE if nothing_is_saved else CheckpointPolicy.MUST_SAVE
    numbered = kwargs | {"call": len(mode.tracer.graph.nodes)}
    return _recorded(mode, func, types, args, numbered, policy)


@torch.library.register_torch_dispatch("pmexp::drop_by_bits", ProxyTorchDispatchMode, lib=_library)
def _record_drop(mode: Any, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
    return _recorded(mode, func, types, args, kwargs, CheckpointPolicy.MUST_RECOMPUTE)


@torch.library.register_torch_dispatch("pmexp::pack_draw", ProxyTorchDispatchMode, lib=_library)
def _record_draw(mode: Any, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
    if _memory_budget() < 1.0 or partitioner.aggressive_recomputation:
        raise ValueError(
            "rng: 'torch' draws its masks by torch's own operators, which activation_memory_budget below 1 "
            "and aggressive_recomputation may draw anew in backward; use rng='philox', or neither of the two"
        )
    return mode.__torch_dispatch__(func, types, args, kwargs)
