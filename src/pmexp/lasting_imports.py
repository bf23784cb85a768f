"""Imports without garbage collections: what a program imports at its start lasts until its end."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collections() -> Iterator[None]:
    """Collects no garbage inside the block; afterwards the collector is as it was."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def lasting_imports() -> Iterator[None]:
    """Collects no garbage inside the block, and never looks through what is alive at its end again.

    To import torch and transformers makes 660,000 objects, which the collector would search for garbage 900
    times on the way: a sixth of the whole start. Where the block imports nothing new, as when another import
    was first, nothing is set apart.
    """
    modules = len(sys.modules)
    with without_collections():
        try:
            yield
        finally:
            if len(sys.modules) > modules:
                gc.freeze()
