"""`make gpu` on the CPU: the same code with a tiny BERT, its page from a record, and its time from a clock."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pmexp.bench.gpu.record import new_record, write
from torch import nn

from pmexp.bench.gpu import checks, plan, workload
from pmexp.bench.gpu.budget import Budget, TimeIsUp, time_limit
from pmexp.bench.gpu.command import main
from pmexp.bench.gpu.largest import largest, measure_largest
from pmexp.bench.gpu.page import page
from pmexp.bench.gpu.plan import LARGEST, STEPS, execute
from pmexp.bench.gpu.steps import measure_steps
from pmexp.bench.gpu.workload import BASELINE, SIZES, VARIANTS, Size, Workload
from pmexp.errors import ContenderFailed
from pmexp.packed_dropout import PackedDropout, replace_dropout

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
TINY = Size("tiny", 4, 16, {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 99})  # fmt: skip
PROBABILITIES, HIDDEN = 4 * 2 * 16 * 16, 4 * 16 * 16  # elements of a mask at TINY's batch


class Clock:
    """Time that passes where a test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def tiny(*variants: str, attention: str = "eager", precision: str = "fp32") -> Workload:
    return Workload(TINY, attention, precision, CPU, variants or tuple(VARIANTS))


# ---- the whole of it


def test_from_the_plan_to_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "_PARTS", ((STEPS, "bf16", ("eager", "sdpa")), (LARGEST, "fp32", ("eager",))))
    monkeypatch.setattr(plan, "_PRECISIONS", ("bf16",))
    monkeypatch.setattr("pmexp.bench.gpu.largest._MOST", 8)
    out = tmp_path / "gpu.md"
    kept: list[list[str]] = []

    def written(record: dict[str, Any]) -> None:
        write(record, out)
        kept.append(json.loads(out.with_suffix(".json").read_text())["left_out"])

    execute(new_record("the command", CPU, 60), CPU, [TINY], 2, Budget(1e6), written)
    record = json.loads(out.with_suffix(".json").read_text())
    assert [len(left) for left in kept] == [3, 2, 1, 0]  # every piece as it comes, the rest by name
    assert kept[2] == ["tiny, eager, fp32: largest batch: not begun"]
    assert len(record["checks"]) == 3 and "over 3 of 3 steps" in record["checks"][1]
    steps = {(row["attention"], row["variant"]): row for row in record["steps"]}
    assert set(steps) == {("eager", name) for name in VARIANTS} | {
        ("sdpa", name) for name in ("baseline", "pm-drop", "seed-only")
    }
    for row in steps.values():
        assert (row["batch"], row["length"], len(row["seconds"])) == (4, 16, 2)
        assert row["low"] <= row["ratio"] <= row["high"] and row["peak_bytes"] > 0
    assert steps["eager", BASELINE]["mask_elements"] == 5 * HIDDEN + 2 * PROBABILITIES
    assert steps["eager", "pm-drop"]["mask_bytes"] == (5 * HIDDEN + 2 * PROBABILITIES) // 8
    assert steps["sdpa", "pm-drop"]["mask_bytes"] == 5 * HIDDEN // 8
    assert steps["eager", "seed-only"]["mask_bytes"] == 7 * 8
    saved = [steps["eager", name]["saved_bytes"] for name in ("baseline", "pm-drop", "pm-drop-recompute")]
    assert saved == sorted(saved, reverse=True) and len(set(saved)) == 3
    assert {(row["batch"], row["too_large"]) for row in record["largest"]} == {(8, None)}
    assert out.read_text() == page(record)


def test_variants_are_trained_on_one_set_of_weights_and_drop_by_their_own() -> None:
    found = tiny("baseline", "pm-drop")
    trees = [found._modules[name] for name in found.variants]
    parameters = [list(tree.parameters()) for tree in trees]
    assert all(a is b for a, b in zip(*parameters, strict=True))
    assert [any(isinstance(part, PackedDropout) for part in tree.modules()) for tree in trees] == [
        False,
        True,
    ]
    before = parameters[0][0].detach().clone()
    found.step("pm-drop", 4)
    assert not torch.equal(before, parameters[0][0]) and parameters[0][0].grad is None


