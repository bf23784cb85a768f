"""Compares the gradient of a dropout with finite differences of its forward."""

import torch
from torch import Tensor, nn

from pmexp.errors import UserError
from pmexp.shown import class_of

_SHAPE = (61, 67)  # many vectors of every backend, and no whole number of bytes, words or vectors
_SEED = 20


def gradient_error(dropout: nn.Module, device: torch.device) -> float:
    """Returns the largest absolute error in the gradient that `dropout` makes of one fixed v, in float64.

    It is compared with v times central differences of forward. Dropout works element by element, so two calls
    move all elements. Every call starts from the same random state and so draws the same mask; torch's
    generators are left as they were.

    Under a fixed mask dropout is linear, and differences over a step of 1 are exact but for rounding. |x| and
    |v| are at most 1; they, x + 1 and x - 1 are multiples of 2**-16 and have no rounding of their own. With
    u = 2**-53 and s = 1 / (1 - p), s and a product with it are off by 3 u s at most, once forwards and once
    backwards; the difference and its product with v add u s each. So a right gradient has at most the error
    8 u / (1 - p), as far as the backend computes float64 in float64.
    """
    numbers = torch.arange(_SHAPE[0] * _SHAPE[1], dtype=torch.float64, device=device).view(_SHAPE)
    x, v = (numbers * 40503 % 2**16) / 2**15 - 1, (numbers * 25173 % 2**16 + 1) / 2**16

    def dropped(values: Tensor) -> Tensor:
        torch.default_generator.manual_seed(_SEED)
        if device.type == "cuda":
            torch.cuda.manual_seed(_SEED)
        y: Tensor = dropout(values)
        if not isinstance(y, Tensor) or y.shape != values.shape:
            shape = f"shape {tuple(y.shape)}" if isinstance(y, Tensor) else class_of(y)
            raise UserError(
                f"variant.dropout: of shape {_SHAPE} it makes {shape}; return a tensor of the same shape"
            )
        return y

    dropout.train()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        leaf = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(dropped(leaf.clone()), leaf, v)
        with torch.no_grad():
            expected = (dropped(x + 1) - dropped(x - 1)) / 2 * v
    return float((gradient - expected).abs().max())
