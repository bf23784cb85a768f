"""The class that a routed module gets is seen by nobody: names, signatures, copies and graphs are the module's own."""

import copy
import functools
import inspect
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pmexp.packed_dropout import PackedDropout, replace_dropout

P = 0.25


class Own(nn.Module):
    """Its words."""

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        return F.dropout(x, P, self.training) * scale


class WithWishes(Own):
    def __init_subclass__(cls, *, wish: str) -> None:
        super().__init_subclass__()


class WithSlots(Own):
    __slots__ = ("more",)


class Metaclass(type):
    pass


class WithMetaclass(Own, metaclass=Metaclass):
    pass


def packs(model: nn.Module) -> bool:
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        model(torch.ones(64, requires_grad=True))
    return any(tensor.dtype == torch.uint8 for tensor in saved)


@pytest.mark.parametrize("cls", [Own, WithWishes, WithSlots, WithMetaclass])
def test_a_routed_module_is_still_what_it_was(cls: Any) -> None:
    model = cls()
    before = repr(model), inspect.signature(model.forward), list(model.state_dict())
    replace_dropout(model, PackedDropout)
    assert packs(model) and isinstance(model, cls)
    assert (type(model).__name__, type(model).__module__, type(model).__doc__) == (
        cls.__name__,
        __name__,
        cls.__doc__,
    )
    for twin in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert packs(twin) and type(twin).__qualname__ == cls.__qualname__
    replace_dropout(model, nn.Dropout)
    assert (repr(model), inspect.signature(model.forward), list(model.state_dict())) == before


def test_equal_modules_share_a_class_and_each_class_has_code_of_its_own() -> None:
    """Otherwise torch.compile would compile them anew, and give up after a few classes."""
    model = nn.ModuleList([Own(), Own(), WithMetaclass()])
    replace_dropout(model, PackedDropout)
    first, second, other = (type(part) for part in model)
    assert first is second and first.forward.__code__ is not other.forward.__code__


def test_a_forward_that_somebody_put_into_the_module_is_routed() -> None:
    """accelerate puts one around the method that was bound before."""
    model = Own()
    model.forward = functools.update_wrapper(functools.partial(_thrice, model.forward), model.forward)
    replace_dropout(model, PackedDropout)
    assert (
        packs(model)
        and packs(copy.deepcopy(model))
        and list(inspect.signature(model.forward).parameters) == ["x", "scale"]
    )
    x = torch.ones(2000)
    assert set(copy.deepcopy(model)(x).unique().tolist()) == {0.0, 4.0}
    replace_dropout(model, nn.Dropout)
    assert not packs(model)


def _thrice(forward: Any, x: Tensor) -> Tensor:
    return 3 * forward(x)


def test_a_forward_that_is_put_into_the_class_later_runs() -> None:
    class Patched(Own):
        pass

    model = Patched()
    replace_dropout(model, PackedDropout)
    Patched.forward = lambda self, x: F.dropout(x, P) * 6
    assert packs(model) and set(model(torch.ones(2000)).unique().tolist()) == {0.0, 8.0}


def test_a_graph_module_may_be_recompiled() -> None:
    model = nn.Sequential(torch.fx.symbolic_trace(Own()))
    replace_dropout(model, PackedDropout, example=(torch.ones(64),))
    (dropout,) = (node for node in model[0].graph.nodes if node.target is F.dropout)
    dropout.update_kwarg("p", 0.5) if "p" in dropout.kwargs else dropout.update_arg(1, 0.5)
    model[0].recompile()
    assert packs(model) and set(model(torch.ones(2000)).unique().tolist()) == {0.0, 2.0}
    assert packs(copy.deepcopy(model))


def test_a_class_of_unknown_origin() -> None:
    cls = type("Nowhere", (Own,), {"__module__": "no_such_module"})
    model = nn.Sequential(cls(), nn.Dropout(P))
    assert replace_dropout(model, PackedDropout, example=(torch.ones(64),)).functions == ["0"]


class Dense(nn.Sequential):
    """Calls F.dropout as early DenseNets do."""

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(super().forward(x), P, self.training)


class Cells(nn.ModuleDict):
    def forward(self, x: Tensor) -> Tensor:
        for cell in self.values():
            x = cell(x)
        return functools.partial(F.dropout, p=P)(x)


class ByChildren(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        for child in self.children():
            x = child(x)
        return F.dropout(x, P, self.training)


def _dropped(x: Tensor) -> Tensor:
    return functools.partial(F.dropout, p=P)(x)


CONTAINERS = {
    "Sequential": lambda: Dense(nn.Linear(8, 8), nn.ReLU()),
    "ModuleDict": lambda: Cells({"a": nn.Linear(8, 8), "b": nn.ReLU()}),
    "children": ByChildren,
    "Sequential of torch": lambda: nn.Sequential(nn.TransformerEncoderLayer(8, 2, 8, P, _dropped)),
}


@pytest.mark.parametrize("dry", [False, True])
@pytest.mark.parametrize("container", CONTAINERS)
def test_a_route_adds_no_layer_to_a_module_that_runs_its_children(container: str, dry: bool) -> None:
    torch.manual_seed(0)
    stock = nn.Sequential(nn.Identity(), CONTAINERS[container](), ByChildren())
    model, x = copy.deepcopy(stock), torch.ones(4, 8)
    children = [len(list(part.children())) for part in stock.modules()]
    replace_dropout(model, PackedDropout, rng="torch", **({"example": (x,)} if dry else {}))
    for twin in (model, model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.manual_seed(1)
        expected = stock(x)
        torch.manual_seed(1)
        assert torch.equal(twin(x), expected)
        assert [len(list(part.children())) for part in twin.modules()] == children


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("ran", [False, True])
@pytest.mark.parametrize(
    "model",
    [lambda: nn.Sequential(Scriptable()), lambda: nn.Sequential(nn.Dropout())],
    ids=["routed", "exchanged"],
)
def test_scripting_is_refused_until_torchs_dropout_is_back(model: Any, ran: bool) -> None:
    net = model()
    replace_dropout(net, PackedDropout)
    if ran:
        net(torch.ones(64))
    with pytest.raises(RuntimeError, match=r"call replace_dropout\(model, nn.Dropout\) first"):
        torch.jit.script(net)
    replace_dropout(net, nn.Dropout)
    torch.jit.script(net)


class Scriptable(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.25, self.training)


class CopiesItself(nn.Module):
    """Has a copy of its dropping part made and run in its forward, as a teacher of its past may be."""

    def __init__(self) -> None:
        super().__init__()
        self.part = Own()
        self.copies: list[nn.Module] = []

    def forward(self, x: Tensor) -> Tensor:
        self.copies.append(copy.deepcopy(self.part))
        return self.part(x) + self.copies[-1](x)


@pytest.mark.parametrize("recompute", [False, True])
def test_a_copy_made_in_a_forward_is_routed_on_its_own(recompute: bool) -> None:
    model = CopiesItself()
    replace_dropout(model, PackedDropout, recompute=recompute)
    for _ in range(2):
        model(torch.ones(64, requires_grad=True))
    first, second = model.copies
    replace_dropout(model, nn.Dropout)
    replace_dropout(second, nn.Dropout)
    assert packs(first) and not packs(second) and not packs(model.part)
