"""Ends a command: the one table of exit codes, and the reason in one line on stderr."""

import atexit
import errno
import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from functools import cache
from typing import Any, TextIO, cast

from pmexp.errors import (
    ContenderFailed,
    Interrupted,
    MachineError,
    RankFailed,
    SweepFailed,
    UserError,
    error_line,
)
from pmexp.extras import missing_named
from pmexp.masking import masked
from pmexp.run_folder.failure import FailureKind, kind_of
from pmexp.shown import printable

MACHINE_FAILED = 3  # exit code
_OF_A_NAME = (errno.ENAMETOOLONG, errno.ELOOP)


def exit_code(work: Callable[[], int | None], interrupted: str = "interrupted") -> int:
    """Does the work of a command and returns what it returns, or 0; 1 where something failed, 2 for bad
    input, 3 where the machine failed and the same may work later, 130 when interrupted, each with the reason
    in one line on stderr."""
    end_at_once()
    _open_closed_streams()
    out, err = (cast(TextIO, _Output(each)) for each in (sys.stdout, sys.stderr))
    try:
        with redirect_stdout(out), redirect_stderr(err), missing_named():
            _refuse_lost_folder()
            code = work() or 0
            sys.stdout.flush()
    except UserError as error:
        return end(f"error: {error}", code=2)
    except (SweepFailed, RankFailed) as error:
        return end(str(error), code=1)
    except ContenderFailed as error:
        return end(f"error: {error}", code=1)
    except MachineError as error:
        return end(f"error: {error}", code=MACHINE_FAILED)
    except Interrupted as error:
        return end(f"interrupted: {error}" if str(error) else interrupted, code=130)
    except KeyboardInterrupt:
        return end(interrupted, code=130)
    except Exception as error:
        return _end_by_place(error)
    return code


def _end_by_place(error: Exception) -> int:
    """Says in one line how a path, or the machine, failed and returns the exit code. Raises what is neither's
    fault."""
    if isinstance(error, OSError) and error.errno in _OF_A_NAME:
        return end(f"error: {error.filename}: {error.strerror}; name another path", code=2)
    if kind_of(error) is not FailureKind.infrastructure:
        raise error
    return end(f"error: {error_line(error)}", code=MACHINE_FAILED)


@cache
def end_at_once() -> None:
    """Has Python end without a last look for garbage, which takes a second where torch is loaded."""
    atexit.register(gc.freeze)


def _refuse_lost_folder() -> None:
    """Raises UserError where the working folder was removed: relative paths and torch's libraries need it."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise UserError("the working folder is gone; change to one that is there") from None


def _open_closed_streams() -> None:
    """Opens the streams that were closed before the process began, as by 2>&-, to nowhere. What is printed to
    one of them would else go to stdout, and a file that is opened later would get its number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):  # each gets the lowest number left
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  for as long as the process lives


@contextmanager
def importing(extra: str = "") -> Iterator[None]:
    """Ends the process with one line, as `exit_code` would, where what is imported inside it lacks a package
    or fails by the machine, as torch does without a temporary folder.

    For the modules that `python -m` executes, whose imports come before `exit_code`. `extra`: the one whose
    packages the command needs; empty: whichever brings the package.
    """
    _open_closed_streams()
    try:
        _refuse_lost_folder()
        with missing_named(extra):
            yield
    except UserError as error:
        sys.exit(end(f"error: {error}", code=2))
    except Exception as error:
        sys.exit(_end_by_place(error))


class _Output:
    """Writes on where nobody reads it any more, as behind `| head` or at a terminal that is gone; in all else
    it is the stream that it was made of."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty()  # one that is gone does not say so any more

    def write(self, text: str) -> int:
        with self._perhaps_unread():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._perhaps_unread():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextmanager
    def _perhaps_unread(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not isinstance(error, BrokenPipeError) and not self._is_terminal:
                raise
            with open(os.devnull, "w") as nowhere:  # what it still holds, and all that follows, goes there
                os.dup2(nowhere.fileno(), self._stream.fileno())


def end(message: str, code: int) -> int:
    """Prints the message on stderr and returns the code."""
    with suppress(OSError):  # nobody reads it any more, or the disk that it goes to is full
        print(printable(masked(message), lines=True), file=sys.stderr)
    return code
