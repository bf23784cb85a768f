"""What runs a model without running it as it is: torch.export, torch.func, meta and fake tensors."""

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch._dynamo.exc
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call

from dropout_cases import SAVED_BYTES, VARIANTS, Dropout, Module, each_dropout, each_module, each_variant, net
from pmexp.packed_dropout import packed_bias_dropout_add, softmax_dropout_matmul

pytestmark = [  # both in torch's own code
    pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:`torch.jit.*` is deprecated:DeprecationWarning"),
]
X = torch.linspace(-1, 1, 8 * 16).view(8, 16)
each_strictness = pytest.mark.parametrize("strict", [False, True], ids=["non-strict", "strict"])


def export(model: nn.Module, strict: bool) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch")
    return torch.export.export(model, (X,), dynamic_shapes=({0: batch},), strict=strict)


def step(model: nn.Module, x: Tensor) -> list[Tensor | None]:
    """Output and gradients of one step with the masks of seed 3."""
    torch.manual_seed(3)
    y = model(x)
    y.square().sum().backward()
    return [y, *(p.grad for p in model.parameters())]


@each_strictness
@each_module
def test_an_exported_model_in_evaluation_has_no_dropout(module: Module, strict: bool) -> None:
    model = net(module).eval()
    program = export(model, strict)
    assert torch.equal(program.module()(X), model(X))
    operators = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert operators == {"aten.linear.default"}


@each_strictness
@each_module
def test_an_exported_model_in_training_drops_as_the_model_does(module: Module, strict: bool) -> None:
    model = net(module)
    program = export(model, strict)
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    buffer.seek(0)
    for exported in (program, program.run_decompositions(), torch.export.load(buffer)):
        run = exported.module()
        for x in (X, X.repeat(3, 1)):
            torch.manual_seed(3)
            expected = [model(x), model(x)]
            torch.manual_seed(3)
            assert torch.equal(run(x), expected[0])
            assert torch.equal(run(x), expected[1])
        assert not torch.equal(*expected)


@each_strictness
@each_module
def test_an_exported_model_in_training_trains(module: Module, strict: bool) -> None:
    """Its gradients are those of the model, as they are with nn.Dropout."""
    model = net(module)
    exported = export(model, strict).module()
    for mine, expected in zip(step(exported, X), step(model, X), strict=True):
        assert mine is not None and torch.equal(mine, expected)


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


FUNCTIONAL: dict[str, Callable[[Dropout], Any]] = {
    "grad": lambda drop: torch.func.grad(lambda x: drop(x).sum())(X),
    "jvp": lambda drop: torch.func.jvp(drop, (X,), (X,)),
    "jacrev": lambda drop: torch.func.jacrev(drop)(X),
    "vmap-different": lambda drop: torch.func.vmap(drop, randomness="different")(X),
    "vmap-same": lambda drop: torch.func.vmap(drop, randomness="same")(X),
}


@pytest.mark.parametrize("transform", FUNCTIONAL.values(), ids=FUNCTIONAL)
@each_dropout
def test_function_transforms_are_refused(drop: Dropout, transform: Callable[[Dropout], Any]) -> None:
    """nn.Dropout takes part in them. These say that they do not; nothing comes out with a wrong mask."""
    with pytest.raises(RuntimeError, match=r"autograd\.Function with functorch transforms"):
        transform(drop)


@each_dropout
def test_vmap_refuses_a_draw_that_no_one_has_chosen(drop: Dropout) -> None:
    with pytest.raises(RuntimeError, match=r"randomness error mode|functorch transforms"):
        torch.func.vmap(drop)(X)


@each_dropout
def test_forward_mode_is_refused(drop: Dropout) -> None:
    with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="jvp"):
        drop(forward_ad.make_dual(X, X))


def tangent(drop: Dropout) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    return lambda x: torch.func.jvp(drop, (x,), (x,))


def gradient(drop: Dropout) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    def sum_and_output(x: Tensor) -> tuple[Tensor, Tensor]:
        y = drop(x)
        return y.sum(), y

    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        scaled_mask, y = torch.func.grad(sum_and_output, has_aux=True)(x)
        return y, scaled_mask * x

    return run


