"""Checks that a contender is dropout at all: no figure of one is shown before this."""

import math

import torch
from torch import Tensor, nn

from pmexp.bench.contenders import Contender
from pmexp.errors import ContenderFailed
from pmexp.measure.saved_for_backward import SavedForBackward
from pmexp.packed_dropout import reference

_LOG_ODDS = 20  # refuse a right contender by chance less than once in e**20 / 2, or 2e8, checks


def check(contender: Contender, x: Tensor, grad: Tensor, p: float) -> None:
    """Drops `x`, which has no zeros, and sends `grad` back; both have one shape and dtype.

    Raises ContenderFailed unless the share of kept elements is 1 - p to within its sampling error, kept
    ones are x / (1 - p) and dropped ones 0 to the bit, the gradient is `grad` under the same mask, and
    the bytes saved for backward are those promised.
    """
    x = x.detach().requires_grad_()
    with SavedForBackward(nn.Identity()) as ledger:
        y = contender.drop(x)
    keep = y.detach() != 0
    _require(_plausible_share(keep, p), contender, x, f"keeps {keep.sum().item()} elements at p={p}")
    _require(_is_masked(y, x, keep, p), contender, x, "kept elements are not x / (1 - p)")
    (x_grad,) = torch.autograd.grad(y, x, grad)
    _require(_is_masked(x_grad, grad, keep, p), contender, x, "the gradient is not that of its own mask")
    saved, promised = ledger.total_bytes, contender.saved_bytes(x)
    _require(saved == promised, contender, x, f"saved {saved} bytes for backward, {promised} were promised")


def _plausible_share(keep: Tensor, p: float) -> bool:
    """Whether the number of kept elements is plausible.

    Its mean is N (1 - p) and its variance v = N p (1 - p). By Bernstein's inequality the count
    is off by t or more with a probability below 2 exp(-t**2 / (2 v + 2 t / 3)); solved here for t."""
    variance = keep.numel() * p * (1 - p)
    off = abs(keep.sum().item() - keep.numel() * (1 - p))
    return off < _LOG_ODDS / 3 + math.sqrt(_LOG_ODDS**2 / 9 + 2 * _LOG_ODDS * variance)


@torch.no_grad()
def _is_masked(y: Tensor, x: Tensor, keep: Tensor, p: float) -> bool:
    """Whether y is x * keep / (1 - p) in ours or one of torch's own roundings of the factor.

    It is rounded to x's dtype (nn.Dropout on the CPU), or to what products are computed in, where 1 - p was
    rounded before (ours, and CUDA) or was not (native_dropout's backward).
    """
    ours, stock = reference.kept_scale(p, x.dtype), reference.stock_cpu_scale(p, x.dtype)
    return any(torch.equal(y, reference.scaled(x, keep, factor)) for factor in (ours, stock, 1 / (1 - p)))


def _require(holds: bool, contender: Contender, x: Tensor, otherwise: str) -> None:
    if not holds:
        shape = "x".join(map(str, x.shape))
        raise ContenderFailed(f"{contender.name} fails its check at {shape} {x.dtype}: {otherwise}")
