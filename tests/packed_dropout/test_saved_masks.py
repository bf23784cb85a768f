"""pack_saved_masks: the bits that are kept, the gradients that are not changed, and the hooks around it."""

import gc
import threading
import weakref
from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import Function
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from pmexp.packed_dropout import pack_saved_masks
from saved_tensors import same_bits, saved_by

Op = Callable[[Tensor, Tensor], Tensor]
OPS: dict[str, Op] = {
    "masked_fill": lambda x, mask: x.masked_fill(mask, 0.5),
    "where": lambda x, mask: torch.where(mask, x, x * 2),
    "native_dropout": lambda x, mask: torch.native_dropout(x * mask, 0.5, True)[0],
    "relu": lambda x, mask: (x * 2).masked_fill(mask, 0.5).exp().relu(),
}
each_op = pytest.mark.parametrize("op", OPS.values(), ids=OPS)
hooks_now = torch._C._autograd._top_saved_tensors_default_hooks


class Keep(Function):
    """Returns its input, and notes in backward the mask that it saved."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor, seen: list[Tensor]) -> Tensor:
        ctx.save_for_backward(mask)
        ctx.seen = seen
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        ctx.seen.extend(ctx.saved_tensors)
        return grad, None, None


def random_mask(*shape: int) -> Tensor:
    return torch.rand(shape) > 0.4


def kept(*masks: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Returns what the hooks outside get for `masks`, saved one after the other, and what backward gets."""
    x, seen = torch.ones((), requires_grad=True), []

    def forward() -> Tensor:
        y = x
        with pack_saved_masks():
            for mask in masks:
                y = Keep.apply(y, mask, seen)
        return y

    y, saved = saved_by(forward)
    y.backward()
    return saved, seen[::-1]


@st.composite
def masks(draw: Any) -> tuple[Tensor, int]:
    """A mask of any layout, and the elements of storage from its first to its last."""
    shape = draw(st.lists(st.integers(1, 7), max_size=4))
    mask = random_mask(*shape)
    if draw(st.booleans()):
        mask = mask.permute(draw(st.permutations(range(len(shape)))))
    span = mask.numel()
    if shape and draw(st.booleans()):
        mask = mask.unsqueeze(0).expand(3, *mask.shape)
    elif shape and draw(st.booleans()):
        mask = mask[..., draw(st.integers(0, mask.shape[-1] - 1)) :: draw(st.integers(1, 3))]
        span = 1 + sum((n - 1) * step for n, step in zip(mask.shape, mask.stride(), strict=True))
    return mask, span