def gradients(drop: Dropout) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    return torch.func.vmap(gradient(drop), randomness="different")


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
@pytest.mark.parametrize("transform", [tangent, gradient, gradients])
@each_dropout
def test_compiled_transforms_are_right_or_refused(
    drop: Dropout, transform: Callable[[Dropout], Callable[[Tensor], tuple[Tensor, Tensor]]]
) -> None:
    """Dropout is linear: its derivative in the direction of the input is its output."""
    torch.compiler.reset()
    run = torch.compile(transform(drop), fullgraph=True, backend="aot_eager")
    try:
        y, derivative = run(X)
    except torch._dynamo.exc.TorchDynamoException:
        return
    assert (y == 0).any()
    assert torch.equal(derivative, y)


@each_dropout
def test_compiled_forward_mode_is_right_or_refused(drop: Dropout) -> None:
    torch.compiler.reset()
    run = torch.compile(drop, fullgraph=True, backend="aot_eager")
    with forward_ad.dual_level():
        try:
            y, derivative = forward_ad.unpack_dual(run(forward_ad.make_dual(X, X)))
        except torch._dynamo.exc.TorchDynamoException:
            return
        assert derivative is not None and torch.equal(derivative, y)


class _SubLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.bias = nn.Linear(16, 16), nn.Linear(16, 4), nn.Parameter(torch.zeros(16))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(packed_bias_dropout_add(self.first(x), self.bias, x, 0.4))
        return y


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scores, self.value, self.last = nn.Linear(16, 8), nn.Linear(16, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        heads = x.unsqueeze(1).expand(-1, 8, -1)
        y: Tensor = self.last(softmax_dropout_matmul(self.scores(heads), self.value(heads), 0.4).mean(1))
        return y


@each_strictness
@pytest.mark.parametrize("composite", [_SubLayer, _Attention])
def test_an_exported_composite_trains(composite: type[nn.Module], strict: bool) -> None:
    """bias + dropout + add, and attention that recomputes: the gradients of the model, all the way down."""
    model = composite()
    exported = export(model, strict).module()
    for mine, expected in zip(step(exported, X), step(model, X), strict=True):
        assert mine is not None and torch.equal(mine, expected)


def saved_sizes(function: Callable[[], Tensor]) -> tuple[Tensor, list[int]]:
    sizes = []

    def note(tensor: Tensor) -> Tensor:
        sizes.append(tensor.nbytes)
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        return function(), sizes


@pytest.mark.parametrize("shape", [(33, 65), (7,), ()], ids=str)
@each_variant
def test_meta_tensors_have_shapes_and_saved_sizes(name: str, shape: tuple[int, ...]) -> None:
    x = torch.empty(shape, device="meta", dtype=torch.bfloat16, requires_grad=True)
    y, saved = saved_sizes(lambda: VARIANTS[name](x))
    y.sum().backward()
    assert (y.shape, y.dtype, y.device.type) == (x.shape, x.dtype, "meta")
    assert x.grad.shape == x.shape
    assert saved == [SAVED_BYTES[name](x.numel())]


@each_variant
def test_fake_tensors_have_the_layout_of_real_ones(name: str) -> None:
    with FakeTensorMode():
        x = torch.empty(3, 5, 7, 2).to(memory_format=torch.channels_last).requires_grad_()
        y, saved = saved_sizes(lambda: VARIANTS[name](x))
        (gradient,) = torch.autograd.grad(y, x, torch.empty_like(y))
    real = torch.ones(3, 5, 7, 2).to(memory_format=torch.channels_last).requires_grad_()
    real_y = VARIANTS[name](real)
    assert y.stride() == real_y.stride() == gradient.stride()
    assert saved == [SAVED_BYTES[name](210)]


@each_module
def test_a_model_made_on_meta_and_filled_later(module: Module) -> None:
    with torch.device("meta"):
        model = net(module)
        assert model(torch.empty(8, 16)).shape == (8, 4)
    model.to_empty(device="cpu").load_state_dict(net(module).state_dict())
    for mine, expected in zip(step(model, X), step(net(module), X), strict=True):
        assert mine is not None and torch.equal(mine, expected)
