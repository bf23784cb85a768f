"""What runs a model without running it as it is: torch.export, torch.func, meta and fake tensors."""

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch._dynamo.exc
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.autograd.graph import saved_tensors_hooks
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
    SAVED_BYTES,
    VARIANTS,
    Dropout,
    Module,
    each_dropout,
    each_module,
    each_variant,
    net,
)
from pmexp.packed_dropout import (
    PackedDropout,
    packed_bias_dropout_add,
    packed_dropout,
    replace_dropout,
    softmax_dropout_matmul,
)
from pmexp.variants.forward_unpack import forward_unpack_dropout
from pmexp.variants.gates import packed_gate, packed_relu

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
pytestmark.append(
    pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr Node:UserWarning")
)  # linearize


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
        if (mine != 0).sum() > 50:
            assert (
                abs((mine != 0).sum() - (expected != 0).sum()) < 40
            )  # they keep about 128, with a deviation of 8


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
    """bias + dropout + add and recomputing attention give the gradients of the model, all the way down."""
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


def test_compiled_vmap_draws_a_seed_for_each_sample() -> None:
    run = torch.compile(vmap(packed_dropout, randomness="different"), fullgraph=True, backend="aot_eager")
    y = run(torch.ones(2, 1001))
    assert not torch.equal(y[0], y[1])


class _Layer(nn.Module):
    """Dropout in front of two products, whose operands are made again."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(16, 16), nn.Linear(16, 4)
        self.probs, self.hidden = nn.Dropout(0.4), nn.Dropout(0.4)

    def forward(self, x: Tensor) -> Tensor:
        probs = self.probs(torch.softmax(x @ x.mT, -1))
        y: Tensor = self.last(self.hidden(F.gelu(self.first(probs @ x))))
        return y


def _loss(model: nn.Module, parameters: dict[str, Tensor], x: Tensor) -> Tensor:
    y: Tensor = functional_call(model, parameters, (x,))
    return y.square().sum()


def _second_derivative(model: nn.Module, parameters: dict[str, Tensor]) -> dict[str, Tensor]:
    leaves = {name: parameter.requires_grad_() for name, parameter in parameters.items()}
    first = torch.autograd.grad(_loss(model, leaves, X), list(leaves.values()), create_graph=True)
    total = torch.stack([part.square().sum() for part in first]).sum()
    return dict(zip(leaves, torch.autograd.grad(total, list(leaves.values())), strict=True))


@pytest.mark.parametrize(
    "derivative",
    [
        lambda model, parameters: grad(lambda p: _loss(model, p, X))(parameters),
        lambda model, parameters: vmap(
            grad(lambda p, x: _loss(model, p, x)), in_dims=(None, 0), randomness="different"
        )(parameters, X.view(2, 4, 16)),
        lambda model, parameters: {"": jvp(model, (X,), (X,))[1]},
        _second_derivative,
    ],
    ids=["grad", "each sample", "forward mode", "second derivative"],
)
def test_a_model_whose_operands_are_made_again_has_the_same_derivatives(
    derivative: Callable[[nn.Module, dict[str, Tensor]], dict[str, Tensor]],
) -> None:
    results = []
    for recompute in (False, True):
        torch.manual_seed(1)
        model = _Layer()
        replace_dropout(model, PackedDropout, recompute=recompute)
        torch.manual_seed(2)
        results.append(derivative(model, {name: p.detach() for name, p in model.named_parameters()}))
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


def test_a_transform_inside_such_a_forward_is_refused() -> None:
    """torch lets no transform begin where saved tensors have hooks, nor inside a checkpoint."""

    class Slope(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = _Layer()

        def forward(self, x: Tensor) -> Tensor:
            slope: Tensor = grad(lambda x: self.layer(x).sum())(x)
            return slope

    model = Slope()
    replace_dropout(model, PackedDropout, recompute=True)
    with pytest.raises(RuntimeError, match="saved tensor hooks") as refused:
        model(X)
    assert "recompute=False" in refused.value.__notes__[0]
