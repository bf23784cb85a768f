"""Weights of the best evaluation, by step: what a resumed run could need stays, nothing else does."""

from pathlib import Path

import pytest
import torch
from torch import nn

from pmexp.errors import UserError
from pmexp.run_folder.folder import RunFolder
from pmexp.systems.engines import Engine
from pmexp.systems.ranks import Ranks
from pmexp.training import best_weights


@pytest.fixture
def engine() -> Engine:
    engine = Engine(Ranks(), torch.device("cpu"), clip_norm=1.0, scale_loss=False)
    engine.prepare(nn.Linear(2, 3), torch.optim.SGD)
    return engine


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    (tmp_path / "checkpoints").mkdir()
    return RunFolder(tmp_path)


def saved(folder: RunFolder, engine: Engine, step: int, needed: set[int]) -> list[str]:
    nn.init.constant_(engine.module.weight, step)  # type: ignore[arg-type]
    best_weights.save(folder, engine, step, needed)
    return sorted(file.name for file in folder.checkpoints.iterdir())


def test_those_that_a_checkpoint_needs_stay(folder: RunFolder, engine: Engine) -> None:
    assert saved(folder, engine, 3, set()) == ["best-00000003.safetensors"]
    assert saved(folder, engine, 5, {3}) == ["best-00000003.safetensors", "best-00000005.safetensors"]
    assert saved(folder, engine, 9, {5}) == ["best-00000005.safetensors", "best-00000009.safetensors"]
    best_weights.load(folder, engine, 5)
    assert engine.module.weight.unique().tolist() == [5.0]  # type: ignore[operator, union-attr]


@pytest.mark.parametrize("left", [b"", b"no tensors", None], ids=["empty", "other", "absent"])
def test_weights_that_cannot_be_read_are_one_line(
    left: bytes | None, folder: RunFolder, engine: Engine
) -> None:
    saved(folder, engine, 3, set())
    file = folder.checkpoints / "best-00000003.safetensors"
    file.unlink()
    if left is not None:
        file.write_bytes(left)
    with pytest.raises(
        UserError, match=r"best-00000003\.safetensors: the weights of the best evaluation"
    ) as error:
        best_weights.load(folder, engine, 3)
    assert "\n" not in str(error.value)
