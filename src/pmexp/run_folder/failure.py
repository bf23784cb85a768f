"""Why a run ended without a result, and so whether trying it again can help. Imports no torch."""

import errno
from enum import Enum

_MACHINE_ERRNO = {
    errno.EACCES,
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
_MACHINE_TYPES = ("DistNetworkError", "DistStoreError", "DistBackendError", "ConnectionError", "TimeoutError")
_MACHINE_WORDS = (  # of errors that are no OSError: safetensors', gloo's, CUDA's
    "No space left on device",
    "Connection closed by peer",
    "Connection reset by peer",
    "uncorrectable ECC error",
)


class Kind(Enum):
    """A result (finished, or out of memory) is none of these."""

    interrupted = "interrupted"  # by a stop signal, with a checkpoint: it goes on
    infrastructure = "infrastructure"  # killed, node or disk or network gone: tried again, up to a cap
    code = "code"  # would fail again


def kind_of(error: BaseException) -> Kind:
    """The kind of an exception that ended a run, other than a stop signal."""
    names = {cls.__name__ for cls in type(error).__mro__}
    said = any(words in str(error) for words in _MACHINE_WORDS)
    of_machine = isinstance(error, OSError) and error.errno in _MACHINE_ERRNO
    return Kind.infrastructure if of_machine or said or names & set(_MACHINE_TYPES) else Kind.code
