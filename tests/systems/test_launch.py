"""The launcher of ranks under each torch that is allowed."""

from dataclasses import make_dataclass
from inspect import signature

import pytest
from torch.distributed.elastic.multiprocessing.api import PContext

from pmexp.systems import launch


@pytest.mark.parametrize("fields", [["shutdown_timeout"], []], ids=["torch 2.13", "torch 2.11"])
def test_ranks_have_time_for_a_checkpoint(fields: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PContext.close, "__defaults__", PContext.close.__defaults__)  # puts it back
    monkeypatch.setattr(launch, "LaunchConfig", make_dataclass("LaunchConfig", fields))
    given = launch._grace()
    assert given == dict.fromkeys(fields, 300)
    assert fields or signature(PContext.close).parameters["timeout"].default == 300
