"""Dropped operands of products are made again from bits: the same gradients bit for bit, and fewer bytes saved."""

import copy
import gc
import pickle
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import peft
import pytest
import torch
import torch.nn.functional as F
import transformers as hf
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd.graph import save_on_cpu
from torch.utils.checkpoint import checkpoint

from pmexp.measure.saved_for_backward import SavedForBackward
from pmexp.packed_dropout import PackedDropout, packed_dropout, replace_dropout
from pmexp.packed_dropout.followed_casts import run_followed
from pmexp.packed_dropout.origins import rebuildable_dropout
from pmexp.packed_dropout.rebuild import rebuilding, watching

Step = Callable[[Tensor, Callable[[Tensor], Tensor]], Tensor]
SHAPE = (2, 3, 4, 8)
WEIGHT = torch.linspace(-1, 1, 8 * 8).view(8, 8)


def gate(x: Tensor) -> Tensor:
    return F.silu(x) * x.sin()


SOURCES: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu-tanh": partial(F.gelu, approximate="tanh"),
    "silu": F.silu,
    "relu": F.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softmax": partial(torch.softmax, dim=-1),
    "gate": gate,
    "gelu, viewed": lambda x: F.gelu(x.flatten()).view(SHAPE),
    "softmax, cast": lambda x: torch.softmax(x, -1, torch.float64).to(x.dtype),
}
PRODUCTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "linear": lambda y, w: F.linear(y, w, w[0]),
    "linear without bias": F.linear,
    "matmul": torch.matmul,
    "matmul on the right": lambda y, w: torch.matmul(w[:4, :4].expand(2, 3, 4, 4), y),
    "bmm": lambda y, w: torch.bmm(y.view(6, 4, 8), w.expand(6, 8, 8)),
    "addmm": lambda y, w: torch.addmm(w[0], y.reshape(-1, 8), w),
    "einsum": lambda y, w: torch.einsum(
        "bhqk,bkhd->bqhd", y, w[:6, :4].view(2, 3, 4).repeat(1, 1, 8).view(2, 8, 3, 4)
    ),
    "conv1d": lambda y, w: F.conv1d(y.reshape(6, 4, 8), w[:, :4, None]),
    "conv2d": lambda y, w: F.conv2d(y, w[:3, :3, None, None]),
    "a part of it": lambda y, w: torch.bmm(y.view(6, 4, 8)[1:4, 2:], w.expand(3, 8, 8)),
    "transposed": lambda y, w: torch.bmm(w[:5].expand(6, 5, 8), y.view(6, 4, 8).transpose(1, 2)),
    "with itself": lambda y, w: torch.matmul(y, y.transpose(-1, -2)),
    "times": lambda y, w: y * w[0],
}


def train(
    step: Step,
    again: bool,
    dtype: torch.dtype = torch.float32,
    autocast: bool = False,
    followed: bool = False,
) -> list[Tensor]:
    """Output and gradients of a step whose dropped operands are made again or not.

    followed: whether its casts and copies are followed, as in a forward that drops.
    """
    torch.manual_seed(3)
    x = torch.randn(SHAPE).to(dtype).requires_grad_()
    weight = WEIGHT.to(dtype).clone().requires_grad_()
    drop = partial(
        rebuildable_dropout, p=0.3, training=True, bits=1, cache_unpacked=True, rng="philox", flip_rate=0.0
    )
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        if again:
            with rebuilding():
                output = run_followed({}, step, (x, drop), (x,)) if followed else step(x, drop)
        else:
            output = step(x, drop)
    gradients = torch.autograd.grad(output.float().square().sum(), (x, weight), allow_unused=True)
    return [output, *(gradient for gradient in gradients if gradient is not None)]


def assert_made_again(step: Step, operands: int | None = None, **options: Any) -> None:
    """Asserts the numbers of a plain step, and that so many operands were made again."""
    made: list[Any] = []
    with watching(made.append):
        results = [train(step, again, **options) for again in (False, True)]
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))
    assert (len(made) > 0) if operands is None else len(made) == operands


