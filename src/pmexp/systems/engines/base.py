"""Makes and applies a step's gradient on one process, and holds what the engines of several share.

A step is: for each micro-batch `begin_micro_batch`, the forward under the system's contexts, `backward`;
then `step`. The loss of a micro-batch is its share of the loss of the global batch, over all ranks and
micro-batches: the engine sums. So a run on several processes is the run on one with the same global batch,
but for the order of the sums and for the dropout masks, which every rank draws by itself.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from pmexp.errors import UserError
from pmexp.measure.tensor_parts import put_together, taken_apart
from pmexp.systems.ranks import Ranks

MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
Weights = dict[str, Tensor]
AFTER_ACCUMULATION = "_post_accumulate_grad_hooks"  # where a parameter has hooks, such as updates in backward
ON_GRADIENT = "_backward_hooks"


class Engine:
    """Trains on one process, or on several alike; a scheduler may set the learning rate of `optimizer`."""

    optimizer: torch.optim.Optimizer
    moves_weights = True  # whether an optimizer may hold other weights for evaluations than for training

    def __init__(self, ranks: Ranks, device: torch.device, clip_norm: float | None, scale_loss: bool) -> None:
        """Sets it up. Without a `clip_norm` no gradient is scaled down; `scale_loss` keeps gradients in fp16
        from vanishing and leaves out steps that overflow."""
        self.ranks = ranks
        self.clip_norm = clip_norm
        self.scaler = torch.amp.GradScaler(device.type, enabled=scale_loss)
        self._accumulates = False

    def prepare(self, module: nn.Module, make_optimizer: MakeOptimizer) -> nn.Module:
        """Takes over a model on its device and returns what is to be called in its place."""
        self.module = module
        self.optimizer = make_optimizer(trained(module))
        return module

    def set_mode(self, training: bool) -> None:
        """Puts the module into training or evaluation, and with it an optimizer that knows both: one without
        a schedule evaluates at other weights than it trains at."""
        self.module.train(training)
        turn = getattr(self.optimizer, "train" if training else "eval", None)
        if callable(turn):
            turn()

    def begin_micro_batch(self, last: bool) -> None:
        """Is called before each forward of training; `last` says that it is the last one of its step."""
        self._accumulates |= not last

    def backward(self, loss: Tensor) -> None:
        """Adds the gradients of `loss`, a share of the global batch's loss, a scalar."""
        self.scaler.scale(self._averaged(loss)).backward()

    def step(self) -> Tensor | None:
        """Clips the gradient, takes the optimizer's step and drops the gradients.

        Returns the norm of the whole gradient before clipping, a scalar; not finite where fp16 overflowed,
        and None where the optimizer has taken the gradient during backward.
        """
        parameters = [*self.module.parameters()]  # a walk over a 12-layer model takes 0.3 ms
        if all(parameter.grad is None for parameter in parameters):
            self._step_without_gradient()
            return None
        self.scaler.unscale_(self.optimizer)
        limit = math.inf if self.clip_norm is None else self.clip_norm
        norm = nn.utils.clip_grad_norm_(parameters, limit)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        for parameter in parameters:  # also those that the optimizer leaves out
            parameter.grad = None
        return self._whole(norm)

    def _step_without_gradient(self) -> None:
        """Takes the step of an optimizer that updates each parameter as soon as backward has its gradient.
        Raises UserError where the run asks for what only the whole gradient of a step allows."""
        wishes = {
            f"train.clip_norm={self.clip_norm}; type train.clip_norm=null": self.clip_norm is not None,
            "train.accumulate above 1": self._accumulates,
            "system.parts=[fp16], which scales the loss": self.scaler.is_enabled(),
        }
        if wished := [wish for wish, is_wished in wishes.items() if is_wished]:
            raise UserError(
                f"{type(self.optimizer).__name__}: no parameter has a gradient after backward; where the "
                f"optimizer takes it during backward, this run cannot have {wished[0]}"
            )
        self.optimizer.step()

    def weights(self) -> Weights:
        """The model's state_dict but for its frozen parameters: whole on rank 0, perhaps nothing on others.

        Every rank has to call it. What is frozen is as the model was built.
        """
        return trained_weights(self.module)

    def load_weights(self, weights: Weights) -> None:
        """Loads what `weights` returned on rank 0, on every rank."""
        whole = put_together(weights, self.module.state_dict())
        self.module.load_state_dict({**frozen_weights(self.module), **whole})

    def state(self) -> dict[str, Any]:
        """What this rank needs to go on from `weights()` bit for bit. Every rank has to call it."""
        return {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}

    def restore(self, states: list[dict[str, Any]]) -> None:
        """Goes on from what `state` returned on this rank; called after `load_weights`."""
        state = states[self.ranks.rank]
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])

    def held_parameters(self) -> list[Tensor]:
        """Parameters and buffers of the model and what the optimizer updates, perhaps copies of a shard."""
        groups = self.optimizer.param_groups
        updated = [parameter for group in groups for parameter in group["params"]]
        return [*self.module.parameters(), *self.module.buffers(), *updated]

    def held_gradients(self) -> list[Tensor]:
        """The gradient between the last `backward` and `step`; empty where it is hidden."""
        return [parameter.grad for parameter in self.module.parameters() if parameter.grad is not None]

    def held_state(self) -> list[Tensor]:
        """The optimizer's state; none before the first step that it takes."""
        states = self.optimizer.state.values()
        return [value for state in states for value in state.values() if isinstance(value, Tensor)]

    def _averaged(self, loss: Tensor) -> Tensor:
        """Undoes that data parallelism averages gradients over the ranks: exact for powers of two."""
        return loss * self.ranks.world_size if self.ranks.world_size > 1 else loss

    def _whole(self, norm: Tensor) -> Tensor:
        return norm


def trained(module: nn.Module) -> list[nn.Parameter]:
    """The parameters of `module` that are not frozen, in their order."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def refuse_hooks(module: nn.Module, part: str, places: Iterable[str], why: str) -> None:
    """Raises UserError, with the reason, where a parameter of `module` that trains has hooks in `places`."""
    for name, parameter in module.named_parameters():
        if parameter.requires_grad and any(getattr(parameter, place, None) for place in places):
            raise UserError(f"system.parts: {part}: the parameter {name} has a hook, and {why}")


def trained_weights(module: nn.Module) -> Weights:
    """The state_dict of `module` but for its frozen parameters, as plain tensors."""
    frozen = frozen_weights(module)
    trained = {name: tensor for name, tensor in module.state_dict().items() if name not in frozen}
    return taken_apart(trained)


def frozen_weights(module: nn.Module) -> Weights:
    """The frozen parameters by every name that they have in the state_dict."""
    named = module.named_parameters(remove_duplicate=False)
    return {name: parameter.detach() for name, parameter in named if not parameter.requires_grad}
