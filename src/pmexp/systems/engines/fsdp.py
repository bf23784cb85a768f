"""Trains with PyTorch's own sharding (FSDP2): gradients, optimizer and, between steps, parameters are split.

Like ZeRO-2 the layers' parameters stay whole from forward to backward (reshard_after_forward=False). Each
micro-batch's gradient is reduced to the shards at once, so accumulation costs no whole gradient.
"""

from typing import Any

from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from pmexp.systems.engines.base import (
    AFTER_ACCUMULATION,
    ON_GRADIENT,
    Engine,
    MakeOptimizer,
    Weights,
    frozen_weights,
    refuse_hooks,
)
from pmexp.systems.layers import layers_of

_WHOLE_ON_RANK_0 = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
_WHOLE_ON_EVERY_RANK = StateDictOptions(full_state_dict=True)


class FullyShard(Engine):
    """Shares parameters, gradients and optimizer state among the ranks, by torch's fully_shard."""

    moves_weights = False  # whole weights of a forward are copies of the shards

    def prepare(self, module: nn.Module, make_optimizer: MakeOptimizer) -> nn.Module:
        refuse_hooks(
            module,
            "fsdp",
            (AFTER_ACCUMULATION, ON_GRADIENT),
            "sharding puts another in its place, which has none; let the optimizer give it to the parameters "
            "that it gets, or take ddp or one process",
        )
        device = next(module.parameters()).device.type
        mesh = init_device_mesh(device, (self.ranks.world_size,))
        for part in (*layers_of(module, "fsdp"), module):
            fully_shard(part, mesh=mesh, reshard_after_forward=False)
        super().prepare(module, make_optimizer)
        for sharded in self._sharded():  # so what measures the first forward knows the parameters it meets
            sharded.unshard()
        return module

    def weights(self) -> Weights:
        self._reshard()
        weights = get_model_state_dict(self.module, options=_WHOLE_ON_RANK_0)
        return {name: tensor for name, tensor in weights.items() if isinstance(tensor, Tensor)}

    def load_weights(self, weights: Weights) -> None:
        self._reshard()
        frozen = frozen_weights(self.module)  # which `weights` does not have
        options = StateDictOptions(full_state_dict=True, strict=not frozen)
        set_model_state_dict(self.module, dict(weights), options=options)

    def state(self) -> dict[str, Any]:
        """Returns this rank's state; rank 0's holds the whole optimizer."""
        whole = get_optimizer_state_dict(self.module, self.optimizer, options=_WHOLE_ON_RANK_0)
        return {"optimizer": whole, "scaler": self.scaler.state_dict()}

    def restore(self, states: list[dict[str, Any]]) -> None:
        whole = states[0]["optimizer"]
        set_optimizer_state_dict(self.module, self.optimizer, whole, options=_WHOLE_ON_EVERY_RANK)
        self.scaler.load_state_dict(states[self.ranks.rank]["scaler"])

    def _sharded(self) -> list[FSDPModule]:
        return [part for part in self.module.modules() if isinstance(part, FSDPModule)]

    def _reshard(self) -> None:
        """Splits the parameters again: after a forward alone they are whole, and no state can be set."""
        for part in self._sharded():
            part.reshard()

    def _whole(self, norm: Tensor) -> Tensor:
        return norm.full_tensor() if isinstance(norm, DTensor) else norm
