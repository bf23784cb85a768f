"""Replaces credentials by ``***`` in text that goes on record: the one place that knows what a credential is.

They are known by name (`names`), by the name they are given to (`assignments`) and by look (`values`).
Imports no torch.
"""

import os
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote, unquote

from pmexp.masking.addresses import tells_credential
from pmexp.masking.names import names_credential
from pmexp.masking.values import MASK, SHAPES, TOKEN, without_random_letters

__all__ = [
    "MASK",
    "address_holds_credential",
    "credentials_in",
    "holds_credential",
    "masked",
    "masked_arguments",
    "masked_values",
]

_SHORTEST = 6  # letters: a shorter value would be met by chance
_PLAIN = re.compile(r"[\w.-]*")  # a name or a run id
_WORD = re.compile(r"[^\s\"'`<>]+")
_DEEPEST = 4  # how often a word is decoded: `%253D` twice
_SAFE = "!$&'()*+,-./:;=?@[]_~#|{}"  # what stays as it is when a part of a URI is written again


def masked(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """Returns `text` without credentials: known forms of tokens and keys, passwords in URIs and headers, what
    a name such as password or api_key is given, letters in disorder, and the values of environment variables
    of such names. Masking twice is masking once."""
    return without_random_letters(_certain(_without_known(text, environment)))


def credentials_in(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables of `environment` whose values masked() looks for: masking thousands of texts is
    quicker with these alone."""
    return {name: value for name, value in environment.items() if names_credential(name)}


@lru_cache(maxsize=4096)  # a sweep asks the same of each run
def holds_credential(text: str) -> bool:
    """Whether something in `text` is a credential by its name or its form; random letters alone are none."""
    return _certain(text) != text


def address_holds_credential(address: str) -> bool:
    """Whether `address` holds a credential, also by what only its parameters or path show. Raises ValueError
    for what is no address."""
    return holds_credential(address) or tells_credential(address)


def masked_arguments(arguments: Iterable[str], environment: Mapping[str, str] = os.environ) -> list[str]:
    """Returns the arguments of a command, masked; here `token` and `key` are names of credentials as well."""
    safe: list[str] = []
    follows = False  # the argument after `--token`
    is_user = False  # the argument after `-u`
    for argument in arguments:
        name, equals, value = argument.partition("=")
        secret = names_credential(name)
        if follows:
            safe.append(MASK)
        elif secret and equals and value:
            safe.append(f"{name}={MASK}")
        elif is_user:
            safe.append(masked(f"-u {argument}", environment).removeprefix("-u "))
        else:
            safe.append(masked(argument, environment))
        follows = secret and not equals and name.startswith("-")
        is_user = argument in ("-u", "--user", "--proxy-user")
    return safe


def masked_values(record: Any) -> Any:
    """Returns a copy of a record of plain types in which every text is masked; keys stay."""
    if isinstance(record, str):
        return masked(record)
    if isinstance(record, Mapping):
        return {key: masked_values(value) for key, value in record.items()}
    return [masked_values(value) for value in record] if isinstance(record, list | tuple) else record


def _certain(text: str, depth: int = 0) -> str:
    """Returns `text` without what is a credential by its name or form."""
    if _PLAIN.fullmatch(text):  # all other forms, and giving a value to a name, need a blank or another sign
        return TOKEN.sub(_with_mask, text)
    if "%" in text and depth < _DEEPEST:
        text = _WORD.sub(lambda word: _decoded_and_masked(word[0], depth), text)
    from pmexp.masking.assignments import without_assigned  # its expressions take 15 ms to compile

    for shape in SHAPES:
        text = shape.sub(_with_mask, text)
    return without_assigned(text)


def _with_mask(match: "re.Match[str]") -> str:
    return f"{match[1]}{MASK}"


def _decoded_and_masked(word: str, depth: int) -> str:
    """Returns a word of a URI as it is, unless there is a credential in what it encodes."""
    decoded = unquote(word) if "%" in word else word
    if decoded == word:
        return word
    safe = _certain(decoded, depth + 1)
    return word if safe == decoded else quote(safe, safe=_SAFE)


def _without_known(text: str, environment: Mapping[str, str]) -> str:
    for name, value in environment.items():
        if len(value) >= _SHORTEST and names_credential(name):
            for form in dict.fromkeys((value, quote(value, safe=""), quote(value))):
                text = text.replace(form, MASK)
    return text
