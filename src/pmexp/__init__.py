"""pmexp: prove a memory-saving training method, from one command to a verdict."""

import sys

if sys.argv[:1] == ["-m"]:  # which stands there while `python -m` looks for the module of pmexp to run
    from pmexp.working_folder import search_here_last

    search_here_last()

from typing import TYPE_CHECKING

__version__: str

if not TYPE_CHECKING:  # else the type checker would take every name for one that is here

    def __getattr__(name: str) -> str:
        """Reads `__version__` when it is asked for: looking through what is installed takes a while."""
        if name != "__version__":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib.metadata import version

        return version("pmexp")
