"""Counts what somebody's own method keeps from step to step, and sees to it that no checkpoint loses it."""

from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from pmexp.errors import UserError
from pmexp.measure.method_state import hooks_of, optimizers_kept, tensors_kept
from pmexp.measure.tensor_parts import storages
from pmexp.systems.engines.base import Engine
from pmexp.variants.method import Method


class KeptByNone:
    """Is what a training without a method keeps for one: nothing."""

    def tensors(self) -> list[Tensor]:
        return []

    def optimizers(self) -> list[Optimizer]:
        return []

    def state(self) -> Any:
        return None

    def check(self, state: Any) -> None:
        """Raises UserError where `state` is of a method that kept more than it holds."""

    def restore(self, state: Any) -> None:
        """Gives a method back what `state` returned."""


class KeptByMethod(KeptByNone):
    """Is what a method's optimizer, its functions and its hooks keep from step to step."""

    def __init__(self, method: Method, engine: Engine, module: nn.Module) -> None:
        """To be made before the first step: what is there by then and stays so, any start makes again."""
        self._method, self._engine, self._module = method, engine, module
        self._before = {id(each): (each, each._version) for each in self.tensors()}

    def tensors(self) -> list[Tensor]:
        """Returns what the optimizer, the method and the hooks lead to, but for parameters and gradients."""
        engine = self._engine
        return tensors_kept(self._roots(), without=[*engine.held_parameters(), *engine.held_gradients()])

    def optimizers(self) -> list[Optimizer]:
        """Returns the optimizers that these lead to, but for the one that the schedule sets."""
        return optimizers_kept(self._roots(), without=self._engine.optimizer)

    def state(self) -> Any:
        """Returns what a checkpoint holds of the method, and how many bytes it keeps that are not told."""
        if self._method.state:
            return {"state": self._method.state(), "lost_bytes": 0}
        return {"state": None, "lost_bytes": self._lost_bytes()}

    def check(self, state: Any) -> None:
        if state and state["lost_bytes"]:
            raise UserError(
                f"variant.apply: the method keeps {state['lost_bytes']} bytes outside of its optimizer's "
                "state_dict, which the checkpoint does not have; give its Method state= and restore=, or "
                "remove the run's folder and run it again"
            )

    def restore(self, state: Any) -> None:
        if state and self._method.restore:
            self._method.restore(state["state"])

    def _roots(self) -> list[object]:
        method = self._method
        return [self._engine.optimizer, method.forward, method.loss, *hooks_of(self._module)]

    def _lost_bytes(self) -> int:
        told = tensors_kept([self._engine.optimizer.state_dict()])
        places = {storage.data_ptr() for tensor in told for storage in storages(tensor)}
        kept = [storage for tensor in self.tensors() if self._changed(tensor) for storage in storages(tensor)]
        lost = {each.data_ptr(): each.nbytes() for each in kept if each.data_ptr() not in places}
        return sum(lost.values())

    def _changed(self, tensor: Tensor) -> bool:
        before, version = self._before.get(id(tensor), (None, 0))
        return before is not tensor or version != tensor._version
