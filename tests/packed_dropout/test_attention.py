"""The dropout inside scaled_dot_product_attention is reached where torch takes its math kernel, bit for bit."""

import copy
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.attention import SDPBackend
from torch.nn.attention.bias import causal_lower_right
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from pmexp.measure.saved_for_backward import SavedForBackward
from pmexp.packed_dropout import PackedDropout, ReplacementReport, packed_dropout, replace_dropout
from pmexp.packed_dropout.attention import AttentionDropout
from pmexp.packed_dropout.rebuild import rebuilding
from pmexp.packed_dropout.routes import Route
from pmexp.variants.byte_mask import ByteMaskDropout
from saved_tensors import same_bits

MATH = "math kernel on cpu"


def route(**options: Any) -> Route:
    report = ReplacementReport("PackedDropout", "all")
    return Route(None, AttentionDropout(PackedDropout(**options), report, "here"))


class Attention(nn.Module):
    """Calls scaled_dot_product_attention itself, on one head."""

    def __init__(self, call: Callable[..., Tensor] = F.scaled_dot_product_attention, **options: Any) -> None:
        super().__init__()
        self.call, self.options = call, {"dropout_p": 0.3, **options}
        self.project = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.project(x)
        return self.call(x, x, x, **self.options)


def gradients(model: nn.Module, run: Callable[[], Tensor]) -> list[Tensor]:
    """The result of `run` by the masks of one seed, and the gradients of the model's parameters."""
    torch.manual_seed(3)
    result = run()
    return [result, *torch.autograd.grad(result.float().square().sum(), list(model.parameters()))]


