"""Reads the variants that commands compare: options of the group, or classes of one's own by import path."""

from pmexp.command.schema import options
from pmexp.command_line import allowed_values
from pmexp.errors import UserError
from pmexp.own_code import is_import_path


def overrides_of(key: str, given: str) -> list[str]:
    """Returns the overrides that choose what `key` was given. Raises UserError for neither a variant nor an
    import path."""
    if is_import_path(given):
        return ["variant=own", f"variant.dropout={given}"]
    if "." in given:
        raise UserError(f"{key}={given}: is no import path of a class; write it as package.MyDropout")
    if given not in options("variant"):
        raise UserError(
            f"{key}={given}: is neither a variant nor the import path of a class such as package.MyDropout; "
            f"{allowed_values(given, options('variant'))}"
        )
    return [f"variant={given}"]
