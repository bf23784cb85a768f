"""Which kernels serve CUDA: Triton's or the torch reference, by what is there or the environment's choice."""

import os
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pmexp.packed_dropout import (
    backend,
    cuda_backend,
    cuda_mapping,
    native,
)


def test_every_op_has_a_kernel_for_cuda() -> None:
    for name in cuda_backend.reference.OPERATORS | cuda_mapping.OPERATORS:
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"pmexp::{name}", "CUDA")


@pytest.fixture
def choose(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Sets the environment variable, and whether Triton is installed; forgets what was chosen."""

    def choose(choice: str | None, installed: bool) -> None:
        cuda_backend.operators.cache_clear()
        find = (lambda _: SimpleNamespace()) if installed else (lambda _: None)
        monkeypatch.setattr(cuda_backend.importlib.util, "find_spec", find)
        if choice is None:
            monkeypatch.delenv(cuda_backend.ENVIRONMENT_VARIABLE, raising=False)
        else:
            monkeypatch.setenv(cuda_backend.ENVIRONMENT_VARIABLE, choice)

    yield choose
    cuda_backend.operators.cache_clear()


@pytest.mark.parametrize(("choice", "installed"), [("reference", True), ("auto", False), (None, False)])
def test_the_torch_reference_is_chosen_and_named(choose: Any, choice: str | None, installed: bool) -> None:
    choose(choice, installed)
    assert backend(torch.device("cuda")) == "torch reference on cuda"
    assert not cuda_backend.has_kernels()
    assert cuda_backend.operators().packed_dropout is cuda_backend.reference.packed_dropout


@pytest.mark.parametrize("choice", ["triton", "auto", None])
def test_triton_is_chosen_and_named(choose: Any, choice: str | None) -> None:
    triton = pytest.importorskip("triton")
    choose(choice, installed=True)
    device = torch.device("cuda")
    assert backend(device) == f"triton {triton.__version__}, {native.calls(device)}"
    assert cuda_backend.has_kernels()


@pytest.mark.parametrize(
    ("choice", "installed", "choices"),
    [("cutlass", True, "auto, triton, reference"), ("triton", False, "auto, reference")],
)
def test_an_unavailable_backend_is_an_error(choose: Any, choice: str, installed: bool, choices: str) -> None:
    choose(choice, installed)
    with pytest.raises(RuntimeError, match=f"{choice} is not available here; choose one of {choices}$"):
        cuda_backend.operators()


def test_importing_the_method_imports_neither_triton_nor_dynamo() -> None:
    script = (
        "import sys, torch; before = set(sys.modules); import pmexp.packed_dropout as method;"
        "method.packed_dropout(torch.ones(9));"
        "print([name for name in ('triton', 'torch._dynamo') if name in sys.modules and name not in before])"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], env=dict(os.environ), capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"
