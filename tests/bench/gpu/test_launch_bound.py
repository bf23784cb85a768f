"""Stage `launch_bound` of `make gpu`, on the CPU with the smallest BERT; there are no CUDA graphs there."""

import io
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from pmexp.bench.gpu import workload as workloads
from pmexp.bench.gpu.bench import Bench
from pmexp.bench.gpu.budget import Budget, TimeIsUp
from pmexp.bench.gpu.plan import STAGES
from pmexp.bench.gpu.same_losses import Start, replay_fault, variant_faults
from pmexp.bench.gpu.stages import launch_bound
from pmexp.bench.gpu.stages.launch_bound import LaunchCase
from pmexp.bench.gpu.workload import BASELINE, NO_DROPOUT, TORCH_MASKS, VARIANTS, Workload
from pmexp.packed_dropout import PackedDropout, replace_dropout

CPU = torch.device("cpu")
CONF = Path(__file__).parents[3] / "conf" / "model"
TIMED = {*VARIANTS, NO_DROPOUT}


def findings_of(run: Any) -> list[dict[str, Any]]:
    file = io.StringIO()
    run(Bench(CPU, True, Budget(1e6), file))
    return [json.loads(line) for line in file.getvalue().splitlines()]


def rows(lines: list[dict[str, Any]], table: str) -> list[dict[str, Any]]:
    return [line["cells"] for line in lines if line.get("table") == table]


def smallest(*variants: str) -> Workload:
    """Returns the smallest workload, of which each variant has taken a step."""
    made = Workload(launch_bound.SMALLEST, "eager", "fp32", CPU, variants)
    for variant in variants:
        made.step(variant, 2)
    return made


def test_every_variant_has_a_row_and_nothing_fails() -> None:
    lines = findings_of(launch_bound.measure)
    assert [line for line in lines if line["kind"] == "failed"] == []
    assert [line["held"] for line in lines if line["kind"] == "check"] == [True, True]
    steps = rows(lines, "steps")
    assert {(row["precision"], row["variant"]) for row in steps} == {
        (p, v) for p in ("bf16", "fp32") for v in TIMED
    }
    for row in steps:
        assert row["times_stock"] > 0 and row["rounds"] == 2 and not row["graph"]
        assert row["variant"] != BASELINE or row["times_stock"] == 1.0
    assert {row["variant"] for row in rows(lines, "launches")} == {BASELINE, "pm-drop", "pm-drop-recompute"}
    left_out = [line["text"] for line in lines if line["kind"] == "left_out"]
    assert left_out == [f"smallest, batch 2, {p}, CUDA graphs: needs CUDA" for p in ("bf16", "fp32")]


def test_a_variant_with_other_masks_is_named_and_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    of_torch = partial(replace_dropout, dropout=PackedDropout, rng="torch")
    monkeypatch.setitem(workloads.PUT_IN, "seed-only", lambda module: of_torch(module))
    case = LaunchCase("fp32", launch_bound.SMALLEST, 2, False, 1, 1)
    lines = findings_of(lambda bench: launch_bound._measure_eager(bench, Budget(1e6), case))
    (check,) = (line for line in lines if line["kind"] == "check")
    assert not check["held"] and check["detail"].startswith("seed-only: losses [")
    assert {row["variant"] for row in rows(lines, "steps")} == TIMED - {"seed-only"}


def test_what_is_used_most_comes_first_and_a_case_has_its_share_of_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cases = launch_bound._cases()
    assert [str(case) for case in cases[:5]] == [
        "tinybert, batch 32, bf16",
        "bert-base, batch 32, bf16",
        "tinybert, batch 32, bf16, CUDA graphs",
        "bert-base, batch 32, bf16, CUDA graphs",
        "tinybert, batch 8, bf16",
    ]
    (stage,) = (stage for stage in STAGES if stage.name == "launch_bound")
    assert sum(case.share for case in cases) <= stage.seconds
    seconds: list[float] = []
    monkeypatch.setattr(
        launch_bound, "_measure_eager", lambda bench, budget, case: seconds.append(budget.left)
    )
    bench = Bench(CPU, False, Budget(100, lambda: 0.0), io.StringIO())
    launch_bound._measure_case(bench, cases[1:3])
    assert seconds == [pytest.approx(65.0)]


