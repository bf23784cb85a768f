"""`from pmexp.fit import predict`: the peak of a step of one's own, and what could lower it."""

import copy
import json
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM, TrainingArguments

from pmexp.errors import UserError
from pmexp.fit import predict
from pmexp.fit.budget import budget_bytes
from pmexp.fit.eight_bits import EightBitAdamW
from pmexp.fit.forecast import BEYOND_BYTES, BEYOND_SHARE, StepPeak
from pmexp.fit.methods import PARTS, repeated_layers
from pmexp.packed_dropout import PackedDropout, replace_dropout
from pmexp.simulation.live_bytes import CATEGORIES

RESULTS = Path(__file__).parents[2] / "docs" / "results"
WIDTH, INNER, ROWS = 64, 256, 32


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(WIDTH, INNER), nn.GELU(), nn.Dropout(0.1), nn.Linear(INNER, WIDTH)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)  # type: ignore[no-any-return]


def mlp(layers: int = 3) -> nn.Module:
    return nn.Sequential(nn.Sequential(*(Residual() for _ in range(layers))), nn.Linear(WIDTH, 2))


BATCH = (torch.zeros(ROWS, WIDTH), torch.zeros(ROWS, dtype=torch.int64))
LARGE = tuple(tensor[:1].expand(8192, *tensor.shape[1:]) for tensor in BATCH)  # its step peaks in backward
asked = partial(predict, loss=F.cross_entropy, methods=())


def state_of(model: nn.Module) -> tuple[Any, ...]:
    tensors = [
        (name, id(t), t._version, t.device, t.clone()) for name, t in model.state_dict(keep_vars=True).items()
    ]
    return [t[:4] for t in tensors], [t[4] for t in tensors], model.training, str(model)


def test_nothing_of_the_model_or_the_batch_changes() -> None:
    """Counters of a batch norm too, whose values the simulation knows and moves on."""
    model = nn.Sequential(nn.BatchNorm1d(WIDTH), mlp(2)).eval()
    random, batch = torch.get_rng_state(), copy.deepcopy(BATCH)
    before = state_of(model)
    asked(model, batch, methods=["rebuilt", "checkpointing", "offload"])
    after = state_of(model)
    assert before[0] == after[0] and before[2:] == after[2:] and torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(before[1] + [*BATCH], after[1] + [*batch], strict=True))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_modules_that_are_kept_in_eval_drop_nothing() -> None:
    """A frozen body in eval mode under a head that trains."""
    model = nn.Sequential(Residual(), Residual(), nn.Linear(WIDTH, 2))
    all_masks = asked(model, LARGE).asked.by_category["masks"]
    model[0].eval()
    assert asked(model, LARGE).asked.by_category["masks"] == all_masks / 2 > 0
    assert "eval mode" not in str(asked(model, LARGE))


def test_a_model_in_eval_mode_is_simulated_in_training_and_the_answer_says_so() -> None:
    model, in_eval = mlp(2), mlp(2).eval()
    forecast = asked(in_eval, LARGE)
    assert forecast.asked == asked(model, LARGE).asked and forecast.asked.by_category["masks"] > 0
    said = "The model is in eval mode: simulated is its step in training mode, all modules of it."
    assert said in str(forecast).splitlines() and said not in str(asked(model, LARGE))


def test_categories_are_those_of_the_model() -> None:
    """Masks are a byte an element on CUDA and a bit when packed; a second micro-batch meets gradients."""
    model, batch, rows = mlp(), LARGE, len(LARGE[0])
    weights = sum(parameter.nbytes for parameter in model.parameters())
    forecast = asked(model, batch, accumulate=2, methods=["packed", "8bit-optimizer"])
    held = forecast.asked.by_category
    assert tuple(held) == CATEGORIES and sum(held.values()) == forecast.asked.peak_bytes
    assert (
        held["parameters"] == held["gradients"] == pytest.approx(weights, rel=0.05)
    )  # in blocks of 512 bytes
    assert held["optimizer"] == pytest.approx(2 * weights, rel=0.05)
    assert held["masks"] == 3 * rows * INNER == 8 * forecast.methods["packed"].by_category["masks"]
    assert forecast.methods["8bit-optimizer"].by_category["optimizer"] < held["optimizer"] / 3


