"""Attention that is changed after the swap: its dropout is reached from the next forward on, or it is said."""

import copy
import pickle
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.masking_utils import AttentionMaskInterface, eager_mask
from transformers.modeling_utils import AttentionInterface

from pmexp.measure.saved_for_backward import SavedForBackward
from pmexp.packed_dropout import PackedDropout, replace_dropout
from small_transformers import RATE, build, call

KERNEL = "kernel_of_ones_own"


def _kernel(_: Any, query: Tensor, key: Tensor, value: Tensor, *__: Any, **___: Any) -> tuple[Tensor, None]:
    """Stands for a fused kernel, whose dropout is no functional one."""
    probabilities, _ = torch.native_dropout(torch.softmax(query @ key.transpose(-1, -2), -1), RATE, True)
    return (probabilities @ value).transpose(1, 2).contiguous(), None


AttentionInterface.register(KERNEL, _kernel)
AttentionMaskInterface.register(KERNEL, eager_mask)


def packs_attention(model: nn.Module) -> bool:
    """Whether a forward saves attention's masks at a bit an element: the kernel saves bytes."""
    with SavedForBackward(model) as ledger, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        call("bert", model)
    probabilities, hidden = 2 * 2 * 2 * 16 * 16, 5 * 2 * 16 * 16
    return ledger.mask_bytes == (probabilities + hidden) // 8


@pytest.mark.parametrize("settled", [False, True], ids=["", "settled"])
def test_eager_attention_that_is_chosen_later_is_reached(settled: bool) -> None:
    model: Any = build("bert", KERNEL)
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
    model.set_attn_implementation(KERNEL)
    with pytest.warns(UserWarning, match=f"changed after replace_dropout: .* inside the {KERNEL} kernel"):
        call("bert", model)
    assert report.functions == [] and [name[-4:] for name in report.left] == ["self", "self"]
    model.config._attn_implementation = "eager"  # without the method
    assert packs_attention(model) and len(report.functions) == 2 and not report.left


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_follows_its_own_attention(copied: Any) -> None:
    model: Any = build("bert", KERNEL)
    report = replace_dropout(model, PackedDropout)
    twin = copied(model)
    twin.set_attn_implementation("eager")
    assert packs_attention(twin)
    call("bert", model)
    assert len(report.left) == 2 and report.functions == []


def test_it_has_the_masks_and_numbers_of_stock() -> None:
    outputs = []
    for swapped in (False, True):
        model: Any = build("bert", KERNEL)
        if swapped:
            replace_dropout(model, PackedDropout, rng="torch", recompute=True)
        model.set_attn_implementation("eager")
        torch.manual_seed(3)
        outputs.append(call("bert", model))
    assert torch.equal(*outputs)


def test_what_was_not_to_be_replaced_stays() -> None:
    model: Any = build("bert", KERNEL)
    report = replace_dropout(model, PackedDropout, where="hidden")
    model.set_attn_implementation("eager")
    assert not packs_attention(model) and report.functions == []
    assert set(report.left.values()) == {"where=hidden"}


def test_a_compiled_module_notices_its_other_attention() -> None:
    torch._dynamo.reset()
    model: Any = build("bert", KERNEL, layers=1)
    report = replace_dropout(model, PackedDropout)
    call("bert", model)
    attention, hidden = model.encoder.layer[0].attention.self, torch.ones(2, 4, 16)
    compiled = torch.compile(attention, backend="eager")
    compiled(hidden)
    model.set_attn_implementation("eager")
    compiled(hidden)
    assert (len(report.functions), len(report.left)) == (1, 0)
    model.set_attn_implementation(KERNEL)
    with pytest.warns(UserWarning, match="changed after replace_dropout"):
        compiled(hidden)
    assert (len(report.functions), len(report.left)) == (0, 1)
    torch._dynamo.reset()
    model.set_attn_implementation("eager")
    with pytest.raises(RuntimeError, match="_attention_was_changed_after_replace_dropout"):
        torch.compile(attention, backend="eager", fullgraph=True)(hidden)
