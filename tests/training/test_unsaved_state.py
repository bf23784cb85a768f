"""What modules of somebody's own keep, and no checkpoint holds, is told where a training goes on without it."""

import io
import random
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pmexp.config import SystemConfig, TrainConfig
from pmexp.systems.system import System
from pmexp.training.loop import Training
from pmexp.training.resuming import restore, state_of
from small_net import Net, examples


class Keeps(Net):
    """Counts its forwards in training, and has a buffer, a tensor and a number that stay."""

    mean: Tensor

    def __init__(self, persistent: bool = False) -> None:
        super().__init__(nn.Dropout(0.1))
        self.register_buffer("mean", torch.zeros(2), persistent=persistent)
        self.register_buffer("steady", torch.ones(2), persistent=False)
        self.table, self.width, self.forwards = torch.ones(3), 4, 0

    def forward(self, x: Tensor) -> object:
        if self.training:
            self.mean += 1
            self.forwards += not self.persistent
        return super().forward(x)

    @property
    def persistent(self) -> bool:
        return "mean" not in self._non_persistent_buffers_set


class KeepsInSlots(Net):
    __slots__ = ("forwards",)

    def __init__(self) -> None:
        super().__init__(nn.Dropout(0.1))
        self.forwards = 0

    def forward(self, x: Tensor) -> object:
        self.forwards += self.training
        return super().forward(x)


def training(module: nn.Module) -> Training:
    config = TrainConfig(epochs=2, batch_size=8, lr=1e-2, log_every=1)
    return Training(module, examples(50, 0), examples(20, 1), config, ["accuracy"], 5, System(SystemConfig()))


def written_and_read(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    read: dict[str, Any] = torch.load(file, weights_only=True)
    return read


def resumed(persistent: bool) -> str:
    first, second = training(Keeps(persistent)), training(Keeps(persistent))
    list(islice(first.steps(), 2))
    restore(second, written_and_read(state_of(first)))
    return second.progress.resumed_without


def test_what_lies_in_slots_is_seen() -> None:
    first, second = training(KeepsInSlots()), training(KeepsInSlots())
    list(islice(first.steps(), 2))
    restore(second, written_and_read(state_of(first)))
    assert "1 value that modules of your own have changed: forwards;" in second.progress.resumed_without


def test_what_has_changed_is_named_and_nothing_else() -> None:
    assert resumed(persistent=False) == (
        "the checkpoint does not hold 2 values that modules of your own have changed: mean, forwards; "
        "register them as persistent buffers"
    )


def test_what_one_start_lost_stays_on_record() -> None:
    first, second = training(Keeps(persistent=True)), training(Keeps(persistent=True))
    list(islice(first.steps(), 2))
    first.progress.resumed_without = "something"
    restore(second, written_and_read(state_of(first)))
    assert second.progress.resumed_without == "something"


def test_persistent_buffers_are_not_lost() -> None:
    assert resumed(persistent=True) == ""


def test_random_numbers_of_python_and_numpy_go_on_where_they_were() -> None:
    first, second = training(Keeps()), training(Keeps())
    np.random.standard_normal()  # after one, NumPy keeps another
    state = written_and_read(state_of(first))
    expected = random.random(), np.random.standard_normal(), np.random.random()
    restore(second, state)
    assert (random.random(), np.random.standard_normal(), np.random.random()) == expected