@pytest.mark.parametrize("optimizer", [None, partial(torch.optim.Adagrad, initial_accumulator_value=0.1)])
def test_weights_that_get_no_gradient_have_the_state_of_a_real_step(optimizer: Any) -> None:
    """Adam makes its state when a gradient comes, Adagrad when it is made."""

    class WithAnother(Residual):
        def __init__(self) -> None:
            super().__init__()
            self.another, self.head = nn.Linear(512, 512), nn.Linear(WIDTH, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(super().forward(x))  # type: ignore[no-any-return]

    model = WithAnother()
    taken = (optimizer or torch.optim.AdamW)(model.parameters())
    F.cross_entropy(model(BATCH[0]), BATCH[1]).backward()
    taken.step()
    held = sum(t.nbytes for state in taken.state.values() for t in state.values())
    told = asked(model, BATCH, like="cpu", optimizer=optimizer).asked
    assert told.by_category["optimizer"] == held


def test_meta_models_batches_and_optimizers_that_exist_are_taken() -> None:
    model, names = mlp(), {"input": BATCH[0], "labels": BATCH[1]}
    by_position = asked(model, BATCH)
    assert asked(model, names) == by_position
    assert asked(model, [*BATCH], optimizer=torch.optim.AdamW(model.parameters())) == by_position
    assert asked(copy.deepcopy(model).to("meta"), tuple(t.to("meta") for t in BATCH)) == by_position
    alone = asked(model, BATCH[0], loss=lambda output: F.cross_entropy(output, torch.zeros(ROWS).long()))
    assert alone.asked.products == by_position.asked.products
    for optimizer, moments in ((torch.optim.SGD, 0), (partial(torch.optim.SGD, momentum=0.9), 1)):
        held = asked(model, BATCH, optimizer=optimizer).asked.by_category
        assert held["optimizer"] == moments * held["parameters"]


def test_recomputed_layers_are_counted_as_operations_and_offloaded_bytes_are_copied() -> None:
    samples = 2**17
    big = tuple(tensor[:1].expand(samples, *tensor.shape[1:]).to("meta") for tensor in BATCH)
    forecast = asked(mlp(4).to("meta"), big, methods=["checkpointing", "offload", "rebuilt", "packed"])
    rows = forecast.methods
    in_layers = 4 * 2 * 2 * samples * WIDTH * INNER
    # The second product of a layer is not computed again: nothing behind it is saved.
    assert rows["checkpointing"].products == forecast.asked.products + in_layers // 2
    assert rows["checkpointing"].note == "4 x Residual"
    assert rows["rebuilt"].products == rows["packed"].products == rows["offload"].products
    assert rows["rebuilt"].traffic_bytes > rows["packed"].traffic_bytes
    peaks = {name: step.peak_bytes for name, step in rows.items()}
    assert peaks["checkpointing"] < peaks["rebuilt"] < peaks["packed"] < forecast.asked.peak_bytes
    # Two windows of 256 MiB stay, beside what a layer computes.
    assert 2**29 < peaks["offload"] < forecast.asked.peak_bytes * 2 / 3


def test_what_a_model_already_has_counts() -> None:
    model = mlp()
    packed = asked(model, BATCH, parts=["packed"]).asked
    replace_dropout(model, PackedDropout)
    assert asked(model, BATCH).asked.by_category == packed.by_category


def test_what_has_no_effect_says_why() -> None:
    forecast = predict(nn.Linear(WIDTH, 2), BATCH, loss=F.cross_entropy, optimizer=torch.optim.SGD)
    assert set(forecast.methods) == {"offload", "bf16"}
    assert "found nothing to replace in Linear" in forecast.without_effect["packed"]
    assert "no list of layers that repeat" in forecast.without_effect["checkpointing"]
    assert "SGD has no 8-bit form" in forecast.without_effect["8bit-optimizer"]
    assert all(reason in str(forecast) for reason in forecast.without_effect.values())


def test_layers_of_a_torch_transformer_are_found() -> None:
    model = nn.Transformer(8, 2, 2, 3, 8, batch_first=True)
    assert repeated_layers(model) == [*model.encoder.layers, *model.decoder.layers]


def bert(**fields: Any) -> nn.Module:
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    return BertForMaskedLM(BertConfig(**{"vocab_size": 5000, **sizes, **fields}))


# The first one is of transformers 5.23 and later.
CHECKPOINTING = next(
    n for n in ("activation_checkpointing", "gradient_checkpointing") if hasattr(TrainingArguments, n)
)
IDS = torch.ones(2, 16, dtype=torch.int64)
TEXT = {"input_ids": IDS, "labels": IDS}


def test_a_trainers_arguments_say_size_parts_and_optimizer(tmp_path: Path) -> None:
    common: dict[str, Any] = {"output_dir": str(tmp_path), "use_cpu": True, "report_to": []}
    plain = TrainingArguments(**common, per_device_train_batch_size=3, optim="adamw_torch", max_grad_norm=0.5)
    row = {name: tensor[:1] for name, tensor in TEXT.items()}
    three = {name: tensor.repeat(3, 1) for name, tensor in row.items()}
    assert predict(bert(), row, arguments=plain, methods=()) == predict(bert(), three, methods=())
    small = TrainingArguments(
        **common, per_device_train_batch_size=3, bf16=True, **{CHECKPOINTING: True},
        gradient_accumulation_steps=2, optim="adamw_8bit",
    )  # fmt: skip
    forecast = predict(bert(), TEXT, arguments=small, methods=())
    assert forecast.parts == ("bf16", "checkpointing", "8bit-optimizer")
    by_hand = predict(bert(), three, parts=forecast.parts, accumulate=2, methods=())
    assert forecast.asked.by_category["gradients"] == by_hand.asked.by_category["gradients"] > 0
    embedded = sum(part.weight.numel() for part in bert().modules() if isinstance(part, nn.Embedding))
    more = forecast.asked.by_category["optimizer"] - by_hand.asked.by_category["optimizer"]
    assert more == pytest.approx(2 * 3 * embedded, rel=0.01)  # a Trainer keeps embeddings' state in fp32
    frozen = bert()
    frozen.bert.eval()  # a Trainer has all modules train at each step
    assert predict(frozen, row, arguments=plain, methods=()) == predict(bert(), three, methods=())
    fused = TrainingArguments(**common, per_device_train_batch_size=2, optim="adamw_torch_fused")
    assert predict(bert(), TEXT, arguments=fused, methods=()).asked.phase != "update"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("optim", "lion_32bit", "arguments.optim: 'lion_32bit' is not simulated; allowed are adamw_torch, "),
        (
            "label_smoothing_factor",
            0.1,
            "arguments.label_smoothing_factor: 0.1 is not simulated; allowed is 0",
        ),
        ("neftune_noise_alpha", 5.0, "arguments.neftune_noise_alpha: 5.0 is not simulated; allowed is None"),
    ],
)
def test_what_a_trainer_does_that_is_not_simulated_is_refused(
    field: str, value: Any, message: str, tmp_path: Path
) -> None:
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[], **{field: value})
    with pytest.raises(UserError) as error:
        predict(bert(), TEXT, arguments=arguments)
    assert str(error.value).startswith(message)


