"""Chooses what serves CUDA tensors: the Triton kernels, or the torch reference.

`PMEXP_CUDA_BACKEND` chooses, once, at the first call that needs it, so that a process without a CUDA tensor
neither imports Triton nor touches the device:

    auto       Triton where it is installed, else the torch reference (default)
    triton     that, or an error
    reference  plain torch, `pmexp.packed_dropout.reference` and `cuda_mapping`
"""

import importlib.util
import os
from functools import cache
from types import SimpleNamespace
from typing import Any

from pmexp.packed_dropout import cuda_mapping, reference

ENVIRONMENT_VARIABLE = "PMEXP_CUDA_BACKEND"


@cache
def operators() -> Any:
    """Returns what has the operators as its attributes, and the backend's name as `name`.

    Raises RuntimeError for a backend that is unknown or not installed.
    """
    choice = os.environ.get(ENVIRONMENT_VARIABLE, "auto")
    installed = ["triton"] if importlib.util.find_spec("triton") else []
    if choice not in ("auto", *installed, "reference"):
        choices = ", ".join(("auto", *installed, "reference"))
        raise RuntimeError(f"{ENVIRONMENT_VARIABLE}={choice} is not available here; choose one of {choices}")
    if choice == "reference" or not installed:
        functions = reference.OPERATORS | cuda_mapping.OPERATORS
        return SimpleNamespace(name="torch reference on cuda", **functions)
    from pmexp.packed_dropout import triton_kernels  # the import takes a second, which CPU runs shall not pay

    return triton_kernels


def has_kernels() -> bool:
    """Whether Triton's kernels run, and not the torch reference."""
    return not isinstance(operators(), SimpleNamespace)
