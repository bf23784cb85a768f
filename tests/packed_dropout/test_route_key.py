"""A route by the key of torch's dispatcher gives what a route by a mode gives, bit for bit, and ends where that ends."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._ops import HigherOrderOperator
from torch.autograd import Function, forward_ad
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from pmexp.packed_dropout import (
    PackedDropout,
    backend,
    native,
    replace_dropout,
    route_key,
    routed_modules,
    routes,
)

pytestmark = pytest.mark.usefixtures("library")
NODE = "PackedDropoutBackward"
_is_anything_compiled = route_key._is_anything_compiled


@pytest.fixture(autouse=True)
def native_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that makes native calls, in which nothing was compiled: other tests may have."""
    monkeypatch.setattr(native, "_reasons", {})
    monkeypatch.setattr(native, "_calls", {})
    assert backend(torch.device("cpu")).endswith("native calls")
    monkeypatch.setattr(route_key, "_is_anything_compiled", lambda: False)


@dataclass
class Turned:
    """Counts the forwards that had the key on; with `refused` all go by modes."""

    count: int = 0
    refused: bool = False


@pytest.fixture
def turned(monkeypatch: pytest.MonkeyPatch) -> Iterator[Turned]:
    noted, key_turn = Turned(), route_key.key_turn

    def counted(dropout: Any, attention: Any) -> route_key.KeyTurn | None:
        turn = None if noted.refused else key_turn(dropout, attention)
        noted.count += turn is not None
        return turn

    monkeypatch.setattr(routed_modules, "key_turn", counted)
    yield noted
    assert stock_outside(), "the key is still on"


def stock_outside() -> bool:
    return F.dropout(torch.ones(8, requires_grad=True), 0.5).grad_fn.name() != NODE  # type: ignore[union-attr]


def drop(x: Tensor) -> Tensor:
    return F.dropout(x, 0.3)


class Routed(nn.Module):
    """A forward of functions alone, which F.dropout is routed in, with modules that it may call."""

    def __init__(self, forward: "Callable[[Routed, Tensor], Tensor]") -> None:
        super().__init__()
        self.function = forward
        self.inner = Inner()
        self.plain = nn.Dropout(0.4)
        self.lstm = nn.LSTM(4, 4, num_layers=2, dropout=0.5)
        self.attention = nn.MultiheadAttention(4, 2, dropout=0.3)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, F.dropout(x, 0.1, self.training))


class Inner(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.6, self.training)


@torch.jit.script
def scripted(x: Tensor) -> Tensor:
    return torch.dropout(x * 2, 0.3, True)


def under_hooks(_: Routed, x: Tensor) -> Tensor:
    with saved_tensors_hooks(lambda each: each, lambda each: each):
        return drop(x * 2)


def without_gradients(_: Routed, x: Tensor) -> Tensor:
    with torch.no_grad():
        mask = drop(torch.ones_like(x))
    return x * mask


def tangents(_: Routed, x: Tensor) -> Tensor:
    with forward_ad.dual_level():
        dropped, tangent = forward_ad.unpack_dual(drop(forward_ad.make_dual(x.detach(), torch.ones_like(x))))
        return x * dropped * tangent


def in_a_thread(_: Routed, x: Tensor) -> Tensor:
    results: list[Tensor] = []
    thread = threading.Thread(target=lambda: results.append(drop(x)))
    thread.start()
    thread.join()
    return results[0]


def seen_by_a_mode(_: Routed, x: Tensor) -> Tensor:
    with _Looks():
        return drop(x)


def with_gradients(x: Tensor) -> Tensor:
    with torch.enable_grad():
        return drop(x)


def backward_inside(_: Routed, x: Tensor) -> Tensor:
    leaf = x.detach().requires_grad_()
    checkpointed = checkpoint(drop, leaf * 2, use_reentrant=True)
    _DropsInBackward.apply(checkpointed).sum().backward()
    assert leaf.grad is not None
    return drop(x * leaf.grad * checkpointed.detach())


class _DropsInBackward(Function):
    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(_: Any, grad: Tensor) -> Tensor:
        return with_gradients(grad).detach()


def attention_by_math(_: Routed, x: Tensor) -> Tensor:
    return torch._scaled_dot_product_attention_math(x, x, x, None, 0.3)[0]


