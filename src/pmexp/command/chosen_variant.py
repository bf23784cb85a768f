"""Reads which variant is meant: options of the group, or code of one's own by import path."""

from collections.abc import Iterator, Sequence

import yaml

from pmexp.command.schema import conf_folder, options
from pmexp.command_line import allowed_values
from pmexp.errors import UserError
from pmexp.own_code import is_import_path
from pmexp.variants.table import DROPOUTS


def overrides_of(key: str, given: str) -> list[str]:
    """Returns the overrides that choose what `key` was given. Raises UserError for neither a variant nor an
    import path."""
    if is_import_path(given):
        return ["variant=own", f"variant.dropout={given}"]
    if "." in given:
        raise UserError(f"{key}={given}: is no import path of a class; write it as package.MyDropout")
    if given not in options("variant"):
        if given in DROPOUTS:
            named = ", ".join(sorted(_variants_with(given)))
            raise UserError(f"{key}={given}: is a dropout and no variant; variants with it are {named}")
        raise UserError(
            f"{key}={given}: is neither a variant nor the import path of a class such as package.MyDropout; "
            f"{allowed_values(given, options('variant'))}"
        )
    return [f"variant={given}"]


def _variants_with(dropout: str) -> Iterator[str]:
    for file in (conf_folder() / "variant").glob("*.yaml"):
        chosen = yaml.safe_load(file.read_text(encoding="utf-8"))
        if chosen["dropout"] == dropout and "name" in chosen:
            yield chosen["name"]


def with_own_chosen(overrides: Sequence[str]) -> list[str]:
    """The overrides, with variant=own before them where they name code of one's own and no variant."""
    typed = [(key.lstrip("+~"), value) for key, _, value in (each.partition("=") for each in overrides)]
    if any(key in ("variant", "arm", "experiment") for key, _ in typed):
        return [*overrides]
    named = (value.partition(",")[0] for key, value in typed if key in ("variant.dropout", "variant.apply"))
    return ["variant=own", *overrides] if any(map(is_import_path, named)) else [*overrides]
