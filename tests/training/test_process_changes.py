"""What somebody's code changes outside of its model is on record, and nothing else is trained beside it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from pmexp import api
from pmexp.errors import UserError
from pmexp.models import objectives
from pmexp.training import process_changes
from pmexp.training.process_changes import ProcessChanges
from small_runs import TINY_VIT

SHORT = [*TINY_VIT, "train.max_steps=2", "train.select=last", "tracking=off", "dataset=digits"]
CODE = ["mine.method"]


@pytest.fixture(autouse=True)
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Puts back what a test changes, and forgets it."""
    yield monkeypatch
    monkeypatch.undo()
    process_changes._left.clear()


def other(*args: object, **kwargs: object) -> None:
    """Stands in the place of what a test changes."""


@pytest.mark.parametrize(
    ("place", "name", "said"),
    [
        (nn.Linear, "forward", "torch.nn.modules.linear.Linear.forward"),
        (nn.Linear, "__call__", "torch.nn.modules.linear.Linear.__call__"),
        (F, "gelu", "torch.nn.functional.gelu"),
        (torch, "dropout", "torch.dropout"),
        (torch.Tensor, "mul", "torch.Tensor.mul"),
        (torch.optim.SGD, "step", "torch.optim.sgd.SGD.step"),
        (nn, "Linear", "torch.nn.Linear"),
        (objectives, "summed_loss", "pmexp.models.objectives.summed_loss"),
    ],
)
def test_what_is_put_in_the_place_of_functions_and_classes_is_named(
    place: object, name: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = ProcessChanges(CODE)
    assert changes.said() == ""
    monkeypatch.setattr(place, name, other, raising=False)
    assert said in changes.said()


def test_another_kernel_of_attention_by_a_known_name_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    changes = ProcessChanges(CODE)
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, "sdpa", other)
    assert changes.said().endswith("transformers.modeling_utils.ALL_ATTENTION_FUNCTIONS.sdpa")


def test_settings_of_the_process_are_named() -> None:
    changes, threads = ProcessChanges(CODE), torch.get_num_threads()
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(threads + 1)
    hook = nn.modules.module.register_module_forward_hook(other)
    try:
        said = changes.said()
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_num_threads(threads)
        hook.remove()
    assert "torch.get_default_dtype(), torch.get_num_threads()" in said and "after a forward" in said
    assert changes.said() == ""


def test_names_that_are_new_and_what_torch_wraps_itself_are_no_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changes = ProcessChanges(CODE)
    monkeypatch.setattr(nn.Linear, "seen_by_mine", other, raising=False)
    monkeypatch.setattr(F, "seen_by_mine", other, raising=False)
    monkeypatch.setattr(nn.Module, "__setstate__", torch._dynamo.reset)  # in the compiler's own files
    for kind in (torch.optim.Rprop, torch.optim.AdamW):
        kind([nn.Parameter(torch.ones(2))])
    assert changes.said() == ""


def test_what_is_left_behind_is_refused_until_it_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    with ProcessChanges(CODE).kept_in_mind():
        monkeypatch.setattr(F, "gelu", other)
    with pytest.raises(UserError, match=r"mine.method: .*functional.gelu in this process, where an earlier"):
        ProcessChanges()
    monkeypatch.undo()
    ProcessChanges()
    monkeypatch.setattr(F, "gelu", other)  # somebody else's
    ProcessChanges()


def test_a_run_has_it_on_record_and_the_next_one_of_the_process_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    forward = nn.Linear.forward
    own = ["variant=own", "variant.apply=own_methods.halves_each_product", f"runs_dir={tmp_path}"]
    try:
        told = api.run(api.compose(*SHORT, *own))["environment"]["changed_process"]
        assert told == "code of one's own has changed torch.nn.modules.linear.Linear.forward"
        assert f"{told} for the whole process" in caplog.text
        with pytest.raises(UserError, match=r"Linear\.forward in this process, where an earlier run had it"):
            api.run(api.compose(*SHORT, "variant=baseline", f"runs_dir={tmp_path}"))
    finally:
        nn.Linear.forward = forward  # type: ignore[method-assign]


def test_sides_of_a_parity_that_share_a_change_are_refused() -> None:
    forward = nn.Linear.forward
    own = ["b.variant.apply=own_methods.halves_each_product", "b.variant.name=halves"]
    try:
        with pytest.raises(
            UserError, match=r"b=baseline: code .*Linear.forward for the whole process, which"
        ):
            api.parity("baseline", "baseline", *TINY_VIT, "dataset=digits", *own, steps=2)
    finally:
        nn.Linear.forward = forward  # type: ignore[method-assign]
