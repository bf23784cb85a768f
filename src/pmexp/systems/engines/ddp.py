"""Data parallelism: every rank holds the model and the optimizer, gradients are averaged in buckets."""

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pmexp.systems.engines.base import Engine, MakeOptimizer


class Ddp(Engine):
    def prepare(self, module: nn.Module, make_optimizer: MakeOptimizer) -> nn.Module:
        super().prepare(module, make_optimizer)
        self._parallel = DistributedDataParallel(
            module, forward_sync_buffers=False, gradient_as_bucket_view=True
        )
        return self._parallel

    def begin_micro_batch(self, last: bool) -> None:
        self._parallel.require_backward_grad_sync = last  # what no_sync() sets
