"""Reads which variant is meant: an option of the group, or code of one's own by import path."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hydra.core.override_parser.types import Override

from pmexp.command.explain import explained
from pmexp.command.overrides import key_of, parsed
from pmexp.errors import UserError
from pmexp.own_code import is_import_path

_NAME = re.compile(r"[\w./-]+")


def with_own_chosen(overrides: Sequence[str]) -> list[str]:
    """The overrides, with variant=own before them where they name code of one's own and no variant."""
    typed = [(key.lstrip("+~"), value) for key, _, value in (each.partition("=") for each in overrides)]
    if any(key in ("variant", "arm", "experiment") for key, _ in typed):
        return [*overrides]
    named = (value.partition(",")[0] for key, value in typed if key in ("variant.dropout", "variant.apply"))
    return ["variant=own", *overrides] if any(map(is_import_path, named)) else [*overrides]


def with_classes_chosen(typed: Sequence[Override]) -> list[Override]:
    """The overrides, with variant=own variant.dropout=package.MyDropout for variant=package.MyDropout."""
    put: list[Override] = []
    for override in typed:
        value = override.value()
        if key_of(override) == "variant" and isinstance(value, str) and is_import_path(value):
            put += parsed(["variant=own", f"variant.dropout={value}"])
        else:
            put.append(override)
    return put


def choosing(key: str, variant: str) -> str:
    """The override that chooses what `key` was given. Raises UserError for what is no name."""
    if not _NAME.fullmatch(variant):
        raise UserError(
            f"{key}={variant}: is no name of a variant; write one, or a class as package.MyDropout"
        )
    return f"variant={variant}"


def as_given(key: str, error: UserError) -> str:
    """What an error says of a variant, named as it was given: b=package.MyDropout."""
    return re.sub("^variant=", f"{key}=", str(error)).replace("variant.dropout: ", f"{key}=", 1)


@contextmanager
def errors_as_given(key: str) -> Iterator[None]:
    """Lets errors about the variant that `key` was given name it so."""
    try:
        with explained():
            yield
    except UserError as error:
        raise UserError(as_given(key, error)) from error
