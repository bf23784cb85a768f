"""Compiled steps that keep less than they might: backward never applies another mask than forward did.

aot_eager_decomp_partition cuts the graph of a step as inductor does, and runs torch's own kernels: what is
computed is exact. aot_eager keeps what eager mode would.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import pytest
import torch
import torch._dynamo
import torch._functorch.config as partitioner
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import graph
from torch.utils.checkpoint import checkpoint

from dropout_cases import Dropout
from pmexp.measure.saved_for_backward import SavedForBackward
from pmexp.packed_dropout import PackedDropout, packed_bias_dropout_add, packed_dropout, replace_dropout
from pmexp.variants.seeded import seeded_dropout

# The decompositions of torch use torch.jit.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.*` is deprecated:DeprecationWarning")

DROPOUTS: dict[str, Dropout] = {
    "packed": packed_dropout,
    "recompute": PackedDropout(recompute=True).drop,
    "seeded": seeded_dropout,
    "bias and residual": lambda x, p: packed_bias_dropout_add(x, None, x.sin(), p),
}
MEMORY: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "nothing kept": lambda: partitioner.patch(activation_memory_budget=0.0),
    "aggressive": lambda: partitioner.patch(aggressive_recomputation=True),
    "half": lambda: partitioner.patch(activation_memory_budget=0.5),
    "nothing kept of the region": nullcontext,
}
if not hasattr(graph, "region_activation_memory_budget"):  # older torch has budgets of whole graphs alone
    del MEMORY["nothing kept of the region"]
each_memory = pytest.mark.parametrize(
    "memory",
    [pytest.param(name, marks=[pytest.mark.slow] * (place > 1)) for place, name in enumerate(MEMORY)],
)


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def twice(x: Tensor, drop: Dropout) -> Tensor:
    """The products need in backward what was dropped."""
    y = drop(x.sin(), 0.3)
    return y * drop(y * y, 0.3) * 0.25


def step(x: Tensor, region: float | None = None) -> Tensor:
    """Goes twice through each dropout, through one of them inside a checkpoint too."""
    with nullcontext() if region is None else graph.region_activation_memory_budget(region):
        for drop in DROPOUTS.values():
            x = x + twice(x, drop)
        y: Tensor = x + checkpoint(twice, x, packed_dropout, use_reentrant=False)
        return y


def derivative(run: Callable[[Tensor], Tensor]) -> list[Tensor]:
    torch.manual_seed(3)
    x = torch.linspace(-1, 1, 4 * 33).view(4, 33).requires_grad_()
    y = run(x)
    return [y, *torch.autograd.grad(y.sum(), x), torch.get_rng_state()]


@pytest.fixture(scope="module")
def eager() -> list[Tensor]:
    return derivative(step)


def compiled(memory: str, backend: str) -> list[Tensor]:
    function = partial(step, region=0.0) if "region" in memory else step
    with MEMORY[memory]():
        return derivative(torch.compile(function, fullgraph=True, backend=backend))


@each_memory
def test_gradients_are_those_of_eager_whatever_may_be_kept(memory: str, eager: list[Tensor]) -> None:
    results = compiled(memory, "aot_eager_decomp_partition")
    assert all(torch.equal(one, other) for one, other in zip(eager, results, strict=True))


@pytest.mark.slow
def test_inductor_draws_the_same_masks(eager: list[Tensor]) -> None:
    """It fuses products and rounds them otherwise; another mask would be off by far more."""
    torch.testing.assert_close(compiled("nothing kept", "inductor"), eager, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("memory", ["nothing kept", pytest.param("aggressive", marks=pytest.mark.slow)])
def test_masks_that_torch_draws_are_refused_there(memory: str) -> None:
    run = torch.compile(partial(packed_dropout, rng="torch"), backend="aot_eager_decomp_partition")
    with MEMORY[memory](), pytest.raises(torch._dynamo.exc.BackendCompilerFailed, match="use rng='philox'"):
        run(torch.ones(33, requires_grad=True))


class Block(nn.Module):
    """What serves as adapters, attention and a feed-forward layer, with dropout in front of each product."""

    def __init__(self) -> None:
        super().__init__()
        self.dropouts = nn.ModuleList(nn.Dropout(0.2) for _ in range(5))
        self.norm, self.last = nn.LayerNorm(8), nn.Linear(32, 8)
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.up = nn.Linear(8, 32)

    def forward(self, x: Tensor) -> Tensor:
        one, two, three, probs, inner = self.dropouts
        h = self.norm(x)
        # Each has a mask of its own.
        q, k, v = (layer(drop(h)) for layer, drop in zip(self.layers, (one, two, three), strict=True))
        x = x + probs(torch.softmax(q @ k.mT, -1)) @ v
        y: Tensor = x + self.last(inner(F.gelu(self.up(x))))
        return y


@pytest.mark.parametrize("autocast", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize(
    "backend", ["aot_eager", pytest.param("aot_eager_decomp_partition", marks=pytest.mark.slow)]
)
def test_compiled_it_keeps_as_little_as_eager_rebuilding(backend: str, autocast: bool) -> None:
    saved, gradients = {}, {}
    for name in ("packed", "rebuilt", "compiled"):
        torch.manual_seed(1)
        model = Block()
        replace_dropout(model, PackedDropout, recompute=name != "packed")
        run: Any = model if name != "compiled" else torch.compile(model, fullgraph=True, backend=backend)
        x = torch.linspace(-1, 1, 2 * 16 * 8).view(2, 16, 8).requires_grad_()
        torch.manual_seed(2)
        with SavedForBackward(model) as ledger, torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            y = run(x)
        saved[name] = ledger.total_bytes
        gradients[name] = torch.autograd.grad(y.float().square().sum(), [x, *model.parameters()])
    assert saved["compiled"] <= saved["rebuilt"] < saved["packed"]
    if backend == "aot_eager":  # others take softmax, GELU and the norm apart
        pairs = zip(gradients["rebuilt"], gradients["compiled"], strict=True)
        assert all(torch.equal(expected, actual) for expected, actual in pairs)