def equal(some: list[Tensor], others: list[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(some, others, strict=True))


def mask_of(kind: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor | None:
    generator = torch.Generator().manual_seed(5)
    if kind == "none":
        return None
    if kind == "bool":  # one query sees nothing
        return torch.rand(shape, generator=generator).gt(0.5).index_fill(-2, torch.tensor([0]), False)
    numbers = torch.randn(shape, generator=generator)
    return numbers if kind == "wide" else numbers.to(dtype).requires_grad_(kind == "learned")


@settings(max_examples=100)
@given(
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    autocast=st.sampled_from([None, torch.bfloat16, torch.float16]),
    narrow_sums=st.booleans(),
    mask=st.sampled_from(["none", "bool", "numbers", "learned", "wide", "causal"]),
    mask_shape=st.sampled_from([(3, 4), (1, 3, 4), (2, 1, 3, 4), (2, 4, 3, 4)]),
    groups=st.sampled_from([1, 2, 4]),
    scale=st.sampled_from([None, 0.7, -0.3]),
    p=st.sampled_from([0.1, 0.5, 1.0]),
    again=st.booleans(),
)
def test_the_steps_have_the_numbers_of_torchs_kernel(
    dtype: torch.dtype,
    autocast: torch.dtype | None,
    narrow_sums: bool,
    mask: str,
    mask_shape: tuple[int, ...],
    groups: int,
    scale: float | None,
    p: float,
    again: bool,
) -> None:
    """Values and gradients, with the very mask that nn.Dropout would draw, for all that the call takes."""
    assume(not (mask == "wide" and dtype == torch.float64 and autocast))  # torch refuses it
    generator = torch.Generator().manual_seed(1)
    sizes = (4, 3, 6), (4 // groups, 4, 6), (4 // groups, 4, 5)
    tensors = [torch.randn(2, *size, generator=generator).to(dtype).requires_grad_() for size in sizes]
    bias = mask_of("none" if mask == "causal" else mask, mask_shape, dtype)
    options = {"is_causal": mask == "causal", "scale": scale, "enable_gqa": groups > 1}
    inputs = [*tensors, bias] if bias is not None and bias.requires_grad else tensors
    before = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(narrow_sums)
    results = []
    try:
        for reached in (False, True):
            torch.manual_seed(3)
            around = route(rng="torch", recompute=again)
            with (
                torch.autocast("cpu", autocast or torch.bfloat16, enabled=autocast is not None),
                rebuilding() if again and reached else nullcontext(),
                around if reached else nullcontext(),
            ):
                y = F.scaled_dot_product_attention(*tensors, bias, p, **options)
            results.append([y, *torch.autograd.grad(y.float().square().sum(), inputs)])
    finally:
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(before)
    assert all(same_bits(one, other) for one, other in zip(*results, strict=True))
    assert around.attention and around.attention.report.attention == {"here": MATH}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_mask_given_to_torchs_kernel_gives_the_same_numbers(dtype: torch.dtype) -> None:
    """At a rate of 1/2, where the kernel's own way with a given mask, to scale values, rounds nothing."""
    query, key, value = (torch.randn(2, 3, 4, 8).to(dtype).requires_grad_() for _ in range(3))
    torch.manual_seed(3)
    with route():
        reached = F.scaled_dot_product_attention(query, key, value, dropout_p=0.5, is_causal=True)
    torch.manual_seed(3)
    keep = packed_dropout(torch.ones(2, 3, 4, 4, dtype=dtype), 0.5) != 0
    kernel = torch.ops.aten._scaled_dot_product_attention_math
    with warnings.catch_warnings(action="ignore"):  # it warns that a mask is given
        expected, _ = kernel(query, key, value, None, 0.5, True, keep)
    results = [[y, *torch.autograd.grad(y.square().sum(), (query, key, value))] for y in (reached, expected)]
    assert equal(*results)


SIZES = (8, 2, 16, 0.3)
MODULES: dict[str, tuple[Callable[[], nn.Module], dict[str, Any]]] = {
    "encoder layer": (lambda: nn.TransformerEncoderLayer(*SIZES, "gelu", batch_first=True), {}),
    "decoder layer": (lambda: nn.TransformerDecoderLayer(*SIZES), {"memory": "x"}),
    "encoder": (lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(*SIZES, batch_first=True), 2), {}),
    "attention": (lambda: nn.MultiheadAttention(8, 2, 0.3), {"key": "x", "value": "x"}),
    "attention without weights": (
        lambda: nn.MultiheadAttention(8, 2, 0.3, add_bias_kv=True, add_zero_attn=True),
        {"key": "x", "value": "x", "need_weights": False},
    ),
    "functional": (Attention, {}),
}


@pytest.mark.parametrize("recompute", [False, True], ids=["", "recompute"])
@pytest.mark.parametrize("name", MODULES)
def test_modules_of_torch_train_bit_for_bit_and_keep_no_mask_but_bits(name: str, recompute: bool) -> None:
    make, inputs = MODULES[name]
    torch.manual_seed(1)
    stock: Any = make()
    model = copy.deepcopy(stock)
    report = replace_dropout(model, PackedDropout, rng="torch", recompute=recompute)
    x = torch.randn(5, 4, 8)
    inputs = {name: x if value == "x" else value for name, value in inputs.items()}
    for _ in range(2):  # the first forward is watched
        results = []
        for module in (stock, model):

            def run(module: Any = module) -> Tensor:
                y = module(x, **inputs)
                return y[0] if isinstance(y, tuple) else y

            with SavedForBackward(module) as ledger:
                results.append(gradients(module, run))
        assert equal(*results)
    assert report.left == {} and report.settled and ledger.mask_elements
    assert ledger.mask_bytes <= ledger.mask_elements / 8 + 8 * 8  # a byte of each mask is not full
    assert set(report.attention.values()) == {"by F.dropout" if name == "attention" else MATH}
    assert (ledger.recomputed_products > 0) == recompute


def test_an_encoder_layer_saves_at_most_three_quarters_of_byte_masks() -> None:
    """A quarter of BERT-Base's width and heads: all that it saves keeps its proportions."""
    layer = nn.TransformerEncoderLayer(192, 3, 768, 0.1, "gelu", batch_first=True)
    x, saved = torch.randn(1, 512, 192), []
    for dropout, options in ((ByteMaskDropout, {}), (PackedDropout, {"recompute": True})):
        replace_dropout(layer, dropout, **options)
        with torch.autocast("cpu", torch.bfloat16), SavedForBackward(layer) as ledger:
            layer(x)
        saved.append(ledger.total_bytes)
    assert saved[1] <= 0.75 * saved[0]


class _Names(TorchDispatchMode):
    """Notes the operators that run."""

    def __init__(self) -> None:
        super().__init__()
        self.ran: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.ran.append(func.__name__)
        return func(*args, **(kwargs or {}))


def test_the_fast_path_of_evaluation_stays() -> None:
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, 0.3, batch_first=True), 1)
    replace_dropout(model, PackedDropout)
    for _ in range(2):
        model(torch.randn(2, 4, 8))
        with torch.no_grad(), _Names() as names:
            model.eval()(torch.randn(2, 4, 8))
        assert "_transformer_encoder_layer_fwd.default" in names.ran
        with torch.no_grad(), _Names() as names:
            model.layers[0].self_attn(*[torch.randn(2, 4, 8)] * 3)
        assert "_native_multi_head_attention.default" in names.ran
        model.train()


@pytest.mark.parametrize("where", ["hidden", "attention"])
@pytest.mark.parametrize("name", ["encoder layer", "functional"])
def test_selection_by_place(name: str, where: Any) -> None:
    model: Any = nn.Sequential(MODULES[name][0](), nn.Dropout(0.3))
    report = replace_dropout(model, PackedDropout, where=where)
    model(torch.randn(2, 4, 8))
    place = "0.self_attn" if name == "encoder layer" else "0"
    if where == "attention":
        assert report.attention == {place: MATH} and place not in report.left
    else:
        assert report.attention == {} and report.left == {place: "where=hidden"}


def test_a_fused_kernel_stays_and_the_report_says_what_this_device_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """torch takes none on the CPU where attention drops, so its answer is a stand-in here."""
    model = nn.TransformerEncoderLayer(8, 2, 16, 0.3)
    stock, x = copy.deepcopy(model), torch.randn(2, 4, 8)
    report = replace_dropout(model, PackedDropout, rng="torch")
    assert "no call that drops was seen yet" in str(report)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "_fused_sdp_choice", lambda *_, **__: SDPBackend.FLASH_ATTENTION.value)
        for _ in range(2):
            assert equal(gradients(stock, lambda: stock(x)), gradients(model, lambda: model(x)))
            assert report.attention == {"self_attn": "flash attention kernel on cpu"}
            assert report.left["self_attn"].startswith("attention dropout is drawn inside the flash")
    model(x)
    assert report.attention == {"self_attn": MATH} and report.left == {}