@given(masks())
def test_a_mask_comes_back_as_it_was(case: tuple[Tensor, int]) -> None:
    mask, span = case
    (saved,), (seen,) = kept(mask)
    assert torch.equal(seen, mask) and seen.dtype is torch.bool
    assert (seen.shape, seen.stride(), seen.device) == (mask.shape, mask.stride(), mask.device)
    packs = -(-span // 8) < mask.untyped_storage().nbytes()
    assert (saved.dtype, saved.numel()) == (
        (torch.uint8, -(-span // 8)) if packs else (torch.bool, mask.numel())
    )


def test_bytes_by_hand() -> None:
    padding = random_mask(3, 1, 1, 50)
    expanded = padding.expand(3, 4, 50, 50)
    last = random_mask(2, 3, 4, 5).to(memory_format=torch.channels_last)
    for mask, size in ((random_mask(33, 7), 29), (padding, 19), (expanded, 19), (last, 15)):
        ((bits,), _) = kept(mask)
        assert (bits.dtype, bits.untyped_storage().nbytes()) == (torch.uint8, size)
    for small in (
        torch.tensor(True),
        random_mask(0, 5),
        random_mask(1),
        random_mask(1).expand(1000),
        random_mask(4, 5)[:0, :1],
    ):
        ((same,), _) = kept(small)
        assert same.data_ptr() == small.data_ptr() and same.dtype is torch.bool


@each_op
def test_gradients_are_torchs_bit_for_bit(op: Op) -> None:
    x, mask, grad = (
        torch.randn(4, 3, 8, 8, requires_grad=True),
        random_mask(4, 1, 1, 8),
        torch.randn(4, 3, 8, 8),
    )
    results = []
    for packing in (False, True):
        torch.manual_seed(1)
        if packing:
            with pack_saved_masks():
                y = op(x, mask)
        else:
            y = op(x, mask)
        results.append((y, torch.autograd.grad(y, x, grad)[0]))
    assert same_bits(results[0][0], results[1][0]) and same_bits(results[0][1], results[1][1])
    assert results[0][1].stride() == results[1][1].stride()


def test_what_is_no_mask_is_saved_as_it_is() -> None:
    leaf = torch.randn(50, requires_grad=True)
    with pack_saved_masks():
        y = leaf * leaf
        out = (leaf * 1.0).exp()
        noise = F.dropout(leaf)  # floating noise on the CPU: no hook can tell it from data
    assert y.grad_fn._saved_self.data_ptr() == leaf.data_ptr()
    assert out.grad_fn._saved_result.data_ptr() == out.data_ptr()
    assert noise.grad_fn._saved_other.dtype is torch.float32


def test_a_leaf_is_saved_itself() -> None:
    """Sharded training swaps the data of parameters between forward and backward; an alias would not see it."""
    results = []
    for packing in (nullcontext, pack_saved_masks):
        weight, x = torch.ones(5, requires_grad=True), torch.ones(5, requires_grad=True)
        with packing():
            y = weight * x
        weight.data = torch.full((5,), 7.0)
        results.append(torch.autograd.grad(y.sum(), x)[0])
    assert torch.equal(*results) and results[0][0] == 7


def test_a_graph_that_is_dropped_frees_what_it_saved() -> None:
    """An output that the hooks held as it is would hold its op, which holds it."""
    leaf = torch.randn(50, requires_grad=True)
    with pack_saved_masks():
        out = leaf.exp()
        filled = leaf.masked_fill(random_mask(50), 0)
    storages = [weakref.ref(t.untyped_storage()) for t in (out, filled.grad_fn._saved_mask)]
    del out, filled
    gc.collect()
    assert [storage() for storage in storages] == [None, None]


def test_a_mask_saved_several_times_is_packed_once() -> None:
    mask = random_mask(4, 1, 16)
    views = [mask, mask.view(4, 16), mask.expand(4, 5, 16), mask.detach()]
    saved, seen = kept(*views)
    assert len({bits.data_ptr() for bits in saved}) == 1
    assert all(torch.equal(*pair) for pair in zip(seen, views, strict=True))
    first, second = mask[:2], mask[2:]
    assert len({bits.data_ptr() for bits in kept(mask, first, second)[0]}) == 3


def test_a_mask_changed_in_between_is_packed_anew() -> None:
    x, mask = torch.ones(20, requires_grad=True), random_mask(20)
    before = mask.clone()
    with pack_saved_masks():
        y = x.masked_fill(mask, 0)
        mask.logical_not_()
        z = x.masked_fill(mask, 0)
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], (~before).float())
    assert torch.equal(torch.autograd.grad(z.sum(), x)[0], before.float())


def test_a_new_mask_at_an_old_address_is_not_taken_for_the_old_one() -> None:
    """The allocator gives the place of a freed mask to the next one."""
    x = torch.ones(64, requires_grad=True)
    for _ in range(50):
        y = x
        with pack_saved_masks():
            for _ in range(4):
                y = torch.native_dropout(y, 0.5, True)[0]
        assert torch.equal(torch.autograd.grad(y.sum(), x)[0], y)


def test_bits_live_as_long_as_the_graph_needs_them() -> None:
    bits: list[Any] = []

    def note(tensor: Tensor) -> Tensor:
        bits.append(weakref.ref(tensor))
        return tensor

    x, mask = torch.ones(20, requires_grad=True), random_mask(20)
    with saved_tensors_hooks(note, lambda tensor: tensor), pack_saved_masks():
        packing = hooks_now(False)[0].__self__
        for _ in range(3):
            x.masked_fill(mask, 0).sum().backward()
            assert bits[-1]() is None and packing._known == {}
    assert len(bits) == 3


def test_an_in_place_change_is_found_as_without_hooks() -> None:
    x = torch.randn(20, requires_grad=True)
    with pack_saved_masks():
        y = x.exp()
    y.mul_(2)
    with pytest.raises(
        RuntimeError, match="modified by an inplace operation: it is at version 1, expected version 0"
    ):
        y.sum().backward()


def test_hooks_outside_get_bits_for_masks_and_the_rest_as_it_is() -> None:
    x, mask = torch.randn(40, requires_grad=True), random_mask(40)

    def forward() -> Tensor:
        with pack_saved_masks():
            return x.masked_fill(mask, 0) * x

    y, saved = saved_by(forward)
    assert [(t.dtype, t.numel()) for t in saved] == [
        (torch.uint8, 5),
        (torch.float32, 40),
        (torch.float32, 40),
    ]
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], 2 * (~mask).float() * x)


