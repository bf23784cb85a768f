"""Which launches go past Triton's Python, against Triton's own rule of what a kernel is specialised for. No GPU
here: the compiled kernel is stood in for."""

import itertools
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import CompiledKernel, make_backend
from triton.runtime.jit import create_function_from_signature

from pmexp.packed_dropout import triton_kernels, triton_launch

NUMELS = [0, 1, 2, 8, 16, 17, 24, 48, 2048, 4096]
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
CPU = -1  # what get_device() says of the CPU


@pytest.fixture(autouse=True)
def known_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels are known by ids, which a stand-in of one test may have after that of another."""
    monkeypatch.setattr(triton_launch, "_places", {})
    monkeypatch.setattr(triton_launch, "_compiled", {})


def launches() -> list[tuple[Any, tuple[Any, ...]]]:
    """Kernel and arguments of launches of all kernels, alike and not."""
    launched: list[tuple[Any, tuple[Any, ...]]] = []

    def launch(kernel: Any, programs: int, *arguments: Any, **options: Any) -> None:
        assert options == triton_kernels._OPTIONS
        launched.append((kernel, arguments))

    with mock.patch.object(triton_kernels, "launch", launch):
        for dtype, numel, offset, bits in itertools.product(DTYPES, NUMELS, (0, 1), (1, 2)):
            x = torch.ones(numel + offset, dtype=dtype)[offset:]
            packed = torch.zeros(2 * numel + 1, dtype=torch.uint8)[offset : offset + (numel * bits + 7) // 8]
            for seed, p in ((5, 0.1), (2**40, 0.5), (-16, 0.25)):
                seed_tensor = torch.tensor([seed])
                triton_kernels.packed_dropout(x, seed_tensor, p, bits)
                triton_kernels.seeded_dropout(x, seed_tensor, p)
                triton_kernels.native_dropout(x, torch.tensor([seed, 4 * seed % 64]), p, bits, 256, 2)
                triton_kernels.apply_packed_mask(x, packed, p, bits)
            with mock.patch.object(triton_kernels, "_address_and_key", lambda seed: (seed, 0)):
                triton_kernels.packed_dropout(x, seed_tensor, p, bits)
            for columns in (1, 8, 16):
                if numel % columns == 0 and numel:
                    table = x.view(-1, columns)
                    triton_kernels.bias_dropout_add(table, table[0], table, seed_tensor, p, bits)
            triton_kernels.pack_bits(x > 0, bits)
            triton_kernels.unpack_bits(packed, (numel,), bits)
    return launched


def test_one_kind_is_one_specialisation() -> None:
    """Otherwise a kernel compiled for vectors would be launched where they do not fit."""
    backend = make_backend(GPUTarget("cuda", 90, 32))
    specialisation_of: dict[Any, str] = {}
    calls = launches()
    for kernel, arguments in calls:
        kind, values = triton_launch.kind_and_values(CPU, kernel, arguments)
        bind = create_function_from_signature(kernel.signature, kernel.params, backend)
        bound, specialisation, _ = bind(*arguments, **triton_kernels._OPTIONS)
        if kind is None:
            assert {0, 1} & {argument for argument in arguments if type(argument) is int}
            continue
        assert specialisation_of.setdefault(kind, str(specialisation)) == str(specialisation)
        for value, argument in zip(values, bound.values(), strict=True):
            assert value == (argument.data_ptr() if isinstance(argument, Tensor) else argument)
    assert len(set(specialisation_of.values())) > 100
    assert len(specialisation_of) < len(calls) / 3  # seeds, offsets and rates make no kind


@pytest.mark.parametrize("numel", [0, 1, 2**31, 2**33])
def test_sizes_that_triton_compiles_in_or_widens_have_no_kind(numel: int) -> None:
    x = torch.ones(64)
    arguments = (x, torch.zeros(8, dtype=torch.uint8), x, numel, 0, 1, 256)
    assert triton_launch.kind_and_values(CPU, triton_kernels._scale_kernel, arguments)[0] is None
    arguments = (*arguments[:3], 2**31 - 1, *arguments[4:])
    assert triton_launch.kind_and_values(CPU, triton_kernels._scale_kernel, arguments)[0] is not None


def test_a_tensor_elsewhere_has_no_kind() -> None:
    x = torch.ones(64)
    arguments = (x, torch.zeros(8, dtype=torch.uint8), x, 64, 0, 1, 256)
    assert triton_launch.kind_and_values(0, triton_kernels._scale_kernel, arguments)[0] is None


class Compiled(CompiledKernel):
    """Triton's own launch by `kernel[grid]`, with what the device is asked stood in for."""

    run: Any = None
    src = module = None

    def __init__(self, launched: list[Any]) -> None:
        self.function, self.packed_metadata = "function", "metadata"
        self.run = lambda *arguments: launched.append(arguments)

    def _init_handles(self) -> None:
        pass

    def launch_metadata(self, grid: Any, stream: int, *values: Any) -> str:
        return "what hooks are told"


