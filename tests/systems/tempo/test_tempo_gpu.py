"""On a CUDA device: GELU's kernels against torch's operators there and on the CPU, and no wait but one a forward."""

import importlib.util
import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from exact_roots import ExactRoots
from pmexp.packed_dropout import cuda_backend
from pmexp.systems.tempo import InplaceGELU, InplaceLayerNorm, apply_tempo, gelu, what_ran
from pmexp.systems.tempo.kept_columns import kept_columns

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
needs_kernels = pytest.mark.skipif(
    not importlib.util.find_spec("triton"), reason="Triton is not installed: torch's operators run"
)
WHOLE = {2: torch.int16, 4: torch.int32}
LARGEST = {torch.float32: 4e-4, torch.float16: 1.5e-2, torch.bfloat16: 4e-2}  # as in test_tempo_gelu.py
WIDTH = 64
each_dtype = pytest.mark.parametrize("dtype", LARGEST, ids=str)
each_form = pytest.mark.parametrize("form", ["erf", "tanh"])


def bits(t: Tensor) -> Tensor:
    return t.cpu().nan_to_num(7.0).view(WHOLE[t.element_size()])


def inputs(dtype: torch.dtype, numel: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(numel)
    x, grad = (2 * torch.randn(numel, generator=generator) for _ in range(2))
    special = torch.tensor([float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 3e4, -3e4])
    x[: special.numel()] = special[:numel]
    return x.to(dtype), grad.to(dtype)


@needs_kernels
@each_form
@each_dtype
def test_the_kernels_have_the_bits_of_torch(
    dtype: torch.dtype, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have those of its operators on this device, and on the CPU under correctly rounded roots."""
    assert cuda_backend.has_kernels()
    for numel in (1, 7, 8, 9, 2047, 2049, 1_000_003, (1 << 22) + 5):
        x, grad = inputs(dtype, numel)
        y = F.gelu(x, approximate="tanh" if form == "tanh" else "none")
        there = [t.cuda() for t in (x, grad, y)]
        packed = gelu.falling_bits(there[0], form)
        assert torch.equal(packed.cpu(), gelu.falling_bits(x, form))
        actual = gelu.gelu_backward(there[1], there[2], packed, form)
        with ExactRoots():
            on_cpu = gelu._gelu_backward(grad, y, packed.cpu(), form)
        with monkeypatch.context() as patch:
            patch.setattr(gelu, "kernels_for", lambda *_: None)
            by_torch = gelu.gelu_backward(there[1], there[2], packed, form)
            assert torch.equal(gelu.falling_bits(there[0], form), packed)
        assert actual.dtype == dtype and actual.shape == grad.shape
        assert torch.equal(bits(actual), bits(by_torch)), f"{numel} elements, against torch on CUDA"
        assert torch.equal(bits(actual), bits(on_cpu)), f"{numel} elements, against the CPU"


@pytest.mark.parametrize("stock", [nn.GELU(), nn.GELU("tanh")], ids=["erf", "tanh"])
@each_dtype
def test_modules_agree_with_stock(stock: nn.Module, dtype: torch.dtype) -> None:
    x, grad = (t.reshape(-1, 7).t().cuda()[:, 1:] for t in inputs(dtype, 7 * 1001))
    leaf = x.detach().requires_grad_()
    y, expected = InplaceGELU(stock)(leaf), stock(leaf)
    assert torch.equal(bits(y.detach()), bits(expected.detach()))
    actual, right = (torch.autograd.grad(each, leaf, grad)[0].float() for each in (y, expected))
    finite = x.isfinite()
    difference = (actual - right).abs()[finite] / (1 + grad.float().abs()[finite])
    assert difference.max() <= LARGEST[dtype]


def waits(call: Callable[[], object]) -> int:
    """How often `call` waits for the device, by torch's own account."""
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            call()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing CUDA operation" in str(warning.message) for warning in caught)


def net(norms: int) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [(nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.LayerNorm(WIDTH)) for _ in range(norms)]
    return nn.Sequential(*(module for layer in layers for module in layer)).cuda()


def test_one_wait_a_forward_and_none_in_backward() -> None:
    model, x = net(6), torch.randn(33, WIDTH, device="cuda")
    report = apply_tempo(model)
    model(x).sum().backward()  # makes the table and loads the kernels
    norm = model[2]
    alone = waits(lambda: kept_columns(norm.weight.detach(), norm.bias.detach(), torch.float32))
    losses: list[Tensor] = []
    assert waits(lambda: losses.append(model(x).sum())) == alone > 0
    assert waits(losses[0].backward) == 0
    with torch.no_grad():
        norm.weight[3] = 0.0
    assert waits(lambda: model(x)) == alone + 1  # where each norm's lie among all
    lines = what_ran(model, report)
    assert lines["1"].startswith("in-place GELU (erf): backward")
    assert lines["2"] == "in-place LayerNorm: keeps its output"


def test_autocast_waits_for_nothing() -> None:
    model, x = net(3), torch.randn(33, WIDTH, device="cuda")
    apply_tempo(model)

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16):
            loss = model(x).sum()
        loss.backward()

    step()
    assert waits(step) == 0
    assert isinstance(model[2], InplaceLayerNorm) and "keeps its input" in str(model[2].keeps)


def test_a_cuda_graph_of_forward_and_backward() -> None:
    """Its norms keep their inputs, since a replay finds no columns; its gradients follow weights that moved."""
    model, x = net(2), torch.randn(33, WIDTH, device="cuda", requires_grad=True)
    apply_tempo(model)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            torch.autograd.grad(model(x).square().sum(), x)
    torch.cuda.current_stream().wait_stream(stream)
    assert model[2].keeps == "keeps its output"
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        (gradient,) = torch.autograd.grad(model(x).square().sum(), x)
    assert model[2].keeps == "keeps its input in a captured CUDA graph"
    with torch.no_grad():
        model[2].weight[3] = 0.0
    graph.replay()
    (expected,) = torch.autograd.grad(model(x).square().sum(), x)
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-4)
