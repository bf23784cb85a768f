"""Writes small files that are there whole or not at all, and reads JSON that anybody may have written."""

import errno
import json
import os
import re
import stat
from io import BufferedReader
from pathlib import Path
from typing import Any

from pmexp.errors import UserError

_IRREGULAR = "it is no regular file"
_AT_ONCE = 2**20  # bytes
# Written under these names until they are whole: ours by process, what torch writes, and safetensors' own.
_SCRATCH = re.compile(r"\..+\.\d+|.+\.partial|\.tmp\w{6}")


def write_atomically(file: Path, content: str | bytes, private: bool = False) -> None:
    """Makes the file hold all of the old content or all of the new, whatever happens in between, power
    included. Text is written as UTF-8.

    private: whether only its owner may read it.
    """
    scratch = file.with_name(f".{file.name}.{os.getpid()}")
    scratch.unlink(missing_ok=True)
    try:
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o666)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
            stream.flush()
            os.fsync(stream.fileno())
        scratch.replace(file)
    finally:
        scratch.unlink(missing_ok=True)
    sync_directory(file.parent)


def remove_scratch(folder: Path) -> None:
    """Removes what a killed process has left of files that it was writing; for its one writer."""
    for file in folder.rglob("*"):
        if _SCRATCH.fullmatch(file.name):
            file.unlink(missing_ok=True)


def sync_directory(folder: Path) -> None:
    """Puts the names of a folder on disk: a file that was synced is else lost with its name."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def opened(file: Path | str) -> BufferedReader:
    """Opens a regular file for reading. Raises UserError for another: a pipe would be waited for, a device
    read without end; and OSError as `open` does."""
    return os.fdopen(_descriptor(file)[0], "rb")


def _descriptor(file: Path | str) -> tuple[int, int]:
    """Opens a regular file as `opened` does, and says its size."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket
            raise damaged(file, _IRREGULAR) from None
        raise
    about = os.fstat(descriptor)
    if not stat.S_ISREG(about.st_mode):
        os.close(descriptor)
        raise damaged(file, _IRREGULAR)
    return descriptor, about.st_size


def read_object(file: Path | str, *keys: str) -> dict[str, Any]:
    """The JSON object in `file`, {} where there is none.

    Raises UserError for a file that is no regular one, cannot be read, or holds anything but a JSON object
    with `keys`.
    """
    content = read_json(file)
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(key in content for key in keys):
        raise damaged(file, f"it has no {', '.join(keys) or 'object'} as JSON")
    return content


def read_json(file: Path | str) -> Any:
    """Reads what a JSON file holds; None where there is none. Raises UserError where it cannot be read."""
    content = read_content(file)
    try:
        return None if content is None else parsed_json(content)
    except (ValueError, RecursionError):
        raise damaged(file, "it is not JSON") from None


def read_content(file: Path | str) -> bytes | None:
    """All of a file; None where there is none. Raises UserError where it cannot be read."""
    try:
        descriptor, size = _descriptor(file)
        try:  # without a stream, which for a small file takes as long as reading it
            content = os.read(descriptor, size + 1)
            while len(content) != size and (more := os.read(descriptor, _AT_ONCE)):  # it grew meanwhile
                content += more
            return content
        finally:
            os.close(descriptor)
    except FileNotFoundError:  # the caller may have seen it, and it was removed since
        return None
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror or error}") from None


def parsed_json(content: bytes) -> Any:
    """`content` as JSON. Raises ValueError or RecursionError where it is none.

    orjson takes a quarter of the time; what it refuses, such as half of a surrogate pair, the standard
    library may still read.
    """
    import orjson  # `make gpu` runs where torch is and this is not, and reads no record

    try:
        return orjson.loads(content)
    except ValueError:
        return json.loads(content)


def damaged(file: Path | str, fault: str) -> UserError:
    """Returns the error for a file that is no longer as a run wrote it."""
    return UserError(f"{file} is damaged: {fault}; remove it and run this again")