class Undecided(torch.optim.SGD):
    """Steps only where a weight is positive."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for parameter in self.param_groups[0]["params"]:
            if parameter.sum() > 0:
                super().step()


class Peeking(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        return y if y.sum() > 0 else -y


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (Peeking(), {}, "predict: Peeking decides by values of its tensors"),
        (nn.LSTM(WIDTH, 2), {}, "predict: '' of LSTM is a recurrent layer, and cuDNN alone knows"),
        (nn.LSTM(WIDTH, 2), {"like": "cpu"}, "predict: '' of LSTM is a recurrent layer, and oneDNN alone knows"),
        (mlp(), {"optimizer": Undecided}, "predict: the optimizer Undecided decides by values of"),
        (nn.Linear(8, 2), {}, "predict: a step of Linear cannot be simulated: RuntimeError: "),
        (mlp(), {"loss": None, "batch": BATCH[0]}, "loss: the model returns none for this batch; give it labels in the batch"),
        (mlp(), {"loss": lambda output, target: output}, "loss: it returned no tensor of one element"),
        (mlp(), {"parts": ["packed", "rebuilt"]}, "parts: packed and rebuilt exclude each other; leave one out"),
        (mlp(), {"parts": ["zip"]}, "parts: 'zip' is unknown; allowed are byte-mask, seed-only, packed"),
        (mlp(), {"parts": "bf16"}, "parts: 'bf16' is text; give a list"),
        (mlp(), {"methods": ["zip"]}, "methods: 'zip' is unknown"),
        (mlp(), {"methods": "packed"}, "methods: 'packed' is text; give a list, such as ['packed']"),
        (mlp(), {"methods": 3}, "methods: 3 is no list; give one, such as ['packed']"),
        (mlp(), {"parts": None}, "parts: None is no list; give one, such as ['packed']"),
        (nn.Embedding(9, 2, sparse=True), {}, "predict: '' of Embedding is made with sparse=True, and the size of"),
        (nn.Sequential(nn.EmbeddingBag(9, 2, sparse=True)), {}, "predict: '0' of Sequential is made with sparse=True"),
        (mlp(), {"optimizer": [torch.optim.SGD(mlp().parameters())]}, "optimizer: a list is not allowed; allowed are"),
        (mlp(), {"accumulate": 0}, "accumulate: 0 is not allowed"),
        (mlp(), {"accumulate": 1.5}, "accumulate: 1.5 is not allowed; allowed are 1, 2"),
        (mlp(), {"clip_norm": -1}, "clip_norm: -1 is not allowed; allowed are positive numbers, and None"),
        (mlp(), {"clip_norm": float("nan")}, "clip_norm: nan is not allowed"),
        (mlp(), {"optimizer": "sgd"}, "optimizer: 'sgd' is not allowed; allowed are a class such as torch.optim.SGD"),
        (mlp(), {"optimizer": lambda parameters: None}, "optimizer: it returned a NoneType; return a torch.optim"),
        (mlp(), {"loss": "mse"}, "loss: 'mse' is not allowed; allowed are a function of output and target"),
        (mlp(), {"like": "tpu"}, "like: 'tpu' is unknown; allowed are cuda, cpu"),
        (mlp(), {"batch": "text"}, "batch: str is not allowed; allowed are a mapping, a sequence and a tensor"),
        (mlp(), {"batch": {"input": BATCH[0]}}, 'loss: it needs a target, and the batch has no "labels" among input'),
        (mlp(), {"batch": BATCH[:1]}, "loss: it needs a target, and the batch has one entry"),
        (mlp(), {"optimizer": torch.optim.SGD(mlp().parameters())}, "optimizer: it has parameters that the model"),
        ("bert", {}, "model: str is no torch.nn.Module"),
    ],
)  # fmt: skip
def test_what_cannot_be_said_is_one_line(model: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        asked(model, options.pop("batch", BATCH), **options)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_a_small_model_is_shown_in_a_unit_of_its_size() -> None:
    shown = str(predict(nn.Linear(2, 2), torch.zeros(4, 2), loss=Tensor.sum, methods=["offload"]))
    assert (
        " KiB (up to " in shown
        and "KiB" in shown.splitlines()[1]
        and " GiB" not in shown.partition("Error bar")[0]
    )


def test_torchs_own_traceback_is_not_printed(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(UserError, match="cannot be simulated"):
        asked(nn.Linear(8, 2), BATCH)
    assert not caplog.records


def test_an_8_bit_state_is_a_byte_an_element_and_a_scale_a_block() -> None:
    large, small = (nn.Parameter(torch.zeros(n)) for n in (4097, 4095))
    optimizer = EightBitAdamW([large, small])
    for parameter in (large, small):
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    bytes_of = {p: sum(t.nbytes for t in optimizer.state[p].values()) for p in (large, small)}
    assert bytes_of == {large: 2 * (4097 + 4 * 17), small: 2 * 4 * 4095}


# ---- the error bar


def test_the_error_bar_is_that_of_the_measured_cases() -> None:
    stages = {stage["name"]: stage for stage in json.loads((RESULTS / "gpu.json").read_text())["stages"]}
    rows = stages["memory"]["tables"]["simulated"]
    for row in rows:
        simulated, measured = row["simulated_MiB"], row["measured_MiB"]
        assert simulated < measured <= simulated + max(BEYOND_BYTES / 2**20, BEYOND_SHARE * simulated)
    assert len(rows) == 8


def test_a_measured_step_of_bert_large_is_met_within_a_tenth_of_a_percent() -> None:
    """Above what lies there before the step, in bf16 weights, on an H200; the constant share of cuBLAS is in both."""
    stages = {stage["name"]: stage for stage in json.loads((RESULTS / "gpu.json").read_text())["stages"]}
    (row,) = (
        row
        for row in stages["systems"]["tables"]["tempo"]
        if row["precision"] == "bf16 weights" and row["step"] == "stock"
    )
    large = {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
    }
    with torch.device("meta"):
        model = bert(**large, vocab_size=30522, attn_implementation="eager").bfloat16()
        ids = torch.zeros(row["batch"], 512, dtype=torch.int64)
    step = predict(model, {"input_ids": ids, "labels": ids}, methods=()).asked
    above = step.peak_bytes - step.by_category["parameters"] - step.by_category["optimizer"]
    assert above / 2**20 == pytest.approx(row["above_start_MiB"], rel=0.001)


@given(share=st.floats(0.5, 1.5))
def test_a_card_fits_may_fit_or_does_not(share: float) -> None:
    peak = round(budget_bytes("A100-40GB") * share)
    step = StepPeak({"parameters": peak}, "backward", 1, 1)
    expected = True if step.highest_bytes <= budget_bytes("A100-40GB") else None
    assert step.fits("A100-40GB") is (expected if peak <= budget_bytes("A100-40GB") else False)
    assert step.fits(f"{step.highest_bytes}") is True and step.fits(f"{peak}") is None
    assert step.fits(f"{peak - 1}") is False


RIVALS = [*combinations(("byte-mask", "seed-only", "packed", "rebuilt"), 2), ("bf16", "fp16")]


@settings(max_examples=6, deadline=None)
@given(
    parts=st.lists(
        st.sampled_from([part for part in PARTS if part not in ("tempo", "checkpointing")]), max_size=3
    ),
    accumulate=st.integers(1, 3),
)
def test_every_stack_of_parts_is_simulated_or_refused_in_one_line(parts: list[str], accumulate: int) -> None:
    """What stands in no other's place is taken; no part but offload, and byte masks, takes more than stock
    where its peak is in backward: an update's peak has no masks at all."""
    stock = asked(mlp(1), LARGE, accumulate=accumulate).asked
    if any({a, b} <= set(parts) for a, b in RIVALS) or len(set(parts)) < len(parts):
        with pytest.raises(UserError, match="exclude each other"):
            asked(mlp(1), LARGE, parts=parts)
        return
    step = asked(mlp(1), LARGE, parts=parts, accumulate=accumulate).asked
    assert step.by_category["parameters"] == stock.by_category["parameters"]
    assert step.by_category["masks"] <= stock.by_category["masks"]
    assert step.products == stock.products
