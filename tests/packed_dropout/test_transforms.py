"""The transforms of torch.func and the dual numbers of torch.autograd take packed dropout as they take nn.Dropout."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch._dynamo.exc
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import (
    functional_call,
    grad,
    jacfwd,
    jacrev,
    jvp,
    linearize,
    stack_module_state,
    vjp,
    vmap,
)

from dropout_cases import (
    DROPOUTS,
    VARIANTS,
    Dropout,
    Module,
    X,
    each_module,
    net,
    step,
)
from pmexp.packed_dropout import (
    packed_bias_dropout_add,
    softmax_dropout_matmul,
)
from pmexp.variants.forward_unpack import forward_unpack_dropout
from pmexp.variants.gates import packed_gate, packed_relu


@each_module
def test_functional_call(module: Module) -> None:
    model = net(module)
    doubled = {name: (2 * p).detach().requires_grad_() for name, p in model.named_parameters()}
    torch.manual_seed(3)
    y = functional_call(model, doubled, (X,))
    y.square().sum().backward()
    model.load_state_dict(doubled)
    expected = step(model, X)
    assert torch.equal(y, expected[0])
    assert all(torch.equal(p.grad, e) for p, e in zip(doubled.values(), expected[1:], strict=True))


pytestmark = pytest.mark.filterwarnings(  # linearize
    "ignore:Attempted to insert a get_attr Node:UserWarning"
)


def cube(drop: Dropout) -> Dropout:
    return lambda x: drop(x, 0.4) ** 3


def hessian_product(drop: Dropout) -> Tensor:
    """Computes it forward over reverse, by the dual numbers of torch.autograd."""
    x = X.clone().requires_grad_()
    with forward_ad.dual_level():
        y = cube(drop)(forward_ad.make_dual(x, X)).sum()
        return forward_ad.unpack_dual(torch.autograd.grad(y, x)[0])[1]


def dual(drop: Dropout, inplace: bool) -> Tensor:
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(drop(forward_ad.make_dual(X, X) * 1.0, 0.4, True, inplace))[1]


def written(drop: Dropout) -> Dropout:
    """Returns what a dropout in place has written into its input, in place of what it returns."""

    def into(x: Tensor) -> Tensor:
        y = x * 2.0
        drop(y, 0.4, True, True)
        return y

    return into


def pulled_back_later(drop: Dropout) -> Tensor:
    pull_back = vjp(cube(drop), X)[1]
    with torch.no_grad():
        return pull_back(X)[0]


def batched_gradients(drop: Dropout) -> Tensor:
    x = X.clone().requires_grad_()
    basis = torch.eye(X.numel()).view(-1, *X.shape)
    return torch.autograd.grad(cube(drop)(x), x, basis, is_grads_batched=True)[0]


def through_vmap(drop: Dropout) -> Tensor:
    x = X.clone().requires_grad_()
    y = vmap(cube(drop), randomness="different")(x)
    return torch.autograd.grad(y.sum(), x)[0]


def total(f: Dropout) -> Dropout:
    return lambda x: f(x).sum()


TRANSFORMS: dict[str, Callable[[Dropout], Tensor]] = {
    "grad": lambda drop: grad(total(cube(drop)))(X),
    "grad-grad": lambda drop: grad(total(grad(total(cube(drop)))))(X),
    "jvp": lambda drop: jvp(cube(drop), (X,), (X,))[1],
    "vjp": lambda drop: vjp(cube(drop), X)[1](X)[0],
    "vjp-later": pulled_back_later,
    "jacrev": lambda drop: jacrev(cube(drop))(X),
    "jacfwd": lambda drop: jacfwd(cube(drop), randomness="same")(X),
    "jacfwd-different": lambda drop: jacfwd(cube(drop), randomness="different")(X),
    "hessian": lambda drop: jacfwd(jacrev(total(cube(drop))), randomness="same")(X[0]),
    "reverse-over-forward": lambda drop: jacrev(jacfwd(total(cube(drop)), randomness="same"))(X[0]),
    "forward-over-forward": lambda drop: jacfwd(
        jacfwd(total(cube(drop)), randomness="same"), randomness="same"
    )(X[0]),
    "linearize": lambda drop: linearize(cube(drop), X)[1](X),
    "hessian-product": hessian_product,
    "dual": lambda drop: dual(drop, False),
    "dual-in-place": lambda drop: dual(drop, True),
    "grad-in-place": lambda drop: grad(lambda x: drop(2 * x, 0.4, True, True).sum())(X),
    "written-under-grad": lambda drop: grad(total(written(drop)))(X),
    "written-under-jvp": lambda drop: jvp(written(drop), (X,), (X,))[0],
    "batched-gradients": batched_gradients,
    "through-vmap": through_vmap,
}

VMAPS: dict[str, Callable[[Dropout, str], Tensor]] = {
    "rows": lambda drop, mode: vmap(cube(drop), randomness=mode)(X),
    "columns": lambda drop, mode: vmap(cube(drop), 1, 1, randomness=mode)(X),
    "one-for-all": lambda drop, mode: vmap(lambda x, _: drop(x, 0.4), (None, 0), randomness=mode)(X, X),
    "none": lambda drop, mode: vmap(cube(drop), randomness=mode)(X[:0]),
    "of-vmap": lambda drop, mode: vmap(vmap(cube(drop), randomness=mode), randomness=mode)(X.view(8, 4, 4)),
    "in-place": lambda drop, mode: vmap(lambda x: drop(x * 1.0, 0.4, True, True), randomness=mode)(X),
    "of-grad": lambda drop, mode: vmap(grad(total(cube(drop))), randomness=mode)(X),
    "of-grad-one-for-all": lambda drop, mode: vmap(
        lambda x, _: grad(total(drop))(x), (None, 0), randomness=mode
    )(X, X),
    "of-jvp": lambda drop, mode: vmap(lambda x: jvp(cube(drop), (x,), (x,))[1], randomness=mode)(X),
    "in-grad": lambda drop, mode: grad(total(vmap(cube(drop), randomness=mode)))(X),
    "in-jvp": lambda drop, mode: jvp(vmap(cube(drop), randomness=mode), (X,), (X,))[1],
}

ALL_DROPOUTS: dict[str, Dropout] = {**VARIANTS, "forward-unpack": forward_unpack_dropout}


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_a_transform_is_that_of_nn_dropout(transform: Callable[[Dropout], Tensor]) -> None:
    """It is so with its masks; with masks of their own the others drop as many, by the same rule."""
    torch.manual_seed(3)
    expected = transform(F.dropout)
    torch.manual_seed(3)
    assert torch.equal(transform(DROPOUTS["packed-rng-torch"]), expected)
    for drop in ALL_DROPOUTS.values():
        mine = transform(drop)
        assert mine.shape == expected.shape and torch.isfinite(mine).all()
        if (mine != 0).sum() > 50:  # about 128 are kept, with a deviation of 8
            assert abs((mine != 0).sum() - (expected != 0).sum()) < 40


@pytest.mark.parametrize("mode", ["error", "same", "different"])
@pytest.mark.parametrize("transform", VMAPS.values(), ids=VMAPS)
def test_vmap_draws_as_it_is_told(transform: Callable[[Dropout, str], Tensor], mode: str) -> None:
    def result(drop: Dropout) -> Tensor | tuple[type, str]:
        torch.manual_seed(3)
        try:
            return transform(drop, mode)
        except RuntimeError as error:
            return type(error), str(error)

    expected = result(F.dropout)
    assert isinstance(expected, Tensor) == (mode != "error")
    if isinstance(expected, tuple):
        assert all(result(drop) == expected for drop in ALL_DROPOUTS.values())
        return
    mine = result(DROPOUTS["packed-rng-torch"])
    assert isinstance(mine, Tensor) and torch.equal(mine, expected)
    assert all(result(drop).shape == expected.shape for drop in ALL_DROPOUTS.values())  # type: ignore[union-attr]


@pytest.mark.parametrize("drop", ALL_DROPOUTS.values(), ids=ALL_DROPOUTS)
def test_a_mask_for_each_sample_or_one_for_all(drop: Dropout) -> None:
    """The gradient of each sample is by its own mask."""

    def masks_and_gradients(mode: str) -> tuple[Tensor, Tensor]:
        def one(x: Tensor) -> tuple[Tensor, Tensor]:
            def total_and_output(x: Tensor) -> tuple[Tensor, Tensor]:
                y = drop(x, 0.5)
                return y.sum(), y

            gradient, y = grad(total_and_output, has_aux=True)(x)
            return y, gradient

        masks, gradients = vmap(one, randomness=mode)(torch.ones(16, 1001))
        assert torch.equal(masks, gradients)
        return masks, gradients

    same, _ = masks_and_gradients("same")
    assert torch.equal(same, same[:1].expand_as(same))
    different, _ = masks_and_gradients("different")
    kept = (different != 0).double()
    both = kept @ kept.T / 1001  # 0.25 with a deviation of 0.014; one mask for two would give 0.5
    assert ((both - 0.25).abs()[~torch.eye(16, dtype=torch.bool)] < 0.08).all()
    assert abs(kept.mean() - 0.5) < 0.02


@each_module
def test_gradients_of_each_sample_and_an_ensemble(module: Module) -> None:
    """One at a time, each with its own mask, gives what functional_call, stack_module_state and vmap give."""
    models = [net(module), net(module).requires_grad_()]
    parameters, buffers = stack_module_state(models)

    def outputs(parameters: Any, buffers: Any, x: Tensor) -> Tensor:
        return functional_call(models[0], (parameters, buffers), (x,))

    out = vmap(outputs, (0, 0, None), randomness="different")(parameters, buffers, X)
    assert out.shape == (2, 8, 4) and not torch.equal(out[0], out[1])
    weights = dict(models[0].named_parameters())
    per_sample = vmap(
        grad(lambda w, x: functional_call(models[0], w, (x,)).square().sum()), (None, 0), randomness="same"
    )
    torch.manual_seed(3)
    gradients = per_sample(weights, X)
    torch.manual_seed(3)
    expected = grad(
        lambda w: vmap(lambda x: functional_call(models[0], w, (x,)), randomness="same")(X).square().sum()
    )(weights)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient.sum(0), expected[name])


COMPOSITES: dict[str, Callable[[Tensor], Tensor]] = {
    "bias-dropout-add": lambda x: packed_bias_dropout_add(x, x[0], x * 2, 0.4),
    "attention": lambda x: softmax_dropout_matmul(x, x.T, 0.4),
    "relu": packed_relu,
    "gate": lambda x: packed_gate(x, x > 0),
}


@pytest.mark.parametrize("function", COMPOSITES.values(), ids=COMPOSITES)
def test_the_other_functions_take_part(function: Callable[[Tensor], Tensor]) -> None:
    """Forward and reverse mode, of one sample and of several, agree where they have drawn the same."""
    x = torch.randn(5, 4, 4, dtype=torch.float64)

    def same_masks(run: Callable[[], Tensor]) -> Tensor:
        torch.manual_seed(3)
        return run()

    reverse = same_masks(lambda: jacrev(function)(x[0]))
    torch.testing.assert_close(same_masks(lambda: jacfwd(function, randomness="same")(x[0])), reverse)
    hessians = [
        same_masks(lambda way=way: way(total(lambda x: function(x) ** 3))(x[0]))
        for way in (
            lambda f: jacfwd(jacrev(f), randomness="same"),
            lambda f: jacrev(jacfwd(f, randomness="same")),
        )
    ]
    torch.testing.assert_close(*hessians)
    each = same_masks(lambda: vmap(jacrev(function), randomness="same")(x))
    torch.testing.assert_close(each[0], reverse)
