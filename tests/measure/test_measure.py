"""The ledger of saved bytes against sums done by hand, and what the other instruments promise."""

import gc
import mmap
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from pmexp.measure.environment import environment, gpu_driver
from pmexp.measure.peak_memory import PeakMemory
from pmexp.measure.saved_for_backward import SavedForBackward
from pmexp.measure.timing import WARMUP_STEPS, StepTimer
from pmexp.packed_dropout import PackedDropout, pack_saved_masks, packed_bias_dropout_add, replace_dropout
from pmexp.variants.byte_mask import ByteMaskDropout
from pmexp.variants.seeded import SeededDropout

X = torch.randn(32, 100)
ACTIVATION = 32 * 100 * 4


def ledger(dropout: nn.Module) -> SavedForBackward:
    module = nn.Sequential(nn.Linear(100, 100), dropout, nn.Linear(100, 100))
    with SavedForBackward(module) as saved:
        module(X)
    return saved


@pytest.mark.parametrize(
    ("dropout", "mask_bytes"),
    [
        (nn.Dropout(0.1), ACTIVATION),
        (ByteMaskDropout(0.1), 3200),
        (PackedDropout(0.1), 400),
        (PackedDropout(0.1, bits=2), 800),
        (PackedDropout(0.1, bits=4), 1600),
        (PackedDropout(0.1, rng="torch"), 400),
        (PackedDropout(0.0), 0),
        (PackedDropout(0.1, flip_rate=0.5), 400),
        (SeededDropout(0.1), 8),
    ],
)
def test_bytes_by_hand(dropout: nn.Module, mask_bytes: int) -> None:
    """Saved: the input, the first layer's dropped output, and the mask. Weights are not counted."""
    saved = ledger(dropout)
    assert saved.mask_bytes == mask_bytes
    assert saved.total_bytes == 2 * ACTIVATION + mask_bytes
    assert saved.mask_elements == (3200 if mask_bytes else 0)
    assert saved.metrics().get("memory/mask_bytes_per_element") == (mask_bytes / 3200 if mask_bytes else None)


def test_hooks_inside_the_ledger_by_hand() -> None:
    """The ledger's own hooks are handed the bits; a mask that is no dropout's adds to the total alone."""
    module = nn.Sequential(nn.Linear(100, 100), ByteMaskDropout(0.1), nn.Linear(100, 100))
    with SavedForBackward(module) as saved, pack_saved_masks():
        module(X).masked_fill(torch.rand(32, 1) > 0.5, 0.0)
    assert (saved.mask_bytes, saved.mask_elements) == (400, 3200)
    assert saved.total_bytes == 2 * ACTIVATION + 400 + 4


def test_a_storage_saved_twice_counts_once() -> None:
    x = torch.randn(1000, requires_grad=True)
    with SavedForBackward(nn.Identity()) as saved:
        y = x.exp()
        y.view(10, 100) * y.view(10, 100).detach()
    assert saved.total_bytes == 4000


def test_functional_dropout_inside_attention_is_seen_stock_and_routed() -> None:
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        attn_implementation="eager",
    )  # fmt: skip
    model, ids = BertModel(config), torch.ones(2, 16, dtype=torch.long)
    hidden, attention = 3 * 2 * 16 * 16, 2 * 2 * 16 * 16
    total = {}
    for swap, bytes_per_element in (("", 4.0), ("packed", 0.125), ("recompute", 0.125)):
        if swap:
            replace_dropout(model, PackedDropout, recompute=swap == "recompute")
        with SavedForBackward(model) as saved:
            model(ids)
        assert saved.mask_elements == hidden + attention
        assert saved.mask_bytes / saved.mask_elements == bytes_per_element
        assert saved.recomputed_products == (swap == "recompute")
        total[swap] = saved.total_bytes
    assert total["packed"] - total["recompute"] == 4 * attention  # the dropped probabilities


def test_a_checkpointed_region_saves_its_input_alone() -> None:
    layers = nn.Sequential(nn.Linear(100, 100), nn.Dropout(0.1), nn.Linear(100, 100))
    x = X.clone().requires_grad_()
    with SavedForBackward(layers) as saved:
        checkpoint(layers, x, use_reentrant=False)
    assert (saved.total_bytes, saved.mask_bytes) == (ACTIVATION, 0)


