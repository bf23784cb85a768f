"""Looks up what the keys of a run mean: the comment behind each field in `config/`. Imports no torch."""

import inspect
import json
import re
import sys
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any

from pmexp.command.schema import default_in, default_of, keys, launchers, type_at
from pmexp.command_line import Key
from pmexp.config import RunConfig

_FIELD = re.compile(r"^    (\w+): [^#\n]*(?:#\s*(.*))?$", re.MULTILINE)
_LINE_OF_KEY = re.compile(r"^( *)([\w-]+):")
_LINE_OF_VALUE = re.compile(r"^( *)[\w-]+: ")


def keys_below(prefix: str) -> list[Key]:
    """The keys of a run that begin with `prefix` and have no keys below them, with defaults and meanings."""
    return [
        Key(key, meaning(key), _text(default_of(key)))
        for key in keys()
        if key.startswith(prefix) and not is_dataclass(type_at(key))
    ]


def meaning(key: str) -> str:
    """The comment behind the field of a key, and the members of its enum; empty where there is neither."""
    parent, _, name = key.rpartition(".")
    owner = type_at(parent) if parent else RunConfig
    comment = _comments(owner).get(name, "") if is_dataclass(owner) else ""
    hint = type_at(key)
    members = [one.name for one in hint] if isinstance(hint, type) and issubclass(hint, Enum) else []
    allowed = f"allowed are {', '.join(members)}" if members else ""
    return "; ".join(filter(None, (comment, allowed)))


def launcher_lines() -> str:
    """Lists the keys of each launcher in lines `key: default  # meaning`, each launcher under a title."""
    lines = []
    for name, conf in launchers().items():
        lines.append(f"== hydra/launcher={name}, for a sweep (-m): {inspect.getdoc(conf)} ==")
        comments = _comments(conf)
        lines += [
            f"hydra.launcher.{field.name}: {json.dumps(default_in(field))}  # {comments[field.name]}"
            for field in fields(conf)
            if not field.name.startswith("_")
        ]
    return "\n".join(lines) + "\n"


def annotated(text: str) -> str:
    """Returns a configuration in YAML with the meaning of each key behind its line `key: value`.

    A value that YAML folds over several lines is put on one, as a comment inside it would be a part of it.
    """
    above: list[str] = []
    lines = []
    for line in _unfolded(text.splitlines()):
        matched = _LINE_OF_KEY.match(line)
        if matched:
            above = [*above[: len(matched[1]) // 2], matched[2]]
            comment = meaning(".".join(above))
            line = f"{line}  # {comment}" if comment else line
        lines.append(line)
    return "\n".join(lines) + "\n"


def _unfolded(lines: Iterable[str]) -> list[str]:
    """Returns the lines with those joined that go on with the value of a key: they are further to the right,
    and a key that has a value on its own line has no keys below it."""
    joined: list[str] = []
    for line in lines:
        key = _LINE_OF_VALUE.match(joined[-1]) if joined else None
        if key and len(line) - len(line.lstrip()) > len(key[1]):
            is_escaped = _escapes_its_end(joined[-1])
            joined[-1] = joined[-1][:-1] if is_escaped else f"{joined[-1]} "
            joined[-1] += line.lstrip().removeprefix("\\" * is_escaped)
        else:
            joined.append(line)
    return joined


def _escapes_its_end(line: str) -> bool:
    """Whether a value in double quotes goes on without a blank, behind a backslash that is none of a pair."""
    backslashes = len(line) - len(line.rstrip("\\"))
    return ': "' in line and line.partition(": ")[2].startswith('"') and backslashes % 2 == 1


@cache
def _comments(cls: type[Any]) -> dict[str, str]:
    """The comments behind the fields of a dataclass and of its bases, by field."""
    own = {field.name for field in fields(cls)}
    comments: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        # inspect would parse the whole module for each class.
        lines = re.search(rf"^class {base.__name__}\b.*?(?=^\S|\Z)", _source(base.__module__), re.M | re.S)
        assert lines
        comments |= {name: comment for name, comment in _FIELD.findall(lines[0]) if name in own}
    return comments


@cache
def _source(module: str) -> str:
    return inspect.getsource(sys.modules[module])


def _text(default: Any) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, Enum):
        return default.name
    return "" if default is None or default == "???" else str(default)
