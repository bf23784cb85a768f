"""Turns the labels of all splits into numbers of classes, and checks them before anything is trained."""

import re
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pmexp.errors import UserError

UNLABELLED = -1  # stands in every row of a split that keeps its labels to itself, as GLUE writes it
_MISSING = "is missing; write a label, or leave the row out"
_MISSING_IN_TEST = f"{_MISSING}; without the whole column test is predicted and not scored"
_LARGEST = float(np.finfo(np.float32).max)
_DIGITS = re.compile("[0-9]+")
_WHOLE = re.compile("0|[1-9][0-9]*")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")


@dataclass(frozen=True)
class LabelColumn:
    """Holds a split's labels: text, whole numbers or truth values, one a row; `place`: where they are."""

    place: str
    values: Sequence[Any]


def numbered(
    labels: Mapping[str, LabelColumn],
    may_be_hidden: Collection[str] = ("val", "test"),
    case_sensitive: bool = False,
) -> tuple[list[str], dict[str, NDArray[np.int64]]]:
    """The names of the classes, which are those of train, and each split's labels as indices into them.

    Whole numbers are ordered as numbers, all other names as text. A split of `may_be_hidden` whose labels are
    all UNLABELLED keeps them. Names that are one but for upper and lower case are classes of their own where
    they are `case_sensitive`, and else refused. Raises UserError, with file and row, for a label that no loss
    can take.
    """
    for split, column in labels.items():
        # Gaps are looked for first: in a column with one, whole numbers are often kept as fractions.
        for row, value in enumerate(column.values):
            if value is None or value == "" or value != value:
                raise _refused(split, column, row, _MISSING_IN_TEST if split == "test" else _MISSING)
    names = {
        split: [_name(split, column, row) for row in range(len(column.values))]
        for split, column in labels.items()
    }
    alike = _as_spelt if case_sensitive else _alike
    classes = _classes(labels["train"], names["train"], alike)
    index = {name: number for number, name in enumerate(classes)}
    hidden = {split for split in may_be_hidden if set(names.get(split, ())) == {str(UNLABELLED)}}
    return classes, {
        split: np.full(len(column.values), UNLABELLED, dtype=np.int64)
        if split in hidden
        else _numbers(split, column, names[split], index, alike)
        for split, column in labels.items()
    }


def _name(split: str, labels: LabelColumn, row: int) -> str:
    value = labels.values[row]
    if isinstance(value, bool | int):
        return str(value)
    if not isinstance(value, str):
        raise _refused(split, labels, row, f"is of type {type(value).__name__}; {_ALLOWED}")
    if not (value.isascii() or is_unicode(value)):
        raise _refused(split, labels, row, "is half of a character; mend the text")
    return value


def measured(labels: Mapping[str, LabelColumn]) -> dict[str, NDArray[np.float32]]:
    """Returns the numbers of each split, (samples,). Raises UserError, with file and row, for what is none,
    and where those of train are all one, of which there is nothing to learn."""
    numbers = {
        split: np.array([_number(split, column, row) for row in range(len(column.values))], dtype=np.float32)
        for split, column in labels.items()
    }
    if not np.ptp(numbers["train"]):
        raise UserError(
            f"dataset.label_column: every row of the train split ({labels['train'].place}) has the number "
            f"{numbers['train'][0]:g}; a regression needs several"
        )
    return numbers


def _number(split: str, labels: LabelColumn, row: int) -> float:
    value = labels.values[row]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number or (isinstance(value, str) and _NUMBER.fullmatch(value)):
        number = float(value) if isinstance(value, str) else value
        if abs(number) <= _LARGEST:
            return float(number)
        why = "is missing or too large; write a number, or leave the row out"
    else:
        why = "is no number, as 2.5 or -1e3 are; dataset.objective=regression needs one in each row"
    raise _refused(split, labels, row, why)


_ALLOWED = "allowed are names of classes or whole numbers from 0, as 1 and not 1.0"


