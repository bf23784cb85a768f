"""Lists the models that level=memory trains, the ways to drop that it compares there, and their targets."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from pmexp.bench.memory_models import Build, Sizes, Trained, bart_layers, lora_llama, tinybert, torch_layer
from pmexp.packed_dropout import PackedDropout, replace_dropout
from pmexp.systems.tempo import apply_tempo
from pmexp.variants.forward_unpack import ForwardUnpackDropout
from pmexp.variants.seeded import SeededDropout

P = 0.1

NO_DROPOUT, STOCK, BYTES, SEED, PACKED, REBUILT, CHECKPOINTING, TEMPO = (
    *("no dropout", "stock", "byte masks", "seed-only", "packed", "rebuilt", "checkpointing", "Tempo"),
)


@dataclass(frozen=True)
class WayToDrop:
    """Says what is done to a model whose dropouts are nn.Dropout's and F.dropout's.

    change: returns False where there is nothing to change in such a model.
    """

    name: str
    change: Callable[[Trained], bool]
    p: float = P
    exact: bool = True  # whether gradients are those of the others with the same masks, bit for bit


@dataclass(frozen=True)
class Target:
    """The most of a rival's figure that `rebuilt` may take."""

    what: str  # "saved" or "ms"
    rival: str
    most: float


@dataclass(frozen=True)
class MemoryModel:
    name: str
    what: str  # describes it for the table
    build: Build
    sizes: Sizes
    autocast: bool = False  # bf16 over the weights' dtype
    targets: tuple[Target, ...] = ()


def _stock(trained: Trained) -> bool:
    return True


def _replaced(dropout: type[nn.Dropout], trained: Trained, **options: Any) -> bool:
    replace_dropout(trained, dropout, **options)
    return True


def _checkpointed(trained: Trained) -> bool:
    """Runs each layer again in backward, with packed dropout: the masks are drawn twice, and stock's draw on
    the CPU would be slower still."""
    _replaced(PackedDropout, trained)
    for layer in trained.layers():
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
    return True


def _tempo(trained: Trained) -> bool:
    _replaced(PackedDropout, trained)
    return bool(apply_tempo(trained).changed)


_packed = partial(_replaced, PackedDropout)
WAYS = (
    WayToDrop(NO_DROPOUT, _stock, p=0.0),
    WayToDrop(STOCK, _stock),
    WayToDrop(BYTES, partial(_replaced, ForwardUnpackDropout)),
    WayToDrop(SEED, partial(_replaced, SeededDropout)),
    WayToDrop(PACKED, _packed),
    WayToDrop(REBUILT, partial(_packed, recompute=True)),
    WayToDrop(CHECKPOINTING, _checkpointed),
    WayToDrop(TEMPO, _tempo, exact=False),
)
# With nn.Dropout's own masks; these are checked and not measured.
STOCK_MASKS = (
    WayToDrop("packed with stock's masks", partial(_packed, rng="torch")),
    WayToDrop("rebuilt with stock's masks", partial(_packed, rng="torch", recompute=True)),
)

_SMALL_LLAMA = Sizes(width=256, inner=688, heads=4, layers=2, batch=4, tokens=256)
_BART_BASE = Sizes(width=768, inner=3072, heads=12, layers=1, batch=2, tokens=512)
_TINYBERT = Sizes(width=312, inner=1200, heads=12, layers=4, batch=8, tokens=128)
_AS_FAST = (Target("ms", PACKED, 1.03), Target("ms", CHECKPOINTING, 1.0))
_LORA = (Target("saved", NO_DROPOUT, 1.02),)
WORKLOADS = (
    MemoryModel(
        "lora-fp32", "LoRA, 7 targets of a Llama of 2 layers, fp32", lora_llama, _SMALL_LLAMA, targets=_LORA
    ),
    MemoryModel(
        "lora-bf16",
        "LoRA, 7 targets of a Llama of 2 layers, bf16 autocast over frozen weights in bf16",
        partial(lora_llama, half=True),
        _SMALL_LLAMA,
        autocast=True,
        targets=_LORA,
    ),
    MemoryModel(
        "bart-base",
        "an encoder and a decoder layer of BART-Base, bf16 autocast, eager attention",
        bart_layers,
        _BART_BASE,
        autocast=True,
        targets=(Target("saved", BYTES, 0.67), *_AS_FAST),
    ),
    MemoryModel(
        "torch-encoder",
        "nn.TransformerEncoderLayer of BART-Base's size, gelu, bf16 autocast",
        torch_layer,
        _BART_BASE,
        autocast=True,
        targets=(Target("saved", BYTES, 0.75),),
    ),
    MemoryModel("tinybert", "TinyBERT, fp32, eager attention", tinybert, _TINYBERT, targets=_AS_FAST),
)
