"""Lists modules of torch itself, and a network with adapters of peft."""

import importlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pmexp.zoo.specimen import Made, Specimen
from pmexp.zoo.tiny import HEADS, LAYERS, RATE, WIDTH

LENGTH = 12


def numbers(*size: int) -> Tensor:
    """Returns numbers between -1 and 1 of that shape."""
    return torch.linspace(-9, 9, torch.Size(size).numel()).sin().view(size)


def of_torch() -> Iterator[Specimen]:
    """Yields torch's Transformers, its recurrent networks, and each of its dropouts between two layers."""
    for name, make in _TORCH.items():
        yield Specimen(name, "torch", "", partial(seeded, make))


def of_peft() -> Iterator[Specimen]:
    """Yields a network with each kind of adapters that drop."""
    for name, options in _ADAPTERS.items():
        yield Specimen(name, "peft", "", partial(seeded, partial(_adapted, name.partition(" ")[0], options)))


def seeded(make: Callable[[], Made]) -> Made:
    torch.manual_seed(0)
    model, inputs = make()
    return model.train(), inputs


def _of_sequence(make: Callable[[], nn.Module], *names: str) -> Made:
    return make(), {name: numbers(2, LENGTH, WIDTH).requires_grad_() for name in names}


class _First(nn.Module):
    """Returns the first of what a module returns, so that it may stand in a sequence."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, input: Tensor) -> Tensor:
        output = self.module(input)
        first: Tensor = output[0] if isinstance(output, tuple) else output
        return first


def _between_layers(make: Callable[[], nn.Module], *size: int) -> Made:
    layers = nn.Linear(size[-1], size[-1]), _First(make()), nn.Dropout(RATE), nn.Linear(size[-1], 2)
    return nn.Sequential(*layers), {"input": numbers(*size)}


def _recurrent(cls: Any) -> nn.Module:
    return cls(WIDTH, WIDTH, LAYERS, batch_first=True, dropout=RATE)  # type: ignore[no-any-return]


def _layer(cls: Any, **options: Any) -> nn.Module:
    return cls(WIDTH, HEADS, 2 * WIDTH, RATE, batch_first=True, **options)  # type: ignore[no-any-return]


def _stack(cls: Any, layer: Any, **options: Any) -> nn.Module:
    return cls(_layer(layer, **options), LAYERS)  # type: ignore[no-any-return]


def _transformer() -> nn.Module:
    return nn.Transformer(WIDTH, HEADS, LAYERS, LAYERS, 2 * WIDTH, RATE, batch_first=True)


def _attention() -> nn.Module:
    return nn.MultiheadAttention(WIDTH, HEADS, RATE, batch_first=True)


_TORCH: dict[str, Callable[[], Made]] = {
    "Transformer": partial(_of_sequence, _transformer, "src", "tgt"),
    "TransformerEncoder": partial(
        _of_sequence, partial(_stack, nn.TransformerEncoder, nn.TransformerEncoderLayer), "src"
    ),
    "TransformerEncoderLayer": partial(_of_sequence, partial(_layer, nn.TransformerEncoderLayer), "src"),
    "TransformerEncoderLayer (gelu, norm_first)": partial(
        _of_sequence, partial(_layer, nn.TransformerEncoderLayer, activation="gelu", norm_first=True), "src"
    ),
    "TransformerDecoder": partial(
        _of_sequence, partial(_stack, nn.TransformerDecoder, nn.TransformerDecoderLayer), "tgt", "memory"
    ),
    "TransformerDecoderLayer": partial(
        _of_sequence, partial(_layer, nn.TransformerDecoderLayer), "tgt", "memory"
    ),
    "MultiheadAttention": partial(_of_sequence, _attention, "query", "key", "value"),
    **{
        cls.__name__: partial(_between_layers, partial(_recurrent, cls), 2, LENGTH, WIDTH)
        for cls in (nn.RNN, nn.LSTM, nn.GRU)
    },
    **{
        cls.__name__: partial(_between_layers, partial(cls, RATE), *size)
        for cls, size in {
            nn.Dropout: (2, LENGTH, WIDTH),
            nn.Dropout1d: (2, LENGTH, WIDTH),
            nn.Dropout2d: (2, 4, LENGTH, WIDTH),
            nn.Dropout3d: (2, 4, 4, LENGTH, WIDTH),
            nn.AlphaDropout: (2, LENGTH, WIDTH),
            nn.FeatureAlphaDropout: (2, LENGTH, WIDTH),
        }.items()
    },
}

_LORA = {"r": 4, "lora_dropout": RATE}
_ADAPTERS: dict[str, dict[str, Any]] = {
    "LoraConfig": _LORA,
    "LoraConfig (rsLoRA)": _LORA | {"use_rslora": True},
    "LoraConfig (DoRA)": _LORA | {"use_dora": True},
    "LoraConfig (convolutions)": _LORA | {"target_modules": ["near", "up", "down"]},
    "AdaLoraConfig": {"r": 4, "init_r": 4, "lora_dropout": RATE, "total_step": 10},
    "LoHaConfig": {"r": 4, "rank_dropout": RATE, "module_dropout": RATE},
    "LoKrConfig": {"r": 4, "rank_dropout": RATE, "module_dropout": RATE},
    "OFTConfig": {"r": 0, "oft_block_size": 4, "module_dropout": RATE},
    "BOFTConfig": {"boft_block_size": 4, "boft_dropout": RATE},
    "VeraConfig": {"r": 4, "vera_dropout": RATE},
    "RandLoraConfig": {"r": 4, "randlora_dropout": RATE},
    "FourierFTConfig": {"n_frequency": 8},
    "HRAConfig": {"r": 4},
    "MissConfig": {"r": 4, "miss_dropout": RATE},
}


class _Network(nn.Module):
    """Has an embedding, a convolution and linear layers, as adapters take them."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(64, WIDTH)
        self.near = nn.Conv1d(WIDTH, WIDTH, 3, padding=1)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.dropout = nn.Dropout(RATE)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.near(self.words(ids).transpose(1, 2)).transpose(1, 2)
        return self.down(self.dropout(torch.relu(self.up(x))))  # type: ignore[no-any-return]


def _adapted(kind: str, options: dict[str, Any]) -> Made:
    peft = importlib.import_module("peft")
    config = getattr(peft, kind)(**{"target_modules": ["up", "down"]} | options)
    return peft.get_peft_model(_Network(), config).base_model, {"ids": torch.arange(24).view(2, 12)}
