"""The simulated memory of a step against real steps on the CPU, whose allocator torch's profiler watches."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import cache, partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM, LlamaConfig, LlamaForCausalLM

import real_steps
from pmexp.errors import UserError
from pmexp.packed_dropout import PackedDropout, replace_dropout
from pmexp.simulation import LiveBytes, Prediction, operations, peaks_of_training, predict
from pmexp.simulation.cuda_kernels import cuda_semantics
from pmexp.simulation.internals import fake_tensors
from pmexp.simulation.predict import cut_to
from pmexp.systems.checkpointing import checkpoint_layers
from pmexp.variants.byte_mask import ByteMaskDropout
from pmexp.variants.seeded import SeededDropout
from real_steps import precision

SAMPLES, TOKENS, HEADS, WIDTH, INNER, WORDS = 4, 64, 4, 64, 128, 1000
SHAPES = dict.fromkeys(
    ("input_ids", "token_type_ids", "attention_mask", "labels"), ((SAMPLES, TOKENS), torch.int64)
)
DROPOUTS: dict[str, Callable[[nn.Module], object]] = {
    "stock": lambda model: None,
    "byte-mask": partial(replace_dropout, dropout=ByteMaskDropout),
    "pm-drop": partial(replace_dropout, dropout=PackedDropout),
    "pm-drop-recompute": partial(replace_dropout, dropout=PackedDropout, recompute=True),
    "seed-only": partial(replace_dropout, dropout=SeededDropout),
}


def bert(layers: int = 2, attention: str = "eager", **fields: Any) -> nn.Module:
    config = BertConfig(
        vocab_size=WORDS,
        hidden_size=WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        intermediate_size=INNER,
        attn_implementation=attention,
        **fields,
    )
    return BertForMaskedLM(config)


def prepared(model: nn.Module, dropout: str, checkpointing: bool = False) -> None:
    DROPOUTS[dropout](model)
    if checkpointing:
        checkpoint_layers(model)


@cache
def simulated(
    dropout: str, like: str, checkpointing: bool = False, name: str = "fp32", **options: Any
) -> Prediction:
    build = options.pop("build", bert)
    prepare = partial(prepared, dropout=dropout, checkpointing=checkpointing)
    return predict(build, SHAPES, prepare=prepare, forward=partial(precision, name), like=like, **options)


def real_batch() -> tuple[dict[str, Tensor], Tensor]:
    tensors = {name: torch.ones(shape, dtype=dtype) for name, (shape, dtype) in SHAPES.items()}
    tensors["attention_mask"][:, -3:] = 0
    return tensors, tensors.pop("labels")


@cache
def real_peak(
    dropout: str, checkpointing: bool = False, name: str = "fp32", build: Callable[[], nn.Module] = bert
) -> int:
    def made() -> nn.Module:
        model = build()
        prepared(model, dropout, checkpointing)
        return model

    return real_steps.real_peak(made, *real_batch(), name)


CASES = [
    ("stock", False, "fp32"),
    ("byte-mask", False, "fp32"),
    ("byte-mask", False, "bf16"),
    ("byte-mask", True, "fp32"),
    ("pm-drop", False, "fp32"),
    ("pm-drop", True, "bf16"),
    ("pm-drop-recompute", False, "fp32"),
    ("seed-only", False, "fp32"),
]


@pytest.mark.parametrize(("dropout", "checkpointing", "name"), CASES)
def test_the_peak_is_that_of_a_real_step_within_one_percent(
    dropout: str, checkpointing: bool, name: str
) -> None:
    """On the CPU's operators. What is left of the percent is scratch memory inside kernels."""
    real = real_peak(dropout, checkpointing, name)
    assert simulated(dropout, "cpu", checkpointing, name).peak_bytes == pytest.approx(real, rel=0.01)


@pytest.mark.parametrize("dropout", ["pm-drop", "pm-drop-recompute", "seed-only"])
def test_on_the_operators_of_cuda_as_well_where_they_are_those_of_the_cpu(dropout: str) -> None:
    """In fp32 they differ in nn.Dropout and in fused attention alone; and blocks are of 512 bytes."""
    assert simulated(dropout, "cuda").peak_bytes == pytest.approx(real_peak(dropout), rel=0.01)


def test_nn_dropout_on_cuda_is_the_byte_mask_of_the_cpu() -> None:
    stock = simulated("stock", "cuda")
    assert stock == simulated("byte-mask", "cuda")
    assert stock.peak_bytes == pytest.approx(real_peak("byte-mask"), rel=0.01)