class Kernel:
    """A kernel that counts what Triton has to launch."""

    __name__ = "one of ours"

    def __init__(self) -> None:
        self.params = triton_kernels._scale_kernel.params
        self.by_triton: list[Any] = []
        self.past_it: list[Any] = []

    def __getitem__(self, grid: Any) -> Any:
        def launch(*arguments: Any, **options: Any) -> Compiled:
            self.by_triton.append((grid, arguments, options))
            return Compiled(self.past_it)

        return launch


def test_the_second_launch_of_a_kind_goes_past_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch._C, "_cuda_getCurrentRawStream", lambda device: 77 + device, raising=False)
    kernel, x, packed = Kernel(), torch.ones(64), torch.zeros(8, dtype=torch.uint8)
    misaligned = torch.ones(65)[1:]

    def launch(of: Tensor, scale: int) -> None:
        triton_launch._launch(CPU, kernel, 3, (of, packed, x, 64, scale, 1, 256), {"num_warps": 4})

    for scale in (5, 6, 7):
        launch(x, scale)
    assert kernel.by_triton == [((3,), (x, packed, x, 64, 5, 1, 256), {"num_warps": 4})]
    addresses = (x.data_ptr(), packed.data_ptr(), x.data_ptr())
    launched = (3, 1, 1, 76, "function", "metadata", None, None, None, *addresses, 64)
    assert kernel.past_it == [(*launched, scale, 1, 256) for scale in (6, 7)]
    launch(misaligned, 8)
    assert len(kernel.by_triton) == 2
    launch(misaligned, 9)
    launch(x, 10)
    assert [values[9] for values in kernel.past_it[2:]] == [misaligned.data_ptr(), x.data_ptr()]
    assert len(kernel.by_triton) == 2


def test_a_kernel_compiled_with_other_options_is_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch._C, "_cuda_getCurrentRawStream", lambda device: 76, raising=False)
    kernel, x, packed = Kernel(), torch.ones(64), torch.zeros(8, dtype=torch.uint8)
    for warps in (4, 8, 4, 8):
        triton_launch._launch(CPU, kernel, 3, (x, packed, x, 64, 5, 1, 256), {"num_warps": warps})
    assert [options["num_warps"] for _, _, options in kernel.by_triton] == [4, 8]
    assert len(kernel.past_it) == 2


@pytest.mark.parametrize("hook", ["launch_enter_hook", "launch_exit_hook"])
def test_a_profilers_hook_is_called_at_each_launch(hook: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`kernel[grid]` of this Triton calls it; without hooks a launch is the same but for them."""
    monkeypatch.setattr(torch._C, "_cuda_getCurrentRawStream", lambda device: 76, raising=False)
    kernel, x, packed = Kernel(), torch.ones(64), torch.zeros(8, dtype=torch.uint8)

    def launch() -> None:
        triton_launch._launch(CPU, kernel, 3, (x, packed, x, 64, 5, 1, 256), {"num_warps": 4})

    launch()
    launch()
    chain = getattr(knobs.runtime, hook)
    chain.add(print)
    try:
        launch()
    finally:
        chain.remove(print)
    launch()
    plain, watched, again = kernel.past_it
    told = ("what hooks are told", knobs.runtime.launch_enter_hook, knobs.runtime.launch_exit_hook)
    assert plain == again and watched == (*plain[:6], *told, *plain[9:])
