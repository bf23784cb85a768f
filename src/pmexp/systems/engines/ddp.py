"""Trains data-parallel: every rank holds the model and the optimizer, gradients are averaged in buckets."""

import inspect

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pmexp.errors import UserError
from pmexp.measure.tensor_parts import taken_apart
from pmexp.systems.engines.base import Engine, MakeOptimizer, Weights

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes an element


class Ddp(Engine):
    """Trains whole copies of the model on all ranks, by torch's DistributedDataParallel."""

    def prepare(self, module: nn.Module, make_optimizer: MakeOptimizer) -> nn.Module:
        super().prepare(module, make_optimizer)
        self._parallel = _parallel(module)
        self._compared = False
        return self._parallel

    def step(self) -> Tensor | None:
        norm = super().step()
        if not self._compared:  # the first step tells, and checkpoints and evaluations tell again
            self._refuse_different_weights()
        return norm

    def weights(self) -> Weights:
        self._refuse_different_weights()
        return super().weights()

    def _refuse_different_weights(self) -> None:
        """Raises UserError, on all ranks, where they do not hold the same parameters."""
        self._compared = True
        sums = _sums(self.module)
        if self.ranks.most(self.ranks.from_first(sums) != sums):
            raise UserError(
                "system.parts: ddp: the processes hold different weights, so something updates them by what "
                "one process has alone, as an optimizer does during backward; train on one process"
            )

    def begin_micro_batch(self, last: bool) -> None:
        self._parallel.require_backward_grad_sync = last  # no_sync() sets this flag


def _sums(module: nn.Module) -> list[int]:
    """Sums the bits of each parameter that trains, as whole numbers."""
    weights = taken_apart(
        {name: each.detach() for name, each in module.named_parameters() if each.requires_grad}
    )
    sums: list[int] = torch.stack([_bits(each).sum(dtype=torch.int64) for each in weights.values()]).tolist()
    return sums  # which a device hands over at once


def _bits(weight: Tensor) -> Tensor:
    weight = torch.view_as_real(weight) if weight.is_complex() else weight
    return weight.contiguous().view(_INTEGERS[weight.element_size()])


def _parallel(module: nn.Module) -> DistributedDataParallel:
    """`module` in data parallelism, with buffers that rank 0 sends at the beginning and not at each forward.

    The argument for it is of torch 2.13; before, the attribute does the same once the start is over.
    """
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters:
        return DistributedDataParallel(module, forward_sync_buffers=False, gradient_as_bucket_view=True)
    parallel = DistributedDataParallel(module, gradient_as_bucket_view=True)
    parallel.broadcast_buffers = False  # as an argument it would stop the first broadcast too
    return parallel
