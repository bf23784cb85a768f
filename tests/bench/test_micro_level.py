"""Runs level=micro: pairs of times, contenders in turns, each checked before any figure, and the files."""

import csv
import json
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._dynamo.utils import counters

from named_contenders import P, known
from pmexp.bench.bandwidth import bandwidth, copy_seconds
from pmexp.bench.checks import check
from pmexp.bench.command import main
from pmexp.bench.contenders import (
    BASELINE,
    COMPILED,
    NO_CACHE,
    PHASES,
    SECOND_BACKWARD,
    Contender,
    contenders,
)
from pmexp.bench.figure import figure
from pmexp.bench.micro import rows_of, tensors
from pmexp.bench.pairs import alternate, paired_ratio
from pmexp.bench.timing import Effort, Timing, effort, seconds_a_call

CPU = torch.device("cpu")
COLUMNS = ["contender", "device", "dtype", "shape", "numel", "phase", "ms", "ratio", "low", "high"]


# ---- pairs


def test_a_ratio_is_that_of_its_pairs_whatever_slows_both_down() -> None:
    paired = paired_ratio([2.0, 20.0, 200.0, 3.0], [1.0, 10.0, 100.0, 1.5])
    assert (paired.ratio, paired.low, paired.high) == (2.0, 2.0, 2.0)


@pytest.mark.parametrize(
    ("pairs", "low", "high"), [(1, 1, 1), (5, 1, 5), (6, 1, 6), (9, 2, 8), (20, 6, 15), (100, 40, 61)]
)
def test_the_interval_is_that_of_the_tables(pairs: int, low: int, high: int) -> None:
    """Ranks of the 95 % interval of a median, as in tables of the sign test."""
    ratios = [float(ratio) for ratio in range(pairs, 0, -1)]
    paired = paired_ratio(ratios, [1.0] * pairs)
    assert (paired.low, paired.high) == (low, high)
    assert paired.ratio == (pairs + 1) / 2


@pytest.mark.parametrize("times", [([], []), ([1.0], [1.0, 2.0])])
def test_times_that_do_not_pair_up_are_refused(times: tuple[list[float], list[float]]) -> None:
    with pytest.raises(ValueError, match="are no pairs"):
        paired_ratio(*times)


def test_who_goes_first_changes_with_every_pair() -> None:
    calls: list[str] = []

    def call(name: str) -> float:
        calls.append(name)
        return float(len(calls))

    seconds = alternate(partial(call, "a"), partial(call, "b"), 4)
    assert "".join(calls) == "abbaabba"
    assert seconds == ([1.0, 4.0, 5.0, 8.0], [2.0, 3.0, 6.0, 7.0])


# ---- micro


EAGER = [contender.name for contender in contenders(P) if contender.name != COMPILED]


@pytest.mark.parametrize("name", EAGER)
@settings(max_examples=25)
@given(
    shape=st.lists(st.integers(1, 40), min_size=1, max_size=3),
    dtype=st.sampled_from(["fp32", "bf16", "fp16", "fp64"]),
    p=st.floats(0.01, 0.99),
)
def test_every_contender_passes_its_check(name: str, shape: list[int], dtype: str, p: float) -> None:
    check(known(name, p), *tensors(tuple(shape), dtype, CPU), p)


def test_compiled_stock_dropout_passes_its_check_and_is_compiled_once_for_many_sizes() -> None:
    counters["stats"].clear()
    for size in (3, 40, 1000):
        check(known(COMPILED), *tensors((size,), "fp32", CPU), P)
    assert counters["stats"]["unique_graphs"] == 1
    assert SECOND_BACKWARD not in known(COMPILED).phases  # torch refuses it


def test_without_a_compiler_a_line_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    chosen = ["sizes=40x7", "dtypes=fp32", f"contenders={COMPILED}", "p=0.23"]
    # Pytest's monkeypatch cannot take back what it sets there: the second is another name of torch.compiler's.
    with torch._inductor.config.patch({"cpp.cxx": (None, "/none"), "force_disable_caches": True}):
        assert main(["level=micro", *chosen]) == 2
    assert re.fullmatch(
        r"error: contenders: compiled cannot be had, .*compiler.*; install a .*, or name other contenders\n",
        capsys.readouterr().err,
    )


class _OtherMaskBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        keep = torch.rand_like(x) > P
        ctx.save_for_backward(keep)
        return x * keep * (1 / (1 - P))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (keep,) = ctx.saved_tensors
        return grad * keep.flip(0) * (1 / (1 - P))