def test_attention_that_is_all_fused_was_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "_fused_sdp_choice", lambda *_, **__: SDPBackend.FLASH_ATTENTION.value)
    model = nn.MultiheadAttention(8, 2, 0.3)
    replace_dropout(model, PackedDropout)
    with pytest.warns(UserWarning, match="nothing to replace in MultiheadAttention: the model: attention"):
        model(*[torch.randn(2, 4, 8)] * 3, need_weights=False)


def test_what_a_checkpoint_calls_again_stays_torchs_both_times() -> None:
    def checkpointed(*args: Any, **options: Any) -> Any:
        return checkpoint(F.scaled_dot_product_attention, *args, use_reentrant=False, **options)

    model, x = Attention(checkpointed), torch.randn(2, 4, 8)
    stock = copy.deepcopy(model)
    report = replace_dropout(nn.Sequential(model, nn.Dropout(0.1)), PackedDropout, rng="torch")
    assert report.attention == {}
    for _ in range(2):
        assert equal(gradients(stock, lambda: stock(x)), gradients(model, lambda: model(x)))


def test_a_mask_that_computes_attention_itself_does_so() -> None:
    """torch's causal_lower_right is a class of tensors with an attention of its own."""
    mask = causal_lower_right(3, 4)

    def last_three(x: Tensor, *others: Tensor, **options: Any) -> Tensor:
        return F.scaled_dot_product_attention(x[:, 1:], *others, attn_mask=mask, **options)

    model, x = Attention(last_three), torch.randn(2, 4, 8)
    stock = copy.deepcopy(model)
    report = replace_dropout(nn.Sequential(model, nn.Dropout(0.1)), PackedDropout, rng="torch")
    for _ in range(2):
        assert equal(gradients(stock, lambda: stock(x)), gradients(model, lambda: model(x)))
    assert report.attention == {}


def test_nothing_is_routed_where_nothing_is_dropped() -> None:
    model = nn.Sequential(Attention(dropout_p=0.0), nn.Dropout(0.1))
    report = replace_dropout(model, PackedDropout)
    model(torch.randn(2, 4, 8))
    assert report.settled and report.attention == {} and report.left == {}


def test_what_torch_refuses_it_refuses_still() -> None:
    x, mask = torch.ones(2, 3, 3), torch.ones(3, 3)
    refused: list[tuple[Any, ...]] = [
        (x, x, x, mask, 0.1, True),
        (x, x, x.double(), None, 0.1),
        (x, x, x, mask.int(), 0.1),
        (x[0, 0], x[0, 0], x[0, 0], None, 0.1),
    ]
    for arguments in refused:
        messages = []
        for around in (nullcontext(), route()):
            with around, pytest.raises(RuntimeError) as error:
                F.scaled_dot_product_attention(*arguments)
            messages.append(str(error.value))
        assert messages[0] == messages[1]


def test_per_sample_gradients() -> None:
    model, x = nn.Sequential(Attention(), nn.Dropout(0.1)), torch.randn(3, 4, 8)
    replace_dropout(model, PackedDropout)
    model(x)
    parameters = dict(model.named_parameters())

    def loss(parameters: dict[str, Tensor], sample: Tensor) -> Tensor:
        return torch.func.functional_call(model, parameters, (sample,)).square().sum()

    per_sample = torch.func.vmap(torch.func.grad(loss), (None, 0), randomness="different")(parameters, x)
    assert per_sample["0.project.weight"].shape == (3, 8, 8)


def test_compiled_it_trains_as_in_eager() -> None:
    torch._dynamo.reset()
    model = nn.TransformerEncoderLayer(8, 2, 16, 0.3, "gelu")
    replace_dropout(model, PackedDropout, recompute=True)
    x = torch.randn(6, 2, 8)
    model(x)
    twin = copy.deepcopy(model)
    compiled: Any = torch.compile(model, fullgraph=True, backend="aot_eager")
    assert equal(gradients(twin, lambda: twin(x)), gradients(model, lambda: compiled(x)))


class AttentionOfItsRate(nn.Module):
    """Has a dropout, whose rate alone it gives to torch's attention, as timm's has."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.attn_drop = nn.Linear(16, 48), nn.Dropout(0.2)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4).unbind(0)
        rate = self.attn_drop.p if self.training else 0.0
        return F.scaled_dot_product_attention(q, k, v, dropout_p=rate)


@pytest.mark.parametrize("recompute", [False, True])
def test_an_attention_with_a_dropout_for_its_rate_is_reached(recompute: bool) -> None:
    model = nn.Sequential(AttentionOfItsRate(), nn.Dropout(0.2))
    report = replace_dropout(model, PackedDropout, recompute=recompute)
    model(torch.ones(2, 12, 16))
    assert list(report.attention) == ["0"] and report.left == {}
