"""Attention that is changed after the swap: its dropout is reached from the next forward on, or it is said."""

import copy
import pickle
import warnings
from typing import Any

import pytest
import torch
from torch import nn

from pmexp.measure.saved_for_backward import SavedForBackward
from pmexp.packed_dropout import PackedDropout, replace_dropout
from small_transformers import build, call


def packs_attention(model: nn.Module) -> bool:
    """Whether a forward saves attention's masks at a bit an element: both are packed, or sdpa keeps its own."""
    with SavedForBackward(model) as ledger, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        call("bert", model)
    probabilities, hidden = 2 * 2 * 2 * 16 * 16, 5 * 2 * 16 * 16
    return ledger.mask_bytes == (probabilities + hidden) // 8


@pytest.mark.parametrize("settled", [False, True], ids=["", "settled"])
def test_eager_attention_that_is_chosen_later_is_reached(settled: bool) -> None:
    model: Any = build("bert", "sdpa")
    report = replace_dropout(model, PackedDropout)
    assert len(report.left) == 2
    if settled:
        call("bert", model)
    model.set_attn_implementation("eager")
    assert packs_attention(model)
    assert len(report.functions) == 2 and not report.left


@pytest.mark.parametrize("settled", [False, True], ids=["", "settled"])
def test_a_kernel_that_is_chosen_later_is_said(settled: bool) -> None:
    model: Any = build("bert")
    report = replace_dropout(model, PackedDropout)
    if settled:
        call("bert", model)
    model.set_attn_implementation("sdpa")
    with pytest.warns(UserWarning, match="changed after replace_dropout: .* inside the sdpa kernel"):
        call("bert", model)
    assert report.functions == [] and [name[-4:] for name in report.left] == ["self", "self"]
    model.config._attn_implementation = "eager"  # without the method
    assert packs_attention(model) and len(report.functions) == 2 and not report.left


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_follows_its_own_attention(copied: Any) -> None:
    model: Any = build("bert", "sdpa")
    report = replace_dropout(model, PackedDropout)
    twin = copied(model)
    twin.set_attn_implementation("eager")
    assert packs_attention(twin)
    call("bert", model)
    assert len(report.left) == 2 and report.functions == []


def test_it_has_the_masks_and_numbers_of_stock() -> None:
    outputs = []
    for swapped in (False, True):
        model: Any = build("bert", "sdpa")
        if swapped:
            replace_dropout(model, PackedDropout, rng="torch", recompute=True)
        model.set_attn_implementation("eager")
        torch.manual_seed(3)
        outputs.append(call("bert", model))
    assert torch.equal(*outputs)


def test_what_was_not_to_be_replaced_stays() -> None:
    model: Any = build("bert", "sdpa")
    report = replace_dropout(model, PackedDropout, where="hidden")
    model.set_attn_implementation("eager")
    assert not packs_attention(model) and report.functions == []
    assert set(report.left.values()) == {"where=hidden"}
