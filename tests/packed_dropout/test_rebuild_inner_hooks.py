"""Somebody's own hooks of saved tensors inside of a forward that rebuilds, and forwards in several threads."""

from collections.abc import Callable
from threading import Event, Thread
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks

from pmexp.measure.saved_for_backward import SavedForBackward
from pmexp.packed_dropout import PackedDropout, replace_dropout
from rebuilt_operands import WEIGHT, assert_made_again

HOOKS: dict[str, Callable[[], Any]] = {
    "offload": save_on_cpu,
    "narrowed, and a number": lambda: saved_tensors_hooks(
        lambda t: (t.half(), 0), lambda kept: kept[0].float()
    ),
    "a tensor and two numbers": lambda: saved_tensors_hooks(
        lambda t: (t.clone(), 0, 0), lambda kept: kept[0]
    ),
    "an array and a number": lambda: saved_tensors_hooks(
        lambda t: (t.detach().clone().numpy(), 0), lambda kept: torch.from_numpy(kept[0])
    ),
}


@pytest.mark.parametrize("hooks", HOOKS.values(), ids=HOOKS)
@pytest.mark.parametrize("function", [F.gelu, torch.sigmoid, lambda x: torch.softmax(x, -1)])
def test_what_inner_hooks_keep_is_theirs(
    function: Callable[[Tensor], Tensor], hooks: Callable[[], Any]
) -> None:
    """They may keep a tuple as rebuild.py does, of which nobody else knows what it means."""

    def step(x: Tensor, drop: Callable[[Tensor], Tensor]) -> Tensor:
        with hooks():
            y = function(x * 2)
        return F.linear(drop(y), WEIGHT * x.mean())

    assert_made_again(step)


class _Layers(nn.Module):
    def __init__(self, count: int) -> None:
        super().__init__()
        self.layers, self.dropout = nn.ModuleList(nn.Linear(8, 8) for _ in range(count)), nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(self.dropout(F.gelu(x)))
        return x


def _count(layers: int, meanwhile: Callable[[], Any] = lambda: None) -> tuple[int, int]:
    model = _Layers(layers)
    replacement = replace_dropout(model, PackedDropout, recompute=True)
    with SavedForBackward(model, replacement) as ledger:
        meanwhile()
        model(torch.ones(4, 8, requires_grad=True))
    return ledger.recomputed_products, ledger.total_bytes


def test_a_ledger_counts_the_forward_of_its_own_thread() -> None:
    def train_another() -> None:
        model = _Layers(5)
        replace_dropout(model, PackedDropout, recompute=True)
        x = torch.ones(4, 8, requires_grad=True)
        model(x)
        with saved_tensors_hooks(lambda t: (t.clone(), 0), lambda kept: kept[0]):
            model(x)

    def run_in_a_thread() -> None:
        thread = Thread(target=train_another)
        thread.start()
        thread.join()

    assert _count(2, run_in_a_thread) == _count(2)


def test_ledgers_of_two_threads_leave_hooks_as_they_were() -> None:
    """The second waits for the end of the first: else each would put back what it met."""
    enter = saved_tensors_hooks.__enter__
    second_runs, first_is_over = Event(), Event()

    def run_second() -> None:
        second_runs.set()
        first_is_over.wait(60)

    second = Thread(target=_count, args=[2, run_second])

    def start_second() -> None:
        second.start()
        second_runs.wait(0.5)  # all of that where the second waits

    _count(2, start_second)
    first_is_over.set()
    second.join()
    assert second_runs.is_set() and saved_tensors_hooks.__enter__ is enter
