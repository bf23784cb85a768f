"""softmax -> dropout -> matmul that keeps bits: exact against the eager formula, and smaller."""

import copy
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dropout_cases import assert_derivatives
from pmexp.measure.saved_for_backward import SavedForBackward
from pmexp.packed_dropout import PackedDropout, dropped_matmul, replace_dropout, softmax_dropout_matmul
from pmexp.packed_dropout.routes import RecomputingRoute
from pmexp.systems.checkpointing import checkpoint_layers
from saved_tensors import saved_by
from small_transformers import MODELS, build, call

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
LEFT_PLAIN = {"longformer"}  # its product is no matmul of the dropped probabilities


def eager(scores: Tensor, value: Tensor, p: float) -> Tensor:
    """The formula of transformers' eager attention, from its scores on."""
    wide = torch.promote_types(scores.dtype, torch.float32)
    probs = torch.softmax(scores, -1, wide).to(value.dtype)
    return torch.matmul(nn.functional.dropout(probs, p), value)


@given(
    lead=st.lists(st.integers(1, 4), max_size=2).map(tuple),
    queries=st.integers(1, 40),
    keys=st.integers(1, 40),
    size=st.integers(1, 9),
    dtype=st.sampled_from(DTYPES),
    p=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
)
def test_equals_the_eager_formula_bit_for_bit(
    lead: tuple[int, ...], queries: int, keys: int, size: int, dtype: torch.dtype, p: float
) -> None:
    generator = torch.Generator().manual_seed(1)
    scores = torch.randn((*lead, queries, keys), generator=generator).to(dtype).requires_grad_()
    value = torch.randn((*lead, keys, size), generator=generator).to(dtype).requires_grad_()
    results = []
    for function in (eager, lambda *x: softmax_dropout_matmul(*x, rng="torch")):
        torch.manual_seed(3)
        y = function(scores, value, p)
        results.append([y, *torch.autograd.grad(y.square().sum(), (scores, value))])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_saves_softmax_value_and_bits(dtype: torch.dtype) -> None:
    scores, value = (torch.randn(shape).to(dtype).requires_grad_() for shape in ((2, 30, 20), (2, 20, 5)))
    y, saved = saved_by(lambda: softmax_dropout_matmul(scores, value, 0.1))
    memories = {tensor.untyped_storage().data_ptr(): tensor for tensor in saved}
    assert sorted((str(t.dtype), tuple(t.shape)) for t in memories.values()) == sorted(
        [("torch.float32", (2, 30, 20)), (str(dtype), (2, 20, 5)), ("torch.uint8", (150,))]
    )
    assert y.dtype == dtype


