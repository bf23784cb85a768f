"""torch.compile: the gradient is that of the mask which forward applied, whatever is compiled around it.

Inputs are ones, so an output is its own scaled mask, and so is the gradient of its sum. Inductor takes
seconds for any graph, so its tests put all dropouts into one, a row of the input each.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo.testing
import torch._inductor.config
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dropout_cases import (
    DROPOUTS,
    VARIANTS,
    Dropout,
    Module,
    assert_gradient_is_mask,
    each_dropout,
    each_module,
    each_variant,
    ones,
)
from pmexp.packed_dropout import PackedDropout, replace_dropout
from small_transformers import build, call

# Inductor uses torch.jit.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.*` is deprecated:DeprecationWarning")


@pytest.fixture(autouse=True)
def fresh_compiler(shared_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Drops the graphs of other tests, and those that an earlier session left on disk; torch's headers are
    compiled once for all of pytest's workers."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(shared_tmp / "inductor"))
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def compiled(function: Callable[..., Any], backend: str = "aot_eager", **options: Any) -> Callable[..., Any]:
    return torch.compile(function, fullgraph=True, backend=backend, **options)  # type: ignore[no-any-return]


def all_dropouts(rows: Tensor) -> Tensor:
    """Sends each row through its own dropout."""
    dropped = [drop(row) for drop, row in zip(DROPOUTS.values(), rows.unbind(), strict=True)]
    return torch.stack(dropped)


def assert_all_equal(eager: list[Tensor], other: list[Tensor]) -> None:
    assert len(eager) == len(other)
    assert all(torch.equal(a, b) and a.stride() == b.stride() for a, b in zip(eager, other, strict=True))


def assert_two_calls_are_two_draws(two_calls: Callable[[Tensor], tuple[Tensor, Tensor]], x: Tensor) -> None:
    """Compares two calls on one input in one graph, and two calls of the graph, at p = 0.5."""
    first, second = two_calls(x)
    (gradient,) = torch.autograd.grad(first.sum() + 4 * second.sum(), x)
    assert torch.equal(gradient, first + 4 * second)
    third, _ = two_calls(x)
    for other in (second, third):
        shares_kept_by_both = (first * other).detach().view(-1, 1001).mean(1) / 4
        # 0.25 with a standard error of 0.014; one mask for both would give 0.5.
        assert ((shares_kept_by_both > 0.17) & (shares_kept_by_both < 0.33)).all()


@each_variant
def test_two_calls_in_one_graph_and_two_calls_of_the_graph(name: str) -> None:
    """Two calls on one input are alike but for their seeds: merging them would be the compiler's trap."""
    drop = VARIANTS[name]
    assert_two_calls_are_two_draws(compiled(lambda t: (drop(t), drop(t))), ones(1001))


@each_dropout
def test_draws_as_eager_does(drop: Dropout) -> None:
    def two(t: Tensor) -> Tensor:
        return drop(drop(t, 0.2).relu(), 0.4)

    x, results = ones(33, 65), []
    for run in (two, compiled(two)):
        torch.manual_seed(3)
        y = run(x)
        results.append([y, torch.autograd.grad(y.sum(), x)[0], torch.get_rng_state()])
    assert_all_equal(*results)


@each_dropout
def test_a_dynamic_graph_serves_every_size(drop: Dropout) -> None:
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    run = torch.compile(lambda t: drop(t, 0.4), fullgraph=True, dynamic=True, backend=counter)
    frames = []
    for numel in (31, 33, 1001, 64, 7):
        x = ones(numel, 3)
        assert_gradient_is_mask(run(x), x)
        frames.append(counter.frame_count)
    assert frames == frames[:1] * 5


@pytest.mark.parametrize(
    ("backend", "reentrant"),
    [("aot_eager", False), ("aot_eager", True), ("aot_eager_decomp_partition", False)],
)
@each_dropout
def test_checkpointed_region_inside(drop: Dropout, backend: str, reentrant: bool) -> None:
    def region(t: Tensor) -> Tensor:
        return (drop(t * 2.0, 0.4) * 0.5).relu()

    run, x = compiled(lambda t: checkpoint(region, t, use_reentrant=reentrant), backend), ones(1001)
    assert_gradient_is_mask(run(x), x)


@pytest.mark.parametrize("reentrant", [False, True])
@each_dropout
def test_compiled_function_inside_a_checkpoint(drop: Dropout, reentrant: bool) -> None:
    x = ones(1001)
    run = compiled(lambda t: (drop(t * 2.0, 0.4) * 0.5).relu())
    y = checkpoint(run, x, use_reentrant=reentrant)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


def in_place(drop: Dropout) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    def run(t: Tensor) -> tuple[Tensor, Tensor]:
        work = t * 1.0
        return drop(work, 0.4, True, True), work

    return run


@each_dropout
def test_in_place(drop: Dropout) -> None:
    x = ones(1001)
    y, work = compiled(in_place(drop))(x)
    assert_gradient_is_mask(y, x)
    assert torch.equal(work, y)


@pytest.mark.parametrize("grad_enabled", [True, False])
@each_dropout
def test_in_place_where_nothing_needs_a_gradient(drop: Dropout, grad_enabled: bool) -> None:
    """Data needs none, nor does a net that is sampled with its dropout on."""
    x = torch.ones(1001, requires_grad=not grad_enabled)
    with torch.set_grad_enabled(grad_enabled):
        y, work = compiled(in_place(drop))(x)
    assert torch.equal(work, y)
    assert 0 < (y == 0).sum() < 1001


