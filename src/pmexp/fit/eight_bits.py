"""Has the state of an 8-bit AdamW, and no values: what blockwise 8-bit optimizers keep, bitsandbytes' first.

Each of the two moments is a byte an element and a float32 for each block of 256; a tensor of fewer than 4,096
elements keeps float32. The update is one kernel, which makes nothing beside it.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pmexp.errors import UserError

_BLOCK, _FEWEST = 256, 4096  # elements


class EightBitAdamW(Optimizer):
    """Takes steps that change nothing.

    Args:
        params: as of any optimizer of torch.
        in_32_bits: these keep float32 moments however large they are.
    """

    def __init__(self, params: Iterable[Any], in_32_bits: Iterable[Tensor] = ()) -> None:
        super().__init__(params, {})
        self._in_32_bits = {id(parameter) for parameter in in_32_bits}

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and not self.state[parameter]:
                    self.state[parameter] = self._moments(parameter)

    def _moments(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        large = parameter.numel() >= _FEWEST and id(parameter) not in self._in_32_bits
        dtype = torch.uint8 if large else torch.float32
        moments = {name: torch.zeros_like(parameter, dtype=dtype) for name in ("first", "second")}
        if large:
            blocks = -(-parameter.numel() // _BLOCK)
            moments |= {name: torch.zeros(blocks) for name in ("first_scales", "second_scales")}
        return moments


def eight_bits_in_place_of(optimizer: Optimizer, model: nn.Module, embeddings_too: bool) -> Optimizer:
    """Returns the 8-bit form of an Adam or AdamW; its embeddings keep float32 unless `embeddings_too`.

    Raises UserError for another optimizer.
    """
    if not isinstance(optimizer, torch.optim.Adam):  # AdamW is one
        raise UserError(
            f"8bit-optimizer: {type(optimizer).__name__} has no 8-bit form here; allowed are Adam and AdamW"
        )
    wide = (
        [] if embeddings_too else [part.weight for part in model.modules() if isinstance(part, nn.Embedding)]
    )
    return EightBitAdamW(optimizer.param_groups, wide)
