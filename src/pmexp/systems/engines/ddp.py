"""Trains data-parallel: every rank holds the model and the optimizer, gradients are averaged in buckets."""

import inspect

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pmexp.systems.engines.base import Engine, MakeOptimizer


class Ddp(Engine):
    def prepare(self, module: nn.Module, make_optimizer: MakeOptimizer) -> nn.Module:
        super().prepare(module, make_optimizer)
        self._parallel = _parallel(module)
        return self._parallel

    def begin_micro_batch(self, last: bool) -> None:
        self._parallel.require_backward_grad_sync = last  # no_sync() sets this flag


def _parallel(module: nn.Module) -> DistributedDataParallel:
    """`module` in data parallelism, with buffers that rank 0 sends at the beginning and not at each forward.

    The argument for it is of torch 2.13; before, the attribute does the same once the start is over.
    """
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters:
        return DistributedDataParallel(module, forward_sync_buffers=False, gradient_as_bucket_view=True)
    parallel = DistributedDataParallel(module, gradient_as_bucket_view=True)
    parallel.broadcast_buffers = False  # as an argument it would stop the first broadcast too
    return parallel
