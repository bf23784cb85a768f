"""Whose failure an error is: the machine's, after which a run is tried again, or the code's."""

import errno
import os
import sqlite3
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from disks import small_disk
from pmexp.errors import MachineError, UserError
from pmexp.run_folder.failure import FailureKind, kind_in_text, kind_of

MACHINE = [
    "EFBIG", "EMFILE", "ENFILE", "ENOMEM", "EACCES", "EUCLEAN", "EIO", "ENOSPC", "EDQUOT", "EROFS", "ESTALE",
    "EAGAIN", "ENOLCK", "ENODEV", "ECONNRESET", "ECONNREFUSED", "ETIMEDOUT", "EPIPE",
]  # fmt: skip
CODE = ["ENOENT", "EISDIR", "ENOTDIR", "EEXIST", "EINVAL", "EBADF"]


def raised(body: Callable[[], object]) -> BaseException:
    try:
        body()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def wrapped(inner: BaseException, how: str) -> BaseException:
    """Returns an error raised from `inner`, by `how`, as libraries pass one on."""
    if how == "twice":
        return wrapped(wrapped(inner, "cause"), "context")

    def body() -> None:
        try:
            raise inner
        except BaseException as error:
            if how == "cause":
                raise RuntimeError("it did not work") from error
            if how == "context":
                raise RuntimeError("it did not work")  # noqa: B904
            raise ExceptionGroup("some", [ValueError(), inner]) from None  # type: ignore[list-item]

    return raised(body)


@pytest.mark.parametrize("how", ["bare", "text", "cause", "context", "twice", "group"])
@pytest.mark.parametrize("name", MACHINE)
def test_what_the_system_refuses_is_the_machines_however_it_is_wrapped(name: str, how: str) -> None:
    number = getattr(errno, name)
    error: BaseException = OSError(number, os.strerror(number), "/some/file")
    if how == "text":
        error = RuntimeError(f"writing failed: {os.strerror(number)} (os error {number})")
    elif how != "bare":
        error = wrapped(error, how)
    assert kind_of(error) is FailureKind.infrastructure
    said = f"rank 1: {type(error).__name__}: {error}"
    if how in ("bare", "text"):
        assert kind_in_text(said) is FailureKind.infrastructure


@pytest.mark.parametrize("name", CODE)
@pytest.mark.parametrize("how", ["bare", "cause", "group"])
def test_what_a_program_asks_for_wrongly_is_the_codes(name: str, how: str) -> None:
    number = getattr(errno, name)
    error: BaseException = OSError(number, os.strerror(number))
    assert kind_of(error if how == "bare" else wrapped(error, how)) is FailureKind.code
    assert kind_in_text(f"rank 1: OSError: {error}") is FailureKind.code


def test_no_folder_for_temporary_files_is_the_machines(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As in a container that is read-only: the standard library's own words are known."""
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "nowhere")])
    monkeypatch.setattr(tempfile, "tempdir", None)
    error = raised(tempfile.gettempdir)
    assert isinstance(error, FileNotFoundError)
    assert kind_of(error) is FailureKind.infrastructure


def test_an_error_for_a_person_is_not_tried_again() -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def body() -> None:
        raise UserError(f"out: {os.strerror(errno.EACCES)}") from full

    assert kind_of(raised(body)) is FailureKind.code
    assert kind_of(MachineError("runs_dir: no room")) is FailureKind.infrastructure
    suppressed = ValueError("a number")
    suppressed.__context__, suppressed.__suppress_context__ = full, True
    assert kind_of(suppressed) is FailureKind.code


WRITERS: dict[str, Callable[[Path], object]] = {
    "torch.save of a path": lambda file: torch.save(torch.zeros(100_000), file),
    "torch.save of the old format": lambda file: torch.save(
        torch.zeros(100_000), file, _use_new_zipfile_serialization=False
    ),
    "safetensors": lambda file: save_file({"a": torch.zeros(100_000)}, file),
    "bytes": lambda file: file.write_bytes(bytes(400_000)),
}


def stream(file: Path) -> None:
    with file.open("wb") as opened:
        torch.save(torch.zeros(100_000), opened)


def zipped(file: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a", os.urandom(400_000))


def rows(file: Path) -> None:
    with closing(sqlite3.connect(file)) as database:
        database.execute("CREATE TABLE t (x)")
        database.execute("INSERT INTO t VALUES (zeroblob(400000))")
        database.commit()


WRITERS |= {"torch.save of a stream": stream, "zipfile": zipped, "sqlite": rows}


@pytest.mark.parametrize("writer", WRITERS)
def test_what_libraries_raise_on_a_full_disk_is_the_machines(writer: str, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", kilobytes=32):
        error = raised(lambda: WRITERS[writer](tmp_path / "disk" / "file"))
    assert kind_of(error) is FailureKind.infrastructure, repr(error)


def test_a_database_in_a_place_where_none_can_be_is_the_machines() -> None:
    assert kind_of(raised(lambda: rows(Path("/proc/none.db")))) is FailureKind.infrastructure


def test_torch_save_on_a_device_that_is_full() -> None:
    assert kind_of(raised(lambda: torch.save(torch.zeros(3), "/dev/full"))) is FailureKind.infrastructure