def test_sizes_are_those_of_conf() -> None:
    for size in SIZES:
        described = yaml.safe_load((ROOT / "conf" / "model" / f"{size.name}.yaml").read_text())[
            "architecture"
        ]
        rates = {described.pop(f"{place}_dropout_prob") for place in ("hidden", "attention_probs")}
        assert rates == {0.1} and described.pop("max_position_embeddings") == size.length
        assert described == size.architecture


# ---- checks


def wrong(name: str, put_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(workload.PUT_IN, name, put_in)


@pytest.mark.parametrize("name", [workload.TORCH_MASKS, "seed-only", "pm-drop-recompute"])
def test_a_variant_that_drops_otherwise_ends_it_without_a_figure(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(workload.PUT_IN, name, lambda module: replace_dropout(module, PackedDropout, bits=1, rng="philox" if name == workload.TORCH_MASKS else "torch"))  # fmt: skip
    out = tmp_path / "gpu.md"
    with pytest.raises(ContenderFailed, match=f"^{name} under eager attention in bf16: losses"):
        execute(new_record("", CPU, 60), CPU, [TINY], 1, Budget(60), lambda record: write(record, out))
    assert not out.exists()


def test_masks_that_are_not_the_reference_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    right = checks.ops.packed_dropout
    monkeypatch.setattr(checks.ops, "packed_dropout", lambda x, seed, p, bits: right(x, seed + 1, p, bits))
    with pytest.raises(ContenderFailed, match=r"^packed masks of 33 elements in torch.float32 are not"):
        checks.check_masks(CPU)


def test_a_backward_that_differs_each_time_is_compared_up_to_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients with noise of their own, as of a kernel whose order of summation is not settled."""
    clip = nn.utils.clip_grad_norm_
    seeds = iter(range(10**6))

    def noisy(parameters: Any, norm: float) -> None:
        every = list(parameters)
        generator = torch.Generator().manual_seed(next(seeds))
        for parameter in every:
            parameter.grad.add_(torch.randn(parameter.shape, generator=generator))
        clip(every, norm)

    monkeypatch.setattr(nn.utils, "clip_grad_norm_", noisy)
    assert checks.check_losses(TINY, "eager", "fp32", CPU).endswith("over 1 of 3 steps")


# ---- time


def test_the_budget_is_shared_out_and_ends() -> None:
    clock = Clock()
    budget = Budget(100, clock)
    assert budget.part(4).left == 25 and budget.allows(50) and not budget.allows(50.1)
    clock.now = 60
    assert budget.left == 40 and budget.part(4).left == 10
    assert Budget(100, clock, start=0).left == 40


def test_what_takes_too_long_is_broken_off() -> None:
    with pytest.raises(TimeIsUp), time_limit(0.01):
        time.sleep(10)


def test_rounds_end_with_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("pmexp.bench.gpu.steps.time.perf_counter", clock)
    found, order = tiny("baseline", "pm-drop"), []

    def step(variant: str, batch: int) -> torch.Tensor:
        order.append(variant[0])
        clock.now += 1
        return torch.zeros(())

    monkeypatch.setattr(found, "step", step)
    rows, _ = measure_steps(
        found, 20, Budget(13, clock)
    )  # 4 of warm-up; a round of 2 begins while 4 are left
    assert "".join(order) == "bbpp" + "bp" + "pb" + "bp"
    assert [len(row.seconds) for row in rows] == [3, 3]
    rows, _ = measure_steps(found, 20, Budget(0, clock))
    assert [len(row.seconds) for row in rows] == [1, 1]


def test_what_the_time_does_not_allow_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, did = Clock(), []

    def do(work: plan.Work, *_: Any) -> None:
        did.append(str(work))
        clock.now += 100

    monkeypatch.setattr(plan, "_checks", lambda *_: [])
    monkeypatch.setattr(plan, "free_memory", lambda: None)
    monkeypatch.setattr(plan, "_do", do)
    record: dict[str, Any] = {}
    execute(record, CPU, SIZES, 20, Budget(470, clock), lambda record: None)  # a fourth might take 200 s
    assert did == [f"{name}, bf16: steps" for name in ("bert-base, eager", "bert-base, sdpa", "bert-large, eager")]  # fmt: skip
    assert len(did) == 3 and len(did) + len(record["left_out"]) == len(plan.plan(SIZES)) == 12
    assert record["left_out"][0] == "bert-large, sdpa, bf16: steps: not begun"


# ---- memory


def limited(found: Workload, most: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lets no step of more than `most` samples have room; the batches that were tried."""
    tried: list[int] = []
    plain = found.step

    def step(variant: str, batch: int) -> torch.Tensor:
        tried.append(batch)
        if batch > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(variant, min(batch, 2))

    monkeypatch.setattr(found, "step", step)
    return tried


def test_a_batch_without_room_is_halved_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    found = tiny("baseline", "pm-drop")
    limited(found, 1, monkeypatch)
    rows, notes = measure_steps(found, 1, Budget(60))
    assert [row.batch for row in rows] == [1, 1]
    assert notes == [f"tiny, eager, fp32: baseline has no room for a batch of {n}, which was halved" for n in (4, 2)]  # fmt: skip


def test_the_largest_batch_of_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    freed: list[None] = []
    monkeypatch.setattr("pmexp.bench.gpu.largest.free_memory", lambda: freed.append(None))
    found = tiny("baseline", "pm-drop")
    tried = limited(found, 13, monkeypatch)
    rows = measure_largest(found, Budget(1e6))
    assert [(row.variant, row.batch, row.too_large) for row in rows] == [("baseline", 13, 14), ("pm-drop", 13, 14)]  # fmt: skip
    assert len(freed) == len([batch for batch in tried if batch > 13])
    limited(found, 0, monkeypatch)
    assert {(row.batch, row.too_large) for row in measure_largest(found, Budget(1e6))} == {(0, 1)}
    found = tiny("baseline")
    tried = limited(found, 13, monkeypatch)
    assert [(row.batch, row.too_large) for row in measure_largest(found, Budget(0))] == [(1, None)]
    assert tried == [1]


def test_a_model_of_which_no_sample_has_room_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(plan, "Workload", full)
    record: dict[str, Any] = {"left_out": []}
    plan._do(plan.Work(STEPS, TINY, "eager", "fp32"), record, CPU, 1, Budget(60))
    assert record["left_out"] == ["tiny, eager, fp32: steps: one sample has no room"]


@pytest.mark.parametrize("limit", [1, 5, 32, 33, 100, 1000])
def test_the_search_ends_within_a_thirty_second_part(limit: int) -> None:
    fits, too_large = largest(lambda value: value <= limit, 32)
    assert fits <= limit < (too_large or 0) and too_large is not None
    assert too_large - fits <= max(1, fits // 32)


def test_a_search_without_time_says_what_it_saw() -> None:
    answers = iter([True, False, None])
    assert largest(lambda value: next(answers), 8) == (8, 16)


# ---- page and command


def test_the_page_of_a_record() -> None:
    case = {"model": "bert-base", "attention": "eager", "precision": "bf16", "length": 512}
    step = {"batch": 32, "mask_elements": 800, "seconds": [0.1] * 20}
    record = {
        "command": "python3 -m pmexp.bench.gpu",
        "date": "2026-11-23",
        "peak": "CUDA allocator, max_memory_allocated",
        "environment": {"device": "A GPU", "torch": "2.13.0"},
        "checks": ["all equal"],
        "steps": [
            case | step | {"variant": "baseline", "ms": 100.0, "samples_per_s": 320.0, "ratio": 1.0, "low": 1.0, "high": 1.0, "peak_bytes": 2**33, "saved_bytes": 2**32, "mask_bytes": 800},
            case | step | {"variant": "pm-drop", "ms": 80.0, "samples_per_s": 400.0, "ratio": 1.25, "low": 1.2, "high": 1.3, "peak_bytes": 2**33 - 2**31, "saved_bytes": 2**31, "mask_bytes": 100},
        ],
        "largest": [
            case | {"variant": "baseline", "batch": 64, "too_large": 66},
            case | {"variant": "pm-drop", "batch": 96, "too_large": 98},
            case | {"variant": "seed-only", "batch": 128, "too_large": None},
        ],
        "notes": ["a note"],
        "left_out": ["bert-large, sdpa, fp32: steps: not begun"],
    }  # fmt: skip
    text = page(record)
    assert text.startswith("# BERT as a masked language model on A GPU\n\n    python3 -m pmexp.bench.gpu\n")
    assert "2026-11-23; device A GPU, torch 2.13.0." in text
    assert (
        "| bert-base | eager | bf16 | pm-drop | 32 | 20 | 80.0 | 400.0 | 1.250 [1.200, 1.300] | 6.00 | 25.0% | 2.00 | 0.125 |"
        in text
    )
    assert "| bert-base | eager | bf16 | pm-drop | 96 | 98 | 1.50 |" in text
    assert "| bert-base | eager | bf16 | seed-only | 128 |  |  |" in text
    assert "- bert-large, sdpa, fp32: steps: not begun\n- a note\n" in text
    for row in text.splitlines():
        assert not row.startswith("| bert") or row.count(" | ") in (12, 6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["steps=3"], "steps=3: is not a key of this command; allowed are out and seconds"),
        (["seconds=5"], "seconds: '5' is too little or no number; allowed are 60 and more"),
        (
            ["out=/nowhere/gpu.md"],
            "out: /nowhere/gpu.md cannot be written; name a file with .md in a folder that is there",
        ),
        ([], "device: this command needs a CUDA device, and torch finds none here"),
    ],
)
def test_a_wrong_key_or_machine_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("pmexp.bench.gpu.command._NEEDED", ("torch",))
    monkeypatch.chdir(ROOT)
    assert main(arguments) == 2
    assert capsys.readouterr().err == f"error: {message}\n"


def test_a_python_without_the_packages_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("pmexp.bench.gpu.command._NEEDED", ("torch", "no_such_package"))
    assert main([f"out={tmp_path / 'gpu.md'}"]) == 2
    assert (
        capsys.readouterr().err
        == f"error: no_such_package: not installed for {sys.executable}; this command needs them\n"
    )


_MISSING = [
    "hydra", "omegaconf", "mlflow", "datasets", "pandas", "scipy", "sklearn", "statsmodels", "matplotlib",
    "sqlalchemy", "pyarrow", "rich", "PIL", "submitit", "kornia", "deepspeed", "accelerate", "yaml",
]  # fmt: skip
_ALONE = """
import sys
from types import SimpleNamespace
class Without:  # a finder that finds none of the missing packages
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, *rest):
        return None if name.partition(".")[0] in {missing!r} else self.finder.find_spec(name, *rest)
    def __getattr__(self, name):
        return getattr(self.finder, name)
sys.meta_path = [Without(finder) for finder in sys.meta_path]
sys.modules["transformers"] = SimpleNamespace(BertConfig=None, BertForMaskedLM=None)  # there, and slow to import
from pmexp.bench.gpu import plan, record
from pmexp.bench.gpu.command import main
print(main(["--help"]), record.new_record("", plan.torch.device("cpu"), 60)["environment"]["torch"])
"""


@pytest.mark.slow
def test_it_needs_torch_transformers_triton_and_numpy_alone() -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    code = _ALONE.format(missing=_MISSING)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"0 {torch.__version__}"
