"""Imports what a configuration names by its path, and calls it with errors of one line."""

import importlib
import inspect
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pmexp.errors import Interrupted, MachineError, UserError, error_line
from pmexp.own_code.sources import check_import_path, search_here


def imported(key: str, path: str) -> Any:
    """Returns what an import path such as package.module.MyDropout names, in an installed package or in the
    working folder. Raises UserError where it cannot be imported."""
    check_import_path(key, path)
    module_name, _, name = path.rpartition(".")
    search_here()
    try:
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
        yield
    except (UserError, MachineError, Interrupted, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        if "out of memory" in str(error).lower():
            raise
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise UserError(
            f"{key}: {path}: fails ({error_line(error)}, at {place.filename}:{place.lineno}); mend it there"
        ) from error


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
        raise UserError(f"{key}: {path}: is a {type(function).__name__}; name a class or a function")
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