@pytest.mark.parametrize(
    ("call", "rates"),
    [
        (lambda: F.dropout(X, 0.3), {0.3}),
        (lambda: F.dropout(X, p=0.3), {0.3}),
        (lambda: F.dropout(X), {0.5}),
        (lambda: F.dropout(X, 0.3, False), set()),
        (lambda: F.dropout(X, 0.3, training=False), set()),
        (lambda: F.dropout(X, 0.0), set()),
        (lambda: torch.dropout(X, 0.3, True), {0.3}),
        (lambda: torch.native_dropout(X, 0.3, False), set()),
        (lambda: packed_bias_dropout_add(X, X[0], X, 0.3), {0.3}),
        (lambda: packed_bias_dropout_add(X, X[0], X, 0.3, False), set()),
        (lambda: F.scaled_dot_product_attention(X, X, X, None, 0.3), {0.3}),
        (lambda: F.scaled_dot_product_attention(X, X, X, dropout_p=0.3), {0.3}),
        (lambda: F.scaled_dot_product_attention(X, X, X), set()),
    ],
)
def test_the_ledger_knows_at_which_rates_functions_were_called(
    call: Callable[[], object], rates: set[float]
) -> None:
    with SavedForBackward(nn.Identity()) as saved:
        call()
    assert saved.rates == rates


def test_the_ledger_changes_no_number() -> None:
    results = []
    for watched in (False, True):
        torch.manual_seed(1)
        module = nn.Sequential(nn.Linear(100, 100), PackedDropout(0.5))
        if watched:
            with SavedForBackward(module):
                y = module(X)
        else:
            y = module(X)
        y.sum().backward()
        results.append((y, module[0].weight.grad))
    assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])


class Attends(nn.Module):
    """Attention of 2 heads over 32 samples of 10 places, as torch's functions and modules have it."""

    def __init__(self, how: str) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.project = nn.Linear(10, 30)
        self.attention = nn.MultiheadAttention(10, 2, dropout=0.3, batch_first=True)
        self.how = how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.view(32, 10, 10)
        if self.how == "function":
            heads = [part.view(32, 10, 2, 5).transpose(1, 2) for part in self.project(x).split(10, -1)]
            attended = F.scaled_dot_product_attention(*heads, dropout_p=0.3 if self.training else 0.0)
            return attended.transpose(1, 2).reshape(32, 10, 10)
        y: torch.Tensor = self.attention(x, x, x, need_weights=self.how == "module with weights")[0]
        return y


@pytest.mark.parametrize("how", ["function", "module", "module with weights"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_masks_inside_of_torchs_attention_are_counted_and_no_number_changes(
    how: str, dtype: torch.dtype
) -> None:
    results: list[list[torch.Tensor]] = []
    for watched in (False, True):
        module = Attends(how)
        ledger = SavedForBackward(module)
        with (
            torch.autocast("cpu", dtype, enabled=dtype != torch.float32),
            ledger if watched else nullcontext(),
        ):
            y = module(X)
        trained = [*module.project.parameters()] if how == "function" else [*module.attention.parameters()]
        results.append([y, *torch.autograd.grad(y.square().sum(), trained)])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))
    probabilities = 32 * 2 * 10 * 10
    assert ledger.mask_elements == probabilities and ledger.rates == {0.3}
    assert ledger.mask_bytes in (
        2 * probabilities,
        4 * probabilities,
    )  # a number each, in the dtype of theirs


def test_peak_memory_sees_a_large_allocation_and_names_its_source() -> None:
    gc.collect()  # otherwise what earlier tests have left is freed in between
    peak = PeakMemory(torch.device("cpu"))
    before = peak.bytes()
    with mmap.mmap(-1, 256 * 2**20) as pages:  # new ones: malloc may have as many left of earlier tests
        torch.frombuffer(pages, dtype=torch.uint8).fill_(1)
    assert peak.bytes() - before > 200 * 2**20
    assert "peak resident set" in peak.source


def test_step_times_leave_out_the_warm_up() -> None:
    timer = StepTimer(torch.device("cpu"))
    timer.seconds = [9.0] * WARMUP_STEPS + [0.1, 0.2, 0.3, 0.4, 0.5]
    metrics = timer.metrics(samples_per_step=32, tokens_per_sample=10)
    assert metrics["speed/step_ms"] == pytest.approx(300)
    assert metrics["speed/step_ms_p10"] == pytest.approx(140)
    assert metrics["speed/step_ms_p90"] == pytest.approx(460)
    assert metrics["speed/samples_per_s"] == pytest.approx(32 / 0.3)
    assert metrics["speed/tokens_per_s"] == pytest.approx(320 / 0.3)
    assert "speed/data_wait_ms" not in metrics
    timer.seconds = timer.seconds[:WARMUP_STEPS]
    assert timer.metrics(32, 10) == {}


