"""Checks that several groups share: each raises UserError with the key, the value and what is allowed."""

import re

from pmexp.errors import UserError
from pmexp.masking import address_holds_credential, holds_credential

SWITCH = ("true", "false", "yes", "no", "on", "off")  # what a key that is true or false takes, as in YAML


def check_no_credential(key: str, value: str) -> None:
    """Raises UserError for a credential. The configuration goes into the run's folder, the tracker and
    reports as it is; nor does the message repeat the credential."""
    if holds_credential(value):
        raise _credential_error(key, "give it in the environment, such as HF_TOKEN")


def check_address(key: str, value: str, instead: str) -> None:
    """Raises UserError for what is no address, or one with a credential."""
    try:
        if address_holds_credential(value):
            raise _credential_error(key, instead)
    except ValueError as error:  # urllib raises it, such as for a bracket that is not closed
        raise UserError(f"{key}: {value!r} is no address ({error}); write scheme://host:port/path") from None


def _credential_error(key: str, instead: str) -> UserError:
    return UserError(
        f"{key}: it holds a password or token, which every record of a run would show; leave it out and "
        f"{instead}"
    )


def check_name(key: str, value: str) -> None:
    """Raises UserError unless `value` can name a folder."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", value):
        raise UserError(
            f"{key}: {value!r} is not a name; allowed are up to 64 letters, digits, '.', '_' and '-', "
            "beginning with a letter or digit"
        )


def check_hub_id(key: str, value: str | None) -> None:
    """Raises UserError for a value that is no id of the hub, such as a path or a format like csv: libraries
    would read a folder of that name where the run is started."""
    group = key.partition(".")[0]
    owner = "?" if group == "model" else ""  # some old models have none
    if value and not re.fullmatch(rf"([\w-][\w.-]*/){owner}[\w-][\w.-]*", value):
        raise UserError(f"{key}: {value!r} is no id such as owner/name; for a folder set {group}.path")


def check_switch(where: str, value: object) -> None:
    """Raises UserError for what is no true or false: OmegaConf takes any whole number for one, and `y`.

    null and what refers to another key are left to OmegaConf.
    """
    if isinstance(value, bool) or value is None:
        return
    if not isinstance(value, str) or not ("${" in value or value == "???" or value.lower() in SWITCH):
        raise UserError(f"{where}: {value!r} is no switch; write true or false")


def check_positive(key: str, value: float) -> None:
    """Raises UserError unless `value` is finite and above 0."""
    if not 0 < value < float("inf"):
        raise UserError(f"{key}: {value} must be a positive number")


def check_at_least(key: str, value: int, low: int) -> None:
    """Raises UserError where `value` is below `low`."""
    if value < low:
        raise UserError(f"{key}: {value} must be at least {low}")


def check_between(key: str, value: float, low: float, high: float, open_low: bool = False) -> None:
    """Raises UserError where `value` is outside of `low` to `high`, both allowed unless `open_low`."""
    if not low <= value <= high or (open_low and value == low):
        raise UserError(f"{key}: {value} must lie in {'(' if open_low else '['}{low}, {high}]")