def test_where_the_time_is_up_the_rounds_that_are_whole_have_rows() -> None:
    calls = 0

    def step() -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 100:
            raise TimeIsUp
        return torch.zeros(())

    case = LaunchCase("fp32", launch_bound.SMALLEST, 2, False, 2, 1)
    file = io.StringIO()
    bench = Bench(CPU, False, Budget(1e6), file)
    with pytest.raises(TimeIsUp):
        launch_bound.measure_steps(bench, Budget(1e6), case, {BASELINE: step, "pm-drop": step}, 50)
    cells = [json.loads(line)["cells"] for line in file.getvalue().splitlines()]
    assert [(row["variant"], row["rounds"]) for row in cells] == [(BASELINE, 15), ("pm-drop", 15)]
    assert all(row["low"] <= row["times_stock"] <= row["high"] for row in cells)


def test_an_interval_has_its_rounds_where_there_is_no_time_left() -> None:
    """A row of one round had an interval of no width."""
    file = io.StringIO()
    bench = Bench(CPU, False, Budget(1e6), file)
    case = LaunchCase("fp32", launch_bound.SMALLEST, 2, True, 1, 1)
    launch_bound.measure_steps(bench, Budget(-1.0), case, {BASELINE: lambda: torch.zeros(())}, 40)
    (line,) = file.getvalue().splitlines()
    assert json.loads(line)["cells"]["rounds"] == 6


def test_sizes_are_those_of_conf() -> None:
    for size in (launch_bound.TINYBERT, launch_bound._BASE):
        stated = yaml.safe_load((CONF / f"{size.name}.yaml").read_text())["architecture"]
        assert size.architecture.items() <= stated.items() and size.length == 128
        assert stated.keys() - size.architecture.keys() == {"max_position_embeddings", "hidden_dropout_prob", "attention_probs_dropout_prob"}  # fmt: skip


# ---- the losses that are compared


def test_a_start_is_where_losses_begin_again_and_variants_without_fault_have_none() -> None:
    made = smallest(*VARIANTS, NO_DROPOUT, TORCH_MASKS)
    start = Start(made, 2)
    first = start.of("pm-drop")
    assert first == start.of("pm-drop") and first != start.of("pm-drop", seed=2)
    before = [tensor.clone() for tensor in made.state()]
    assert variant_faults(made, 2) == {}
    assert len(before) == 4 * len([*made._modules[BASELINE].parameters()])  # with AdamW's three
    assert all(map(torch.equal, before, made.state()))


def test_a_variant_without_dropout_that_drops_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(workloads.PUT_IN, NO_DROPOUT, lambda module: None)
    assert list(variant_faults(smallest(BASELINE, NO_DROPOUT), 2)) == [NO_DROPOUT]


@pytest.mark.parametrize("variant", [BASELINE, NO_DROPOUT, "pm-drop", "pm-drop-recompute"])
def test_a_step_is_a_replay_of_itself(variant: str) -> None:
    made = smallest(variant)
    before = [tensor.clone() for tensor in made.state()]
    assert replay_fault(made, variant, 2, lambda: made.step(variant, 2)) is None
    assert all(map(torch.equal, before, made.state()))


def test_replays_that_are_no_steps_are_wrong() -> None:
    made = smallest("pm-drop", BASELINE)

    def same_masks() -> torch.Tensor:
        torch.manual_seed(1)
        return made.step("pm-drop", 2)

    def no_update() -> torch.Tensor:
        return made._loss(made._modules["pm-drop"], 2).detach()

    def infinite() -> torch.Tensor:
        return made.step("pm-drop", 2) * torch.inf

    others = partial(made.step, BASELINE, 2)
    for wrong in (same_masks, no_update, infinite, others):
        assert replay_fault(made, "pm-drop", 2, wrong) is not None, wrong
    made.step("pm-drop", 2)
    assert replay_fault(made, "pm-drop", 2, partial(made.step, "pm-drop", 2)) is None
