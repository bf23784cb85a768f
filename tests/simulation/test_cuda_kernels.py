"""What simulated CUDA keeps and computes where the CPU would do otherwise, and that its storages come and go."""

import gc
import re
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from pmexp.simulation.cuda_kernels import _IN_FP32, _WITH_FP32_RESULT, cuda_semantics
from pmexp.simulation.internals import autocast_knows, fake_tensors
from real_steps import precision

HEADER = Path(torch.__path__[0]) / "include" / "ATen" / "autocast_mode.h"


def listed(macro: str) -> set[str]:
    """The operators of a list in the header, as torch names them, but for overloads of named tensors."""
    (body,) = re.findall(rf"#define {macro}\(_\)(.*?)\n\n", HEADER.read_text(), re.DOTALL)
    names = {entry.replace(", ", ".") for entry in re.findall(r"_\((.*?)\)", body)}
    return {name for name in names if "dimname" not in name.lower()}


@pytest.mark.parametrize(
    ("macro", "ours"), [("AT_FORALL_FP32", _IN_FP32), ("AT_FORALL_FP32_SET_OPT_DTYPE", _WITH_FP32_RESULT)]
)
def test_every_operator_that_cuda_runs_in_fp32_does(macro: str, ours: tuple[str, ...]) -> None:
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    assert {*filter(autocast_knows, ours)} == {
        name for name in listed(macro) if not has(f"aten::{name}", "AutocastCPU")
    }


def kept(make: object) -> list[tuple[torch.dtype, int]]:
    """The dtype and the elements of each tensor that is saved on the way from a 16 x 8 bfloat16 tensor."""
    saved: dict[int, tuple[torch.dtype, int]] = {}

    def save(tensor: Tensor) -> Tensor:
        saved[id(tensor.untyped_storage())] = tensor.dtype, tensor.numel()
        return tensor

    with (
        fake_tensors(),
        cuda_semantics(),
        precision("bf16"),
        saved_tensors_hooks(save, lambda tensor: tensor),
    ):
        x = torch.empty(16, 8, dtype=torch.bfloat16, requires_grad=True)
        result: Tensor = make(x)  # type: ignore[operator]
        (grad,) = torch.autograd.grad(result.sum(), x)
    assert grad.dtype is torch.bfloat16
    return sorted(saved.values(), key=str)


def test_softmaxes_under_autocast_copy_nothing_to_float32() -> None:
    """As measured on an H200. Inside of cross_entropy CUDA keeps 16 bits, and the CPU casts the logits first."""
    for softmax in (F.softmax, F.log_softmax):
        assert kept(lambda x, softmax=softmax: softmax(x, -1)) == [(torch.float32, 128)]
    kept_by_loss = kept(lambda x: F.cross_entropy(x, torch.empty(16, dtype=torch.int64)))
    assert kept_by_loss == [
        (torch.bfloat16, 128), (torch.float32, 1), (torch.float32, 128), (torch.int64, 16),
    ]  # fmt: skip


def test_rms_norm_keeps_its_input_and_a_number_a_row() -> None:
    def normed(x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return F.rms_norm(x, (8,), torch.empty(8, dtype=torch.bfloat16, requires_grad=True))

    assert kept(normed) == [(torch.bfloat16, 128), (torch.bfloat16, 8), (torch.float32, 16)]


def test_a_storage_that_an_operator_was_called_with_goes_with_its_tensors() -> None:
    """As the offloaded ones do, which are taken apart and put together by storages."""
    with fake_tensors():
        x = torch.empty(8)
        storage, view = weakref.ref(x.untyped_storage()), torch.empty(0)
        view.set_(x.untyped_storage(), 0, (8,), (1,))
        del x, view
        gc.collect()
        assert storage() is None


@pytest.mark.parametrize(
    "loss",
    [F.mse_loss, F.smooth_l1_loss, F.binary_cross_entropy, F.soft_margin_loss, F.l1_loss, F.huber_loss],
)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_a_fake_loss_has_the_storage_of_a_real_one(loss: Callable[..., Tensor], reduction: str) -> None:
    """Some have one of all elements, of which torch hands out the first with their mean or sum."""

    def bytes_held() -> int:
        return loss(torch.ones(4, 8), torch.ones(4, 8), reduction=reduction).untyped_storage().nbytes()

    real = bytes_held()
    with fake_tensors():
        assert bytes_held() == real


def test_operations_of_fused_attention_are_counted_both_ways() -> None:
    counts: list[int] = []
    with fake_tensors(), cuda_semantics(counts.append):
        query = torch.empty(2, 4, 16, 8, requires_grad=True)
        key = torch.empty(2, 2, 16, 8)  # two heads of queries share one
        F.scaled_dot_product_attention(query, key, key, enable_gqa=True).sum().backward()
    product = 2 * 2 * 4 * 16 * 16 * 8
    assert counts == [2 * product, 5 * product]