@pytest.mark.parametrize("autocast", [False, True], ids=["", "autocast"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("source", SOURCES)
def test_every_source_in_a_linear_layer(source: str, dtype: torch.dtype, autocast: bool) -> None:
    def step(x: Tensor, drop: Callable[[Tensor], Tensor]) -> Tensor:
        return F.linear(drop(SOURCES[source](x)), WEIGHT.to(dtype) * x.mean())

    assert_made_again(step, dtype=dtype, autocast=autocast)


@pytest.mark.parametrize("autocast", [False, True], ids=["", "autocast"])
@pytest.mark.parametrize("product", PRODUCTS)
def test_every_product_of_a_gelu(product: str, autocast: bool) -> None:
    def step(x: Tensor, drop: Callable[[Tensor], Tensor]) -> Tensor:
        return PRODUCTS[product](drop(F.gelu(x)), WEIGHT * x.mean())

    assert_made_again(step, autocast=autocast)


_VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "flat": lambda y: y.flatten(),
    "row": lambda y: y.reshape(-1, 2) if y.numel() % 2 == 0 else y,
    "turned": lambda y: y.transpose(0, -1),
    "cut": lambda y: y[..., 1:] if y.shape[-1] > 2 else y,
    "picked": lambda y: y[0] if y.dim() > 1 else y,
    "wider": lambda y: y.unsqueeze(1).expand(y.shape[0], 2, *y.shape[1:]),
    "bf16": lambda y: y.bfloat16(),
    "fp64": lambda y: y.double(),
    "copied": lambda y: y.contiguous(),
    "split": lambda y: y.chunk(2, -1)[0],
}


def _times(y: Tensor) -> Tensor:
    return y * y.sin().detach()


def _linear(y: Tensor) -> Tensor:
    """Copies what does not lie row by row, and views the copy behind autograd's back."""
    weight = torch.linspace(-1, 1, 3 * y.shape[-1], dtype=y.dtype).view(3, -1).requires_grad_()
    return F.linear(y, weight)


@settings(max_examples=150)
@given(
    source=st.sampled_from(sorted(SOURCES)),
    before=st.lists(st.sampled_from(sorted(_VIEWS)), max_size=3),
    after=st.lists(st.sampled_from(sorted(_VIEWS)), max_size=4),
    product=st.sampled_from([_times, _linear]),
)
def test_whatever_lies_between_the_numbers_stay(
    source: str, before: list[str], after: list[str], product: Callable[[Tensor], Tensor]
) -> None:
    def step(x: Tensor, drop: Callable[[Tensor], Tensor]) -> Tensor:
        y = SOURCES[source](x)
        for name in before:
            y = _VIEWS[name](y)
        y = drop(y)
        for name in after:
            y = _VIEWS[name](y)
        return product(y)

    results = [train(step, again) for again in (False, True)]
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_a_linear_layer_of_what_does_not_lie_row_by_row() -> None:
    def step(x: Tensor, drop: Callable[[Tensor], Tensor]) -> Tensor:
        return F.linear(drop(F.gelu(x.transpose(1, 2))), WEIGHT * x.mean())

    assert_made_again(step)
    assert_made_again(step, autocast=True, followed=True)  # cast, and then copied into rows


def test_an_input_that_is_there_anyhow_is_shared_by_its_dropped_copies() -> None:
    """As three adapters of one input have it: with masks of their own, they keep one tensor and bits."""
    weight = WEIGHT.clone().requires_grad_()
    x = torch.randn(64, 8).requires_grad_() * 1

    def forward(drop: Callable[[Tensor], Tensor]) -> Tensor:
        return sum(F.linear(drop(x), weight) for _ in range(3))  # type: ignore[return-value]

    drop = partial(
        rebuildable_dropout, p=0.3, training=True, bits=1, rng="philox", cache_unpacked=True, flip_rate=0.0
    )
    with SavedForBackward(nn.ParameterList([weight])) as plain:
        forward(drop)
    with SavedForBackward(nn.ParameterList([weight])) as ledger, rebuilding():
        forward(drop)
    tensor, bits = 64 * 8 * 4, 64
    assert plain.total_bytes == 3 * (tensor + bits) and ledger.total_bytes == tensor + 3 * bits


def adapted_llama(rate: float) -> nn.Module:
    """Two layers, frozen, with adapters at all seven linear layers of each."""
    torch.manual_seed(1)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = hf.LlamaModel(hf.LlamaConfig(vocab_size=50, attn_implementation="eager", **sizes))
    targets = [*(f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down"))]
    config = peft.LoraConfig(r=2, lora_dropout=rate, target_modules=targets, init_lora_weights=False)
    return peft.inject_adapter_in_model(config, model).train()


def test_adapters_of_a_frozen_model_save_no_dropped_operand() -> None:
    """Nor those of the first layer, whose inputs have no gradient: hardly more than without dropout."""
    ids, saved, gradients = torch.arange(48).view(2, 24), [], []
    for rate, swapped in ((0.0, False), (0.1, False), (0.1, True)):
        model = adapted_llama(rate)
        if swapped:
            report = replace_dropout(model, PackedDropout, rng="torch", recompute=True)
            model(ids)
        torch.manual_seed(2)
        with SavedForBackward(model) as ledger:
            y = model(ids)[0]
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        gradients.append(torch.autograd.grad(y.square().sum(), trained))
        saved.append(ledger.total_bytes)
    assert ledger.recomputed_products == 14 and not ledger.saved_whole and not report.saved_whole
    assert all(torch.equal(one, other) for one, other in zip(*gradients[1:], strict=True))
    assert saved[2] <= 1.02 * saved[0] < saved[1]


OPTIONS: dict[str, Any] = {"bits": 1, "cache_unpacked": True, "rng": "philox", "flip_rate": 0.0}


def products_of_a_constant(
    again: bool, between: Callable[[Tensor], Tensor] = lambda y: y
) -> tuple[int, list[Tensor]]:
    """Bytes saved by three products of dropped copies of one input without a gradient, and the gradient."""
    weight, x = WEIGHT.clone().requires_grad_(), torch.linspace(-1, 1, 64 * 8).view(64, 8)
    torch.manual_seed(3)
    with SavedForBackward(nn.ParameterList([weight])) as ledger, rebuilding() if again else nullcontext():
        drop = rebuildable_dropout if again else packed_dropout
        y = sum(between(drop(x, 0.3, True, **OPTIONS)) @ weight for _ in range(3))
    return ledger.total_bytes, [*torch.autograd.grad(y.square().sum(), weight)]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("between", "caught"),
    [
        (lambda y: y, True),
        (lambda y: y.view(32, 2, 8), True),
        (lambda y: y[3:], True),
        (lambda y: y.add_(1), False),
    ],
    ids=["itself", "view", "part", "changed"],
)
def test_an_input_without_a_gradient_is_shared_by_its_dropped_copies(
    between: Callable[[Tensor], Tensor], caught: bool
) -> None:
    """As adapters of a frozen model's first layer have it: no node of autograd knows of these dropouts."""
    tensor, bits = 64 * 8 * 4, 64
    (plain, expected), (saved, gradient) = (products_of_a_constant(again, between) for again in (False, True))
    assert all(torch.equal(one, other) for one, other in zip(expected, gradient, strict=True))
    assert plain == 3 * tensor and saved == (tensor + 3 * bits if caught else plain)


def test_a_dropped_constant_can_be_copied_and_stored() -> None:
    with rebuilding():
        dropped = rebuildable_dropout(torch.ones(4, 8), 0.3, True, **OPTIONS)
    for twin in (copy.deepcopy(dropped), pickle.loads(pickle.dumps(dropped))):
        made: list[Any] = []
        with watching(made.append), rebuilding():
            F.linear(twin, WEIGHT.clone().requires_grad_())
        assert torch.equal(twin, dropped) and not made


def _larger(x: Tensor, drop: Callable[[Tensor], Tensor]) -> Tensor:
    kept = x + 1
    return F.linear(drop(kept).bfloat16(), WEIGHT.bfloat16() * x.mean()) + kept.mean()


@pytest.mark.parametrize(
    ("step", "why"),
    [
        (lambda x, drop: F.linear(drop(x + 1), WEIGHT * x.mean()), "nobody holds the input of its dropout"),
        (_larger, "the input of its dropout is larger, and not known to be kept anyhow"),
        (
            lambda x, drop: F.linear(drop(x + 1, inplace=True), WEIGHT * x.mean()),
            "its dropout wrote into its",
        ),
        (lambda x, drop: F.linear(F.pad(drop(F.gelu(x)), (1, -1)), WEIGHT * x.mean()), "ConstantPadNd lies"),
        (lambda x, drop: F.linear(drop(F.gelu(x)).mul_(2), WEIGHT * x.mean()), None),
        (
            lambda x, drop: F.linear(drop(F.gelu(x)).double().float(), WEIGHT * x.mean()),
            "it is a copy of a copy",
        ),
        (lambda x, drop: F.linear(F.layer_norm(drop(F.gelu(x)), (8,)), WEIGHT * x.mean()), None),
        (lambda x, drop: F.linear(F.gelu(x), WEIGHT * x.mean()), None),
    ],
    ids=[
        "gone",
        "larger",
        "in place",
        "padded",
        "another operation",
        "copied twice",
        "a norm",
        "not dropped",
    ],
)
def test_what_is_saved_whole_has_its_reason(step: Step, why: str | None) -> None:
    whole: list[str] = []
    with watching(lambda _: None, whole.append):
        train(step, True)
    assert (why is None) == (not whole) and all(why is not None and why in reason for reason in whole)


def test_the_ledger_and_the_report_count_what_is_saved_whole_by_its_reason() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Softplus(), nn.Dropout(0.2), nn.Linear(8, 8))
    report = replace_dropout(model, PackedDropout, recompute=True)
    with SavedForBackward(model, report) as ledger:
        model(torch.randn(4, 8))
    assert list(report.saved_whole.values()) == [1] and report.saved_whole == ledger.saved_whole
    assert ledger.metrics()["memory/saved_dropped_operands"] == 1
    assert "1 x a dropped operand saved as it is: nobody holds" in str(report)


def test_what_nobody_keeps_is_saved_as_it_is() -> None:
    assert_made_again(lambda x, drop: F.linear(drop(x + 1), WEIGHT * x.mean()), operands=0)
    assert_made_again(lambda x, drop: F.linear(drop(F.softplus(x)), WEIGHT * x.mean()), operands=0)


def test_a_tensor_that_is_rounded_on_its_way_is_rounded_again() -> None:
    def step(x: Tensor, drop: Callable[[Tensor], Tensor]) -> Tensor:
        return F.linear(drop(F.gelu(x)).bfloat16().float(), WEIGHT * x.mean())

    assert_made_again(step, operands=1, followed=True)
    assert_made_again(
        lambda x, drop: F.linear(drop(F.gelu(x).bfloat16().float()), WEIGHT * x.mean()),
        operands=1,
        followed=True,
    )


def test_nothing_outlives_its_step() -> None:
    """Without the collector of garbage: no cycle holds a step's tensors."""
    gc.collect()
    gc.disable()
    try:
        for _ in range(2):
            train(lambda x, drop: F.linear(drop(gate(x)), WEIGHT * x.mean()), True, autocast=True)
        left = [part for part in gc.get_objects() if type(part).__name__ in ("Origin", "Kept", "Rebuilt")]
    finally:
        gc.enable()
    assert not left


def test_an_input_larger_than_the_cast_that_is_saved_is_not_kept_for_it() -> None:
    def step(x: Tensor, drop: Callable[[Tensor], Tensor]) -> Tensor:
        kept = x + 1
        return F.linear(drop(kept), WEIGHT * x.mean()) + kept.mean()

    assert_made_again(step, operands=1)
    assert_made_again(step, operands=0, autocast=True)


def test_of_several_casts_of_one_dropped_tensor_one_is_saved() -> None:
    layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))

    def forward(again: bool) -> tuple[int, Tensor]:
        torch.manual_seed(3)
        x = torch.linspace(-1, 1, 64 * 8).view(64, 8).requires_grad_()
        drop = partial(
            rebuildable_dropout,
            p=0.3,
            training=True,
            bits=1,
            rng="philox",
            cache_unpacked=True,
            flip_rate=0.0,
        )
        with torch.autocast("cpu", torch.bfloat16), SavedForBackward(layers) as ledger:
            if again:
                with rebuilding():
                    y = drop(x + 1)
                    output = sum(layer(y) for layer in layers)
            else:
                y = drop(x + 1)
                output = sum(layer(y) for layer in layers)
        (gradient,) = torch.autograd.grad(output.float().square().sum(), x)  # type: ignore[union-attr]
        return ledger.total_bytes, gradient

    plain, shared = forward(False), forward(True)
    assert torch.equal(plain[1], shared[1]) and plain[0] - shared[0] == 2 * 64 * 8 * 2


