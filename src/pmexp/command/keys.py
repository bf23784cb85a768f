"""Keys that a command has beside those of the run configuration. Imports no torch."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pmexp.errors import UserError


def own_keys(arguments: Iterable[str], keys: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The values of `keys`, and the other arguments as they are. Raises UserError for two values of one."""
    values: dict[str, str] = {}
    others = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if equals and key in keys:
            if (other := values.setdefault(key, value)) != value:
                raise UserError(f"{argument}: the same key is given as {key}={other}; leave one of them out")
        else:
            others.append(argument)
    return values, others


def merged(under: Sequence[str], over: Sequence[str]) -> list[str]:
    """The overrides of both; of a key that both have, those of `over`."""
    keys = {argument.partition("=")[0].lstrip("+") for argument in over}
    return [*(each for each in under if each.partition("=")[0].lstrip("+") not in keys), *over]


def one_of(key: str, value: str, allowed: Sequence[str]) -> str:
    """The value. Raises UserError when it is not allowed."""
    if value not in allowed:
        raise UserError(f"{key}: {value!r} is unknown; allowed are {', '.join(allowed)}")
    return value


def path_of(given: Mapping[str, str], key: str) -> Path | None:
    """The absolute path that the key names; None where it was not given."""
    return Path(given[key]).expanduser().resolve() if key in given else None
