"""Imports what a configuration names by its path, and calls it with errors of one line."""

import importlib
import inspect
import sysconfig
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from pmexp.errors import Interrupted, MachineError, UserError, error_line
from pmexp.logs import kept
from pmexp.own_code.sources import check_import_path
from pmexp.process import stop_signals_kept
from pmexp.shown import class_of
from pmexp.working_folder import search_here

# What CUDA's allocator says, and what the CPU's does.
_OUT_OF_MEMORY = ("out of memory", "defaultcpuallocator: ")
# What lies here, or is installed anywhere, is seldom what somebody has to mend.
_PACKAGES = (str(Path(__file__).parents[1]), sysconfig.get_path("stdlib"))
_INSTALLED = {"site-packages", "dist-packages"}


def imported(key: str, path: str) -> Any:
    """Returns what an import path such as package.module.MyDropout names, in an installed package or in the
    working folder. Raises UserError where it cannot be imported."""
    check_import_path(key, path)
    module_name, _, name = path.rpartition(".")
    search_here()
    try:
        with kept(), stop_signals_kept():
            module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # importing runs somebody's code, which may do anything
        raise UserError(f"{key}: {path}: {module_name} cannot be imported ({error_line(error)})") from None
    if not hasattr(module, name):
        raise UserError(f"{key}: {path}: {module_name} has no {name}; name something that is there")
    return getattr(module, name)


def called(key: str, path: str, given: tuple[Any, ...], options: Mapping[str, Any], options_key: str) -> Any:
    """Imports a function or class and returns what it makes of `given` and of the options.

    Raises UserError where it is not callable, does not take these arguments, or fails.
    """
    function: Callable[..., Any] = imported(key, path)
    check_takes(key, path, function, given, options, options_key)
    with of_own_code(key, path):
        return function(*given, **options)


@contextmanager
def of_own_code(key: str, path: str) -> Iterator[None]:
    """Has errors of somebody's code end as a UserError that says where they arose.

    Those of this package pass, and so does running out of memory, which is a result of a run.
    """
    try:
        with kept(), stop_signals_kept():
            yield
    except (UserError, MachineError, Interrupted, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        if any(words in str(error).lower() for words in _OUT_OF_MEMORY):
            raise
        raise failed(key, path, error) from error


def blamed(error: BaseException, named: Iterable[tuple[str, str]]) -> tuple[str, str] | None:
    """Returns which of the named code, each a key and an import path, an error has arisen in: the last that
    was entered; None where it has passed through none of it.

    Among several names in one module it is the one whose function or class was entered, or else the first.
    """
    known = [(key, path, *path.rpartition(".")[::2]) for key, path in named]
    for frame, _ in reversed([*traceback.walk_tb(error.__traceback__)]):
        module = str(frame.f_globals.get("__name__", ""))
        top, entered = module.partition(".")[0], frame.f_code.co_qualname.partition(".")[0]
        near = [each for each in known if each[2].partition(".")[0] == top]
        if near:
            key, path, *_ = max(
                near, key=lambda each: (each[2] == module and each[3] == entered, each[2] == module)
            )
            return key, path
    return None


def failed(key: str, path: str, error: BaseException) -> UserError:
    """Says that somebody's code fails, and at which of its lines: the last one that is of the same package,
    or of none that is installed."""
    frames = [*traceback.walk_tb(error.__traceback__)]
    theirs = [(frame, line) for frame, line in frames if _is_theirs(frame, path.partition(".")[0])]
    frame, line = (theirs or frames)[-1]
    place = f"{frame.f_code.co_filename}:{line}"
    return UserError(f"{key}: {path}: fails ({error_line(error)}, at {place}); mend it there")


def _is_theirs(frame: FrameType, package: str) -> bool:
    is_of_package = str(frame.f_globals.get("__name__", "")).partition(".")[0] == package
    file = frame.f_code.co_filename
    return is_of_package or not (file.startswith(_PACKAGES) or _INSTALLED & {*Path(file).parts})


def check_takes(
    key: str,
    path: str,
    function: Callable[..., Any],
    given: tuple[Any, ...],
    options: Mapping[str, Any],
    options_key: str,
) -> None:
    """Raises UserError where a function or class does not take these arguments."""
    if not callable(function):
        raise UserError(f"{key}: {path}: is {class_of(function)}; name a class or a function")
    try:
        signature = inspect.signature(function)
    except ValueError:  # some native code has none
        return
    try:
        signature.bind(*given, **options)
    except TypeError as error:
        takes = f"{path.rpartition('.')[2]}{signature}"
        said = f"{options_key}={dict(options)}" if options else f"{key}: {path}"
        raise UserError(f"{said}: {error}; it is {takes}") from None
