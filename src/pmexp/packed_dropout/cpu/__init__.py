"""The CPU core: explicitly vectorised kernels for the ops, in C++ beside this file.

`PMEXP_CPU_BACKEND` chooses what serves CPU tensors, once, when the ops are registered:

    auto       the best instruction set this processor has, else the torch reference (default)
    avx512, avx2, neon, scalar    that one, or an error
    reference  plain torch, `pmexp.packed_dropout.reference`
"""

import os

from pmexp.packed_dropout.cpu.core import Core, LineTable, available_backends

__all__ = ["Core", "LineTable", "available_backends", "select"]

ENVIRONMENT_VARIABLE = "PMEXP_CPU_BACKEND"


def select() -> Core | None:
    """Returns the core that the environment asks for; None is the torch reference.

    Raises RuntimeError for a backend that this installation or processor does not have.
    """
    choice = os.environ.get(ENVIRONMENT_VARIABLE, "auto")
    available = available_backends()
    if choice == "reference" or (choice == "auto" and not available):
        return None
    if choice != "auto" and choice not in available:
        choices = ", ".join(("auto", *available, "reference"))
        raise RuntimeError(f"{ENVIRONMENT_VARIABLE}={choice} is not available here; choose one of {choices}")
    return Core(available[0] if choice == "auto" else choice)
