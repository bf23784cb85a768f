"""What ncu prints, in both layouts, is read and judged; what it cannot be is one line."""

import csv
import io
import json
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pmexp.bench import dram
from pmexp.bench.ncu import METRICS, READ, WRITTEN, Traffic, traffic
from pmexp.errors import UserError

UNITS = {"byte": 1, "Kbyte": 10**3, "Mbyte": 10**6, "Gbyte": 10**9}
TORCH = (
    "void at::native::<unnamed>::fused_dropout_kernel_vec<float, float, unsigned int, (int)1, bool>(int, T3)"
)
FRONT = [
    "ID",
    "Process ID",
    "Process Name",
    "Host Name",
    "Kernel Name",
    "Context",
    "Stream",
    "Block Size",
    "Grid Size",
]
BEFORE = '==PROF== Connected to process 7 (/usr/bin/python3.11)\n==PROF== Profiling "_scale_kernel": 0%..100% - 1 pass\n'
Launch = tuple[str, int, int]  # kernel, bytes read and written


def printed(number: int, unit: str) -> str:
    """The number of bytes as ncu writes it, with a comma at each thousand."""
    exact = f"{number // UNITS[unit]:,}"
    rest = f"{number % UNITS[unit]:0{len(str(UNITS[unit])) - 1}d}" if UNITS[unit] > 1 else ""
    return exact + (f".{rest}" if rest else "")


def table(launches: list[Launch], unit: str, wide: bool) -> str:
    front = [
        [str(number), "7", "python3.11", "127.0.0.1", kernel, "1", "7", "(128, 1, 1)", "(64, 1, 1)"]
        for number, (kernel, *_) in enumerate(launches)
    ]
    if wide:
        rows = [[*FRONT, "gpu__time_duration.sum", *METRICS], [""] * len(FRONT) + ["us", unit, unit]]
        rows += [
            [*start, "3.1", *(printed(n, unit) for n in numbers)]
            for start, (_, *numbers) in zip(front, launches, strict=True)
        ]
    else:
        rows = [[*FRONT, "Section Name", "Metric Name", "Metric Unit", "Metric Value"]]
        for start, (_, *numbers) in zip(front, launches, strict=True):
            counted = zip(METRICS, numbers, strict=True)
            rows += [[*start, "Command line profiler metrics", m, unit, printed(n, unit)] for m, n in counted]
            rows += [[*start, "Command line profiler metrics", "gpu__time_duration.sum", "us", "3.10"]]
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
    return BEFORE + "epoch 1, loss 0.3\n" + text.getvalue() + "==PROF== Disconnected from process 7\n"


kernels = st.sampled_from(["_dropout_kernel", "_scale_kernel", TORCH, 'a "quoted", name'])
numbers = st.integers(0, 10**13)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(kernels, numbers, numbers), min_size=1, max_size=9),
    st.sampled_from([*UNITS]),
    st.booleans(),
)
def test_both_layouts_give_the_bytes_of_each_kernel(
    tmp_path: Path, launches: list[Launch], unit: str, wide: bool
) -> None:
    file = tmp_path / "dram.csv"
    file.write_text(table(launches, unit, wide))
    by_name = {one.kernel: one for one in traffic(file)}
    assert [*by_name.values()] == sorted(
        by_name.values(), key=lambda one: (-one.read - one.written, one.kernel)
    )
    assert set(by_name) == {kernel for kernel, *_ in launches}
    for kernel, one in by_name.items():
        of_it = [launch[1:] for launch in launches if launch[0] == kernel]
        assert one.launches == len(of_it)
        assert one.read == pytest.approx(sum(read for read, _ in of_it), rel=1e-12)
        assert one.written == pytest.approx(sum(written for _, written in of_it), rel=1e-12)


