"""A dropped tensor is made again only where nothing on its way was changed, whoever still holds it."""

import weakref
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pmexp.packed_dropout.followed_casts import run_followed
from pmexp.packed_dropout.origins import version_counter
from pmexp.packed_dropout.rebuild import rebuilding, watching
from rebuilt_operands import DROP, WEIGHT

MAKES: dict[str, Callable[[Tensor], Tensor]] = {
    "drop": DROP,
    "gelu": F.gelu,
    "softmax": lambda t: torch.softmax(t, -1),
    "relu": torch.relu,
    "bf16": lambda t: t.bfloat16(),
    "fp32": lambda t: t.float(),
    "fp64": lambda t: t.double(),
    "copied": lambda t: t.clone(),
    "turned": lambda t: t.transpose(0, 1),
    "laid out": lambda t: t.contiguous(),
    "scaled": lambda t: t * 0.5,
    "part": lambda t: t[:, 1:] if t.shape[1] > 1 else t,
}


def change_without_gradient(t: Tensor) -> None:
    with torch.no_grad():
        t.mul_(3)


CHANGES: dict[str, Callable[[Tensor], Any]] = {
    "changed": lambda t: t.mul_(2),
    "changed under no_grad": change_without_gradient,
    "changed through detach": lambda t: t.detach().add_(1),
    "a part changed": lambda t: change_without_gradient(t[0]),
}
PRODUCTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "linear": F.linear,
    "linear of what is turned": lambda t, w: F.linear(t.transpose(0, 1), w),
    "by keyword": lambda t, w: torch.matmul(w[:3, : t.shape[1]].expand(len(t), -1, -1), other=t),
    "with itself": lambda t, w: t @ t.mT,
}
ACTIONS = [*MAKES, *CHANGES, *PRODUCTS]


def run(actions: list[tuple[str, bool]], x: Tensor, weight: Tensor) -> Tensor:
    """Does each action to the tensor before it, which is held on or let go."""
    held, products, t = [], [], x * 1
    for name, holds in actions:
        if name in CHANGES:
            CHANGES[name](t)
        elif name in PRODUCTS:
            products.append(PRODUCTS[name](t, weight.to(t.dtype)))
        else:
            if holds:
                held.append(t)
            t = MAKES[name](t)
    return torch.stack(
        [each.double().square().sum() for each in [*products, F.linear(t.float(), weight)]]
    ).sum()


def results(
    actions: list[tuple[str, bool]], rebuilt: bool, followed: bool, autocast: bool
) -> list[Tensor] | RuntimeError:
    torch.manual_seed(3)
    x, weight = (
        torch.linspace(-2, 2, 3 * 4 * 8).view(3, 4, 8).requires_grad_(),
        WEIGHT.clone().requires_grad_(),
    )
    arguments = actions, x, weight
    with (
        torch.autocast("cpu", torch.bfloat16, enabled=autocast),
        rebuilding() if rebuilt else nullcontext(),
    ):
        loss = run_followed({}, run, arguments, (x,)) if followed else run(*arguments)
    try:
        return [loss, *torch.autograd.grad(loss, (x, weight))]
    except RuntimeError as error:
        return error


def assert_numbers_stay(actions: list[tuple[str, bool]], followed: bool, autocast: bool) -> None:
    expected, actual = (results(actions, rebuilt, followed, autocast) for rebuilt in (False, True))
    if isinstance(expected, RuntimeError):
        return  # torch refuses, since what a gradient needs was changed
    if isinstance(actual, RuntimeError):
        assert str(actual).startswith("the input of a dropout, which recompute=True")
    else:
        assert all(torch.equal(one, other) for one, other in zip(expected, actual, strict=True))


_names = st.sampled_from(sorted(MAKES)) | st.sampled_from(sorted(CHANGES)) | st.sampled_from(sorted(PRODUCTS))
_several = st.lists(st.tuples(_names, st.booleans()), max_size=5)


@settings(max_examples=150, deadline=None)
@given(before=_several, after=_several, followed=st.booleans(), autocast=st.booleans())
def test_whatever_was_changed_the_numbers_stay(
    before: list[tuple[str, bool]], after: list[tuple[str, bool]], followed: bool, autocast: bool
) -> None:
    assert_numbers_stay([*before, ("drop", False), *after], followed, autocast)