@pytest.mark.parametrize("change", ["input", "dropped"])
def test_a_change_in_place_is_seen(change: str) -> None:
    """As autograd sees it: a source that was changed after it was saved is refused; a dropped tensor that is
    changed before its product is saved as it is then."""

    def step(x: Tensor, drop: Callable[[Tensor], Tensor]) -> Tensor:
        hidden = x * 2
        y = drop(F.gelu(hidden))
        with torch.no_grad():
            (hidden if change == "input" else y).mul_(3)
        return F.linear(y, WEIGHT * x.mean())

    if change == "dropped":
        assert_made_again(step, operands=0)
    else:
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            train(step, True)


def _residual(x: Tensor, drop: Callable[[Tensor], Tensor]) -> Tensor:
    hidden = x * 2
    y = drop(hidden)
    hidden.add_(1)
    return F.linear(y, WEIGHT * x.mean()) + hidden


def _changed_constant(x: Tensor, drop: Callable[[Tensor], Tensor]) -> Tensor:
    constant = torch.ones(SHAPE)
    y = drop(constant)
    constant.add_(1)
    return F.linear(y, WEIGHT * x.mean())


def _changed_cast(x: Tensor, drop: Callable[[Tensor], Tensor]) -> Tensor:
    probabilities = torch.softmax(x, -1, torch.float64).float()
    with torch.no_grad():
        probabilities.mul_(3)
    return F.linear(drop(probabilities), WEIGHT * x.mean())


