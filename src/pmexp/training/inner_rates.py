"""Sees whether optimizers inside of a method's own follow the schedule, which sets the outer one's rates."""

import math
from collections.abc import Callable

from torch.optim import Optimizer

_CHANGED = 1e-4  # so much, in parts, the rate has to change before it tells
_ROUNDING = 1e-5  # in parts, for rates that are held as tensors in fp32

Rates = list[tuple[Optimizer, float]]


class InnerRates:
    """Compares, from step to step, the rates of inner optimizers with the schedule's."""

    def __init__(self, outer: Optimizer, inner: Callable[[], list[Optimizer]]) -> None:
        """inner: finds the optimizers that `outer`, or somebody's hooks, lead to."""
        self._outer, self._find = outer, inner
        self._first: tuple[float, Rates] | None = None
        self._is_settled = self._is_told = False

    def said(self, lr: float) -> str:
        """Says which inner optimizers have gone another way than the schedule, once its rate has changed, and
        where the outer one has set its rate in a step itself; empty before and where all have gone along. To
        be called after each step that was taken at `lr`, before the schedule sets the next rate."""
        outer = self._outer.param_groups[0].get("lr")
        # The host would wait for one that is a tensor on a device.
        if not self._is_told and isinstance(outer, float) and not math.isclose(outer, lr, rel_tol=_ROUNDING):
            self._is_told = True
            return (
                f"variant.apply: {type(self._outer).__name__} sets its lr in step() itself, to {outer:g}, "
                f"where train/lr, which is on record, is {lr:g}; scale what it adds to the weights instead"
            )
        if self._is_settled or not lr:
            return ""
        if self._first is None:
            rates = [(each, rate) for each in self._find() for rate in _rates(each)]
            self._first, self._is_settled = (lr, rates), not rates
            return ""
        first_lr, first = self._first
        if math.isclose(lr, first_lr, rel_tol=_CHANGED):
            return ""
        self._is_settled = True
        now = [rate for each in dict.fromkeys(each for each, _ in first) for rate in _rates(each)]
        for (optimizer, before), rate in zip(first, now, strict=False):
            if not math.isclose(rate, before * lr / first_lr, rel_tol=_ROUNDING):
                inner, outer = type(optimizer).__name__, type(self._outer).__name__
                return (
                    f"variant.apply: {inner} inside of {outer} does not follow the schedule: its lr went "
                    f"from {before:g} to {rate:g} while train/lr, which is on record, went from {first_lr:g} "
                    f"to {lr:g}; let both have the same param_groups, or set its lr in step()"
                )
        return ""


def _rates(optimizer: Optimizer) -> list[float]:
    return [float(group["lr"]) for group in optimizer.param_groups if "lr" in group]
