"""Reads the machine code of the Triton kernels, compiled for GPUs that need not be there.

    python -m pmexp.bench.kernel_code out=docs/results/kernels.md

What is counted is the path of a program that lies inside its tensor: every instruction up to the first exit.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile, make_backend
from triton.runtime.jit import JITFunction, create_function_from_signature

from pmexp.command_line import Command, Key
from pmexp.packed_dropout import triton_kernels as kernels

_TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
_INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]+\*/\s+(@!?U?P\w+\s+)?([A-Z][\w.]*)", re.MULTILINE)
_ALU = re.compile(r"(LOP3|PLOP3|ISETP|SEL|FSEL|IADD3|VIADD|SHF|PRMT|LEA|F2FP|P2R|R2P)\b")
_ELEMENTS = 2**20  # a multiple of 16, as Triton compiles for
_MEASURED = Path(__file__).parents[3] / "docs" / "results" / "gpu.json"  # is there in a source tree alone


@dataclass(frozen=True)
class Gpu:
    """A GPU whose speed is predicted."""

    name: str
    architecture: int  # compute capability, as in sm_80
    multiprocessors: int
    clock: float  # Hz
    bandwidth: float  # bytes a second of a device copy, read and written


DEVICES = (
    Gpu("A100 40 GB", 80, 108, 1.41e9, 1.55e12),
    Gpu("A100 80 GB", 80, 108, 1.41e9, 2.0e12),
    Gpu("H100 SXM", 90, 132, 1.75e9, 3.0e12),
    Gpu("H200", 90, 132, 1.75e9, 4.3e12),
)


@dataclass(frozen=True)
class Code:
    """The machine code of a compiled kernel and what it takes. `path` holds the names of the instructions of
    a whole program's path."""

    registers: int
    spills: int  # instructions that load or store spilled registers
    shared: int  # bytes
    path: list[str]
    elements: int  # an execution of the path, in one thread

    @property
    def instructions(self) -> float:
        """Instructions an element, in one thread."""
        return len(self.path) / self.elements

    @property
    def alu(self) -> float:
        """Instructions an element that need the unit for logic, comparison, selection and conversion."""
        return sum(bool(_ALU.match(name)) for name in self.path) / self.elements

    @property
    def barriers(self) -> int:
        return sum(name.startswith("BAR.") for name in self.path)

    @property
    def widest(self) -> dict[str, int]:
        """Bits of the widest global load (LDG) and store (STG)."""
        return {
            access: max(_bits(name) for name in self.path if name.startswith(access))
            for access in ("LDG", "STG")
        }

    def elements_a_second(self, device: Gpu) -> float:
        """The speed that the units allow: 4 instructions a clock, 2 in the ALU, for 32 threads each."""
        clocks = max(self.instructions / 4, self.alu / 2)
        return 32 * device.multiprocessors * device.clock / clocks


