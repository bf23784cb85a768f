"""Puts what Hydra and OmegaConf say of wrong input into one line for a person."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from hydra.errors import HydraException, MissingConfigException
from omegaconf.errors import OmegaConfBaseException

from pmexp.command.schema import conf_folder, group_of, options, unknown_key
from pmexp.command_line import allowed_values
from pmexp.errors import UserError
from pmexp.variants.table import DROPOUTS
from pmexp.yaml_text import read

_NOISE = ("object_type=", "reference_type=", "full_key:", "See https://", "To append to your config use")

_TYPES = {
    "Integer": ("whole number", "one, such as 3"),
    "Float": ("number", "one, such as 0.5"),
    "bool": ("switch", "true or false"),
}


@contextmanager
def explained() -> Iterator[None]:
    """Turns an error of Hydra or OmegaConf inside it into a UserError."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error)) from error


def explain(error: Exception) -> str:
    """What is wrong, what is allowed and, for a misspelt key, what was meant."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, option = error.missing_cfg_file.rpartition("/")
        allowed = error.options or (options(group) if group_of(group) else [])  # Hydra has none for a list
        if allowed:
            return f"{group}={option}: {_no_option(group, option, sorted(allowed))}"
    in_file = re.search(r"In '([^']+)': Config\w+ raised .*not in .*full_key: (\S+)", str(error), re.DOTALL)
    if in_file:
        return f"{in_file[1]}.yaml: {unknown_key(in_file[2])}"
    again = re.match(r"Multiple values for (\S+)\.", str(error))
    if again:
        return f"{again[1]}: is chosen already; leave the + out"
    there = re.match(r"Could not append to config\. An item is already at '([^']+)'", str(error))
    if there:
        return f"+{there[1]}: is there already; leave the + out"
    deleted = re.match(r"Could not delete from config\. '([^']+)' does not exist", str(error))
    if deleted:
        return f"~{deleted[1]}: is not there; leave it out"
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else None
    typed = re.match(r"Error merging override (.+)", str(error))
    wanted = re.match(
        r"Value '(.*)' (?:of type '\w+' could not be converted to|is not a valid) (Integer|Float|bool)",
        str(cause),
    )
    if typed and wanted:
        return _of_another_type(typed[1], wanted[1], wanted[2])
    of_file = re.match(r"In '([^']+)':.*full_key: (\S+)", str(error), re.DOTALL)
    converted = re.search(r"Value '(.*)' of type '\w+' could not be converted to (Integer|Float)", str(error))
    if of_file and converted:
        name, allowed = _TYPES[converted[2]]
        return f"{of_file[1]}.yaml: {of_file[2]}: {converted[1]!r} is no {name}; write {allowed}"
    member = re.search(r"Invalid value '(.*)', expected one of \[(.*)\]", str(cause or error))
    if of_file and member:
        known = allowed_values(member[1], member[2].split(", "))
        return f"{of_file[1]}.yaml: {of_file[2]}: {member[1]!r} is unknown; {known}"
    if typed and member:
        return f"{typed[1]}: {member[1]!r} is unknown; {allowed_values(member[1], member[2].split(', '))}"
    lines = [line.strip() for text in (error, cause) if text for line in str(text).splitlines()]
    wrong = re.match(r"Could not override '([^']+)'", str(error))
    if wrong:
        below = getattr(cause, "full_key", None) or ""  # the a of model={a: 1}
        return unknown_key(below if below.startswith(wrong[1]) else wrong[1])
    message = "; ".join(dict.fromkeys(line for line in lines if line and not line.startswith(_NOISE)))
    key = getattr(cause or error, "full_key", None)
    return message if not key or key in message else f"{key}: {message}"


def _no_option(group: str, option: str, allowed: list[str]) -> str:
    if group == "variant" and option in DROPOUTS:
        return (
            f"is a dropout and no variant; variants with it are {', '.join(sorted(_variants_with(option)))}"
        )
    or_own = ", or a class of your own, as package.MyDropout" if group == "variant" else ""
    return f"is not an option; {allowed_values(option, allowed)}{or_own}"


def _variants_with(dropout: str) -> Iterator[str]:
    for file in (conf_folder() / "variant").glob("*.yaml"):
        chosen = read(file.read_text(encoding="utf-8"))
        if chosen["dropout"] == dropout and "name" in chosen:
            yield chosen["name"]


def _of_another_type(override: str, value: str, wanted: str) -> str:
    if not value:
        return f"{override}: has no value; write {override}VALUE or leave it out"
    name, allowed = _TYPES[wanted]
    return f"{override}: {value!r} is no {name}; write {allowed}"