class _Looks(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


class _Named(Tensor):
    """A subclass that says nothing else than its name."""


def attend(x: Tensor, p: float = 0.3, mask: Tensor | None = None) -> Tensor:
    return F.scaled_dot_product_attention(x, x, x, mask, p)


FORWARDS: dict[str, Callable[[Routed, Tensor], Tensor]] = {
    "F.dropout": lambda _, x: drop(x * 2),
    "torch.dropout": lambda _, x: torch.dropout(x * 2, 0.3, True),
    "in place": lambda _, x: F.dropout(x * 2, 0.3, inplace=True) * 3,
    "torch.dropout_": lambda _, x: torch.dropout_(x * 2, 0.3, True) * 3,
    "no rate": lambda _, x: F.dropout(x, 0.0) * 2,
    "all dropped": lambda _, x: F.dropout(x, 1.0) + x,
    "in evaluation": lambda _, x: F.dropout(x, 0.3, False) * 2,
    "in place in evaluation": lambda _, x: F.dropout(x * 2, 0.3, False, True),
    "no elements": lambda _, x: drop(x[:0]).sum() + x,
    "transposed": lambda _, x: drop(x.transpose(0, 1)).transpose(0, 1),
    "bfloat16": lambda _, x: drop(x.bfloat16()).float(),
    "float64": lambda _, x: drop(x.double()).float(),
    "negated": lambda _, x: drop(torch.complex(x, x).conj().imag),
    "dropped twice": lambda _, x: drop(drop(x)),
    "a module inside": lambda model, x: drop(model.inner(x)),
    "nn.Dropout inside": lambda model, x: drop(model.plain(x)),
    "recurrent inside": lambda model, x: drop(model.lstm(x)[0]),
    "attention": lambda _, x: attend(x),
    "attention without a rate": lambda _, x: attend(x, 0.0),
    "attention with a mask": lambda _, x: attend(x, 0.3, torch.zeros(x.shape[0], x.shape[0])),
    "multi-head attention": lambda model, x: model.attention(x, x, x, need_weights=False)[0],
    "a scripted function": lambda _, x: drop(scripted(x)),
    "a checkpoint": lambda _, x: checkpoint(drop, x, use_reentrant=False),
    "a reentrant checkpoint": lambda _, x: checkpoint(drop, x, use_reentrant=True),
    "gradients in a reentrant checkpoint": lambda _, x: checkpoint(with_gradients, x * 2, use_reentrant=True),
    "a backward inside": backward_inside,
    "attention by its math": attention_by_math,
    "hooks of saved tensors": under_hooks,
    "without gradients": without_gradients,
    "vmap": lambda _, x: torch.vmap(drop, randomness="different")(x),
    "a gradient inside": lambda _, x: x * torch.func.grad(lambda each: drop(each).sum())(x),
    "tangents": tangents,
    "another thread": in_a_thread,
    "a mode inside": seen_by_a_mode,
    "a subclass": lambda _, x: drop(x.as_subclass(_Named)).as_subclass(Tensor),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "4 bits": {"bits": 4, "cache_unpacked": False},
    "torch's masks": {"rng": "torch"},
    "flipped": {"flip_rate": 0.5},
    "recomputed": {"recompute": True},
    "attention alone": {"where": "attention"},  # by modes, since the report names dropout that is left
}


def routed(**options: Any) -> Routed:
    """A model in training whose first forward was watched."""
    model = Routed(lambda _, x: drop(x)).train()
    replace_dropout(model, PackedDropout, **options)
    model(torch.ones(5, 4))
    return model


def results(forward: Callable[[Routed, Tensor], Tensor], **options: Any) -> list[Tensor]:
    """Outputs, gradients and the generator's states of two steps, behind one that shows nothing of `forward`."""
    torch.manual_seed(3)
    model = routed(**options)
    model.function = forward
    x = torch.randn(5, 4, requires_grad=True)
    values = []
    for _ in range(2):
        torch.manual_seed(4)
        y = model(x)
        x.grad = None
        (y * torch.arange(y.numel()).view_as(y)).sum().backward()
        assert x.grad is not None
        values += [y, x.grad, torch.get_rng_state()]
    return values


@pytest.mark.parametrize(
    ("name", "options"),
    # A gradient of torch.func inside of a forward with recompute=True is refused, by torch.
    [each for each in product(FORWARDS, OPTIONS) if each != ("a gradient inside", "recomputed")],
)
def test_a_forward_by_the_key_is_the_forward_by_a_mode(name: str, options: str, turned: Turned) -> None:
    by_key = results(FORWARDS[name], **OPTIONS[options])
    assert bool(turned.count) is (options != "attention alone")
    turned.refused = True
    by_mode = results(FORWARDS[name], **OPTIONS[options])
    assert all(map(torch.equal, by_key, by_mode))


def test_what_is_on_no_route_keeps_its_modules_by_modes(turned: Turned) -> None:
    def stock_operator(_: Routed, x: Tensor) -> Tensor:
        return torch.ops.aten.dropout(x, 0.3, True)

    model = Routed(stock_operator).train()
    report = replace_dropout(model, PackedDropout)
    for _ in range(2):
        y = model(torch.ones(5, 4, requires_grad=True))
    assert not turned.count
    assert "aten.dropout" in report.left[""] or "draws" in report.left[""]
    assert y.grad_fn.name() != NODE


def test_dropout_by_the_key_is_drawn_by_the_library(turned: Turned) -> None:
    y = routed()(torch.ones(5, 4, requires_grad=True))
    assert y.grad_fn.name() == NODE
    assert turned.count == 1


def test_an_error_in_a_forward_turns_the_key_back(turned: Turned) -> None:
    model = routed()
    model.function = lambda _, x: F.dropout(x, 2.0)
    with pytest.raises(ValueError, match="probability"):
        model(torch.ones(5, 4))
    assert turned.count == 1  # and the fixture looks whether the key is still on


def test_where_no_routed_forward_is_on_the_stack_dropout_is_stock() -> None:
    routed()
    _, set_route = route_key._functions()
    before = set_route(route_key.BY_PYTHON)  # as greenlets find it beside a forward that waits
    try:
        assert stock_outside()
    finally:
        set_route(before)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer sends signals here")
def test_an_interrupt_at_any_time_turns_the_key_back() -> None:
    model, x = routed(), torch.ones(5, 4)
    before = signal.signal(signal.SIGALRM, _interrupt)
    try:
        for delay in range(300):
            with suppress(KeyboardInterrupt):
                signal.setitimer(signal.ITIMER_REAL, (20 + delay % 97) * 1e-6)
                for _ in range(1000):
                    model(x)
            assert stock_outside()
    finally:
        signal.signal(signal.SIGALRM, before)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def test_a_forward_under_a_mode_has_a_mode(turned: Turned) -> None:
    model = routed()
    for mode in (_Looks(), _Watches()):
        with mode:
            model(torch.ones(5, 4))
    assert not turned.count


class _Watches(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


def test_where_python_makes_the_calls_it_is_a_mode(turned: Turned) -> None:
    model = routed()
    with native.by_python():
        model(torch.ones(5, 4))
    assert not turned.count


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # dynamo looks at it
def test_once_a_function_was_compiled_it_is_a_mode(turned: Turned, monkeypatch: pytest.MonkeyPatch) -> None:
    model = routed()
    monkeypatch.setattr(route_key, "_is_anything_compiled", _is_anything_compiled)
    inside = torch.compile(drop, backend="eager")
    model.function = lambda _, x: inside(x)
    assert route_key.key_turn(model.plain, None) is None
    y = model(torch.ones(5, 4, requires_grad=True))
    assert y.grad_fn.name() != "MulBackward0", "the compiled dropout is torch's own"


def test_a_graph_that_torch_fx_traces_later_drops_as_the_model_does(turned: Turned) -> None:
    model = routed()
    model(x := torch.ones(5, 4, requires_grad=True))
    assert turned.count
    traced = torch.fx.symbolic_trace(model)
    assert F.dropout not in {node.target for node in traced.graph.nodes}
    ran = [torch.manual_seed(0) and run(x) for run in (model, traced)]
    assert torch.equal(*ran) and ran[1].grad_fn.name() == NODE


def test_operators_of_python_made_meanwhile_know_nothing_of_the_key() -> None:
    model = routed()
    model.function = lambda _, x: _Doubled()(x)
    assert torch.equal(model.eval()(torch.ones(5, 4)), torch.full((5, 4), 2.0))


class _Doubled(HigherOrderOperator):
    def __init__(self) -> None:
        super().__init__("doubled_in_a_test")
        self.py_impl(torch._C.DispatchKey.CPU)(lambda x: x * 2)
        self.py_impl(torch._C.DispatchKey.AutogradCPU)(lambda x: x * 2)

    def __call__(self, x: Tensor) -> Any:
        return super().__call__(x)


def test_the_key_draws_for_the_devices_that_native_calls_serve(
    turned: Turned, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another device has the key on as well, and its dropout drops by Python."""
    model = Routed(lambda _, x: drop(x)).train()
    replace_dropout(model, PackedDropout)
    x = torch.ones(8, 4, requires_grad=True)
    model(x), model(x)
    by_python: list[float] = []
    drop_as_chosen = routes.Route.drop_as_chosen
    monkeypatch.setattr(
        routes.Route,
        "drop_as_chosen",
        lambda route, x, p, *rest, **more: by_python.append(p) or drop_as_chosen(route, x, p, *rest, **more),
    )
    for served, expected in ((True, []), (False, [0.1, 0.3]), (True, [])):
        torch.ops.pmexp.serve_routes(-1, served)
        by_python.clear()
        torch.manual_seed(3)
        y = model(x)
        assert by_python == expected and turned.count
        torch.manual_seed(3)
        with native.by_python():
            assert torch.equal(y, model(x))
