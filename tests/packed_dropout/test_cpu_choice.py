"""Which instruction set serves the operators: the best, or the environment's choice, under the name that `backend` says."""

import subprocess
import sys

import pytest
import torch

from core_cases import BACKENDS, needs_core
from pmexp.packed_dropout import cpu, ops, packed_dropout, reference

pytestmark = needs_core

CHOICES = [*BACKENDS, "reference"]


def test_the_environment_chooses_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(cpu.ENVIRONMENT_VARIABLE, raising=False)
    best = cpu.select()
    assert best is not None
    assert best.name == f"cpu core {BACKENDS[0]}"
    for backend in BACKENDS:
        monkeypatch.setenv(cpu.ENVIRONMENT_VARIABLE, backend)
        chosen = cpu.select()
        assert chosen is not None
        assert chosen.name == f"cpu core {backend}"
    monkeypatch.setenv(cpu.ENVIRONMENT_VARIABLE, "reference")
    assert cpu.select() is None


def test_an_unavailable_backend_is_an_error_that_names_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    for backend in ("sse9", "neon" if "avx2" in BACKENDS else "avx2"):
        monkeypatch.setenv(cpu.ENVIRONMENT_VARIABLE, backend)
        choices = ", ".join(("auto", *BACKENDS, "reference"))
        with pytest.raises(RuntimeError, match=f"{backend} is not available here; choose one of {choices}$"):
            cpu.select()


def test_without_the_library_auto_is_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu.core, "_library", lambda: None)
    monkeypatch.delenv(cpu.ENVIRONMENT_VARIABLE, raising=False)
    assert cpu.select() is None
    monkeypatch.setenv(cpu.ENVIRONMENT_VARIABLE, "scalar")
    with pytest.raises(RuntimeError, match=r"choose one of auto, reference$"):
        cpu.select()


@pytest.fixture(scope="module")
def said_by_choice() -> dict[str, list[str]]:
    """What each process says that imports the ops under a choice; they are forks of one that has imported torch."""
    script = (
        "import os, sys, torch\n"
        "for choice in sys.argv[1:]:\n"
        "    if os.fork() == 0:\n"
        f"        os.environ[{cpu.ENVIRONMENT_VARIABLE!r}] = choice\n"
        "        from pmexp.packed_dropout import backend, packed_dropout; torch.manual_seed(0)\n"
        "        y = packed_dropout(torch.ones(64))\n"
        "        print(choice, backend(torch.device('cpu')), y.view(torch.int32).sum().item(), sep=' / ', flush=True)\n"
        "        os._exit(0)\n"
        "    assert os.wait()[1] == 0\n"
    )
    command = [sys.executable, "-c", script, *CHOICES]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return {choice: said for choice, *said in (line.split(" / ") for line in lines)}


@pytest.mark.parametrize("choice", CHOICES)
def test_the_ops_run_what_backend_names(choice: str, said_by_choice: dict[str, list[str]]) -> None:
    name, checksum = said_by_choice[choice]
    runs = name.split(", ")[0]  # without who calls it
    assert runs == ("torch reference on cpu" if choice == "reference" else f"cpu core {choice}")
    torch.manual_seed(0)
    assert int(checksum) == packed_dropout(torch.ones(64)).view(torch.int32).sum().item()


def test_the_core_serves_the_registered_ops(monkeypatch: pytest.MonkeyPatch) -> None:
    if ops._cpu_core is None:
        pytest.skip(f"{cpu.ENVIRONMENT_VARIABLE} chose the reference")
    monkeypatch.delattr(reference, "draw_mask")  # the reference could not have drawn it
    y, _ = ops.packed_dropout(torch.ones(100), torch.tensor([9]), 0.5, 1)
    assert set(y.tolist()) == {0.0, 2.0}