@pytest.mark.parametrize(
    "layout",
    [
        lambda t: t.transpose(1, 3),
        lambda t: t.contiguous(memory_format=torch.channels_last),
        lambda t: t[:, ::2, 1:, ::3],
        lambda t: t[:, :1].expand(-1, 7, -1, -1),
        lambda t: t[0, 0, 0, 0],
        lambda t: t[:0],
    ],
    ids=["transposed", "channels_last", "sliced", "expanded", "scalar", "empty"],
)
@each_dropout
def test_layouts_are_those_of_eager(drop: Dropout, layout: Callable[[Tensor], Tensor]) -> None:
    """A gradient has that of compiled nn.Dropout's; torch before 2.13 gives compiled backwards any layout."""
    x, results = layout(torch.randn(3, 6, 9, 11)).detach().requires_grad_(), []
    for run in (drop, compiled(drop), compiled(F.dropout)):
        torch.manual_seed(5)
        y = run(x, 0.4)
        results.append((y, torch.autograd.grad(y.square().sum(), x)[0]))
    (y, gradient), (compiled_y, compiled_gradient), (_, stock_gradient) = results
    assert_all_equal([y], [compiled_y])
    assert torch.equal(compiled_gradient, gradient)
    assert torch.__version__ < "2.13" or compiled_gradient.stride() == stock_gradient.stride()


@each_dropout
def test_backward_compiled_on_its_own(drop: Dropout) -> None:
    """Compiled autograd traces the backward of an eager forward."""
    x = ones(1001)
    with torch._dynamo.compiled_autograd._enable(compiled_graph):
        y = drop(x, 0.4)
        y.sum().backward()
    assert torch.equal(x.grad, y.detach())


def compiled_graph(graph: Any) -> Any:
    return torch.compile(graph, backend="aot_eager", fullgraph=True)


@each_module
def test_a_compiled_module_follows_its_mode_and_rate(module: Module) -> None:
    dropout = module(0.4)
    run, x = compiled(dropout), ones(1001)
    assert_gradient_is_mask(run(x), x)
    dropout.eval()
    assert torch.equal(run(x), x)
    dropout.train().p = 0.9
    assert 0 < (run(x) != 0).sum() < 200  # 100 are expected, with a standard deviation of 9.5
    with torch.no_grad():
        assert 0 < (run(x) != 0).sum() < 200


@each_module
def test_autocast(module: Module) -> None:
    model, results = nn.Sequential(nn.Linear(16, 32), module(0.4), nn.Linear(32, 4)), []
    for run in (model, compiled(model)):
        model.zero_grad()
        torch.manual_seed(2)
        with torch.autocast("cpu", torch.bfloat16):
            y = run(torch.linspace(-1, 1, 8 * 16).view(8, 16))
        y.float().square().sum().backward()
        results.append([y, *(p.grad for p in model.parameters())])
    assert_all_equal(*results)


def test_a_swapped_model_with_sdpa_trains_as_in_eager() -> None:
    results = []
    for compile_it in (False, True):
        model = build("bert", "sdpa")
        replace_dropout(model, PackedDropout)
        run = compiled(model) if compile_it else model
        torch.manual_seed(3)
        for _ in range(2):  # the second step adds its gradients, by other masks
            y = call("bert", run)
            y.square().mean().backward()
        results.append([y, *(p.grad for n, p in model.named_parameters() if "pooler" not in n)])
    assert_all_equal(*results)


@pytest.mark.slow
def test_inductor_on_two_calls_of_which_one_is_checkpointed() -> None:
    def two_calls(rows: Tensor) -> tuple[Tensor, Tensor]:
        return checkpoint(all_dropouts, rows, use_reentrant=False), all_dropouts(rows)

    assert_two_calls_are_two_draws(compiled(two_calls, "inductor"), ones(len(DROPOUTS), 1001))


@pytest.mark.slow
def test_inductor_draws_as_eager_does_where_it_leaves_randomness_alone() -> None:
    x, results = ones(len(DROPOUTS), 1001), []
    with torch._inductor.config.patch(fallback_random=True):
        for run in (all_dropouts, compiled(all_dropouts, "inductor")):
            torch.manual_seed(3)
            y = run(x)
            results.append([y, torch.autograd.grad(y.sum(), x)[0], torch.get_rng_state()])
    assert_all_equal(*results)


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.to_qkv, self.out, self.dropout = nn.Linear(16, 48), nn.Linear(16, 16), nn.Dropout(0.25)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.to_qkv(x).unflatten(-1, (3, 2, 8)).unbind(-3)
        y = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        return x + self.dropout(self.out(y.transpose(1, 2).flatten(2)))


@pytest.mark.slow
def test_inductor_on_a_swapped_model_with_sdpa() -> None:
    """It is equal to eager but for the rounding of fused kernels; another mask anywhere would be off by far more."""
    model, results = nn.Sequential(_Attention(), nn.LayerNorm(16)), []
    replace_dropout(model, PackedDropout)
    for run in (model, compiled(model, "inductor")):
        model.zero_grad()
        torch.manual_seed(3)
        with torch._inductor.config.patch(fallback_random=True):
            y = run(torch.linspace(-1, 1, 4 * 9 * 16).view(4, 9, 16))
            y.square().mean().backward()
        results.append([y, *(p.grad for p in model.parameters())])
    for eager, other in zip(*results, strict=True):
        torch.testing.assert_close(other, eager, rtol=1e-4, atol=1e-6)
