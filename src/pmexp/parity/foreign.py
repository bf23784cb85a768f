"""Imports somebody's dropout by its path."""

import importlib
import sys
from pathlib import Path

from torch import nn

from pmexp.errors import UserError, error_line


def imported(key: str, path: str) -> type[nn.Dropout]:
    """Returns the class that `path`, as in package.module.MyDropout, names in an installed package or in the
    working folder. Raises UserError for anything but a subclass of nn.Dropout that is made as nn.Dropout
    is."""
    module_name, _, name = path.rpartition(".")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # importing runs somebody's code, which may do anything
        raise UserError(f"{key}={path}: {module_name} cannot be imported ({error_line(error)})") from None
    cls = getattr(module, name, None)
    if cls is None:
        raise UserError(f"{key}={path}: {module_name} has no {name}; name a class that is there")
    if not (isinstance(cls, type) and issubclass(cls, nn.Dropout)):
        raise UserError(f"{key}={path}: is no subclass of torch.nn.Dropout; allowed is any of these")
    try:
        cls(0.5, False)
    except Exception as error:
        raise UserError(
            f"{key}={path}: {name}(p, inplace) cannot be made ({error_line(error)}); let it take what "
            "nn.Dropout takes"
        ) from None
    return cls