def _changed_result(x: Tensor, drop: Callable[[Tensor], Tensor]) -> Tensor:
    hidden = F.gelu(x)
    with torch.no_grad():
        hidden.mul_(3)
    return F.linear(drop(hidden), WEIGHT * x.mean())


def _changed_before_a_cast(x: Tensor, drop: Callable[[Tensor], Tensor]) -> Tensor:
    y = drop(F.gelu(x))
    with torch.no_grad():
        y.mul_(3)
    return F.linear(y.double(), WEIGHT.double() * x.mean())


@pytest.mark.parametrize(
    ("step", "operands"),
    [
        (_residual, 0),
        (_changed_constant, 0),
        (_changed_before_a_cast, 0),
        (_changed_cast, 1),  # made again of the input, which is held
        (_changed_result, 1),
    ],
)
def test_what_was_changed_in_place_is_no_source(step: Step, operands: int) -> None:
    """Neither the input of a dropout, once it is changed, nor a result that was changed on its way."""
    assert_made_again(step, operands)


def test_two_backwards_of_one_graph_and_a_second_derivative() -> None:
    derivatives = []
    for again in (False, True):
        torch.manual_seed(3)
        x = torch.linspace(-1, 1, 48).view(6, 8).requires_grad_()
        options = {"bits": 1, "cache_unpacked": True, "rng": "philox", "flip_rate": 0.0}
        if again:
            with rebuilding():
                y = F.linear(rebuildable_dropout(F.gelu(x), 0.3, True, **options), WEIGHT @ x.T @ x)
        else:
            y = F.linear(rebuildable_dropout(F.gelu(x), 0.3, True, **options), WEIGHT @ x.T @ x)
        (first,) = torch.autograd.grad(y.square().sum(), x, retain_graph=True)
        (once_more,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(once_more.square().sum(), x)
        assert torch.equal(first, once_more)
        derivatives.append((first, second))
    assert all(torch.equal(one, other) for one, other in zip(*derivatives, strict=True))


class Block(nn.Module):
    """A feed-forward layer with a head: dropout in front of both products."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.head = nn.Linear(8, 32), nn.Linear(32, 8), nn.Linear(8, 4)
        self.inner, self.outer = nn.Dropout(0.2), nn.Dropout(0.2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.outer(torch.tanh(self.down(self.inner(F.gelu(self.up(x)))))))


class FusedAttention(nn.Module):
    """Takes queries, keys and values as views of one product, as vit-pytorch and timm do."""

    def __init__(self, products: str) -> None:
        super().__init__()
        self.qkv, self.out, self.dropout = nn.Linear(16, 48), nn.Linear(16, 16), nn.Dropout(0.2)
        self.products = products

    def forward(self, x: Tensor) -> Tensor:
        if self.products == "chunked":
            q, k, v = (part.unflatten(-1, (2, 8)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        else:
            q, k, v = self.qkv(x).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4).unbind(0)
        y = self.dropout(torch.softmax(q @ k.transpose(-1, -2), -1)) @ v
        return self.out(y.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("products", ["chunked", "unbound"])
def test_views_of_a_fused_product_are_no_reason_to_save_more(products: str) -> None:
    results, saved = [], []
    for options in (None, {}, {"recompute": True}):
        torch.manual_seed(1)
        model = FusedAttention(products)
        if options is not None:
            replace_dropout(model, PackedDropout, rng="torch", **options)
        x = torch.linspace(-1, 1, 2 * 24 * 16).view(2, 24, 16).requires_grad_()
        torch.manual_seed(2)
        with SavedForBackward(model) as ledger:
            y = model(x)
        results.append([y, *torch.autograd.grad(y.square().sum(), (x, *model.parameters()))])
        saved.append(ledger.total_bytes)
    assert all(torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(*results, strict=True))
    probabilities = 2 * 2 * 24 * 24
    assert (
        saved[1] - saved[2] == 4 * probabilities
        and saved[0] - saved[1] == 4 * probabilities - probabilities // 8
    )


@pytest.mark.parametrize("how", ["checkpoint", "reentrant", "layers checkpointed", "on the CPU", "copied"])
def test_around_a_model(how: str) -> None:
    gradients = []
    for swapped in (False, True):
        torch.manual_seed(1)
        model: Any = nn.Sequential(Block(), nn.Linear(4, 8), Block())
        if swapped:
            replace_dropout(model, PackedDropout, rng="torch", recompute=True)
        model = copy.deepcopy(model) if how == "copied" else model
        x = torch.linspace(-1, 1, 80).view(10, 8).requires_grad_()
        torch.manual_seed(2)
        made: list[Any] = []
        with watching(made.append):
            if how in ("checkpoint", "reentrant"):
                y = checkpoint(model, x, use_reentrant=how == "reentrant")
            elif how == "layers checkpointed":
                y = x
                for layer in model:
                    y = checkpoint(layer, y, use_reentrant=False)
            elif how == "on the CPU":
                with save_on_cpu():
                    y = model(x)
            else:
                y = model(x)
            y.square().sum().backward()
        assert (len(made) >= 4) == swapped
        gradients.append([x.grad, *(parameter.grad for parameter in model.parameters())])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_dropouts_that_do_not_recompute_stay_as_they_are() -> None:
    made: list[Any] = []
    model = nn.Sequential(Block())
    replace_dropout(model, PackedDropout)
    with watching(made.append):
        model(torch.randn(4, 8))
        with rebuilding():
            F.linear(
                packed_dropout(F.gelu(torch.randn(4, 8, requires_grad=True))), WEIGHT.clone().requires_grad_()
            )
    assert not made
