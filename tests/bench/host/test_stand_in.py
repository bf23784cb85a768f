"""The library that stands for a CUDA device, by itself, with the headers of Triton's wheel; and what is said without
a torch for CUDA, which a device's host alone needs."""

import ctypes
import os
import subprocess
import sys
import threading
from typing import Any

import pytest
import torch

from pmexp.bench.host import build

pytest.importorskip("triton")
CALLED = {"cudaMalloc", "cudaGraphLaunch", "cublasGemmEx", "__cudaRegisterFunction", "cudaFree"}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("stand-in")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.version, "cuda", "13.0")
        # By the name of CUDA's driver it would be that of all later tests of this process.
        patch.setattr(build, "LIBRARY", "libstand-in.so")
        patch.setattr(build, "_includes", lambda: [build._triton() / "include"])
        patch.setattr(build, "_called_by_torch", lambda: CALLED)
        return ctypes.CDLL(str(build.build(folder)))


def allocated(library: ctypes.CDLL, size: int) -> int:
    address = ctypes.c_void_p()
    assert library.cudaMalloc(ctypes.byref(address), ctypes.c_size_t(size)) == 0
    assert address.value is not None
    return address.value


def test_each_allocation_is_memory_of_its_own(library: ctypes.CDLL) -> None:
    one, other = allocated(library, 3 << 20), allocated(library, 1)
    assert other - one == 4 << 20
    text = b"of the host"
    for at in (one, other):
        assert library.cudaMemcpyAsync(ctypes.c_void_p(at), text, ctypes.c_size_t(len(text)), 1, None) == 0
        assert ctypes.string_at(at, len(text)) == text
    address = ctypes.c_void_p()
    too_much = ctypes.c_size_t(1 << 41)
    assert library.cudaMalloc(ctypes.byref(address), too_much) == 2  # cudaErrorMemoryAllocation


def test_launches_are_counted_and_shown(library: ctypes.CDLL) -> None:
    seen: list[tuple[bytes, list[int]]] = []
    kind = ctypes.CFUNCTYPE(
        None, ctypes.c_char_p, ctypes.POINTER(ctypes.c_uint), ctypes.c_void_p, ctypes.c_void_p
    )
    callback = kind(lambda name, places, stream, parameters: seen.append((name, places[:7])))
    library.stand_in_launches.restype = ctypes.c_long
    before = library.stand_in_launches()
    function = ctypes.c_void_p()
    library.cuModuleGetFunction(ctypes.byref(function), None, b"_dropout_kernel")
    library.stand_in_on_launch(callback)
    try:
        assert library.cuLaunchKernel(function, 1, 2, 3, 4, 5, 6, 7, None, None, None) == 0
    finally:
        library.stand_in_on_launch(None)
    library.cuLaunchKernel(function, 1, 2, 3, 4, 5, 6, 7, None, None, None)
    library.cublasGemmEx()  # is one that build.py adds
    library.cudaFree()
    assert seen == [(b"_dropout_kernel", [1, 2, 3, 4, 5, 6, 7])]
    assert library.stand_in_launches() - before == 3


def test_a_thread_is_in_the_context_after_its_first_launch(library: ctypes.CDLL) -> None:
    contexts: list[Any] = []

    def look() -> None:
        context = ctypes.c_void_p()
        for _ in range(2):
            library.cuCtxGetCurrent(ctypes.byref(context))
            contexts.append(context.value)
            library.cublasGemmEx()

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert contexts[0] is None and contexts[1] is not None


def test_no_function_is_there_twice() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "_called_by_torch", lambda: CALLED)
        added = build._rest()
    assert "int cudaGraphLaunch(void) { return 0; }" in added
    assert "int cublasGemmEx(void) { stand_in_launch(); return 0; }" in added
    assert "cudaMalloc" not in added


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rounds=5"], "rounds: '5' is no number of rounds; allowed are 6, 7, ..."),
        ([], f"torch: {torch.__version__} is no build for CUDA, which this command takes the host's time of"),
    ],
)
def test_what_is_missing_is_said_in_one_line(arguments: list[str], said: str) -> None:
    if torch.version.cuda and not arguments:
        pytest.skip("this torch is a build for CUDA")
    command = [sys.executable, "-m", "pmexp.bench.host", *arguments]
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert run.returncode == 2 and run.stdout == ""
    assert run.stderr.count("\n") == 1 and said in run.stderr