@each_op
def test_inside_save_on_cpu_and_inside_itself(op: Op) -> None:
    x, mask = torch.randn(4, 3, 8, 8, requires_grad=True), random_mask(4, 1, 1, 8)
    torch.manual_seed(2)
    expected = torch.autograd.grad(op(x, mask).sum(), x)[0]
    for outside in (save_on_cpu, pack_saved_masks):
        torch.manual_seed(2)
        with outside(), pack_saved_masks():
            y = op(x, mask)
        assert torch.equal(torch.autograd.grad(y.sum(), x)[0], expected)


def test_an_error_leaves_no_hook_behind() -> None:
    with save_on_cpu():
        before = hooks_now(False)
        with suppress(KeyboardInterrupt), pack_saved_masks():
            assert hooks_now(False) != before
            raise KeyboardInterrupt
        assert hooks_now(False) == before
    assert hooks_now(False) is None


def test_several_backwards_and_backwards_of_backwards() -> None:
    x = torch.randn(6, 7, dtype=torch.float64, requires_grad=True)
    mask = random_mask(6, 1)

    def packed(values: Tensor) -> Tensor:
        with pack_saved_masks():
            return torch.where(mask, values**3, values.masked_fill(~mask, 0))

    assert torch.autograd.gradcheck(packed, x)
    assert torch.autograd.gradgradcheck(packed, x)
    y = packed(x).sum()
    first = torch.autograd.grad(y, x, retain_graph=True)[0]
    assert torch.equal(torch.autograd.grad(y, x)[0], first)
    with pack_saved_masks():  # the masks that a backward saves
        once = torch.autograd.grad(packed(x).sum(), x, create_graph=True)[0]
    plain = torch.where(mask, x**3, x.masked_fill(~mask, 0)).sum()
    expected = torch.autograd.grad(torch.autograd.grad(plain, x, create_graph=True)[0].sum(), x)[0]
    assert torch.equal(torch.autograd.grad(once.sum(), x)[0], expected)


@each_op
@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("inside", [True, False])
def test_checkpointing(op: Op, reentrant: bool, inside: bool) -> None:
    x, mask = torch.randn(4, 3, 8, 8, requires_grad=True), random_mask(4, 1, 1, 8)

    def region(values: Tensor) -> Tensor:
        if not inside:
            return op(op(values, mask), mask) * 1.0
        with pack_saved_masks():
            return op(op(values, mask), mask) * 1.0

    torch.manual_seed(3)
    expected = torch.autograd.grad(op(op(x, mask), mask).sum(), x)[0]
    torch.manual_seed(3)
    with pack_saved_masks():
        y = checkpoint(region, x, use_reentrant=reentrant)
    y.sum().backward()
    assert torch.equal(x.grad, expected)


def test_hooks_are_of_the_thread_that_enters() -> None:
    x, mask = torch.randn(40, requires_grad=True), random_mask(40)
    results: list[Any] = []

    def other() -> None:
        results.append(hooks_now(False))
        results.append(torch.autograd.grad(y.sum(), x)[0])

    with pack_saved_masks():
        y = x.masked_fill(mask, 0)
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert results[0] is None and torch.equal(results[1], (~mask).float())


def test_around_a_compiled_function_its_masks_are_packed() -> None:
    x, mask = torch.randn(40, requires_grad=True), random_mask(40)

    def function(values: Tensor) -> Tensor:
        return (values * 2).masked_fill(mask, 0).sin()

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")

    def forward() -> Tensor:
        with pack_saved_masks():
            return compiled(x)

    for _ in range(2):
        y, saved = saved_by(forward)
        assert (torch.uint8, 5) in [(t.dtype, t.numel()) for t in saved]
        assert torch.bool not in [t.dtype for t in saved]
        assert torch.equal(*(torch.autograd.grad(each.sum(), x)[0] for each in (y, function(x))))


def test_a_function_that_enters_it_runs_uncompiled() -> None:
    x, mask = torch.randn(40, requires_grad=True), random_mask(40)

    def function(values: Tensor) -> Tensor:
        with pack_saved_masks():
            return (values * 2).masked_fill(mask, 0)

    y, saved = saved_by(lambda: torch.compile(function, backend="aot_eager")(x))
    assert [(t.dtype, t.numel()) for t in saved] == [(torch.uint8, 5)]
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], 2 * (~mask).float())
    torch._dynamo.reset()
    with pytest.raises(torch._dynamo.exc.Unsupported, match="pack_saved_masks"):
        torch.compile(function, fullgraph=True, backend="aot_eager")(x)
