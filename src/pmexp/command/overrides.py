"""Reads typed overrides in Hydra's language: texts stay as they were typed, few of Hydra's keys are taken.

Imports no torch.
"""

import shlex
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, get_origin

from antlr4 import CommonTokenStream, InputStream
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.overrides_visitor import HydraErrorListener
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.grammar.gen.OverrideLexer import OverrideLexer
from hydra.grammar.gen.OverrideParser import OverrideParser

from pmexp.command.schema import (
    default_of,
    group_of,
    is_list,
    is_list_of_texts,
    is_text,
    launchers,
    options,
    takes_any_key,
    takes_new_keys,
    type_at,
)
from pmexp.command.shapes import check_shape
from pmexp.command_line import given_twice
from pmexp.config import flat
from pmexp.config.checks import check_switch
from pmexp.errors import SweepAsked, UserError, first_line

_VALUES = (OverrideLexer.INT, OverrideLexer.FLOAT, OverrideLexer.BOOL)  # what Hydra does not take for text
_TAKES_SEVERAL = ("tracking",)  # groups whose options set keys of their own, and go together: [mlflow,csv]
_KEEP_TEXT = ("choice", "shuffle", "tag")  # functions that choose values; the others compute them


def parsed(arguments: Iterable[str], sweep: bool = False, launches: bool = False) -> list[Override]:
    """The overrides; where a key is text, its value is the text that was typed, such as 1e3, 007 or true.

    `sweep`: a key may have several values. `launches`, or a sweep: and a launcher may be chosen. Raises
    UserError.
    """
    overrides = [_parsed(argument, sweep) for argument in arguments]
    for override in overrides:
        _check_values(override, sweep)
        if override.is_hydra_override() or override.key_or_group == "hydra":
            _check_key_of_hydra(override, sweep or launches)
    refuse_contradictions(overrides)
    return overrides


def key_of(override: Override) -> str:
    """The key without a prefix such as +; a group with its package."""
    package = "" if override.package is None else f"@{override.package}"
    return f"{override.key_or_group}{package}"


def chooses_option(override: Override) -> bool:
    """Whether it names an option of a group, rather than setting keys."""
    return bool(group_of(override.key_or_group)) and not isinstance(override.value(), dict)


def merged(under: Sequence[str], over: Sequence[str]) -> list[str]:
    """The overrides of both; of a key that both have, those of `over`."""
    keys = {argument.partition("=")[0].lstrip("+") for argument in over}
    return [*(each for each in under if each.partition("=")[0].lstrip("+") not in keys), *over]


def searching(folder: Path | None) -> list[str]:
    """The override that has options of one's own found in a folder; none without a folder. Raises UserError
    where it is no folder."""
    if folder is None:
        return []
    return [f"hydra.searchpath=[{QuotedString(str(own_folder(folder)), Quote.double).with_quotes()}]"]


def own_folder(folder: Path) -> Path:
    """An absolute folder of options of one's own. Raises UserError where it is none."""
    if not folder.is_dir():
        raise UserError(f"config_dir: {folder} is no folder; name one with options of your own")
    return folder.absolute()


def _parsed(argument: str, sweep: bool) -> Override:
    if takes_any_key(argument.partition("=")[0]):
        argument = f"++{argument}"  # no key is new there, and the code that they are given to checks them
    try:
        override = _parser().parse_override(_as_typed(argument))
    except Exception as error:  # Hydra's parser raises more kinds than it documents
        raise UserError(_unreadable(argument, sweep, first_line(error))) from None
    if not override.key_or_group:
        raise UserError(f"{argument}: names no key; write key=value")
    return override


@cache
def _parser() -> OverridesParser:
    return OverridesParser.create()


def _as_typed(argument: str) -> str:
    """The override, with quotes around each text that Hydra takes for a number, a truth value or null."""
    lexer = OverrideLexer(InputStream(argument))
    parser = OverrideParser(CommonTokenStream(lexer))
    for recognizer in (lexer, parser):
        recognizer.removeErrorListeners()
        recognizer.addErrorListener(HydraErrorListener())
    tree = parser.override()
    if tree.value() is not None:
        for token in reversed(list(_mistakable(tree.value(), tree.key().getText()))):
            argument = f"{argument[: token.start]}'{token.text}'{argument[token.stop + 1 :]}"
    return argument


