"""Judges why a run ended without a result, and so whether trying it again can help. Imports no torch."""

import errno
import os
from collections.abc import Iterator
from enum import Enum

from pmexp.errors import MachineError, UserError

_MACHINE_ERRNOS = frozenset(
    {
        errno.EACCES,
        errno.EAGAIN,  # no more processes or threads
        errno.EFBIG,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.EUCLEAN,
        errno.EIO,
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.ESTALE,
        errno.ENOLCK,
        errno.ENODEV,
        errno.ENOTCONN,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.ECONNABORTED,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ETIMEDOUT,
        errno.EPIPE,
    }
)
_MACHINE_TYPES = {
    MachineError.__name__, ConnectionError.__name__, TimeoutError.__name__,
    "DistNetworkError", "DistStoreError", "DistBackendError",
}  # fmt: skip
_NO_TEMPORARY = "No usable temporary directory found"  # tempfile's, by ENOENT: a container may be read-only
# Many libraries repeat the system's message without its number. The rest are messages of their own.
_MACHINE_WORDS = (
    *sorted(map(os.strerror, _MACHINE_ERRNOS)),
    "Connection closed by peer",
    "uncorrectable ECC error",
    "basic_ios::clear: iostream error",  # torch.save says this or the next of a full disk
    "] . unexpected pos ",
    _NO_TEMPORARY,
    "database or disk is full",  # sqlite's, and so on
    "disk I/O error",
    "unable to open database file",
    "attempt to write a readonly database",
    "database is locked",
)


class FailureKind(Enum):
    """Says who has to act after a run without a result; finished and out of memory are results."""

    interrupted = "interrupted"  # a stop signal ended it, with a checkpoint: it goes on
    infrastructure = (
        "infrastructure"  # killed, or node, disk or network failed: it is tried again, up to a cap
    )
    code = "code"  # it would fail again


def kind_of(error: BaseException) -> FailureKind:
    """Judges an exception that ended a run, other than a stop signal, by all that it was raised from."""
    if isinstance(error, UserError):
        return FailureKind.code
    of_machine = any(map(_is_of_machine, _chain(error)))
    return FailureKind.infrastructure if of_machine else FailureKind.code


def kind_in_text(text: str) -> FailureKind:
    """Judges an error of which another process has left only its text."""
    of_machine = any(words in text for words in (*_MACHINE_WORDS, *_MACHINE_TYPES))
    return FailureKind.infrastructure if of_machine else FailureKind.code


def _is_of_machine(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _MACHINE_ERRNOS or _NO_TEMPORARY in str(error)
    named = {cls.__name__ for cls in type(error).__mro__} & _MACHINE_TYPES
    return bool(named) or any(words in str(error) for words in _MACHINE_WORDS)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yields the error and those it was raised from: libraries wrap what the system said."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        error = waiting.pop()
        if id(error) in seen:
            continue
        seen.add(id(error))
        yield error
        inner = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        waiting += [inner] if inner else []
        waiting += error.exceptions if isinstance(error, BaseExceptionGroup) else ()
