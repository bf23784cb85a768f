"""Says what is allowed in the place of a wrong word, and which word was probably meant."""

import difflib
import re
from collections.abc import Iterable, Sequence

from pmexp.errors import UserError

_DIGITS = 18  # what nobody exceeds and 64 bits hold
_LEAST_ALIKE = 1.0  # equal keys have 2: 1 for the whole and 1 for the last part


def one_of(key: str, value: str, allowed: Sequence[str]) -> str:
    """The value. Raises UserError when it is not allowed."""
    if value not in allowed:
        raise UserError(f"{key}: {value!r} is unknown; {allowed_values(value, allowed)}")
    return value


def whole(key: str, text: str, least: int = 1, what: str = "whole number", most: int | None = None) -> int:
    """The whole number that a key was given. Raises UserError where it is none, less than `least` or more
    than `most`."""
    number = int(text) if text.isdecimal() and len(text) <= _DIGITS else -1
    if number < least or (most is not None and number > most):
        allowed = f"{least}, {least + 1}, ..." if most is None else f"{least} to {most}"
        raise UserError(f"{key}: {text!r} is no {what}; allowed are {allowed}")
    return number


def meant(key: str, known: Iterable[str]) -> str:
    """Asks whether the nearest key was meant; empty where none is near."""
    near = nearest(key, known)
    return f"did you mean {near}? " if near else ""


def allowed_values(value: str, allowed: Iterable[str]) -> str:
    """Says what is allowed in the place of a value, and asks whether one that is much like it was meant."""
    names = [*allowed]
    near = difflib.get_close_matches(value, names, n=1)
    return (f"did you mean {near[0]}? " if near else "") + f"allowed are {', '.join(names)}"


def nearest(key: str, known: Iterable[str]) -> str:
    """The known key beside `key` with its initials or its first word, or else the one most like it; empty
    where none is much like it."""
    parent, _, last = key.rpartition(".")
    words = [word for word in re.split("[-_]", last) if word]
    initials = "".join(word[0] for word in words)

    def likeness(other: str) -> tuple[bool, float]:
        other_parent, _, other_last = other.rpartition(".")
        whole = difflib.SequenceMatcher(None, key, other).ratio()
        part = difflib.SequenceMatcher(None, last, other_last).ratio()
        related = other_last == initials or other_last.split("_")[:1] == words[:1]
        return len(words) > 1 and other_parent == parent and related, whole + part

    best = max(known, key=likeness)
    related, alike = likeness(best)
    return best if related or alike >= _LEAST_ALIKE else ""
