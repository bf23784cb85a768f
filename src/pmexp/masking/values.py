"""Knows credentials by what they look like, whatever their name: known forms of tokens, headers and keys, and
disorder."""

import re
from itertools import pairwise

MASK = "***"

_TOKENS = "|".join(
    [
        r"gh[pousr]_\w{16,}", r"github_pat_\w{16,}", r"gl(?:pat|dt|rt|cbt|ptt|ft|soat|agent)-[\w-]{12,}",
        r"hf_[A-Za-z0-9]{12,}", r"api_org_\w{16,}", r"(?:sk|rk|pk)_(?:live|test)_\w{12,}",
        r"(?:sk|gsk|xai|pplx|nvapi|pypi|key)[-_](?=[\w-]*\d)[\w-]{16,}", r"npm_\w{16,}",
        r"xox[a-z]-[\w-]{10,}", r"xapp-[\w-]{10,}", r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{12,}",
        r"AIza[\w-]{20,}", r"ya29\.[\w-]{16,}", r"GOCSPX-[\w-]{16,}", r"eyJ[\w-]{12,}(?:\.[\w-]*){0,2}",
        r"dop_v1_\w{16,}", r"SG\.[\w-]{12,}\.[\w-]{12,}", r"(?:dckr_pat|shpat|shpss|whsec|lsv2|r8)_\w{16,}",
        r"AGE-SECRET-KEY-\w{20,}", r"hv[sbr]\.[\w-]{16,}", r"dapi[0-9a-f]{24,}", r"\d{8,10}:AA[\w-]{30,}",
        r"(?<=hooks\.slack\.com/services/)[\w/]+", r"(?<=/api/webhooks/)\d+/[\w-]+",
    ]
)  # fmt: skip
_KEY = r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----"
_ENCODED = r"[+ -]?[A-Za-z0-9+/=\r]"
_REST_OF_KEY = (
    rf"(?:{_ENCODED}{{20,200}}+\n){{1,100}}+(?:{_ENCODED}{{1,20}}\n)?(?=[+ -]?-----END [A-Z0-9 ]*PRIVATE KEY)"
)
_LINE = r"[^\n\"']"
TOKEN = re.compile(rf"()(?<!\w)(?<!\w-)(?:{_TOKENS})")  # the one shape that a mere word can have
SHAPES = [
    re.compile(rf"({_KEY}).+?(?=-----END|\Z)", re.DOTALL),
    re.compile(rf"(?m)^(){_REST_OF_KEY}"),  # its begin is not in the diff
    re.compile(r"(://[^\s/:@\"']*:)(?!\d{1,5}/)[^\s\"']{1,500}(?=@)"),  # the password of a URI, not its port
    re.compile(r"((?:https?|ftp)://)(?!\*)[^\s/:@\"'?#<>]{1,500}(?=@)"),  # a token in the place of the user
    TOKEN,
    re.compile(r"((?i:\b(?:bearer|basic)\s+))(?=[\w.~+/-]*\d)[\w.~+/-]{8,}=*"),
    re.compile(r"((?<!\S)(?:-u|--user|--proxy-user)[ =]?[\"']?[^\s:\"'/]+:)(?!\d+(?:\s|$))[^\s\"']+"),
    re.compile(r"((?i:\blogin\s+\S+\s+password\s+))\S+"),  # as a .netrc has it
    re.compile(r"((?i:basic_?auth)\(\s*\w?[\"'][^\"'\n]{0,200}[\"'],\s*\w?[\"'])[^\"'\n]+"),
    re.compile(rf"(\b(?:docker\s+login|sqlcmd)\b{_LINE}{{0,300}}?\s-[pP] ?)[^\s\"'-]\S*"),
    re.compile(r"((?i:\bidentified\s+by\s+[\"']))[^\"'\n]+"),
    re.compile(rf"(\b(?:mysql\w*|mariadb\w*|sshpass)\b{_LINE}{{0,300}}?\s-p ?)[^\s\"'-]\S*"),
]
_DIGEST = re.compile(
    r"[0-9a-f]{1,12}|[0-9a-f]{40}|[0-9a-f]{56}|[0-9a-f]{64}|[0-9a-f]{96}|[0-9a-f]{128}", re.IGNORECASE
)
_UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)
_END_OF_RUN_ID = r"-s\d+-[0-9a-f]{12}"
_RUN_ID = re.compile(rf"[\w.-]+{_END_OF_RUN_ID}")
_SHORTEST = 20  # letters of a word that may be random
_RUN_OF_LETTERS = re.compile(
    r"(?m:(?<=^[+-])|(?<![\w+/-])(?!^[+-]))(?<!sha256[:=])(?<!sha384[:=])(?<!sha512[:=])"
    r"(?!sha\d{3}-)(?<!ssh-rsa )(?<!base64,)"
    rf"[A-Za-z0-9+/_-]{{{_SHORTEST},120}}={{0,2}}(?![\w+/=-])"
)
_DATA = re.compile(r"[+ -]?\s*[A-Za-z0-9+/]{57,}={0,2}")  # a whole line of it: wrapped base64 of a file
# Such a name is DeepseekV3ForCausalLM.
_NAME_OF_CLASS = re.compile(r"(?:[A-Z][a-z]{2,}|[A-Z]{1,3}(?=[A-Z\d]|$)|\d{1,3}(?!\d))+")
_CHANGES = 0.4  # least share of neighbours of different kinds; 0.62 is expected of random letters and digits


def is_random(value: str) -> bool:
    """Whether a value that a weak name is given is a credential: letters mixed with digits, and no digest."""
    if len(value) < 12 or not re.fullmatch(r"[\w.~+/=:-]+", value):
        return False
    if _DIGEST.fullmatch(value) or _UUID.fullmatch(value) or _RUN_ID.fullmatch(value):
        return False
    return bool(re.search(r"\d", value) and re.search(r"[A-Za-z]", value))


def without_random_letters(text: str) -> str:
    """Returns `text` without words that nobody could have made up: upper and lower case and digits in
    disorder.

    Digests and ids have one case and stay, as do lines of encoded files.
    """
    lines = text.split("\n")
    return "\n".join(line if _DATA.fullmatch(line) else _RUN_OF_LETTERS.sub(_masked, line) for line in lines)


def _masked(match: re.Match[str]) -> str:
    """A word, masked if it is in disorder; of a run's id, which ends with a digest, its name decides."""
    name = re.sub(rf"{_END_OF_RUN_ID}$", "", match[0].rstrip("="))
    return MASK if len(name) >= _SHORTEST and _is_disorder(name) else match[0]


def _is_disorder(word: str) -> bool:
    if word in (word.lower(), word.upper()):  # most words are of one case, and this is quick
        return False
    kinds = ["d" if c.isdigit() else "u" if c.isupper() else "l" if c.islower() else "-" for c in word]
    if min(map(kinds.count, "dul")) < 1 or _NAME_OF_CLASS.fullmatch(word):
        return False
    pairs = [(a, b) for a, b in pairwise(kinds) if "-" not in (a, b)]
    return sum(a != b for a, b in pairs) >= _CHANGES * len(pairs) and kinds.count("-") <= len(word) / 6
