"""Engines on two processes: the run of one process with the same global batch, and a resumed run bit for bit."""

import importlib.util
import re
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

import engine_ranks
from pmexp.config import Part, SystemConfig
from pmexp.errors import UserError
from pmexp.systems.engines import zero
from pmexp.systems.ranks import Ranks, check_started, started_processes
from pmexp.systems.system import System

OfRanks = list[dict[str, Any]]
needs_deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="the extra `distributed` is not installed"
)
each_stack = pytest.mark.parametrize(
    "stack", [pytest.param(s, marks=needs_deepspeed if "zero" in s else []) for s in engine_ranks.STACKS]
)


@pytest.fixture(scope="module")
def one() -> dict[str, Any]:
    return engine_ranks.run(Path(), world_size=1)[0]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> OfRanks:
    return engine_ranks.run(tmp_path_factory.mktemp("engines"))


@pytest.mark.slow
@each_stack
def test_losses_are_those_of_one_process(stack: str, one: dict[str, Any], two: OfRanks) -> None:
    """There is no dropout. Gradients are sums of the same terms in another order: fp32 rounding, which bf16
    products of slightly other weights turn into bf16's (2**-8 of a value), far smaller in the mean loss."""
    lowered = "bf16" if "bf16" in stack else ""
    bound = 2**-10 if lowered else 1e-5
    for rank in two:
        for actual, expected in zip(rank[stack]["exact"]["losses"], one[lowered]["losses"], strict=True):
            assert actual.item() == pytest.approx(expected.item(), rel=bound)
    first = two[0][stack]["exact"]["norms"][0].item()
    assert first == pytest.approx(one[lowered]["norms"][0].item(), rel=max(bound, 2**-8 if lowered else 0))


@pytest.mark.slow
@each_stack
def test_a_resumed_run_is_the_same_run_bit_for_bit(stack: str, two: OfRanks) -> None:
    for rank in two:
        whole, resumed = rank[stack]["dropout"], rank[stack]["again"]
        for what in ("losses", "norms"):
            assert all(torch.equal(a, b) for a, b in zip(whole[what], resumed[what], strict=True)), what
        for name, tensor in whole["weights"].items():
            assert torch.equal(resumed["weights"][name], tensor), name


@pytest.mark.slow
@needs_deepspeed
def test_every_engine_trains_with_the_same_masks(two: OfRanks) -> None:
    """Packed dropout at 0.5: what the ranks draw does not depend on who sums the gradients."""
    expected = torch.stack(two[0]["ddp"]["dropout"]["losses"])
    for name in ("zero1", "zero2", "fsdp"):
        torch.testing.assert_close(
            torch.stack(two[0][name]["dropout"]["losses"]), expected, rtol=1e-5, atol=0
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    "part",
    [pytest.param(p.name, marks=needs_deepspeed if "zero" in p.name else []) for p in engine_ranks.FROZEN],
)
def test_frozen_weights_stay_out_of_what_is_kept(part: str, two: OfRanks) -> None:
    """In bf16, beside three tensors of 307 numbers that train in fp32; a resumed run is the same bit for bit."""
    model: Any = engine_ranks._build(Ranks(), [], 0.0)[2]
    numbers = {name: model.get_parameter(name).numel() for name in engine_ranks.TRAINED}
    trained = sum(numbers.values())
    frozen = sum(parameter.numel() for parameter in model.parameters()) - trained
    buffers = sum(buffer.nbytes for buffer in {b.data_ptr(): b for b in model.buffers()}.values())
    for rank, stacks in enumerate(two):
        whole, resumed = stacks[f"{part}-frozen"]["dropout"], stacks[f"{part}-frozen"]["again"]
        assert whole["losses"] == resumed["losses"] == stacks["ddp-frozen"]["dropout"]["losses"]
        assert {name: tensor.numel() for name, tensor in whole["weights"].items()} == (
            numbers if rank == 0 or part != "fsdp" else {}
        )
        for name, tensor in whole["weights"].items():
            assert tensor.dtype is torch.float32 and torch.equal(resumed["weights"][name], tensor)
        share = 0.5 if part == "fsdp" else 1.0
        held = {"ddp": trained, "zero2": 1.5 * trained, "fsdp": 0.5 * trained}[part] * 4 + frozen * 2 * share
        assert whole["held"]["memory/parameters_bytes"] == pytest.approx(held + buffers, rel=0.02)
        assert whole["held"]["memory/optimizer_bytes"] < 2.1 * 4 * trained


