"""Dropout among everything else autograd does: autocast, saved-tensor hooks, in-place neighbours.

Inputs are ones where nothing else is said, so an output is its own scaled mask and the gradient of its sum.
"""

import pickle
from collections.abc import Callable
from multiprocessing import get_context
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from dropout_cases import (
    DROPOUTS,
    SAVED_BYTES,
    VARIANTS,
    Dropout,
    Module,
    each_dropout,
    each_module,
    each_name,
    each_variant,
    net,
    ones,
)
from pmexp.packed_dropout import PackedDropout, packed_dropout, reference, replace_dropout
from saved_tensors import saved_by
from small_transformers import build, call

each_half = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)


@each_half
@each_variant
def test_autocast_saves_a_mask_of_the_same_bytes(name: str, dtype: torch.dtype) -> None:
    model, x = nn.Linear(16, 33), torch.ones(7, 16)
    with torch.autocast("cpu", dtype):
        hidden = model(x)
        y, saved = saved_by(lambda: VARIANTS[name](hidden))
    assert hidden.dtype == y.dtype == dtype
    assert [tensor.nbytes for tensor in saved] == [SAVED_BYTES[name](7 * 33)]


@each_half
@each_module
def test_a_net_trains_under_autocast(module: Module, dtype: torch.dtype) -> None:
    """Each backward multiplies by the scaled mask that its forward multiplied by."""
    model, seen = net(module), []

    def note(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        record = {"x": inputs[0].detach(), "y": output.detach()}
        inputs[0].register_hook(lambda gradient: record.update(dx=gradient))
        output.register_hook(lambda gradient: record.update(dy=gradient))
        seen.append(record)

    model[1].register_forward_hook(note)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    x = torch.linspace(-1, 1, 64 * 16).view(64, 16)
    target, losses = x[:, :4], []
    for _ in range(30):
        with torch.autocast("cpu", dtype):
            loss = (model(x) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    assert all(p.grad.dtype == torch.float32 for p in model.parameters())
    stock = getattr(model[1], "rng", "philox") == "torch"
    scale = (reference.stock_cpu_scale if stock else reference.kept_scale)(0.4, dtype)
    for record in seen:
        assert {tensor.dtype for tensor in record.values()} == {dtype}
        kept = record["y"] != 0
        assert torch.equal(record["y"], record["x"] * scale * kept)
        assert torch.equal(record["dx"], record["dy"] * scale * (kept | (record["x"] == 0)))


HOOKS: dict[str, Callable[[], Any]] = {
    "on-cpu": save_on_cpu,
    "copies": lambda: saved_tensors_hooks(lambda t: t.clone(), lambda t: t.clone()),
    "numpy": lambda: saved_tensors_hooks(lambda t: t.numpy().copy(), lambda a: torch.from_numpy(a.copy())),
    "pickles": lambda: saved_tensors_hooks(pickle.dumps, pickle.loads),
}


@pytest.mark.parametrize("hooks", HOOKS.values(), ids=HOOKS)
@each_dropout
def test_saved_tensors_may_be_replaced_by_copies(drop: Dropout, hooks: Callable[[], Any]) -> None:
    x = ones(9, 11)
    with hooks():
        y = drop(x, 0.4)
    for retain in (True, True, False):
        (gradient,) = torch.autograd.grad(y.sum(), x, retain_graph=retain)
        assert torch.equal(gradient, y)
    with pytest.raises(RuntimeError, match="second time"):
        y.sum().backward()


@each_dropout
def test_a_mask_changed_by_a_hook_is_the_mask_of_backward(drop: Dropout) -> None:
    """What forward saved is all that backward knows: here the hook hands back the mask of another call."""
    saved: list[Tensor] = []
    x = ones(1000)
    with saved_tensors_hooks(lambda t: saved.append(t) or len(saved) - 1, lambda i: saved[1 - i]):
        first, second = drop(x, 0.4), drop(x, 0.4)
    assert torch.equal(torch.autograd.grad(first.sum(), x)[0], second)


@each_dropout
def test_no_second_backward_without_retain_graph(drop: Dropout) -> None:
    x = ones(100)
    y = drop(x)
    y.sum().backward()
    with pytest.raises(RuntimeError, match="second time"):
        y.sum().backward()


def test_selective_checkpointing_can_keep_the_mask() -> None:
    """The operator is visible to a policy: kept, it is not drawn anew, even with the generator left alone."""
    x = ones(1000)
    y = checkpoint(
        lambda t: packed_dropout(t * 1.0) * 1.0,
        x,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=lambda: create_selective_checkpoint_contexts([torch.ops.pmexp.packed_dropout.default]),
    )
    y.sum().backward()
    assert torch.equal(x.grad, y)


@pytest.mark.parametrize(("rng", "kept"), [("philox", "packed_dropout"), ("torch", "pack_bits")])
def test_a_kept_mask_leaves_the_later_draws_of_a_recomputation_alone(rng: str, kept: str) -> None:
    """The draw is not in the operator that a policy keeps, so it is done again, and the next dropout finds its numbers."""
    drop, x = PackedDropout(0.5, rng=rng), ones(1000)
    y = checkpoint(
        lambda t: nn.functional.dropout(drop(t * 1.0) * 1.0, 0.5),
        x,
        use_reentrant=False,
        context_fn=lambda: create_selective_checkpoint_contexts([getattr(torch.ops.pmexp, kept).default]),
    )
    y.sum().backward()
    assert torch.equal(x.grad, y)


def test_double_backward_through_a_swapped_model_is_that_of_nn_dropout() -> None:
    """A gradient penalty, with the masks of nn.Dropout: every gradient is bit-identical."""
    results = []
    for options in (None, {"cache_unpacked": True}, {"cache_unpacked": False}):
        model = build("bert")
        if options is not None:
            replace_dropout(model, PackedDropout, rng="torch", **options)
        weights = [p for name, p in model.named_parameters() if "pooler" not in name]
        torch.manual_seed(7)
        gradients = torch.autograd.grad(call("bert", model).square().mean(), weights, create_graph=True)
        sum(g.square().sum() for g in gradients).backward()
        results.append([*gradients, *(p.grad for p in weights)])
    for swapped in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], swapped, strict=True))


