"""Credentials in text that goes on record become ``***``. Imports no torch."""

import os
import re
from collections.abc import Iterable, Mapping

MASK = "***"
_NAMES = r"passwords?|passwd|secrets?|credentials?|(?:api|access|secret|private)_?key"
_SECRET = rf"(?i:{_NAMES}|(?<![a-z])pwd)"
_TOKEN = r"(?i:(?<![a-z])(?:token|key))"  # in source code mostly an ordinary word
_SET = r"[\"']?\s*[:=]\s*"
_RANDOM = r"(?=[^\s\"',;&]*\d)(?=[^\s\"',;&]*[A-Za-z])[^\s\"',;&()\[\]{}]{12,}"
_IN_TEXT = [
    re.compile(r"(://[^\s/:@\"']*:)(?!\d{1,5}/)[^\s\"']+(?=@)"),  # the password of a URI, not its port
    re.compile(rf"({_SECRET}{_SET}[\"'])[^\"'\n]+"),
    re.compile(rf"({_SECRET}{_SET})[^\s\"',;&()\[\]{{}}]+(?=[\s\"',;&]|$)"),
    re.compile(rf"({_TOKEN}{_SET}[\"']?){_RANDOM}"),
    re.compile(r"()\b(?:hf_|gh[pousr]_|github_pat_|glpat-|sk-|xox[abp]-|AKIA|eyJ)[\w.-]{12,}"),
    re.compile(r"(-----BEGIN [A-Z ]*PRIVATE KEY-----)(?:.|\n)+?(?=-----END|$)"),
]
_ARGUMENT = re.compile(rf"(?i)(?:.*(?:{_NAMES})|(?:.*[^a-z])?(?:token|key))")
_IN_ENVIRONMENT = re.compile(rf"(?i)token(?!iz)|{_NAMES}|(?<![a-z])key(?![a-z])|jwt")
_SHORTEST = 6  # of a value that is looked for: a shorter one would be found by chance


def masked(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """`text` without passwords of URIs, values set to names like password or api_key, well-known forms of
    tokens, and the values of environment variables that have such names."""
    for name, value in environment.items():
        if len(value) >= _SHORTEST and _IN_ENVIRONMENT.search(name):
            text = text.replace(value, MASK)
    for pattern in _IN_TEXT:
        text = pattern.sub(rf"\1{MASK}", text)
    return text


def masked_arguments(arguments: Iterable[str], environment: Mapping[str, str] = os.environ) -> list[str]:
    """The arguments of a command, masked; here `token` and `key` are names of credentials as well."""
    safe: list[str] = []
    follows = False  # the argument after `--token`
    for argument in arguments:
        name, equals, value = argument.partition("=")
        secret = _ARGUMENT.fullmatch(name) is not None
        if follows:
            safe.append(MASK)
        elif secret and equals and value:
            safe.append(f"{name}={MASK}")
        else:
            safe.append(masked(argument, environment))
        follows = secret and not equals and name.startswith("-")
    return safe
