"""cost=true: GPU-hours by task, from counted operations or measured steps."""

import json
from pathlib import Path
from typing import Any

import pytest

from pmexp.command.compose import compose
from pmexp.fit import cost, simulate
from pmexp.fit.command import main
from pmexp.fit.simulate import simulated_operations
from small_runs import TINY_BERT

KEYS = ["cost=true", "experiment=exp-1-main-perf"]
FEW = [*KEYS, "variant=baseline", "seed=0"]  # each run is composed


def rows_of(page: str) -> list[list[str]]:
    lines = [line for line in page.splitlines() if line.startswith("| ")][1:]
    return [line.strip("| ").split(" | ") for line in lines]


def test_the_cost_of_exp_1_by_task(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """BERT-Large's operations by hand: 6 for each weight of a product and token, 12 x layers x width x tokens for
    attention."""
    times = tmp_path / "times.json"
    times.write_text(json.dumps({"tinybert/mrpc at 128": 10.0}))
    assert main([*KEYS, "seed=0", "products=tf32", "utilisation=0.5", f"step_times={times}"]) == 0
    page = capsys.readouterr().out
    tiny, base, large = rows_of(page)
    runs, steps = 4 + 2, 3 * (3668 // 32)
    assert tiny == [
        "tinybert/mrpc at 128",
        str(runs),
        str(steps),
        "0.01 (measured)",
        f"{runs * steps * 0.01 / 3600:.1f}",
    ]
    assert base[:3] == ["bert-base/sst2 at 128", str(runs), str(3 * (67349 // 32))]
    weights = 24 * 12 * 1024**2 + 1024**2 + 1024 * 30522
    operations = 32 * 512 * (6 * weights + 12 * 24 * 1024 * 512)
    seconds = operations / (156e12 * 0.5)
    assert float(large[3].split()[0]) == pytest.approx(seconds, rel=0.01)
    steps = 118_000_000 // 510 // 32
    assert float(large[4]) == pytest.approx(runs * steps * seconds / 3600, rel=0.01)
    assert "Does not fit" not in page and "156 TFLOP/s in tf32" in page and "50%" in page


def test_recomputed_layers_count_twice() -> None:
    plain, again = (
        simulated_operations(compose(["task=bert-base-sst2", *stack]), 2, 128)
        for stack in ([], ["system=checkpointing"])
    )
    assert again / plain == pytest.approx(4 / 3, rel=0.01)


def test_what_compile_and_offload_execute_otherwise_costs_the_same() -> None:
    plain, *others = (
        simulated_operations(compose([*TINY_BERT, *stack]), 2, 32)
        for stack in ([], ["system=compile"], ["system=offload"])
    )
    assert others == [plain, plain]


def test_what_a_budget_has_no_room_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FEW, "budget_hours=1"]) == 0
    assert "Does not fit: bert-large/wikitext103 at 512." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["card=Abacus"], "card: no peak known for Abacus"),
        (["utilisation=1.5"], "utilisation: '1.5' is not allowed"),
        (["step_times=/nowhere.json"], "step_times: /nowhere.json cannot be read"),
    ],
)
def test_a_wrong_key_is_one_line(keys: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FEW, *keys]) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")


def test_operations_are_in_proportion_to_the_samples() -> None:
    for stack in ([], ["system=checkpointing"]):
        config = compose([*TINY_BERT, *stack])
        assert simulated_operations(config, 5, 32) == 5 * simulated_operations(config, 1, 32)


def test_runs_that_differ_in_what_changes_no_product_are_simulated_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Texts of another dataset, a compiled or offloaded step, and other variants and batches have the products
    of the first; targets, lengths and checkpointing have their own."""
    like = ["model=tinybert", "dataset.objective=classification"]
    same = [
        compose([*like, "dataset.max_length=32", *more])
        for more in (
            ["dataset=mrpc"],
            ["dataset=reuters-r8"],
            ["dataset=mrpc", "system=compile"],
            ["dataset=mrpc", "system=offload"],
            ["dataset=reuters-r8", "variant=pm-drop", "train.batch_size=8"],
        )
    ]
    others = [
        compose(["model=tinybert", "dataset=mrpc", *more])
        for more in (
            ["dataset.max_length=64"],
            ["dataset.max_length=32", "system=checkpointing"],
            ["dataset.max_length=32", "dataset.objective=regression", "dataset.metrics=[pearson]"],
        )
    ]
    simulated: list[int] = []

    def next_number(*_: Any) -> int:
        simulated.append(1)
        return len(simulated)

    monkeypatch.setattr(cost, "_counted", {})
    monkeypatch.setattr(simulate, "simulated_operations", next_number)
    a_sample = [cost._operations(run) // (run.train.batch_size or 0) for run in [*same, *others]]
    assert a_sample == [1] * len(same) + [2, 3, 4]


def test_texts_of_two_datasets_have_the_same_operations() -> None:
    like = ["model=tinybert", "dataset.max_length=32"]
    one, other = (compose([*like, f"dataset={name}"]) for name in ("mrpc", "reuters-r8"))
    assert simulate.counted_of(one) == simulate.counted_of(other)
    assert simulated_operations(one, 1, 32) == simulated_operations(other, 1, 32)
