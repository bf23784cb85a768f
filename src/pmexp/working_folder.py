"""Has Python look for code of one's own in the working folder, between its own modules and what is installed.

A file there named like one of these, as json.py, then hides none of them from pmexp and its libraries.
"""

import os
import sys
from contextlib import suppress


def search_here() -> None:
    """Puts the working folder among the places where modules are looked for, unless it is one."""
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(_behind_python(), here)


def search_here_last() -> None:
    """Moves the working folder, where `python -m` has put it first, behind Python's own modules."""
    with suppress(FileNotFoundError):  # it is gone, which commands say in a line
        if sys.path[0] == os.getcwd():
            del sys.path[0]
            search_here()


def _behind_python() -> int:
    own = os.path.dirname(os.__file__)
    places = [
        number for number, place in enumerate(sys.path) if place in (own, os.path.join(own, "lib-dynload"))
    ]
    return max(places, default=-1) + 1
