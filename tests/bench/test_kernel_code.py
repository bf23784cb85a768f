"""What the kernels of dropout compile to for a GPU that need not be there."""

import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Triton is made for Linux alone")


@pytest.mark.parametrize(
    ("case", "instructions"), [("forward bf16", 20), ("forward bf16, rng=torch", 22), ("backward bf16", 9)]
)
def test_an_element_takes_no_more_instructions_than_promised(
    case: str, instructions: float, shared_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pmexp.bench.kernel_code import code_of

    monkeypatch.setenv("TRITON_CACHE_DIR", str(shared_tmp / "triton"))
    code = code_of(case, 90)
    assert code.instructions < instructions
    assert code.alu < code.instructions
    assert code.widest == {"LDG": 128, "STG": 128}
    assert (code.spills, code.barriers) == (0, 1)
    assert code.registers <= 48  # ten programs of 128 threads on a multiprocessor of 65536 registers


def test_the_slower_unit_bounds_the_speed() -> None:
    """By hand: 8 instructions an element are 2 clocks, of which 6 in the ALU are 3."""
    from pmexp.bench.kernel_code import Code, Gpu

    device = Gpu("one multiprocessor at 1 GHz", 90, 1, 1e9, 1e9)
    one = Code(32, 0, 0, ["FMUL", "IMAD.WIDE.U32", *["LOP3.LUT"] * 6], 1)
    other = Code(32, 0, 0, [*["FMUL"] * 6, *["LOP3.LUT"] * 2], 1)
    assert one.elements_a_second(device) == pytest.approx(32e9 / 3)
    assert other.elements_a_second(device) == pytest.approx(32e9 / 2)
