"""Judges whether an address of a server or database would tell a credential to whoever reads it."""

import re
from urllib.parse import parse_qsl, unquote, urlsplit

from pmexp.masking.names import may_name_credential
from pmexp.masking.values import without_random_letters

_SEPARATORS = re.compile(r"[?&#;]")


def names_in(address: str) -> list[str]:
    """The names of the parameters in query and fragment that have a value."""
    _, *parts = _SEPARATORS.split(address)
    return [name for part in parts for name, _ in parse_qsl(part)]


def tells_credential(address: str) -> bool:
    """Whether a parameter with a credential's name has a value, or a server's path holds a token: `masked`
    does not know these in other text. Raises ValueError for what is no address."""
    plain, parts = unquote(address), urlsplit(address)
    _ = parts.port  # urlsplit checks the port only when it is asked for it
    if any(may_name_credential(name) for text in (address, plain) for name in names_in(text)):
        return True
    is_server = parts.scheme in ("http", "https")
    return is_server and any(map(_is_token, urlsplit(plain).path.split("/")))


def _is_token(segment: str) -> bool:
    """Whether a segment of a path is long and its letters and digits in disorder; words with a year or a
    number behind them are no token."""
    long = re.fullmatch(r"[A-Za-z0-9_~=-]{20,}", segment) is not None
    hexadecimal = re.fullmatch(r"[0-9a-fA-F]{24,}", segment) is not None
    mixed = "-" not in segment and len(re.findall(r"\d+", segment)) > 2
    return hexadecimal or (long and (mixed or without_random_letters(segment) != segment))
