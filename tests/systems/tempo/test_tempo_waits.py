"""Where in-place LayerNorm asks the device for a number: once a forward of a model, whatever runs in it."""

import copy
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from pmexp.systems.tempo import InplaceLayerNorm, apply_tempo
from pmexp.systems.tempo.kept_columns import kept_columns

WIDTH, LAYERS = 24, 3
_WAITING = ("nonzero", "item", "_local_scalar_dense", "kept_columns", "masked_select", "is_nonzero", "unique")


class Waits(TorchDispatchMode):
    """Counts the operators that wait for a device. What a custom operator of ours calls is not seen here."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[Any],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        name = func._schema.name.split("::")[1]
        if name in _WAITING:
            self.names.append(name)
        return func(*args, **(kwargs or {}))


class Net(nn.Module):
    """Has norms and GELUs in layers, which may be recomputed in backward."""

    def __init__(self, recompute: bool | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.recompute = nn.LayerNorm(WIDTH), recompute
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.LayerNorm(WIDTH)) for _ in range(LAYERS)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for layer in self.layers:
            if self.recompute is None:
                x = x + layer(x)
            else:
                x = x + checkpoint(layer, x, use_reentrant=self.recompute)
        return x


class Half(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.half()


def norms(net: nn.Module) -> list[InplaceLayerNorm]:
    return [module for module in net.modules() if isinstance(module, InplaceLayerNorm)]


def steps(net: nn.Module, count: int) -> list[str]:
    optimizer, x = torch.optim.SGD(net.parameters(), lr=1e-4), torch.randn(5, WIDTH)
    with Waits() as waits:
        for _ in range(count):
            net(x.requires_grad_()).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    return waits.names


@pytest.mark.parametrize("recompute", [None, True, False], ids=["saved", "reentrant", "recomputed"])
def test_one_wait_a_step_for_all_norms(recompute: bool | None) -> None:
    net = Net(recompute)
    apply_tempo(net)
    assert steps(net, 3) == 3 * ["kept_columns"]


def columns_of(
    net: Net, call: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch
) -> list[list[int]]:
    """The columns that each call of a norm got."""
    got: list[list[int]] = []
    search = norms(net)[0].search
    assert search is not None
    whole = search.columns

    def noted(*arguments: Any) -> Tensor:
        got.append(whole(*arguments).tolist())
        return whole(*arguments)

    monkeypatch.setattr(search, "columns", noted)
    call(torch.randn(5, WIDTH, requires_grad=True)).sum().backward()
    monkeypatch.undo()
    return got


def test_each_norm_gets_its_own_columns_of_this_very_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net()
    apply_tempo(net)
    assert columns_of(net, net, monkeypatch) == [[], [], [], []]
    wanted = [[0, WIDTH - 1], [], [5], [WIDTH - 1]]
    for norm, columns in zip(norms(net), wanted, strict=True):
        norm.weight.data[columns] = 0.0  # past the counter of versions, as DeepSpeed writes
    assert columns_of(net, net, monkeypatch) == wanted
    assert [kept_columns(n.weight, n.bias, torch.float32).tolist() for n in norms(net)] == wanted


def test_a_part_called_by_itself_looks_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net()
    apply_tempo(net)
    net(torch.randn(5, WIDTH)).sum().backward()
    net.layers[0][2].weight.data[7] = 0.0
    assert columns_of(net, net.layers[0], monkeypatch) == [[7]]
    with pytest.raises(RuntimeError):
        net(torch.randn(5, WIDTH + 1))  # a forward that fails is over, too
    net.layers[0][2].weight.data[8] = 0.0
    assert columns_of(net, net.layers[0], monkeypatch) == [[7, 8]]


def test_a_wait_for_each_dtype_and_norms_without_a_bias() -> None:
    net = nn.Sequential(nn.LayerNorm(WIDTH), Half(), nn.LayerNorm(WIDTH, bias=False).half(), Half(), nn.LayerNorm(WIDTH).half())  # fmt: skip
    apply_tempo(net)
    with Waits() as waits:
        net(torch.randn(5, WIDTH, requires_grad=True)).float().sum().backward()
    assert waits.names == ["kept_columns", "kept_columns"]
    with Waits() as waits:
        net[2](torch.randn(5, WIDTH, requires_grad=True).half())
    assert waits.names == ["kept_columns"]


def test_copies_find_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net()
    apply_tempo(net)
    net(torch.randn(5, WIDTH)).sum().backward()
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert steps(twin, 2) == 2 * ["kept_columns"] and norms(twin)[0].search is norms(twin)[1].search
        twin.first.weight.data[4] = 0.0
        assert columns_of(twin, twin, monkeypatch)[0] == [4]
    assert columns_of(net, net, monkeypatch)[0] == []
    alone = pickle.dumps(norms(net)[1])
    assert len(alone) < len(pickle.dumps(net)) / 3  # a norm does not carry the model along


def test_compiled_no_norm_asks() -> None:
    net = Net()
    apply_tempo(net)
    torch.compile(net, fullgraph=True, backend="aot_eager")(torch.randn(5, WIDTH)).sum().backward()
    assert {norm.keeps for norm in norms(net)} == {"stock under torch.compile"}