def is_unicode(text: str) -> bool:
    """Whether it can be written: JSON may hold halves of characters (surrogates)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _as_seen(name: str) -> str:
    """Returns what a person sees of a name: without blanks around it and invisible characters, and with
    accents composed in one way."""
    visible = "".join(
        char for char in unicodedata.normalize("NFC", name) if unicodedata.category(char) != "Cf"
    )
    return " ".join(visible.split())


def _alike(name: str) -> str:
    """Returns what is the same of names that nobody means to be two classes."""
    return _as_spelt(name).lower()


def _as_spelt(name: str) -> str:
    """Returns the same of such names where upper and lower case are two."""
    seen = _as_seen(name)
    return seen.lstrip("0") or "0" if _DIGITS.fullmatch(seen) else seen


def _difference(name: str, other: str) -> str:
    """Says in what a name differs from one that is alike, and what to do."""
    if unicodedata.normalize("NFC", name) == unicodedata.normalize("NFC", other):
        said = f"differs from {_shown(other)} in Unicode form alone"
    elif _as_seen(name) == _as_seen(other):
        said = f"looks like {_shown(other)} and is another text"
    elif _DIGITS.fullmatch(_as_seen(name)):
        said = f"is the number {_shown(other)} in another spelling"
    else:
        said = f"is {_shown(other)} but for upper and lower case"
        return f"{said}; write both the same way, or have two classes by dataset.case_sensitive_labels=true"
    return f"{said}; write both the same way"


def _classes(labels: LabelColumn, names: list[str], alike: Callable[[str], str]) -> list[str]:
    """Distinct labels of train in order."""
    distinct = set(names)
    whole = {name for name in distinct if _WHOLE.fullmatch(name)}
    numbers = {name for name in distinct if _NUMBER.fullmatch(name)}

    def refuse(wrong: set[str], why: str) -> UserError:
        return _refused("train", labels, min(map(names.index, wrong)), why)

    if str(UNLABELLED) in distinct:
        raise refuse({str(UNLABELLED)}, f"means 'no label'; {_ALLOWED}")
    if distinct == numbers and (odd := {name for name in numbers if not _DIGITS.fullmatch(name)}):
        raise refuse(odd, f"is no whole number; {_ALLOWED}")
    if whole and (others := distinct - numbers):
        number = min(whole, key=names.index)
        raise refuse(others, f"is a name and {number!r} a number; write all as names or all as numbers")
    seen: dict[str, str] = {}
    for name in sorted(distinct):
        if (other := seen.setdefault(alike(name), name)) != name:
            raise refuse({name}, _difference(name, other))
    if len(distinct) < 2:
        raise UserError(
            f"dataset.label_column: every row of the train split ({labels.place}) is of the class "
            f"{names[0]!r}; a classifier needs two classes"
        )
    return sorted(distinct, key=lambda name: (len(name), name)) if distinct == whole else sorted(distinct)


def _numbers(
    split: str, labels: LabelColumn, names: list[str], index: Mapping[str, int], alike: Callable[[str], str]
) -> NDArray[np.int64]:
    for row, name in enumerate(names):
        if name not in index:
            few = ", ".join([*index][:20]) + (", ..." if len(index) > 20 else "")
            meant = [f"; it {_difference(name, other)}" for other in index if alike(other) == alike(name)]
            raise _refused(split, labels, row, f"is not a class of the train split: {few}{''.join(meant)}")
    return np.array([index[name] for name in names], dtype=np.int64)


def _refused(split: str, labels: LabelColumn, row: int, why: str) -> UserError:
    return UserError(
        f"dataset.label_column: {_shown(labels.values[row])} in the {split} split "
        f"({labels.place}, row {row + 1}) {why}"
    )


def _shown(value: Any) -> str:
    said = repr(value)
    return said if len(said) < 60 else f"{said[:60]}..."