WRONG = {
    "drops nothing": (lambda x: x * 1.0, "keeps 2000 elements at p=0.1"),
    "drops too much": (partial(torch.dropout, p=0.2, train=True), "elements at p=0.1"),
    "does not scale": (lambda x: torch.native_dropout(x, P, True)[0] * (1 - P), "kept elements are not x / (1 - p)"),
    "scales by 1e-6 too much": (lambda x: torch.native_dropout(x, P, True)[0] * (1 + 1e-6), "kept elements are not x / (1 - p)"),
    "another mask in backward": (_OtherMaskBackward.apply, "the gradient is not that of its own mask"),
    "saves more": (known(BASELINE).drop, "saved 8000 bytes for backward, 2000 were promised"),
    "promises more": (known("pm-drop-1bit").drop, "saved 250 bytes for backward, 2000 were promised"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_contender_ends_the_benchmark_without_a_figure(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drop, message = WRONG[name]
    field = [known(BASELINE), Contender("wrong", drop, Tensor.numel)]
    code = main(["level=micro", "sizes=2000", "dtypes=fp32", f"out={tmp_path}"], field)
    out, err = capsys.readouterr()
    assert code == 1
    assert err.startswith("error: wrong fails its check at 2000 torch.float32: ") and message in err
    assert err.count("\n") == 1 and out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_micro_from_the_command_to_the_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "deep" / "folder"
    slow = ("reference", COMPILED)
    field = [contender for contender in contenders(0.25) if contender.name not in slow]
    names = ",".join(contender.name for contender in field)
    arguments = ["level=micro", "sizes=50,3x5x7", "dtypes=fp16", f"contenders={names}"]
    arguments += ["quick=true", "p=0.25", f"out={out}"]
    assert main(arguments) == 0
    with (out / "micro.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == COLUMNS
    expected = {
        (contender.name, dtype, shape, phase)
        for contender in field
        for dtype in ("fp16",)
        for shape in ("50", "3x5x7")
        for phase in contender.phases
    }
    assert len(rows) == len(expected)
    assert {(row["contender"], row["dtype"], row["shape"], row["phase"]) for row in rows} == expected
    for row in rows:
        assert row["device"] == "cpu" and int(row["numel"]) == {"50": 50, "3x5x7": 105}[row["shape"]]
        assert float(row["ms"]) > 0 and float(row["low"]) <= float(row["ratio"]) <= float(row["high"])
        if row["contender"] == BASELINE:
            assert (row["ratio"], row["low"], row["high"]) == ("1.0", "1.0", "1.0")
    assert (out / "micro.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "micro.pdf").read_bytes().startswith(b"%PDF")
    record = json.loads((out / "environment.json").read_text())
    assert record["command"] == "python -m pmexp.bench " + " ".join(arguments) and record["p"] == 0.25
    assert {"cpu", "threads", "version_torch", "dropout_backend"} <= set(record)
    printed = capsys.readouterr().out
    assert "3x5x7 fp16 on cpu" in printed and str(out / "micro.csv") in printed
    assert not (out / "bandwidth.csv").exists()  # it is for CUDA


def test_rows_say_how_many_times_as_fast_as_the_baseline() -> None:
    x, _ = tensors((2, 3), "bf16", CPU)
    times = {BASELINE: {"both": [0.2, 0.4, 0.6]}, "other": {"both": [0.1, 0.2, 0.3]}}
    assert rows_of(times, "bf16", x) == [
        Timing(BASELINE, "cpu", "bf16", "2x3", 6, "both", pytest.approx(400), 1.0, 1.0, 1.0),
        Timing("other", "cpu", "bf16", "2x3", 6, "both", pytest.approx(200), 2.0, 2.0, 2.0),
    ]


def test_contenders_take_turns_in_an_order_reversed_at_every_round() -> None:
    calls: list[str] = []

    def recorded(contender: Contender) -> Contender:
        def drop(x: Tensor) -> Tensor:
            calls.append(contender.name)
            return contender.drop(x)

        return replace(contender, drop=drop)

    field = [recorded(known(name)) for name in (BASELINE, "byte-mask")]
    assert main(["level=micro", "sizes=100", "dtypes=fp32", "quick=true"], field) == 0
    amount = effort(100, CPU, quick=True)
    a_turn = 1 + amount.timings * (2 * amount.repeats + 1)  # untimed, forward and both, second backward
    checks, turns = calls[:2], [calls[2:][i : i + a_turn] for i in range(0, len(calls) - 2, a_turn)]
    assert checks == [BASELINE, "byte-mask"]
    a, b = ([name] * a_turn for name in checks)
    assert turns == [a, b, b, a] * (amount.rounds // 2)


def test_chosen_contenders_run_beside_the_baseline(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["level=micro", "sizes=9", "dtypes=fp64", "contenders=pm-drop-2bit", "quick=true"]) == 0
    assert capsys.readouterr().out.startswith("checked: nn.Dropout, pm-drop-2bit\n")


def test_what_is_left_out_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    slow = Contender("slow", known("pm-drop-1bit").drop, known("pm-drop-1bit").saved_bytes, largest=20)
    assert main(["level=micro", "sizes=20,21", "dtypes=fp32", "quick=true"], [known(BASELINE), slow]) == 0
    small, large = capsys.readouterr().out.split("\n21 fp32")
    assert "\nslow " in small and "left out" not in small
    assert "\nslow " not in large.replace("slow is", "") and "slow is left out above 20 elements" in large


def test_contenders_without_cache_differ_in_the_second_backward_alone() -> None:
    for contender in map(known, EAGER):
        assert contender.phases == ((SECOND_BACKWARD,) if contender.name.endswith(NO_CACHE) else PHASES)


def test_larger_tensors_get_fewer_rounds_and_quick_fewer_still() -> None:
    sizes = [10**3, 10**5, 10**6, 10**7, 10**8]
    full = [effort(numel, CPU, quick=False) for numel in sizes]
    assert [e.rounds for e in full] == sorted((e.rounds for e in full), reverse=True)
    assert full[0].repeats == 10 and full[-1] == Effort(6, 1, 1)
    assert [effort(numel, CPU, quick=True).rounds for numel in sizes] == [10, 10, 6, 6, 6]


def test_a_timing_on_cuda_lies_between_two_events_behind_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of the calls, on a device that cannot be had here."""
    log: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            log.append("record")

        def synchronize(self) -> None:
            log.append("end")

        def elapsed_time(self, last: "Event") -> float:
            return 6.0  # milliseconds

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: log.append("begin"))
    monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: log.append("wait"))
    seconds = seconds_a_call(lambda: log.append("call"), 3, torch.device("cuda"))
    assert log == ["begin", "wait", "record", "call", "call", "call", "record", "end"]
    assert seconds == pytest.approx(0.002)
    assert effort(10**6, torch.device("cuda"), quick=False) == Effort(20, 1, 20)


def test_bandwidth_by_hand() -> None:
    x, _ = tensors((1000,), "fp32", CPU)
    rows = [Timing(name, "cpu", "fp32", "1000", 1000, phase, 0.001, 1.0, 1.0, 1.0) for name in ("byte-mask", "pm-drop-2bit") for phase in PHASES]  # fmt: skip
    measured = bandwidth(rows, contenders(P), x, seconds_of_copy=0.5e-6)
    byte, packed = (
        {row.phase: row for row in measured if row.contender == n} for n in ("byte-mask", "pm-drop-2bit")
    )
    assert {phase: row.bytes_per_element for phase, row in byte.items()} == {
        "forward": 9,
        "backward": 9,
        "both": 18,
    }
    assert packed["forward"].bytes_per_element == 8.25 and packed["both"].bytes_per_element == 16.5
    assert byte["forward"].gb_per_s == pytest.approx(9.0)  # 9 kB in 1 us
    assert byte["forward"].copy_share == pytest.approx(9 / 16)  # the copy: 8 kB in 0.5 us
    assert copy_seconds(x, Effort(2, 1, 3)) > 0


def test_the_figure_shows_the_rows() -> None:
    rows = [
        Timing(name, "cpu", dtype, shape, numel, phase, 1.0, ratio, ratio / 2, ratio * 2)
        for name, ratio in ((BASELINE, 1.0), ("byte-mask", 0.5), ("pm-drop-1bit", 4.0))
        for dtype in ("fp32", "bf16")
        for shape, numel in (("1000", 1000), ("2x3", 6))
        for phase in PHASES
        if (name, phase) != ("byte-mask", SECOND_BACKWARD)
    ]
    drawn = figure(rows)
    assert [panel.get_title() for panel in drawn.axes] == [f"{phase}, {dtype}" for dtype in ("fp32", "bf16") for phase in PHASES]  # fmt: skip
    panel = drawn.axes[0]
    assert panel.get_yscale() == "log"
    assert [label.get_text() for label in drawn.axes[-1].get_xticklabels()] == ["2x3", "1000"]
    lines = [container.lines[0].get_ydata().tolist() for container in panel.containers]
    assert lines == [[0.5, 0.5], [4.0, 4.0]]
    assert [text.get_text() for text in drawn.legends[0].get_texts()] == [
        BASELINE,
        "byte-mask",
        "pm-drop-1bit",
    ]