def test_gradcheck_and_gradgradcheck() -> None:
    probs, value = (torch.rand(2, 4, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert_derivatives(lambda *tensors: dropped_matmul(*tensors, 0.3), probs, value)


@pytest.mark.parametrize("shape", [(4, 4), (1, 2, 4, 4)])
def test_a_value_that_broadcasts_is_multiplied_all_the_same(shape: tuple[int, ...]) -> None:
    probs, value = torch.rand(3, 2, 4, 4, requires_grad=True), torch.rand(shape, requires_grad=True)
    torch.manual_seed(4)
    y = dropped_matmul(probs, value, 0.3, rng="torch")
    torch.manual_seed(4)
    assert torch.equal(y, nn.functional.dropout(probs, 0.3) @ value)
    y.sum().backward()
    assert value.grad is not None and value.grad.shape == value.shape


@pytest.mark.parametrize("scores_dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("value_dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("autocast", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_casts_after_the_mask(
    autocast: torch.dtype, value_dtype: torch.dtype, scores_dtype: torch.dtype
) -> None:
    scores = torch.randn(2, 8, 8).to(scores_dtype).requires_grad_()
    value = torch.randn(2, 8, 4).to(value_dtype).requires_grad_()
    results = []
    for function in (eager, lambda *x: softmax_dropout_matmul(*x, rng="torch")):
        torch.manual_seed(3)
        with torch.autocast("cpu", autocast):
            y, saved = saved_by(lambda: function(scores, value, 0.3))  # noqa: B023
        assert y.dtype == autocast
        results.append([y, *torch.autograd.grad(y.float().square().sum(), (scores, value))])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))
    assert len({t.data_ptr() for t in saved if t.shape[-2:] == (8, 8)}) == 1  # the softmax's output


def test_autocast_leaves_float64_as_it_is() -> None:
    probs, value = (torch.rand(2, 4, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    with torch.autocast("cpu", torch.bfloat16):
        y, saved = saved_by(lambda: dropped_matmul(probs, value, 0.3))
    assert y.dtype == torch.float64 and saved[-1].numel() == 4


def step(
    name: str,
    swap: bool,
    checkpointed: bool = False,
    dtype: torch.dtype = torch.float32,
    autocast: torch.dtype | None = None,
) -> list[Tensor]:
    model = build(name).to(dtype)
    if swap:
        replace_dropout(model, PackedDropout, rng="torch", recompute=True)
    if checkpointed:
        checkpoint_layers(model)
    torch.manual_seed(7)
    with torch.autocast("cpu", autocast) if autocast else nullcontext():
        output = call(name, model)
    output.float().square().mean().backward()
    return [output, *(p.grad for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize("name", MODELS)
def test_a_models_training_step_stays_bit_identical(name: str) -> None:
    assert all(torch.equal(a, b) for a, b in zip(step(name, False), step(name, True), strict=True))


@pytest.mark.parametrize("name", ["bert", "vit"])
def test_a_models_second_derivative_stays_bit_identical(name: str) -> None:
    derivatives = []
    for swap in (False, True):
        model = build(name)
        if swap:
            replace_dropout(model, PackedDropout, rng="torch", recompute=True)
        torch.manual_seed(7)
        weights = list(model.parameters())
        loss = call(name, model).square().mean()
        first = torch.autograd.grad(loss, weights, create_graph=True, allow_unused=True)
        norm = torch.stack([gradient.square().sum() for gradient in first if gradient is not None]).sum()
        second = torch.autograd.grad(norm, weights, allow_unused=True)
        derivatives.append([gradient for gradient in (*first, *second) if gradient is not None])
    assert len(derivatives[0]) > 20
    assert all(torch.equal(a, b) for a, b in zip(*derivatives, strict=True))


def test_in_bf16_the_softmax_in_fp32_is_what_is_kept() -> None:
    pairs = zip(
        step("bert", False, dtype=torch.bfloat16), step("bert", True, dtype=torch.bfloat16), strict=True
    )
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("autocast", [torch.bfloat16, torch.float16], ids=str)
def test_a_step_under_autocast_stays_bit_identical(autocast: torch.dtype, checkpointed: bool) -> None:
    """BERT adds a float32 mask to its scores: softmax and dropout are float32, the product is not."""
    pairs = (step("bert", swap, checkpointed, autocast=autocast) for swap in (False, True))
    assert all(torch.equal(a, b) for a, b in zip(*pairs, strict=True))


@pytest.mark.parametrize("autocast", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("name", MODELS)
def test_the_dropped_probabilities_are_not_saved(name: str, autocast: bool) -> None:
    total, products = [], []
    for recompute in (False, True):
        model = build(name)
        replace_dropout(model, PackedDropout, recompute=recompute)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast), SavedForBackward(model) as ledger:
            call(name, model)
        total.append(ledger.total_bytes)
        products.append(ledger.recomputed_products)
    assert products[0] == 0
    assert (products[1] == 0) == (name in LEFT_PLAIN)
    assert (total[1] < total[0]) == (products[1] > 0)


@pytest.mark.parametrize(("name", "autocast"), [("bert", True), ("gptj", False)])  # functional, and a module
def test_compiled_it_saves_less_and_computes_the_same(name: str, autocast: bool) -> None:
    precision = partial(torch.autocast, "cpu", torch.bfloat16, enabled=autocast)
    total = []
    for recompute in (False, True):
        torch._dynamo.reset()
        model = build(name, layers=1)
        replace_dropout(model, PackedDropout, recompute=recompute)
        plain = copy.deepcopy(model)
        compiled: Any = torch.compile(model, fullgraph=True, backend="aot_eager")
        torch.manual_seed(3)
        with precision(), SavedForBackward(compiled) as ledger:
            output = call(name, compiled)
        total.append(ledger.total_bytes)
        output.square().mean().backward()
        torch.manual_seed(3)
        with precision():
            output = call(name, plain)
        output.square().mean().backward()
        for expected, actual in zip(plain.parameters(), model.parameters(), strict=True):
            assert expected.grad is None or torch.equal(expected.grad, actual.grad)
    dropped = 2 * 2 * 16 * 16 * (2 if autocast else 4)
    assert total[0] - total[1] == model.config.num_hidden_layers * dropped


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_layers(reentrant: bool) -> None:
    gradients = []
    for checkpointed in (False, True):
        model: Any = build("bert")
        replace_dropout(model, PackedDropout, recompute=True)
        x = torch.linspace(-1, 1, 2 * 16 * 16).view(2, 16, 16).requires_grad_()
        torch.manual_seed(5)
        layer = model.encoder.layer[0]
        y = checkpoint(layer, x, use_reentrant=reentrant) if checkpointed else layer(x)
        y.square().sum().backward()
        gradients.append([x.grad, *(p.grad for p in layer.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_a_dropout_in_place_stays_so_where_products_are_followed() -> None:
    """Code that throws the result away has its tensor dropped all the same."""
    dropout, x = PackedDropout(0.5, recompute=True), torch.ones(64)
    y = dropout.drop(x, 0.5, True, True, RecomputingRoute(dropout, nn.Module()))
    assert y.data_ptr() == x.data_ptr() and set(x.tolist()) == {0.0, 2.0}
