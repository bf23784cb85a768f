"""The training loop: data order, schedule, early stopping, and a resumed run that is the same run."""

import math
from functools import cache
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pmexp.config import Part, Schedule, Select, SystemConfig, TrainConfig
from pmexp.errors import UserError
from pmexp.measure.timing import WARMUP_STEPS
from pmexp.models.examples import MaskedTokens
from pmexp.packed_dropout import PackedDropout
from pmexp.systems.system import System
from pmexp.training.loop import Training
from pmexp.training.resuming import restore, state_of
from small_net import Net, examples


class LanguageNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Embedding(53, 8), nn.Linear(8, 53))

    def forward(self, input_ids: torch.Tensor) -> Any:
        from transformers.modeling_outputs import MaskedLMOutput

        return MaskedLMOutput(logits=self.layers(input_ids))


def training(parts: tuple[Part, ...] = (), dropout: nn.Module | None = None, **options: Any) -> Training:
    torch.manual_seed(3)
    config = TrainConfig(**({"epochs": 3, "batch_size": 8, "lr": 1e-2, "log_every": 1} | options))
    system = System(SystemConfig(parts=list(parts)))
    module = Net(dropout or PackedDropout(0.5))
    system.prepare(module)
    return Training(module, examples(50, 0), examples(20, 1), config, ["accuracy"], 5, system)


def test_each_epoch_visits_samples_once_in_an_order_of_its_own() -> None:
    run = training()
    epochs = [[run._batch_rows(6 * epoch + i) for i in range(6)] for epoch in range(2)]
    seen = [torch.cat(epoch).tolist() for epoch in epochs]
    assert len(set(seen[0])) == len(set(seen[1])) == 48
    assert seen[0] != seen[1]
    assert torch.equal(run._batch_rows(2), epochs[0][2])  # it depends on (seed, epoch, position) alone


def test_the_last_record_of_an_epoch_is_validated_and_only_logged_steps_have_a_loss() -> None:
    records = list(training(log_every=4).steps())
    assert [step for step, _ in records] == list(range(1, 19))
    assert [step for step, metrics in records if "val/accuracy" in metrics] == [6, 12, 18]
    assert [step for step, metrics in records if "train/loss" in metrics] == [1, 4, 8, 12, 16, 18]


def test_loss_and_gradient_norm_are_those_of_the_definition() -> None:
    run = training(dropout=nn.Identity(), clip_norm=0.01)
    batch = run.train.batch(run._batch_rows(0), 0)
    logits = run.module(**batch.inputs).logits
    loss = nn.functional.cross_entropy(logits, batch.labels, reduction="sum") / 8
    grads = torch.autograd.grad(loss, list(run.module.parameters()))
    _, metrics = next(run.steps())
    assert metrics["train/loss"] == loss.item()
    norm = torch.stack([g.norm() for g in grads]).norm().item()
    assert metrics["grad/norm"] == pytest.approx(norm, rel=1e-6)


@pytest.mark.parametrize("schedule", Schedule)
def test_learning_rate_warms_up_and_follows_the_schedule(schedule: Schedule) -> None:
    run = training(schedule=schedule, warmup_fraction=0.25, lr=1.0, clip_norm=1e-9)
    rates = [metrics["train/lr"] for _, metrics in run.steps()]
    warmup, total = 5, 18
    expected = []
    for step in range(total):
        left = (total - step) / (total - warmup)
        decayed = {"linear": left, "cosine": (1 - math.cos(math.pi * left)) / 2, "constant": 1.0}[
            schedule.name
        ]
        expected.append((step + 1) / warmup if step < warmup else decayed)
    assert rates == pytest.approx(expected, rel=1e-12)


def test_a_batch_in_parts_is_the_same_batch() -> None:
    """All metrics but memory agree up to rounding, since parts are summed in another order."""
    whole, parts = (training(dropout=nn.Identity(), accumulate=n) for n in (1, 4))
    curves = [
        [value for _, metrics in run.steps() for name, value in metrics.items() if "memory" not in name]
        for run in (whole, parts)
    ]
    assert curves[0] == pytest.approx(curves[1], rel=1e-5)


def test_a_part_saves_less_for_backward() -> None:
    saved = [next(training(accumulate=n).steps())[1]["memory/mask_bytes"] for n in (1, 4)]
    assert saved == [8 * 16 / 8, 2 * 16 / 8]


def test_a_part_with_more_targets_counts_for_more() -> None:
    blocks = np.arange(5, 53, dtype=np.int32).reshape(8, 6)
    blocks[4:, 1:] = 3  # special tokens, which are no targets
    masked = MaskedTokens(blocks, (2, 3), torch.tensor([2, 3]), mask_token=4, vocabulary=53, seed=1)
    losses = []
    for accumulate in (1, 2):
        torch.manual_seed(3)
        config = TrainConfig(epochs=8, batch_size=8, lr=1e-2, log_every=1, accumulate=accumulate)
        module, system = LanguageNet(), System(SystemConfig())
        run = Training(module, masked, masked, config, ["perplexity"], 5, system)
        losses.append([metrics["train/loss"] for _, metrics in run.steps()])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5) and losses[0][0] > 0


def test_max_steps_ends_training_with_a_validation() -> None:
    records = list(training(max_steps=4).steps())
    assert records[-1][0] == 4 and "val/accuracy" in records[-1][1]


