"""DDP of every torch sends buffers once: with the argument for it, and before there was one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pmexp.systems.engines import ddp


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    """Opens a group of this process alone."""
    dist.init_process_group("gloo", f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


class Earlier(DistributedDataParallel):
    """Stands for torch 2.9 to 2.12, where the argument is missing and the attribute is broadcast_buffers."""

    def __init__(self, module: nn.Module, *, gradient_as_bucket_view: bool) -> None:
        super().__init__(module, gradient_as_bucket_view=gradient_as_bucket_view)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("version", [DistributedDataParallel, Earlier])
def test_buffers_are_sent_at_the_beginning_only(version: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    at_first = torch.nn.parallel.distributed._sync_module_states
    later = DistributedDataParallel._sync_buffers

    def first(*arguments: Any, **options: Any) -> Any:
        sent.append("with buffers" if options["broadcast_buffers"] else "without")
        return at_first(*arguments, **options)

    def again(self: Any) -> None:
        sent.append("again")
        later(self)

    monkeypatch.setattr(torch.nn.parallel.distributed, "_sync_module_states", first)
    monkeypatch.setattr(DistributedDataParallel, "_sync_buffers", again)
    monkeypatch.setattr(ddp, "DistributedDataParallel", version)
    parallel = ddp._parallel(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
    for _ in range(2):
        parallel(torch.ones(2, 2)).sum().backward()
    assert sent == ["with buffers"]
