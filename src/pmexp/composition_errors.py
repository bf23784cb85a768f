"""One line for a person out of what Hydra and OmegaConf say when a configuration does not compose."""

import difflib
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

from hydra.errors import MissingConfigException
from omegaconf.errors import OmegaConfBaseException

from pmexp.config import RunConfig

_NOISE = ("object_type=", "reference_type=", "full_key:", "See https://", "To append to your config use")


def explain(error: Exception) -> str:
    """What is wrong, what is allowed and, for a misspelt key, what was meant."""
    if isinstance(error, MissingConfigException) and error.options and error.missing_cfg_file:
        group, _, option = error.missing_cfg_file.rpartition("/")
        return f"{group}={option}: is not an option; allowed are {', '.join(sorted(error.options))}"
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else None
    lines = [line.strip() for text in (error, cause) if text for line in str(text).splitlines()]
    message = "; ".join(dict.fromkeys(line for line in lines if line and not line.startswith(_NOISE)))
    return message + _meant(message)


def _meant(message: str) -> str:
    wrong = re.match(r"Could not override '([^']+)'", message)
    if not wrong:
        return ""
    close = difflib.get_close_matches(wrong[1], _keys(RunConfig), n=1, cutoff=0.8)
    return f"; did you mean {close[0]}?" if close else "; --help lists the keys"


def _keys(cls: type[Any], prefix: str = "") -> Iterator[str]:
    hints = get_type_hints(cls)
    for field in fields(cls):
        yield prefix + field.name
        if is_dataclass(hints[field.name]):
            yield from _keys(hints[field.name], f"{prefix}{field.name}.")