@pytest.mark.parametrize(
    ("every", "evaluated"),
    [
        (None, [6, 12, 18]),
        (1, list(range(1, 19))),
        (4, [4, 8, 12, 16, 18]),  # and the end
        (100, [18]),
        (0.5, [3, 6, 9, 12, 15, 18]),
        (0.25, [2, 3, 5, 6, 8, 9, 11, 12, 14, 15, 17, 18]),  # an epoch has 6 steps: a quarter is 1.5
        (0.001, list(range(1, 19))),  # a step has one evaluation at most
    ],
)
def test_evaluations_come_after_so_many_steps_or_such_a_share_of_an_epoch(
    every: float | None, evaluated: list[int]
) -> None:
    """An epoch has six steps."""
    records = training(evaluate_every=every, patience=None).steps()
    assert [step for step, metrics in records if "val/accuracy" in metrics] == evaluated


@pytest.mark.parametrize("every", [0, -1, 1.5, float("inf"), float("nan")])
def test_an_interval_that_is_neither_steps_nor_a_share_is_refused(every: float) -> None:
    with pytest.raises(UserError, match=r"^train.evaluate_every: .* is neither a whole number of steps nor"):
        TrainConfig(evaluate_every=every)


def test_patience_counts_evaluations_within_an_epoch_too() -> None:
    run = training(epochs=10, patience=2, evaluate_every=2)
    run.evaluator.evaluate = lambda _: {"loss": 0.0, "accuracy": 0.5}  # type: ignore[method-assign]
    assert [step for step, _ in run.steps()] == [1, 2, 3, 4, 5, 6]
    assert run.progress.best_step == 2


def test_the_engine_is_told_which_part_of_a_step_is_its_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines of several processes add up gradients over them in the last part alone."""
    run, told = training(epochs=1, accumulate=3), []
    monkeypatch.setattr(run.engine, "begin_micro_batch", lambda last: told.append(last))
    assert len(list(run.steps())) == 6
    assert told == [False, False, True] * 6


def test_a_restored_training_has_the_times_of_its_steps() -> None:
    first = training(epochs=4)
    list(islice(first.steps(), 20))
    state, second = state_of(first), training(epochs=4)
    assert len(state["timer"]["steps"]) == 20 - WARMUP_STEPS and len(state["timer"]["epochs"]) == 3
    restore(second, state)
    assert second.timer.metrics(8, 1.0) == first.timer.metrics(8, 1.0) != {}


def test_an_evaluation_within_an_epoch_is_no_part_of_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    run, now = training(epochs=1, evaluate_every=2), 0.0

    def evaluate(_: object) -> dict[str, float]:
        nonlocal now
        now += 100
        return {"loss": 0.0, "accuracy": 0.5}

    monkeypatch.setattr("pmexp.measure.timing.seconds_now", lambda device: now)
    run.evaluator.evaluate = evaluate  # type: ignore[assignment]
    for _ in run.steps():
        now += 1
    assert run.timer.state()["epochs"] == [5]  # between six steps


@pytest.mark.parametrize(("select", "expected"), [(Select.best, 3), (Select.last, 10)])
def test_early_stopping_waits_for_patience_evaluations_without_a_new_best(
    select: Select, expected: int
) -> None:
    run = training(epochs=10, patience=2, select=select)
    run.evaluator.evaluate = lambda _: {"loss": 0.0, "accuracy": 0.5}  # type: ignore[method-assign]
    evaluations = sum("val/accuracy" in metrics for _, metrics in run.steps())
    assert evaluations == expected
    assert run.progress.best_step == 6


def test_evaluation_is_exact_over_a_ragged_last_batch() -> None:
    run = training(dropout=nn.Identity())
    evaluated = run.evaluator.evaluate(run.val)
    logits = run.module(**run.val.inputs).logits
    assert evaluated["accuracy"] == (logits.argmax(-1) == run.val.labels).double().mean().item()
    assert evaluated["loss"] == pytest.approx(
        nn.functional.cross_entropy(logits, run.val.labels).item(), rel=1e-6
    )


@cache
def left_alone(parts: tuple[Part, ...], every: float | None) -> tuple[list[Any], dict[str, torch.Tensor]]:
    """What a run that is left alone yields step by step, and its weights at the end."""
    whole = training(parts, evaluate_every=every)
    return list(whole.steps()), whole.module.state_dict()


@pytest.mark.parametrize("parts", [(), (Part.bf16,)], ids=["plain", "bf16"])
@pytest.mark.parametrize("cut", [1, 7, 12])
@pytest.mark.parametrize(("every", "workers"), [(None, 0), (0.25, 0), (None, 2)])
def test_a_resumed_run_is_the_same_run_bit_for_bit(
    cut: int, parts: tuple[Part, ...], every: float | None, workers: int, tmp_path: Any
) -> None:
    """Whatever the number of workers that make its batches ahead."""
    expected, weights = left_alone(parts, every)
    first = training(parts, evaluate_every=every, workers=workers)
    head = list(islice(first.steps(), cut))
    torch.save(state_of(first), tmp_path / "state.pt")
    torch.manual_seed(999)
    second = training(parts, evaluate_every=every, workers=workers)
    restore(second, torch.load(tmp_path / "state.pt", weights_only=True))
    assert head + list(second.steps()) == expected
    for name, tensor in weights.items():
        assert torch.equal(second.module.state_dict()[name], tensor)


def test_data_order_does_not_touch_the_global_generators() -> None:
    run = training()
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]
    run._batch_rows(7)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()  # type: ignore[index]
