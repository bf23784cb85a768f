"""Takes training steps of one set of weights in several ways."""

import copy
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pmexp.measure.saved_for_backward import SavedForBackward

_LR, _CLIP_NORM = 1e-4, 1.0


@dataclass(frozen=True)
class Way:
    """How a step is executed."""

    change: Callable[[nn.Module], object] = lambda module: None  # changes the module tree in place
    around: Callable[[], AbstractContextManager[object]] = nullcontext  # surrounds each forward


def trees_of(module: nn.Module, names: Iterable[str]) -> dict[str, nn.Module]:
    """Returns a copy of the module tree for each name, all over the weights and buffers of `module`."""
    shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    return {name: copy.deepcopy(module, dict(shared)) for name in names}


class Ways:
    """A module tree for each way, all over the same weights and one AdamW.

    So the ways take turns in the memory of one model: nothing of the others lies beside a step's peak.
    """

    def __init__(
        self, module: nn.Module, loss: Callable[[nn.Module], Tensor], ways: Mapping[str, Way]
    ) -> None:
        """loss: of one forward of a tree like `module`; the batch is its own and always the same."""
        self._loss, self._ways = loss, ways
        self._trees = trees_of(module, ways)
        for name, way in ways.items():
            way.change(self._trees[name])
        self._weights = [weight for weight in module.parameters() if weight.requires_grad]
        self._optimizer = torch.optim.AdamW(self._weights, lr=_LR)

    def __getitem__(self, name: str) -> nn.Module:
        return self._trees[name]

    def step(self, name: str) -> None:
        """Takes a step, from forward to update. Gradients are gone afterwards, also behind an error."""
        try:
            self._forward(name).backward()
            nn.utils.clip_grad_norm_(self._weights, _CLIP_NORM)
            self._optimizer.step()
        finally:
            self._optimizer.zero_grad(set_to_none=True)

    def gradients(self, name: str, seed: int = 1) -> tuple[Tensor, list[Tensor]]:
        """Returns the loss, and the gradient of every weight that has one, with the masks of `seed`."""
        torch.manual_seed(seed)
        try:
            loss = self._forward(name)
            loss.backward()
            return loss.detach(), [weight.grad for weight in self._weights if weight.grad is not None]
        finally:
            self._optimizer.zero_grad(set_to_none=True)

    def saved_for_backward(self, name: str) -> SavedForBackward:
        """Returns the ledger of what one forward saves for backward."""
        with SavedForBackward(self._trees[name]) as ledger:
            self._forward(name)
        return ledger

    def _forward(self, name: str) -> Tensor:
        with self._ways[name].around():
            return self._loss(self._trees[name])


def distance(got: list[Tensor], expected: list[Tensor]) -> float:
    """Returns the norm of the difference of all gradients over the norm of those expected."""
    pairs = zip(got, expected, strict=True)
    difference_squared = torch.stack([(a.double() - b.double()).square().sum() for a, b in pairs]).sum()
    expected_squared = torch.stack([b.double().square().sum() for b in expected]).sum()
    return float((difference_squared / expected_squared).sqrt())