@contextmanager
def compiling(architecture: int) -> Iterator[dict[str, Any]]:
    """Has launches inside it compile and not run. Yields what they compiled by kernel and types, as it comes.

    Arguments go through Triton's own binder, which finds their types and what to specialise for.
    """
    compiled: dict[str, Any] = {}
    target = GPUTarget("cuda", architecture, 32)
    backend = make_backend(target)

    def run(kernel: Any, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> None:
        bind = create_function_from_signature(kernel.signature, kernel.params, backend)
        chosen, *specialised = kernel._pack_args(backend, options, *bind(*arguments, **options))
        variant = f"{kernel.fn.__name__} {specialised}"
        if variant not in compiled:
            source = ASTSource(kernel, *specialised)
            compiled[variant] = compile(source, target=target, options=chosen.__dict__)

    original = JITFunction.run
    JITFunction.run = run
    try:
        yield compiled
    finally:
        JITFunction.run = original


def read(compiled: Any) -> Code:
    """Returns the code of one compiled kernel of Triton."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        listing, usage = (
            _output(*tool, file.name) for tool in (["nvdisasm", "-c"], ["cuobjdump", "-res-usage"])
        )
    (registers,) = map(int, re.findall(r"REG:(\d+)", usage))
    instructions = [(bool(guard), name) for guard, name in _INSTRUCTION.findall(listing)]
    end = instructions.index((False, "EXIT")) + 1
    names = [name for _, name in instructions]
    return Code(
        registers=registers,
        spills=sum(name.startswith(("LDL", "STL")) for name in names),
        shared=compiled.metadata.shared,
        path=names[:end],
        elements=kernels._BLOCKS // compiled.metadata.num_warps,
    )


def cases() -> dict[str, tuple[int, Callable[[], Any]]]:
    """Returns the bytes of an element and a function that launches the kernel, by kernel and dtype."""
    seed, state = torch.tensor([5]), torch.tensor([5, 8])
    packed = torch.zeros(_ELEMENTS // 8, dtype=torch.uint8)
    launches: dict[str, tuple[int, Callable[[], Any]]] = {}
    for name, dtype, vector in (("bf16", torch.bfloat16, 8), ("fp32", torch.float32, 4)):
        x = torch.zeros(_ELEMENTS, dtype=dtype)
        drawn = partial(kernels.native_dropout, x, state, 0.1, 1, 2**18, vector)
        launches[f"forward {name}"] = x.itemsize, partial(kernels.packed_dropout, x, seed, 0.1, 1)
        launches[f"forward {name}, rng=torch"] = x.itemsize, drawn
        launches[f"backward {name}"] = x.itemsize, partial(kernels.apply_packed_mask, x, packed, 0.1, 1)
    return launches


def code_of(case: str, architecture: int) -> Code:
    """Returns the code of one of cases(), compiled for sm_`architecture`."""
    with compiling(architecture) as compiled:
        cases()[case][1]()
    (kernel,) = compiled.values()
    return read(kernel)


def page() -> str:
    """Returns docs/results/kernels.md: what the kernels take, and the speeds that follow."""
    by_architecture = {a: {case: code_of(case, a) for case in cases()} for a in (80, 90)}
    rows = [
        f"| {name} | sm_{architecture} | {code.registers} | {code.spills} | {code.shared} | {code.barriers} "
        f"| {code.instructions:.1f} | {code.alu:.1f} | {code.widest['LDG'] // 8}, {code.widest['STG'] // 8} |"
        for architecture, codes in by_architecture.items()
        for name, code in codes.items()
    ]
    speeds = [
        _prediction(
            device, name, 2 * itemsize + 1 / 8, 2 * itemsize + 1, by_architecture[device.architecture][name]
        )
        for device in DEVICES
        for name, (itemsize, _) in cases().items()
    ]
    written = _PAGE.format(triton=triton.__version__, rows="\n".join(rows), speeds="\n".join(speeds))
    return written + (_measured(json.loads(_MEASURED.read_text())) if _MEASURED.is_file() else "")


def _measured(record: dict[str, Any]) -> str:
    """Returns the section with what `make gpu` measured of the same kernels, beside torch's."""
    (stage,) = [stage for stage in record["stages"] if stage["name"] == "bandwidth"]
    rows_of = {(row["kernel"], row["dtype"]): row for row in stage["tables"].get("kernels", [])}
    rows = []
    for (kernel, dtype), row in rows_of.items():
        if kernel.startswith("packed"):
            torchs = rows_of[f"torch {'backward' if 'backward' in kernel else 'forward'}", dtype]
            speed = row["elements"] / row["us"] / 1e3
            figures = f"{row['us']:.1f} | {speed:.0f} | {row['GB_per_s']:.0f} | {row['share_of_copy']:.1%}"
            rows.append(f"| {kernel} {dtype} | {figures} | {torchs['us'] / row['us']:.2f} |")
    lines = "\n".join(rows)
    return _MEASURED_SECTION.format(
        device=record["environment"]["device"], command=record["command"], rows=lines
    )


def _prediction(device: Gpu, name: str, own: float, stock: float, code: Code) -> str:
    allowed, memory = code.elements_a_second(device), device.bandwidth / own
    bound = "instructions" if allowed < memory else "memory"
    speed = min(allowed, memory)
    figures = f"{allowed / 1e9:.0f} | {memory / 1e9:.0f} | {speed * own / 1e9:.0f}"
    return f"| {device.name} | {name} | {figures} | {bound} | {speed * stock / device.bandwidth:.2f} |"


def _bits(access: str) -> int:
    """Returns the bits that an access moves: 128 for LDG.E.128, 8 for STG.E.U8 and 32 for STG.E."""
    widths = re.findall(r"\.[US]?(\d+)\b", access)
    return int(widths[0]) if widths else 32


def _output(tool: str, *arguments: str) -> str:
    return subprocess.run([_TOOLS / tool, *arguments], check=True, capture_output=True, text=True).stdout


_PAGE = """\
# What the kernels are made of, and how fast that is

Written by `python -m pmexp.bench.kernel_code`; `tests/bench/test_kernel_code.py` holds the numbers.

## Machine code

Compiled by Triton {triton}. Counted is what a thread of a program inside the tensor executes, over its
elements; instructions are an element's. *ALU*: those for the unit of logic, comparison, selection and
conversion. Width: bytes of a thread's widest global load and store.

| kernel | for | registers | spills | shared bytes | barriers | instructions | of them ALU | width |
|---|---|---|---|---|---|---|---|---|
{rows}

Philox takes 9 of the forward's instructions an element, its floor at a 32-bit word an element: a call of ten
rounds gives four words, and 18 products and 19 three-way XORs of it depend on the lane. Comparing and packing
take 2.5 more, testing, selecting and multiplying 3, widening and rounding bfloat16 1.5.

## Predicted speed

Computed from the table and not measured. A multiprocessor issues 4 instructions a clock, 2 of them to the
ALU, for 32 threads each; A100 at 1.41 GHz, H100 and H200 at 1.75 GHz. Bandwidth is a device copy's: 1.55,
2.0, 3.0 and 4.3 TB/s; of the A100 it is the data sheet's. The slower of the two decides. Not in it: how well
both overlap, launches, tails, caches, and the rate of 64-bit products, which no manual gives: at half that of
other products they would take the forward about as many clocks as the ALU. The last column is the speed over
that of `torch.native_dropout` where memory alone bounds it, at a byte a mask value.

| device | kernel | 10⁹ elements/s by units | by memory | GB/s | bound by | to native_dropout |
|---|---|---|---|---|---|---|
{speeds}
"""

_MEASURED_SECTION = """
## Measured

On {device}, 2^26 elements, by `{command}` (`docs/results/gpu.md`).

| kernel | us | 10⁹ elements/s | GB/s | share of a copy | to torch's kernel |
|---|---|---|---|---|---|
{rows}
"""

COMMAND = Command(
    "pmexp.bench.kernel_code",
    "reads the machine code of the Triton kernels",
    (Key("out", "the file that the page is written to; without it the page is printed"),),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 done, 2 bad input, 130 interrupted."""
    return COMMAND.run(arguments, lambda given: given.write_page("out", page))


if __name__ == "__main__":
    sys.exit(main())