@pytest.mark.slow
@each_stack
def test_what_each_rank_holds_by_hand(stack: str, two: OfRanks) -> None:
    """AdamW: two fp32 numbers a parameter, and a step of 4 bytes a tensor. Shares of two ranks:

    ddp   everything
    zero  parameters, flat in multiples of 4 elements, and a half of them: half the state, and the gradients of
          all parameters that reach into the half, with its rest filled up
    fsdp  half of each tensor's rows; of an odd number rank 1 has one less, in storage of the same size
    """
    model: Any = engine_ranks._build(Ranks(), [], 0.0)[2]
    sizes = [parameter.numel() for parameter in model.parameters()]
    buffers = sum(buffer.nbytes for buffer in {b.data_ptr(): b for b in model.buffers()}.values())
    total, steps = sum(sizes), 4 * len(sizes)
    for rank, stacks in enumerate(two):
        if "zero" in stack:
            flat = -(-total // 4) * 4
            half, ends = flat // 2, torch.tensor(sizes).cumsum(0).tolist()
            mine = range(rank * half, (rank + 1) * half)
            reach = sum(
                n for n, end in zip(sizes, ends, strict=True) if end > mine[0] and end - n <= mine[-1]
            )
            filled = max(0, mine[-1] + 1 - total)
            expected = (flat + half) * 4, (reach + filled) * 4, 2 * half * 4 + 4
        elif "fsdp" in stack:
            rows = [(len(p), p.numel() // len(p)) for p in model.parameters()]
            whole = sum(-(-n // 2) * width for n, width in rows)
            own = whole if rank == 0 else total - whole
            expected = whole * 4, whole * 4, 2 * own * 4 + steps
        else:
            expected = total * 4, total * 4, 2 * total * 4 + steps
        names = ("memory/parameters_bytes", "memory/gradients_bytes", "memory/optimizer_bytes")
        wanted = dict(zip(names, (expected[0] + buffers, *expected[1:]), strict=True))
        assert stacks[stack]["dropout"]["held"] == wanted, f"rank {rank}"
        assert stacks[stack]["dropout"]["peak_tensor_bytes"] > sum(wanted.values()), f"rank {rank}"


def test_fp16_reports_and_clips_the_gradient_without_its_scale(one: dict[str, Any]) -> None:
    """The norm is that of fp32 within fp16's rounding of products (2**-11 of a value, a few in a chain)."""
    by_fp16 = engine_ranks.train(Ranks(), [Part.fp16], p=0.0)
    for name in ("losses", "norms"):
        for half, full in zip(by_fp16[name], one[""][name], strict=True):
            assert half.item() == pytest.approx(full.item(), rel=2**-8)


def test_ranks_draw_different_masks_and_rank_0_those_of_one_process() -> None:
    seeds = [Ranks(rank, rank, 4).seed(11) for rank in range(4)]
    assert seeds[0] == Ranks().seed(11) == 11
    assert len({*seeds, *(Ranks(rank, rank, 4).seed(12) for rank in range(4))}) == 8
    assert all(0 <= seed < 2**32 for seed in seeds)  # torch's CPU generator reads no more


def test_the_ranks_share_a_batch_among_them() -> None:
    rows = torch.randperm(12)
    shares = [Ranks(rank, rank, 3).share(rows) for rank in range(3)]
    assert torch.equal(torch.stack(shares, 1).flatten(), rows)


@pytest.mark.parametrize(
    ("parts", "processes", "words"),
    [
        (["zero1", "zero2"], 2, "zero1 and zero2 exclude each other"),
        (["ddp", "zero2"], 2, "ddp and zero2 exclude each other"),
        (["bf16", "fp16"], 1, "bf16 and fp16 exclude each other"),
        (["zero2", "fp16"], 2, "zero2 and fp16 exclude each other"),
        (["zero2"], 1, "set system.processes=2 or more"),
        (["bf16"], 2, "add one of ddp, zero1, zero2, fsdp"),
        (["ddp"], 0, "must be at least 1"),
    ],
)
def test_nonsense_is_one_clear_error(parts: list[str], processes: int, words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        SystemConfig(parts=[Part[name] for name in parts], processes=processes)


def test_a_launcher_that_started_another_number_is_an_error() -> None:
    config = SystemConfig(parts=[Part.ddp], processes=2)
    check_started(config, {})
    check_started(config, {"RANK": "0", "WORLD_SIZE": "2"})
    for environment in (
        {"RANK": "0", "WORLD_SIZE": "4"},
        {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "4"},
    ):
        with pytest.raises(UserError, match=r"set system\.processes=4"):
            check_started(config, environment)


def test_a_batch_script_of_slurm_is_one_process() -> None:
    assert started_processes({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}) is None


def test_missing_packages_are_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("deepspeed", "accelerate"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match="zero2 needs deepspeed and accelerate"):
        System(SystemConfig(parts=[Part.zero2], processes=2))


@needs_deepspeed
@pytest.mark.parametrize(
    ("version", "trains"), [("0.9.5", False), ("0.18.2", False), ("0.18.3", True), ("1.0", True)]
)
def test_a_deepspeed_that_loses_micro_batches_is_refused(
    version: str, trains: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zero, "version", lambda package: version)
    refused = pytest.raises(UserError, match=re.escape(f"zero2 needs deepspeed>=0.18.3, not {version}"))
    with nullcontext() if trains else refused:
        System(SystemConfig(parts=[Part.zero2], processes=2))


def test_the_lower_bound_is_the_first_deepspeed_that_is_not_refused() -> None:
    assert (
        f"deepspeed=={'.'.join(map(str, zero._OLDEST))}"
        in (Path(__file__).parents[2] / "constraints-oldest.txt").read_text()
    )