def test_fused_attention_saves_what_the_fused_attention_of_the_cpu_does() -> None:
    """Without dropout the CPU has such a kernel too. All of its tensors but the padding's bias are the same."""
    build = partial(bert, attention="sdpa", attention_probs_dropout_prob=0.0)
    peak_bytes = simulated("pm-drop", "cuda", build=build).peak_bytes
    assert peak_bytes == pytest.approx(real_peak("pm-drop", build=build), rel=0.01)


# ---- categories


def test_masks_are_counted_to_the_byte() -> None:
    """Every dropout of BERT: after the embeddings; in each layer the probabilities and two sub-layers."""
    elements = SAMPLES * TOKENS * WIDTH * 5 + 2 * SAMPLES * HEADS * TOKENS**2
    masks = {
        name: simulated(name, "cuda").peak.by_category["masks"] for name in ("stock", "pm-drop", "seed-only")
    }
    assert masks == {"stock": elements, "pm-drop": elements // 8, "seed-only": 0}


def test_no_mask_of_the_probabilities_under_fused_attention() -> None:
    mask_bytes = simulated("stock", "cuda", build=partial(bert, attention="sdpa")).peak.by_category["masks"]
    assert mask_bytes == SAMPLES * TOKENS * WIDTH * 5


@pytest.mark.parametrize("like", ["cpu", "cuda"])
def test_parameters_gradients_and_state_are_those_of_the_model(like: str) -> None:
    model = bert()
    parameters = [parameter.numel() * 4 for parameter in model.parameters()]
    buffers = [buffer.nbytes for buffer in model.buffers()]
    blocks = partial(_blocks, size=512 if like == "cuda" else 1)
    by_category = simulated("pm-drop", like, accumulate=2).peak.by_category
    assert by_category["parameters"] == blocks(parameters + buffers)
    # The gradients of the first micro-batch lie there while the second one runs.
    assert by_category["gradients"] == blocks(parameters)
    step_counts = blocks([4] * len(parameters))
    assert by_category["optimizer"] == 2 * blocks(parameters) + step_counts


def _blocks(sizes: list[int], size: int) -> int:
    return sum(-(-bytes_ // size) * size for bytes_ in sizes)


def test_frozen_weights_have_neither_gradient_nor_state() -> None:
    """Two trained tensors beside weights in bf16; the peak is that of a real step."""

    def build() -> nn.Module:
        model = bert(attention_probs_dropout_prob=0.0)
        for name, parameter in model.named_parameters():
            if not name.endswith("layer.1.intermediate.dense.weight"):
                parameter.requires_grad_(False)
                parameter.data = parameter.data.bfloat16()
        return model

    trained = 4 * WIDTH * INNER
    buffers = sum(buffer.nbytes for buffer in bert().buffers())
    predicted = simulated("pm-drop", "cpu", name="bf16", build=build)
    update = predicted.peaks["update"].by_category
    names = ("parameters", "frozen", "gradients", "optimizer")
    frozen = sum(p.nbytes for p in build().parameters() if not p.requires_grad)
    assert [update[name] for name in names] == [trained + buffers, frozen, trained, 2 * trained + 4]
    assert predicted.peak_bytes == pytest.approx(real_peak("pm-drop", name="bf16", build=build), rel=0.01)


def adapted_llama() -> nn.Module:
    """Adapters of all seven kinds of linear layer beside frozen weights in bf16."""
    sizes = {"hidden_size": WIDTH, "intermediate_size": INNER, "num_hidden_layers": 2, "vocab_size": WORDS}
    model = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=HEADS, use_cache=False)).bfloat16()
    config = LoraConfig(r=4, lora_dropout=0.1, target_modules="all-linear")
    return inject_adapter_in_model(config, model)


def test_rebuilding_the_inputs_of_adapters_saves_in_a_simulation_what_it_saves() -> None:
    """To the byte: what casts are made of is noted on fake tensors as on real ones."""
    shapes = {name: SHAPES[name] for name in ("input_ids", "labels")}
    ids, labels = (torch.ones(shape, dtype=dtype) for shape, dtype in shapes.values())
    predicted, real = {}, {}
    for dropout in ("pm-drop", "pm-drop-recompute"):

        def made(dropout: str = dropout) -> nn.Module:
            model = adapted_llama()
            prepared(model, dropout)
            return model

        simulation = predict(made, shapes, forward=partial(precision, "bf16"), like="cpu")
        predicted[dropout] = simulation.peak_bytes
        real[dropout] = real_steps.real_peak(made, {"input_ids": ids}, labels, "bf16")
    saved = predicted["pm-drop"] - predicted["pm-drop-recompute"]
    assert saved == real["pm-drop"] - real["pm-drop-recompute"] > 0


def test_a_third_micro_batch_takes_no_more() -> None:
    one, two, three = (simulated("pm-drop", "cuda", accumulate=n).peak_bytes for n in (1, 2, 3))
    assert one < two == three


def test_the_counter_follows_a_real_step_as_the_simulation_predicts_it() -> None:
    model = bert()
    prepared(model, "byte-mask")
    peaks = peaks_of_training(model, *real_batch(), LiveBytes())
    assert max(peaks.values(), key=lambda peak: peak.total) == simulated("byte-mask", "cpu").peak


# ---- depth


@pytest.mark.slow
@pytest.mark.parametrize(("checkpointing", "name"), [(False, "fp32"), (True, "bf16")])
def test_extrapolated_layers_take_what_simulated_ones_do(checkpointing: bool, name: str) -> None:
    build = partial(bert, layers=5)
    extrapolated = simulated("pm-drop", "cuda", checkpointing, name, build=build)
    whole = simulated("pm-drop", "cuda", checkpointing, name, build=build, extrapolate=False)
    assert (extrapolated.simulated_layers, whole.simulated_layers) == ((2, 3), (5,))
    assert (extrapolated.peak, extrapolated.phase) == (whole.peak, whole.phase)


def test_layers_that_differ_are_simulated_all() -> None:
    def build() -> nn.Module:
        model = bert(layers=4)
        model.bert.encoder.layer[2].intermediate.dense = nn.Linear(WIDTH, INNER, bias=False)
        return model

    assert simulated("pm-drop", "cuda", build=build).simulated_layers == (4,)


# ---- CUDA's operators


def test_autocast_runs_what_cuda_runs_in_fp32_and_caches_casts_of_weights() -> None:
    casts = []

    class Casts(LiveBytes):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            casts.append(func) if func is torch.ops.aten._to_copy.default else None
            return super().__torch_dispatch__(func, types, args, kwargs)

    with fake_tensors(), cuda_semantics(), Casts(), precision("bf16"):
        weight, x = nn.Parameter(torch.empty(8, 8)), torch.empty(8, 8, dtype=torch.bfloat16)
        products = [F.linear(x, weight).dtype for _ in range(3)]
        assert products == [torch.bfloat16] * 3
        assert len(casts) == 1
        wide = F.layer_norm(x, (8,)), x.softmax(-1), F.log_softmax(x, -1), x.sum(), x.pow(3.0)
        assert {result.dtype for result in wide} == {torch.float32}
        assert x.softmax(-1, torch.bfloat16).dtype is torch.bfloat16
        assert F.gelu(x).dtype is torch.bfloat16


def test_real_tensors_have_their_operators_back_afterwards() -> None:
    def results() -> list[Tensor]:
        torch.manual_seed(3)
        x = torch.ones(1, 2, 8, 8, requires_grad=True)
        attended = F.scaled_dot_product_attention(x, x, x)
        with precision("bf16"):
            return [F.dropout(x, 0.3), attended, F.layer_norm(x.bfloat16(), (8,)), x.bfloat16().sum()]

    before = results()
    simulated("stock", "cuda", name="bf16", build=partial(bert, attention="sdpa"))
    for one, other in zip(before, results(), strict=True):
        assert one.dtype is other.dtype and torch.equal(one, other)
        assert type(one.grad_fn) is type(other.grad_fn)


def test_a_model_that_looks_at_values_is_refused_in_one_line() -> None:
    class Peeking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = bert()

        def forward(self, input_ids: Tensor, **inputs: Tensor) -> Any:
            return self.model(input_ids=input_ids[input_ids > 3].view(1, -1))

    with pytest.raises(
        UserError, match=r"^method=simulate: Peeking decides by the values of its inputs.*method=measure"
    ) as error:
        simulated("stock", "cuda", build=Peeking)
    assert "\n" not in str(error.value)


def test_a_deep_model_is_built_once_and_cut_in_copies() -> None:
    """The same one of two equally long lists is cut in each copy, and what is shared stays shared."""
    whole = nn.Module()
    whole.encoder = nn.ModuleList(nn.Linear(3, 3) for _ in range(5))
    whole.decoder = nn.ModuleList(nn.Linear(3, 3) for _ in range(5))
    whole.head = nn.Linear(3, 3)
    whole.head.weight = whole.encoder[0].weight
    copies: list[Any] = cut_to(whole, (2, 3))
    assert [(len(each.encoder), len(each.decoder)) for each in copies] == [(2, 5), (3, 5)]
    assert all(each.head.weight is each.encoder[0].weight for each in copies)
    assert copies[0].head.weight is not copies[1].head.weight


@pytest.mark.parametrize("simulation", [predict, operations])
def test_a_simulation_builds_the_model_once(simulation: Callable[..., object]) -> None:
    built: list[nn.Module] = []

    def build() -> nn.Module:
        built.append(bert(5))
        return built[-1]

    simulation(build, SHAPES, prepare=lambda _: None, forward=nullcontext)
    assert len(built) == 1