@pytest.mark.parametrize("autocast", [False, True], ids=["", "autocast"])
@pytest.mark.parametrize("followed", [False, True], ids=["", "followed"])
@pytest.mark.parametrize(
    "actions",
    [
        "gelu, drop, changed under no_grad, fp64",
        "gelu, drop, changed through detach, copied",
        "gelu, drop, a part changed, fp64",
        "gelu, drop, fp64, changed under no_grad, fp32",
        "gelu, drop, fp64, fp32, changed under no_grad",
        "gelu, drop, copied, changed under no_grad, linear of what is turned",
        "gelu, changed under no_grad, scaled, drop",
        "gelu, changed under no_grad, fp64, drop",
        "softmax, bf16, changed under no_grad, fp32, drop",
    ],
)
def test_what_was_changed_and_let_go_is_not_taken_for_what_it_was(
    actions: str, followed: bool, autocast: bool
) -> None:
    assert_numbers_stay([(name, False) for name in actions.split(", ")], followed, autocast)


def test_of_two_casts_of_one_shape_each_is_saved() -> None:
    """A square turned and laid out anew looks like the one before it."""
    gradients = []
    for rebuilt in (False, True):
        torch.manual_seed(3)
        x, weight = torch.randn(8, 8).requires_grad_(), WEIGHT.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16), rebuilding() if rebuilt else nullcontext():
            y = DROP(F.softplus(x))
            turned = y.t().to(torch.bfloat16, memory_format=torch.contiguous_format)
            loss = (F.linear(y, weight) * F.linear(turned, weight)).float().sum()
        gradients.append(torch.autograd.grad(loss, (x, weight)))
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_counter_has_the_versions_of_a_tensor_and_none_of_its_elements(device: str) -> None:
    tensor = torch.zeros(64, device=device)
    counter = version_counter(tensor)
    tensor.view(8, 8)[1].add_(1)
    tensor.detach().add_(1)
    assert counter._version == tensor._version == 2 and counter.untyped_storage().nbytes() == 0
    del tensor
    assert counter._version == 2


def test_an_input_that_is_changed_after_its_product_is_refused_with_what_to_do() -> None:
    x = torch.ones(4, 8).requires_grad_() * 1
    with rebuilding():
        loss = F.linear(DROP(x), WEIGHT.clone().requires_grad_()).sum()
    x.add_(1)
    with pytest.raises(RuntimeError, match="change a copy of it, or give that dropout recompute=False"):
        loss.backward()


def test_what_notes_prove_keeps_a_forward_followed() -> None:
    """Under autocast a linear layer casts what was turned, and then lays it out in rows: two copies."""
    uses: dict[Any, bool] = {}
    made: list[Any] = []
    x, weight = torch.ones(3, 4, 8).requires_grad_(), WEIGHT.clone().requires_grad_()

    def forward(x: Tensor) -> Tensor:
        return F.linear(DROP(F.gelu(x)).transpose(0, 1), weight)

    with torch.autocast("cpu", torch.bfloat16), rebuilding(), watching(made.append):
        run_followed(uses, forward, (x,), (x,))
    assert len(made) == 1 and list(uses.values()) == [True]


class _Doubled(torch.autograd.Function):
    """Doubles, with a node in autograd's graph that can be watched."""

    nodes: ClassVar[list["weakref.ref[Any]"]] = []

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        _Doubled.nodes.append(weakref.ref(ctx))
        return x * 2


def test_a_note_of_what_has_no_gradient_holds_no_graph() -> None:
    """As statistics that a model keeps over its steps: the graph of the step they come from is let go."""

    def forward(x: Tensor) -> Tensor:
        y = _Doubled.apply(x).view(2, 16)
        with torch.no_grad():
            return y.view(8, 4).double()

    with rebuilding():
        kept = run_followed({}, forward, (torch.ones(4, 8).requires_grad_(),), ())
    (node,) = _Doubled.nodes
    assert not kept.requires_grad and node() is None