def _mistakable(node: Any, key: str) -> Iterator[Any]:
    """The tokens below a node of the value, in their order, that stand alone where `key` takes text."""
    if isinstance(node, OverrideParser.PrimitiveContext):
        tokens = [child.symbol for child in node.getChildren() if child.symbol.type != OverrideLexer.WS]
        values = (*_VALUES, OverrideLexer.NULL) if group_of(key) else _VALUES
        takes_text = group_of(key) or is_text(key) or is_list_of_texts(key)
        if takes_text and len(tokens) == 1 and tokens[0].type in values:
            yield tokens[0]
    elif isinstance(node, OverrideParser.DictKeyValuePairContext):
        yield from _mistakable(node.element(), f"{key}.{node.dictKey().getText().strip()}")
    elif not isinstance(node, OverrideParser.FunctionContext) or node.ID().getText() in _KEEP_TEXT:
        for child in node.getChildren():
            if hasattr(child, "getChildren"):
                yield from _mistakable(child, key)


def _unreadable(argument: str, sweep: bool, reason: str) -> str:
    """Says what is wrong with an override that cannot be read, and with which quotes it could."""
    typed, equals, value = argument.partition("=")
    key = typed.lstrip("+~")
    if not equals:
        return f"{argument}: is no override; write key=value"
    if group_of(key):
        return f"{argument}: is not an option; allowed are {', '.join(options(group_of(key)))}"
    if type_at(key) not in (None, str) and not (is_list_of_texts(key) or takes_new_keys(key)):
        return f"{argument}: {value!r} is no value of {key} ({reason})"
    for candidate, meant in _quoted(typed, value, sweep) if value.isprintable() else ():
        try:
            read = _parser().parse_override(candidate)
        except Exception:  # nor can this one
            continue
        if meant == ([*read.sweep_iterator()] if read.is_sweep_override() else read.value()):
            return f"{argument}: has to be quoted, also for the shell; write {shlex.quote(candidate)}"
    return f"{argument}: is no override ({reason}); write key=value"


def _quoted(key: str, value: str, sweep: bool) -> Iterator[tuple[str, Any]]:
    """Ways to write the override with quotes, and what each means."""
    for quote in (Quote.double, Quote.single):
        if is_list(key.lstrip("+~")) and value[:1] + value[-1:] == "[]":
            parts = [QuotedString(part.strip(), quote) for part in value[1:-1].split(",")]
            yield f"{key}=[{_joined(parts)}]", [part.text for part in parts]
        if sweep and "," in value and not key.startswith("hydra."):
            parts = [QuotedString(part, quote) for part in value.split(",")]
            yield f"{key}={_joined(parts)}", parts
        yield f"{key}={QuotedString(value, quote).with_quotes()}", value


def _joined(parts: Sequence[QuotedString]) -> str:
    return ",".join(part.with_quotes() for part in parts)


def _check_values(override: Override, sweep: bool) -> None:
    values = getattr(override.value(), "list", [override.value()])
    if is_text(override.key_or_group) and any(isinstance(value, (bool, float)) for value in values):
        raise UserError(f"{override.input_line}: computes what is no text; write the text itself")
    if override.is_sweep_override():
        if sweep and override.is_discrete_sweep():
            return
        if sweep:
            raise UserError(
                f"{override.input_line}: has no end of values; write them, or a range(start,stop,step)"
            )
        raise _several(override)
    value = override.value()
    names_options = group_of(override.key_or_group) and not isinstance(value, dict)
    if not (names_options or override.is_delete() or override.is_hydra_override()):
        check_shape(str(override.input_line), override.package or override.key_or_group, value)
    for key, one in flat({key_of(override): value}).items():
        if type_at(key) is bool:
            check_switch(str(override.input_line), one)
    if override.is_delete():
        _check_deleted(override)
    group = group_of(override.key_or_group)
    many = group in _TAKES_SEVERAL or get_origin(type_at(override.package or override.key_or_group)) is dict
    if group in _TAKES_SEVERAL and isinstance(value, list) and len(value) > 1 and "off" in value:
        raise UserError(f"{override.input_line}: off stands alone; leave it out, or choose {group}=off")
    names_one = isinstance(value, (str, dict, *((list,) if many else ()))) and not _leaves_group(value)
    if group and not names_one and not override.is_delete():
        raise UserError(f"{override.input_line}: names one option; allowed are {', '.join(options(group))}")


