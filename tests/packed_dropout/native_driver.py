"""The native calls on the CPU, and a CUDA driver of our own that they launch kernels by.

The driver is a shared library by the name of CUDA's. It hands each launch to Python, which reads the parameters
as the kernel would, at the sizes that its PTX states, and computes the result by the reference.
"""

import ctypes
import struct
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pmexp.packed_dropout import ops, reference
from pmexp.packed_dropout.native import kernels

SOURCE = """
typedef void (*Launched)(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*,
                         void**, void**);
static Launched launched;
static __thread void* context;
void on_launch(Launched function) { launched = function; }
int cuCtxGetCurrent(void** found) { *found = context; return 0; }
void set_context(void* chosen) { context = chosen; }
int cuStreamIsCapturing(void* stream, int* status) { *status = 0; return 0; }
int cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void* stream, void** parameters, void** extra) {
  if (!launched) return 1;
  launched(function, gx, gy, gz, bx, by, bz, shared, stream, parameters, extra);
  return 0;
}
"""
_LAUNCHED = ctypes.CFUNCTYPE(
    None,
    ctypes.c_void_p,
    *[ctypes.c_uint] * 7,
    ctypes.c_void_p,
    ctypes.POINTER(ctypes.c_void_p),
    ctypes.c_void_p,
)
SIZES = {name: [*passed.values(), *kernels._SCRATCH] for name, passed in kernels._PASSED.items()}


@dataclass(frozen=True)
class Launch:
    function: int
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared: int
    stream: int | None
    parameters: dict[str, int]


@dataclass
class Driver:
    """Launches kernels, which are numbers; `names` says which of triton_kernels.py each one is, and for which dtype and bits."""

    library: ctypes.CDLL
    names: dict[int, tuple[str, torch.dtype, int]] = field(default_factory=dict)
    launches: list[Launch] = field(default_factory=list)
    failed: list[BaseException] = field(default_factory=list)
    wrong: int | None = None  # a kernel that drops what is to be kept

    def add(self, function: int, x: Tensor, packed: Tensor, y: Tensor, draws: bool, bits: int) -> None:
        """Registers a kernel of 4096 elements and 128 threads a block; 0 takes one away."""
        self.names[function] = ("_dropout_kernel" if draws else "_scale_kernel", x.dtype, bits)
        torch.ops.pmexp.register_kernel(x, packed, y, draws, bits, function, 1024, 128, 4096)

    def launched(self, function: int, *rest: Any) -> None:
        try:
            self._run(function, *rest)
        except BaseException as error:  # ctypes would only print it
            self.failed.append(error)

    def _run(self, function: int, *rest: Any) -> None:
        *places, shared, stream, addresses, extra = rest
        assert not extra
        kernel, dtype, bits = self.names[function]
        values = dict(
            zip(
                [*kernels._PASSED[kernel], "scratch", "scratch2"], read(addresses, SIZES[kernel]), strict=True
            )
        )
        self.launches.append(Launch(function, (*places[:3],), (*places[3:],), shared, stream, values))
        assert values.pop("scratch") == values.pop("scratch2") == 0
        numel = values["numel"]
        scale = struct.unpack("<d", struct.pack("<q", values["scale_bits"]))[0]
        x, y = (memory(values[name], numel, dtype) for name in "xy")
        packed = memory(values["packed"], reference.packed_bytes(numel, bits), torch.uint8)
        if kernel == "_dropout_kernel":
            assert values["columns"] == 8
            keep = reference.draw_mask(
                x.shape, torch.tensor([values["key"]]), 1 - values["threshold"] / 2**32
            )
            packed.copy_(reference.pack_bits(keep, bits))
        else:
            keep = reference.unpack_bits(packed, x.shape, bits)
        y.copy_(reference.scaled(x, ~keep if function == self.wrong else keep, scale))


def register_both(driver: Driver, numbers: Iterator[int], x: Tensor, bits: int) -> None:
    """Registers a kernel that draws, and one that applies a mask, under the next two numbers."""
    packed = torch.zeros(reference.packed_bytes(x.numel(), bits), dtype=torch.uint8)
    for draws in (True, False):
        driver.add(next(numbers), x, packed, torch.empty_like(x), draws, bits)


def read(addresses: Any, sizes: list[int]) -> list[int]:
    """The numbers of `sizes` bytes each, little-endian and signed, that lie at the addresses."""
    return [
        int.from_bytes(ctypes.string_at(addresses[i], size), "little", signed=True)
        for i, size in enumerate(sizes)
    ]


def memory(address: int, numel: int, dtype: torch.dtype) -> Tensor:
    return torch.frombuffer((ctypes.c_char * (numel * dtype.itemsize)).from_address(address), dtype=dtype)


def hand_over_the_core() -> None:
    """Has native calls run the core's kernels on the CPU, whoever calls there by the environment."""
    if (core := ops.cpu_core()) is not None:
        torch.ops.pmexp.use_core(*core.entry_points())


def load_driver(folder: Path) -> tuple[Driver, Callable[..., None]]:
    """The driver, under the name by which the native calls look for it, and what must live as long as it."""
    source, target = folder / "driver.c", folder / "libcuda.so.1"
    source.write_text(SOURCE)
    subprocess.run(
        ["g++", "-x", "c", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", source, "-o", target], check=True
    )
    driver = Driver(ctypes.CDLL(str(target), mode=ctypes.RTLD_GLOBAL))
    driver.library.set_context.argtypes = [ctypes.c_void_p]
    callback = _LAUNCHED(driver.launched)
    driver.library.on_launch(callback)
    return driver, callback
