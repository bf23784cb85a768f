"""Which calls are chosen, and what is said where the library cannot be had."""

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pmexp.measure.environment import environment
from pmexp.packed_dropout import PackedDropout, backend, cuda_backend, cuda_rng, native
from pmexp.packed_dropout.native import build

CUDA = torch.device("cuda")
VARIABLE = native.ENVIRONMENT_VARIABLES["cuda"]
WHY_NOT = build.why_not()  # torch 2.10 is told so before any compiler is asked for
can_build = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))


@pytest.fixture(autouse=True)
def choose_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    pytest.importorskip("triton")
    monkeypatch.setenv(build.FOLDER_VARIABLE, str(tmp_path / "cache"))
    for variable in native.ENVIRONMENT_VARIABLES.values():
        monkeypatch.setenv(variable, "auto")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(native, "is_loaded", lambda: False)
    monkeypatch.setattr(native, "_reasons", {})
    monkeypatch.setattr(native, "_calls", {})
    cuda_backend.operators.cache_clear()
    yield
    cuda_backend.operators.cache_clear()


def script(path: Path, *lines: str) -> str:
    path.write_text("\n".join((f"#!{sys.executable}", "import sys", *lines)))
    path.chmod(0o755)
    return str(path)


@can_build
def test_without_a_compiler_python_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert backend(CUDA).endswith(", calls by Python: no C++ compiler")


def test_a_record_asks_for_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that drops nothing packed has no use for one, and building it takes half a minute."""
    monkeypatch.setattr(build, "library", lambda: pytest.fail("it was built"))
    recorded = environment(torch.device("cpu"))
    assert recorded["dropout_backend"] and "dropout_calls" not in recorded
    monkeypatch.setenv("PMEXP_CPU_CALLS", "python")
    PackedDropout(0.1)(torch.ones(3))
    assert environment(torch.device("cpu"))["dropout_calls"] == "calls by Python: PMEXP_CPU_CALLS=python"


@can_build
def test_a_failing_build_is_named_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", script(tmp_path / "cc", "sys.exit('fatal error: no such header')"))
    assert backend(CUDA).endswith(", calls by Python: the build failed: fatal error: no such header")
    assert not list((tmp_path / "cache").glob("*.so"))


@can_build
def test_a_library_that_cannot_be_loaded_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(
        "CXX", script(tmp_path / "cc", "open(sys.argv[sys.argv.index('-o') + 1], 'w').write('x')")
    )
    assert ", calls by Python: not loaded: " in backend(CUDA)


def test_a_folder_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(build.FOLDER_VARIABLE, str(tmp_path / "file"))
    assert ", calls by Python: not built: " in backend(CUDA)


@can_build
def test_the_environment_chooses_the_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.delenv(VARIABLE)
    assert backend(CUDA).endswith(", calls by Python: no C++ compiler")
    native.choose("cuda", "python")
    assert backend(CUDA).endswith(", calls by Python: PMEXP_CUDA_CALLS=python")
    native._reasons.clear()
    monkeypatch.setenv(VARIABLE, "native")
    with pytest.raises(RuntimeError, match="PMEXP_CUDA_CALLS=native cannot be had: no C"):
        backend(CUDA)
    monkeypatch.setenv(VARIABLE, "rust")
    with pytest.raises(
        RuntimeError, match="PMEXP_CUDA_CALLS=rust is unknown; choose one of auto, native, python"
    ):
        backend(CUDA)


def test_the_torch_reference_has_no_native_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cuda_backend.ENVIRONMENT_VARIABLE, "reference")
    assert backend(CUDA) == "torch reference on cuda"


def test_nothing_is_built_without_a_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert backend(CUDA).endswith(", calls by Python: no CUDA device")
    assert not (tmp_path / "cache").exists()


@can_build
def test_a_library_is_built_once_and_then_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    compiler = script(tmp_path / "cc", "open(sys.argv[sys.argv.index('-o') + 1], 'w').write('library')")
    monkeypatch.setenv("CXX", compiler)
    path = build.library()
    assert path.read_text() == "library" and path.parent == tmp_path / "cache"
    assert [record.getMessage() for record in caplog.records if "built native calls" in record.getMessage()]
    monkeypatch.setenv("CXX", "no-such-compiler")
    os.chmod(path.parent, 0o555)
    assert build.library() == path


@can_build
def test_a_library_is_loaded_and_every_kernel_launched_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    from pmexp.packed_dropout import triton_launch

    monkeypatch.undo()  # the library that test_native.py uses
    if not native.is_loaded():
        torch.ops.load_library(build.library())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(triton_launch, "_compiled", {("kind",): None})
    monkeypatch.setattr(cuda_rng, "take_offset", None)
    monkeypatch.setenv(VARIABLE, "native")
    monkeypatch.setattr(native, "_why_python_on", lambda device: None)
    monkeypatch.setattr(native, "_reasons", {})
    assert backend(CUDA).endswith(", native calls")
    assert triton_launch._compiled == {}
    assert cuda_rng.take_offset is torch.ops.pmexp.take_offset.default
    with pytest.raises(RuntimeError, match=r"CPU|offset"):  # which has no offset: the arguments are right
        cuda_rng.take_offset(torch.device("cpu"), 4)