def test_the_wait_for_data_is_that_of_the_timed_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = 0.0
    monkeypatch.setattr("pmexp.measure.timing.time.perf_counter", lambda: seconds)
    timer = StepTimer(torch.device("cpu"))
    for wait in (*[9.0] * WARMUP_STEPS, 0.5, 0.25):
        with timer.data():  # a profiled step is not timed, and so waits for nothing
            seconds += 100.0
        with timer.step():
            for _ in range(2):  # micro-batches
                with timer.data():
                    seconds += wait / 2
            seconds += 1.0
    assert timer.metrics(32, 10)["speed/data_wait_ms"] == pytest.approx(375)
    assert timer.metrics(32, 10)["speed/data_wait_share"] == pytest.approx(0.375 / 1.375)
    assert timer.waited_too_long().startswith("waited for data 27.3% of its steps' time, more than 2%:")
    resumed = StepTimer(torch.device("cpu"))
    resumed.restore(timer.state())
    assert resumed.metrics(32, 10)["speed/data_wait_ms"] == pytest.approx(375)
    resumed.seconds = [75.0] * 20 * WARMUP_STEPS  # and as many steps that waited for nothing
    assert not resumed.waited_too_long() and not StepTimer(torch.device("cpu")).waited_too_long()


def test_that_a_run_waits_too_long_is_said_once_and_where_the_share_has_doubled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seconds = 0.0
    monkeypatch.setattr("pmexp.measure.timing.time.perf_counter", lambda: seconds)
    timer = StepTimer(torch.device("cpu"))
    said = []
    for wait in (*[0.0] * WARMUP_STEPS, 0.0, 0.2, 0.3, 0.2, 2.0, 0.0):
        with timer.step():
            with timer.data():
                seconds += wait
            seconds += 1.0
        said.append(timer.newly_waited_too_long().partition(" of")[0])
    assert list(filter(None, said)) == ["waited for data 9.1%", "waited for data 35.1%"]


def test_steps_that_waited_for_a_core_say_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seconds, queue = 0.0, tmp_path / "schedstat"
    monkeypatch.setattr("pmexp.measure.timing.time.perf_counter", lambda: seconds)
    monkeypatch.setattr("pmexp.measure.timing._QUEUE", queue)
    queued = 0
    timer = StepTimer(torch.device("cpu"))
    for wait in (*[900] * WARMUP_STEPS, 40, 80):  # ms of steps of 1 s
        queue.write_text(f"1 {queued} 1\n")
        with timer.step():
            seconds += 1.0
            queued += wait * 10**6
            queue.write_text(f"1 {queued} 1\n")
    said = timer.shared_cores()
    assert said == "was ready and waited for a core 6% of the time of its steps: other work had its cores"
    resumed = StepTimer(torch.device("cpu"))
    resumed.restore(timer.state())
    assert resumed.shared_cores() == said
    timer.core_seconds[-1] = 0.04
    assert not timer.shared_cores()
    queue.unlink()  # no Linux
    with timer.step():
        seconds += 1.0
    assert not timer.shared_cores()


def test_environment_names_what_ran() -> None:
    recorded = environment(torch.device("cpu"))
    assert recorded["device"] == "cpu" and recorded["version_torch"] == torch.__version__
    assert recorded["dropout_backend"] and recorded["cpu"]


@pytest.mark.parametrize(("said", "version"), [("550.54.15\\n550.54.15", "550.54.15"), ("", "unknown")])
def test_the_gpu_driver_is_that_which_its_tool_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, version: str
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\nprintf '{said}'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    gpu_driver.cache_clear()
    assert gpu_driver() == version
    gpu_driver.cache_clear()


def test_a_forward_without_a_backward_leaves_nothing_behind() -> None:
    """Hooks that give back the tensor itself have each op hold its output, which holds the op: a leak."""
    scores = torch.randn(4, 4, requires_grad=True)
    with SavedForBackward(nn.Identity()) as saved:
        probabilities = torch.softmax(scores, -1)
    alive = weakref.ref(probabilities)
    assert saved.total_bytes == 64
    del probabilities
    assert alive() is None


def test_what_nobody_holds_is_gone_before_the_forward_ends() -> None:
    """rebuild.py makes dropped tensors again of what others hold: held by the ledger, it would save others."""
    x = torch.randn(4, 4, requires_grad=True)
    with SavedForBackward(nn.Identity()):
        y = x.sin()
        z = y.cos()  # saves y
        alive = weakref.ref(y)
        del y
        assert alive() is None
    assert z.requires_grad


def test_what_was_counted_is_still_refused_where_it_changed() -> None:
    x = torch.randn(3, requires_grad=True)
    with SavedForBackward(nn.Identity()):
        y = x.exp()
    z = y.sum()
    y.detach().mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.backward()


def test_a_ledger_tells_no_masks_apart_in_a_model_that_torch_compile_has_made() -> None:
    module = torch.compile(nn.Sequential(nn.Linear(100, 100), nn.Dropout(0.1)), backend="aot_eager")
    with SavedForBackward(module) as saved:
        module(X)
    assert list(saved.metrics()) == ["memory/saved_bytes"]