GOOD = table(
    [("_dropout_kernel", 4_000_000, 4_125_000), ("_scale_kernel", 5_125_000, 4_000_000)], "byte", False
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no table of ncu"),
        (
            "==ERROR== ERR_NVGPUCTRPERM - The user does not have permission\n",
            "ncu says '==ERROR== ERR_NVGPUCTRPERM",
        ),
        (GOOD.replace('"byte"', '"sector"'), "the unit 'sector' is none of bytes"),
        (GOOD.replace("4,000,000", "n/a", 1), "'n/a' byte is no number of bytes"),
        (GOOD.replace("4,000,000", "4.000.000", 1), "'4.000.000' byte is no number of bytes"),
        (GOOD.replace("4,000,000", "4.000", 1), "'4.000' byte is no number of bytes"),
        (GOOD.replace("4,000,000", "-4", 1), "'-4' byte is no number of bytes"),
        (GOOD.replace("4,000,000", "nan", 1), "'nan' byte is no number of bytes"),
        (GOOD[: GOOD.index("4,125,000")], "0 cells under 13 columns"),
        (GOOD[: GOOD.index("4,125,000") + 5], "0 cells under 13 columns"),
        (GOOD[: GOOD.index('"4,125,000"') - 1], "12 cells under 13 columns"),
        (GOOD.replace(WRITTEN, "dram__sectors_write.sum", 1), f"this launch has no {WRITTEN}"),
        (GOOD + GOOD, f"{READ} of this launch stands there twice"),
        (
            GOOD.replace('"1","7","python3.11"', '"0","7","python3.11"'),
            f"{READ} of this launch stands there twice",
        ),
        (table([("k", 1, 2)], "byte", True).replace(READ, "x"), f"has no {READ} and {WRITTEN}"),
        (GOOD.replace("dram__", "lts__"), f"has no launch with {READ}"),
        (table([], "byte", True), f"has no launch with {READ}"),
    ],
)
def test_a_table_that_cannot_be_read_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "dram.csv"
    file.write_text(text)
    with pytest.raises(UserError) as error:
        traffic(file)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_bytes_of_dropout_are_judged_by_what_it_must_move() -> None:
    counted = [
        Traffic("_dropout_kernel", 1, 2_000.0, 2_000.0),
        Traffic("_native_dropout_kernel", 2, 2_000.0, 2_125.0),
        Traffic("_scale_kernel", 3, 5_000.0, 4_000.0),  # as with a byte a mask value
        Traffic(TORCH, 1, 4_000.0, 1_000.0),
        Traffic("_pack_kernel", 1, 9e9, 9e9),  # is no part of a step
    ]
    forward, backward, torchs = dram.judged(counted, elements=1_000, itemsize=4, bits=1)
    assert (forward.kind, forward.launches, forward.ratio, forward.word) == (
        "packed forward",
        3,
        1.0,
        dram.MUST,
    )
    assert (backward.ratio, backward.word) == (9_000 / 8_125, dram.MORE)
    assert (torchs.kind, torchs.ratio, torchs.word) == ("torch forward", 5_000 / 9_000, dram.LESS)
    assert dram.judged(counted, elements=1_000, itemsize=4, bits=4)[0].must == 8_500


def test_the_command_prints_and_records_and_fails_where_a_kernel_moved_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "dram.csv", tmp_path / "dram.json"
    file.write_text(GOOD)
    assert dram.main([f"csv={file}", "elements=1000000", "steps=1", f"out={out}"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert (
        lines[2] == "packed forward: 8.125e+06 B moved, 8.125e+06 B needed, ratio 1.000, pass: what it must"
    )
    assert lines[3].endswith("ratio 1.123, fail: more than it must")
    verdicts = json.loads(out.read_text())["verdicts"]
    assert [verdict["verdict"] for verdict in verdicts] == ["pass", "more"]
    file.write_text(re.sub("5,125,000", "4,125,000", GOOD))
    assert dram.main([f"csv={file}", "elements=250000"]) == 0
    for wrong in (
        ["elements=1"],
        [f"csv={file}"],
        [f"csv={file}", "elements=x"],
        [f"csv={tmp_path}", "elements=1"],
    ):
        assert dram.main(wrong) == 2
        assert capsys.readouterr().err.count("\n") == 1
    file.write_text(GOOD.replace("_dropout_kernel", "gemm").replace("_scale_kernel", "gemm"))
    assert dram.main([f"csv={file}", "elements=1"]) == 2
    assert "has no kernel of dropout, but 'gemm'" in capsys.readouterr().err