@each_dropout
def test_neighbours_may_write_in_place(drop: Dropout) -> None:
    leaf = ones(1000)
    x = leaf * 1.0
    y = drop(x)
    x.mul_(3.0)  # dropout has not saved its input
    mask = y.detach().clone()
    y.add_(5.0)  # nor its output
    (x + y).sum().backward()
    assert torch.equal(leaf.grad, mask + 3.0)


@each_dropout
def test_in_place_between_layers_and_on_a_view(drop: Dropout) -> None:
    leaf = ones(10, 100)
    x = leaf * 1.0
    y = drop(x[:5], 0.4, True, True)
    assert y.data_ptr() == x.data_ptr()
    x.sum().backward()
    assert torch.equal(leaf.grad, x)
    assert (x[:5] == 0).any() and (x[5:] == 1).all()


@each_dropout
def test_in_place_is_refused_where_nn_dropout_refuses_it(drop: Dropout) -> None:
    x = ones(100)
    with pytest.raises(RuntimeError, match="leaf Variable that requires grad"):
        drop(x, 0.4, True, True)
    y = drop(x.exp(), 0.4, True, True)  # exp saved the output that is written over
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@each_module
def test_an_in_place_module_in_a_net(module: Module) -> None:
    results = []
    for inplace in (False, True):
        model = net(module)
        model[1].inplace = inplace
        y = model(torch.ones(8, 16))
        y.square().sum().backward()
        results.append([y, *(p.grad for p in model.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@each_dropout
def test_gradients_of_any_layout(drop: Dropout) -> None:
    x = ones(6, 9)
    y = drop(x, 0.4)
    for incoming in (torch.randn(9, 6).t(), torch.randn(6, 1).expand(6, 9), torch.randn(12, 18)[::2, ::2]):
        assert torch.equal(torch.autograd.grad(y, x, incoming, retain_graph=True)[0], incoming * y)


def test_zeros_without_memory() -> None:
    """torch's efficient zeros have no data to point to. A bad pointer would end the process, so it is one of its own."""

    def drop_zeros() -> None:
        zeros = torch._efficientzerotensor((100,))
        for drop in DROPOUTS.values():
            x = torch.ones(100, requires_grad=True)
            assert (torch.autograd.grad(drop(x), x, zeros)[0] == 0).all() and (drop(zeros) == 0).all()

    process = get_context("fork").Process(target=drop_zeros)
    process.start()
    process.join()
    assert process.exitcode == 0


@each_dropout
def test_a_tensor_that_is_negated_lazily(drop: Dropout) -> None:
    """The imaginary part of a conjugate keeps its sign in a flag, which a kernel on raw memory must not miss."""
    complex_ones = torch.complex(torch.ones(1), torch.ones(1))
    x = complex_ones.conj().imag
    assert x.is_neg() and x.is_contiguous()
    kept = torch.stack([drop(x) for _ in range(64)])
    assert set(kept.unique().tolist()) == {-2.0, 0.0}
    leaf = torch.ones(1, requires_grad=True)
    gradients = {torch.autograd.grad(drop(leaf), leaf, x)[0].item() for _ in range(64)}
    assert gradients == {-2.0, 0.0}


@each_name
def test_jacobian_is_the_scaled_mask_on_the_diagonal(name: str) -> None:
    x, outputs = torch.ones(40, dtype=torch.float64), []

    def dropped(t: Tensor) -> Tensor:
        outputs.append(DROPOUTS[name](t, 0.4))
        return outputs[-1]

    jacobian = torch.autograd.functional.jacobian(dropped, x)
    assert torch.equal(jacobian, outputs[0].detach().diag())
