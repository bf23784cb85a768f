"""The two studies as they are composed, against a table written by hand from what they ask."""

from typing import Any

import pytest

from pmexp.command.compose import compose, compose_sweep
from pmexp.config import RunConfig

COMMON = {"warmup": 0.1, "accumulate": 1}
# Evaluations are once an epoch (None) or every so much of one; a run that ends by max_steps evaluates there too.
EXP_1: dict[str, dict[str, Any]] = {
    "tinybert-mrpc": {
        "epochs": 3,
        "max_steps": None,
        "batch": 32,
        "length": 128,
        "lr": 5e-5,
        "evaluate_every": None,
    },
    "bert-base-sst2": {
        "epochs": 3,
        "max_steps": None,
        "batch": 32,
        "length": 128,
        "lr": 2e-5,
        "evaluate_every": None,
    },
    "bert-large-wikitext103": {
        "epochs": 1,
        "max_steps": None,
        "batch": 32,
        "length": 512,
        "lr": 2e-5,
        "evaluate_every": 0.1,
    },
}
EXP_2: dict[str, dict[str, Any]] = {
    "longformer-listops": {
        "epochs": 3,
        "max_steps": 30_000,
        "batch": 8,
        "length": 16_384,
        "lr": 3e-5,
        "evaluate_every": None,
    },
    "vit-imagenet": {
        "epochs": 90,
        "max_steps": None,
        "batch": 256,
        "length": None,
        "lr": 3e-5,
        "evaluate_every": None,
    },
}
EXP_1_CRITERIA = {
    "mask-compression": ("at_least", 7.5),
    "memory-small": ("at_most", -0.05),
    "memory-large": ("at_most", -0.10),
    "throughput": ("no_worse", 0.02),
    "step-time": ("no_worse", 0.02),
    "unchanged": ("at_most", 0.0),
    "quality": ("no_worse", 0.2),
    "no-divergence": ("at_most", 0.0),
    "gradient-check": ("at_most", 1e-5),
}
EXP_2_CRITERIA = {
    **{name: claim for name, claim in EXP_1_CRITERIA.items() if name != "memory-small"},
    "larger-batch": ("at_least", 1.12),
    "longer-context": ("at_least", 1.2),
    "only-fits": ("at_least", 1.0),
    "robust-ood": ("at_most", 0.005),
    "robust-fgsm": ("at_most", 0.005),
}


def composed(run: RunConfig) -> dict[str, Any]:
    train = run.train
    return {
        "epochs": train.epochs,
        "max_steps": train.max_steps,
        "batch": train.batch_size,
        "length": None if run.takes_images else run.dataset.max_length,
        "lr": train.lr,
        "warmup": train.warmup_fraction,
        "accumulate": train.accumulate,
        "evaluate_every": train.evaluate_every,
    }


def criteria(run: RunConfig) -> dict[str, tuple[str, float]]:
    return {name: (one.comparison.name, one.threshold) for name, one in run.protocol.criteria.items()}


@pytest.mark.parametrize("task", EXP_1)
def test_exp_1_is_what_the_study_asks(task: str) -> None:
    run = compose(["experiment=exp-1-main-perf", f"task={task}", "variant=pm-drop", "seed=0"])
    assert composed(run) == EXP_1[task] | COMMON
    assert criteria(run) == EXP_1_CRITERIA
    assert (run.train.select.name, run.train.patience, run.system.parts) == ("best", 3, [])
    assert run.protocol.criteria["memory-small"].tasks == ["tinybert/*", "bert-base/*"]


@pytest.mark.parametrize("task", EXP_2)
def test_exp_2_is_what_the_study_asks(task: str) -> None:
    run = compose(["experiment=exp-2-system-scale", f"task={task}", "arm=baseline-zero2", "seed=0"])
    assert composed(run) == EXP_2[task] | COMMON
    assert criteria(run) == EXP_2_CRITERIA
    assert (run.system.processes, run.train.select.name) == (4, "last")
    assert run.protocol.baseline == f"baseline-{run.system.name}" == "baseline-zero2-bf16-checkpointing"


@pytest.mark.parametrize(
    "arm",
    ["pm-drop-zero2", "pm-drop-zero2-flash", "pm-drop-zero2-flash-tempo", "pm-drop-zero2-offload"],
)
def test_every_arm_of_exp_2_recomputes_its_layers(arm: str) -> None:
    run = compose(["task=vit-imagenet", f"arm={arm}", "system.processes=4"])
    parts = [part.name for part in run.system.parts]
    assert parts[:3] == ["zero2", "bf16", "checkpointing"]
    assert parts[3:] == arm.split("-")[3:]


@pytest.mark.parametrize(("length", "accumulate"), [(128, 1), (512, 1), (1024, 4)])
def test_a_step_of_every_length_has_32_samples(length: int, accumulate: int) -> None:
    positions = "null" if length <= 512 else length
    keys = [f"dataset.max_length={length}", f"train.accumulate={accumulate}", f"model.positions={positions}"]
    run = compose(
        ["experiment=exp-1-lengths", "task=bert-large-wikitext103", "variant=pm-drop", "seed=0", *keys]
    )
    assert (run.train.batch_size, run.train.max_steps, run.train.accumulate) == (32, 200, accumulate)


def test_the_learning_rates_of_exp_1_are_tried_on_all_of_its_models() -> None:
    runs = compose_sweep(["experiment=exp-1-learning-rate", "variant=pm-drop", "seed=0"]).runs
    grid = {(run.labels["task"], run.train.lr) for run in runs}
    tasks = ("tinybert/mrpc", "bert-base/sst2", "bert-large/wikitext103")
    assert grid == {(task, lr) for task in tasks for lr in (3e-5, 5e-5, 1e-4)} and len(runs) == 9


def test_gptj_trains_adapters_wherever_it_is_one_of_the_models() -> None:
    for experiment, chosen in (
        ("exp-1-batch-size", "train.batch_size=2"),
        ("exp-1-sequence-length", "dataset.max_length=128"),
        ("exp-lora", "variant.p=0.1"),
    ):
        run = compose(
            [f"experiment={experiment}", "task=memory/gptj-6b", "variant=pm-drop", "seed=0", chosen]
        )
        lora = run.model.lora
        assert (lora.rank, lora.alpha, lora.targets, lora.frozen_weights.name) == (16, 32, None, "bf16")
        assert [part.name for part in run.system.parts] == ["bf16"]