def _leaves_group(value: Any) -> bool:
    """Whether the name of an option would be looked up elsewhere than below its group."""
    return isinstance(value, str) and (value.startswith("/") or ".." in value.split("/") or "${" in value)


def _check_deleted(override: Override) -> None:
    """Refuses ~key for a key that has a default, since it would get that back."""
    key = override.package or override.key_or_group
    if default_of(key) not in (None, {}, []):
        raise UserError(
            f"{override.input_line}: every run has {key}, which would get its default; write {key}=<value>"
        )
    if override.value() is not None:
        raise UserError(
            f"{override.input_line}: takes the key away whatever it is; write ~{key_of(override)}"
        )


def _several(override: Override) -> SweepAsked:
    otherwise = _as_one_value(override)
    said = f"{override.input_line}: several values are a sweep"
    return SweepAsked(said, f"add -m{otherwise}", f"give one at a time{otherwise}")


def _as_one_value(override: Override) -> str:
    """Says how what was typed is one value, where it can be; empty where it cannot."""
    key, value = override.get_key_element(), override.get_value_string()
    if is_list(override.key_or_group):
        return f", or write {shlex.quote(f'{key}=[{value}]')} for a list"
    if is_text(override.key_or_group):
        as_text = f"{key}={QuotedString(value, Quote.double).with_quotes()}"
        return f", or write {shlex.quote(as_text)} for one text"
    return ""


def _check_key_of_hydra(override: Override, launches: bool) -> None:
    """Refuses Hydra's own keys but the launcher's: sweeps and their folders are pmexp's."""
    key, line = override.key_or_group, override.input_line
    if key == "hydra.searchpath":
        _check_searchpath(override)
        return
    if (
        override.is_delete()
        or (key != "hydra/launcher" and not key.startswith("hydra.launcher."))
        or key == "hydra.launcher._target_"
    ):
        raise UserError(
            f"{line}: is not taken; of Hydra's keys allowed are hydra/launcher, hydra.launcher.<key> and "
            "hydra.searchpath (to sweep, add -m and give a key several values)"
        )
    if override.is_sweep_override():
        raise UserError(f"{line}: holds for the whole sweep; give one value{_as_one_value(override)}")
    if key == "hydra/launcher" and override.value() not in [*launchers()]:
        raise UserError(
            f"{line}: is not a launcher of pmexp; allowed are {', '.join(launchers())} (for a debugger leave "
            "-m out: one run is executed in the process that is started)"
        )
    if not launches:
        said = f"{line}: launchers execute sweeps"
        raise SweepAsked(said, "add -m, also for a single run", "leave it out")


def _check_searchpath(override: Override) -> None:
    folders, line = override.value(), override.input_line
    if not isinstance(folders, list):
        raise UserError(f"{line}: takes a list of folders; write hydra.searchpath=[FOLDER]")
    for folder in map(str, folders):
        if "://" not in folder and not Path(folder).is_dir():
            raise UserError(f"{line}: {folder} is no folder; name one with options of your own")


def refuse_contradictions(overrides: Sequence[Override]) -> None:
    """Raises UserError where two overrides say different things of one key."""
    before: dict[str, Override] = {}
    for override in overrides:
        other = before.setdefault(key_of(override), override)
        if other.input_line != override.input_line and not isinstance(override.value(), dict):
            raise UserError(given_twice(str(other.input_line), str(override.input_line)))
