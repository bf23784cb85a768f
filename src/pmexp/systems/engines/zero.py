"""Trains with DeepSpeed's ZeRO-1 and ZeRO-2 through accelerate: split optimizer, and with 2 split gradients.

Weights stay fp32; bf16 is torch's autocast, as in every other stack. fp16 is refused: under torch's autocast
DeepSpeed 0.19.8 clips the gradient while it is still multiplied by the loss scale. The model is called by
itself, not through DeepSpeed's engine, whose forward turns an autocast around it off; its hooks sit on the
model and fire. The optimizer is torch's AdamW, so nothing is compiled. DeepSpeed clips inside its step, by
torch's formula. accelerate's own backward is not used: it takes the step too, and the loop asks for the norm
between.
"""

import copy
import logging
import re
import warnings
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

from pmexp.errors import UserError
from pmexp.extras import need
from pmexp.systems.engines.base import (
    AFTER_ACCUMULATION,
    Engine,
    MakeOptimizer,
    Weights,
    refuse_hooks,
    trained,
)

_OLDEST = (0, 18, 3)  # ZeRO-2 of DeepSpeed 0.17.6 to 0.18.2 steps by the last micro-batch alone.


def check_packages(part: str) -> None:
    """Raises UserError where DeepSpeed cannot be had, or is one that trains wrongly."""
    need(f"system.parts: {part}", "deepspeed", "accelerate")
    installed = version("deepspeed")
    if tuple(int(number) for number in re.findall(r"\d+", installed)[:3]) < _OLDEST:
        raise UserError(
            f"system.parts: {part} needs deepspeed>=0.18.3, not {installed}: before it ZeRO-2 may step "
            "by the last micro-batch alone; pip install 'pmexp[distributed]' brings it"
        )


class ZeroEngine(Engine):
    """Trains by DeepSpeed's ZeRO: ranks share the optimizer's state, from stage 2 on gradients too."""

    stage: int
    moves_weights = False  # its shards are copies of the weights

    def prepare(self, module: nn.Module, make_optimizer: MakeOptimizer) -> nn.Module:
        self.module = module
        self.optimizer = make_optimizer(trained(module))
        refuse_hooks(
            module,
            f"zero{self.stage}",
            (AFTER_ACCUMULATION,),
            "DeepSpeed has taken its gradient by then, so that an update during backward would be lost; take "
            "fsdp or one process",
        )
        self._engine = _initialize(module, self.optimizer, self._config())
        self._zero = self._engine.optimizer  # holds `self.optimizer` over this rank's flat shard
        return module

    def begin_micro_batch(self, last: bool) -> None:
        self._engine.set_gradient_accumulation_boundary(last)

    def backward(self, loss: Tensor) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            self._engine.backward(self._averaged(loss), scale_wrt_gas=False)

    def step(self) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # DeepSpeed calls all_gather_into_tensor
            self._engine.step()
        return torch.as_tensor(self._engine.get_global_grad_norm())

    def held_gradients(self) -> list[Tensor]:
        """DeepSpeed's partition; where a parameter lies in two, both ranks hold its whole gradient."""
        groups = [
            group
            for name in ("averaged_gradients", "all_grad_tensors")
            for group in getattr(self._zero, name, {}).values()
        ]
        return super().held_gradients() + [tensor for group in groups for tensor in group or ()]

    def load_weights(self, weights: Weights) -> None:
        super().load_weights(weights)
        self._zero.refresh_fp32_params()  # the shard is a copy of the parameters

    def state(self) -> dict[str, Any]:
        return {"optimizer": copy.deepcopy(self.optimizer.state_dict())}

    def restore(self, states: list[dict[str, Any]]) -> None:
        self.optimizer.load_state_dict(states[self.ranks.rank]["optimizer"])

    def _config(self) -> dict[str, Any]:
        return {
            "train_micro_batch_size_per_gpu": 1,  # DeepSpeed's bookkeeping: our loop makes the batches
            "gradient_accumulation_steps": 1,  # our loop also says which micro-batch is the last
            "gradient_clipping": self.clip_norm or 0.0,  # 0 never clips
            "zero_optimization": {"stage": self.stage},
            "zero_allow_untested_optimizer": True,
            "steps_per_print": 10**9,
        }


class Zero1(ZeroEngine):
    """Shares the optimizer's state alone."""

    stage = 1


class Zero2(ZeroEngine):
    """Shares gradients as well."""

    stage = 2


def _initialize(module: nn.Module, optimizer: torch.optim.Optimizer, config: dict[str, Any]) -> Any:
    """DeepSpeed's engine around `module`, on the process group that is there."""
    check_packages("zero")
    import deepspeed
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import DeepSpeedPlugin, InitProcessGroupKwargs

    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # else every start compiles it for minutes
    device = next(module.parameters()).device
    # On the CPU accelerate would see one process without this handler.
    handlers = [] if device.type == "cuda" else [InitProcessGroupKwargs(backend="gloo")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        AcceleratorState._reset_state(True)  # a process may make an engine after another
        accelerator = Accelerator(
            deepspeed_plugin=DeepSpeedPlugin(hf_ds_config=config), kwargs_handlers=handlers
        )
        engine, _ = accelerator.prepare(module, optimizer)
    return engine
