"""Judges whether a name is that of a credential: `db_password`, `HF_TOKEN`, `accountKey`, and not
`pad_token`."""

import re
from enum import IntEnum
from functools import lru_cache


class Strength(IntEnum):
    """How much a name alone says of the value that it is given."""

    none = 0
    weak = 1  # an ordinary word too, such as key or token: the value decides
    strong = 2


# Every name of a credential contains one of these, so a text is searched for them first.
STEMS = "pass|pwd|pswd|secret|token|key|cred|auth|jwt|psk|sig|sas|bearer|cookie|session"
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_SUFFIXES = set(
    re.findall(
        r"\w+",
        "old new prod production dev test staging value val text str string plain raw b64 base64 enc encoded "
        "default backup current main ro rw read write base",
    )
)
_STRONG = re.compile(
    r"(?:(?:password|passwd|pass?phrase|passcode|passwort|pswd|pwd|secret|credential)s?|jwt|psk|bearer|authorization"
    r"|(?:db|user|my|root|admin|smtp|ftp|ssh|mysql|pg|sql|redis|mail|imap|proxy|ldap|http|login|require)pass)$"
)
_OWNERS = (
    "api|app|access|secret|private|account|shared|storage|auth|encryption|signing|master|service|subscription|client"
    "|deploy|license"
)
_OF_TOKENS = (
    f"{_OWNERS}|bearer|refresh|hf|hub|huggingface|github|gh|gitlab|slack|session|wandb|csrf|oauth|personal|bot|security"
    "|sas|mlflow|databricks|user|login|npm|pypi"
)
_OWNED = re.compile(rf"(?:(?:{_OWNERS})keys?|(?:{_OF_TOKENS})tokens?|setcookie)$")
_WEAK = {"token", "key", "pass", "pw", "auth", "signature", "sig", "sas", "cookie", "session"}
_INNOCENT = set(
    re.findall(
        r"\w+",
        "pad eos bos cls sep unk mask special image video audio start end stop max min num n sort primary "
        "foreign public cache group partition first last next forward backward dict hash row column per",
    )
)


@lru_cache(maxsize=4096)
def strength(name: str) -> Strength:
    """Judges by the last word of the name; numbers and words like `old` or `prod` behind it do not count."""
    words = _WORDS.findall(name)
    while len(words) > 1 and (words[-1].isdigit() or words[-1].lower() in _SUFFIXES):
        words.pop()
    if not words:
        return Strength.none
    last, joined = words[-1].lower(), "".join(words[-2:]).lower()
    if _STRONG.search(last) or _STRONG.fullmatch(joined) or _OWNED.search(joined):
        return Strength.strong
    if last not in _WEAK:
        return Strength.none
    innocent = len(words) > 1 and words[-2].lower() in _INNOCENT
    of_environment = len(words) > 1 and name.isupper() and last in ("token", "pass", "pw")
    return Strength.strong if of_environment and not innocent else Strength.weak


def is_innocent(name: str) -> bool:
    """Whether the word before the last says that no credential is meant: `pad_token`, `sort_key`."""
    words = _WORDS.findall(name)
    return len(words) > 1 and words[-2].lower() in _INNOCENT


def names_credential(name: str) -> bool:
    """Whether a variable or option of that name holds a credential: there, a token is no word of a text."""
    if name in ("PWD", "OLDPWD"):  # folders of the shell
        return False
    return may_name_credential(name) and not re.search(r"(?i)(?:signature|sig|cookie|session)$", name)


def may_name_credential(name: str) -> bool:
    """Whether a parameter of that name in a server's address may hold a credential; there a signature or a
    session gives access as well."""
    return strength(name) is not Strength.none and not is_innocent(name)
