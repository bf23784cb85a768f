"""Masks values that are given to names of credentials, in any syntax: `a["API_KEY"]=x`, `{pwd: x}`, `--token
x`.

Nothing is parsed: a text may be a diff, a command or a sentence. Where a value ends is read so that too much
is masked rather than too little.
"""

import re
from typing import NamedTuple

from pmexp.masking.names import STEMS, Strength, names_credential, strength
from pmexp.masking.values import MASK, is_random

_NAME = re.compile(rf"(?:(?<=\\[ntr])|(?<![\w-])(?!(?<=\\)[ntr]))[\w-]*?(?i:{STEMS})[\w-]*")
_TYPE = r"(?:[ \t]*:[ \t]*[A-Za-z_][\w.]*(?:\[[^\]\n]*\])?(?:[ \t]*\|[ \t]*\w+)*(?=[ \t]*=))?"
_CLOSED = r"(?:\\*[\"'`])?[\])]{0,2}"
_ASSIGNED = re.compile(
    rf"{_CLOSED}{_TYPE}(?P<space>[ \t]*)"
    r"(?P<operator>:-|:=|=>|[=!]==?|[+?]=|\|\|=|=|(?<![\])]):(?!:)|(?P<or>(?:or|\|\||\?\?)[ \t]))[ \t]*"
)
_PAIR = re.compile(r"\\*[\"'],\s*(?=[bBrRuUfF]{0,2}\\*[\"'])")
_PAIR_ENDS = re.compile(r"\\*[\"']\s*[)\]]")
_CALLED_BEFORE = re.compile(r"[(\[]\s*[bBrRuUfF]{0,2}\\*[\"']$")
_COMMAND_BEFORE = re.compile(r"(?:\bsetenv|\bENV|\bARG|\bsetx|\bset[ \t]+-\w+)[ \t]+$")
_LINE_BEFORE = re.compile(r"(?:@@ .* @@ |[+ -])?[ \t]*(?:- )?(?:export[ \t]+)?\\*[\"']?(?:[\w-]+\.)*$")
_QUOTE = re.compile(r"(?P<prefix>[bBrRuUfF]{0,2}|\$)(?P<quote>\\*(?:\"\"\"|'''|[\"'`]))")
_NEXT_LITERAL = re.compile(r"(?:[ \t]*[+.=]\s*|[ \t]*\\\n[+ -]?[ \t]*|[ \t]*)(?=[bBrRuUfF]{0,2}\\*[\"'])")
_PARTS = re.compile(
    r"\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|[({\[]|[)\]}](?=[)\]}]*(?:[\s,;:&\"'`\\]|$))"
)
_CLOSES = {"(": ")", "[": "]", "{": "}"}
_LONGEST = 4000  # characters of a value in quotes or brackets
_END = re.compile(  # ends a value without quotes: a separator or a bracket that something follows
    r"\s|\\?[\"'`](?=[\s,;&)\]}>]|$)|[)\]}](?=[)\]}]*(?:[\s,;:&\"'`\\]|$))|,(?=\s|$|[\w. -]+[=:(])"
    r"|[;&|](?=\s|$|[&|]|[\w. -]+=)|</"
)
_END_OF_WORDS = re.compile(_END.pattern.replace(r"\s|", r"\n|[ \t]+#|", 1))
_END_OF_WORD = re.compile(rf"{_END.pattern}|:(?=\s|$)")  # password=x: has no effect
# A sentence on an argument or a key of such a name: `variant=secret: is not an option`, `secret: is no key`.
_SAID_OF_ARGUMENT = re.compile(
    r"(?:(?:[a-z]+|\d+)[ ,]+){0,5}(?:is|are|was|has|have|no|not|cannot|must|needs|the|an?)[ ]"
)
_SAID_OF_KEY = re.compile(
    r"(?:is|are|was|has|have|must|needs)[ ](?:no|not|an?|the|be|given|set|unknown)\b|cannot be\b"
)
_IS_VALUE_OF = re.compile(r"[\w.-]=$")
_NOTHING = re.compile(  # no value, but a type, a placeholder or another name's value
    r"(?i:none|null|nil|undefined|true|false|str|bytes|string|int|bool|float|any|object|optional|required|secretstr|~)"
    r"|[*.x?]+|%s|\$\w+|\$\{[\w.:]+\}|\$\{\{.*?\}\}|\{\{.*?\}\}|<[^<>]*>|%\w+%|//.*"
)
_CALL = re.compile(r"(?:await[ \t]+)?[A-Za-z_][\w.]*(?:\(|\[)")
_WRAPS = re.compile(r"(?:\w+\.)*(?:\w*Secret\w*|str|bytes|b64decode|quote\w*)\(")
_ATTRIBUTE = re.compile(
    r"(?:self|args|config|cfg|settings|os|env|options|opts|params|request|kwargs)(?:\.\w+)+"
)
# A name in braces, as of an f-string, and no password in braces that has a brace in it.
_PLACEHOLDER = re.compile(r"\{([A-Za-z_][\w.]*)\}(?=[)\]}]*(?:[^\w.!^*+~)\]}-]|\Z))")
_BLOCK = re.compile(r"(?:![\w!:/.-]*[ \t]*)?(?:[|>][+-]?\d?[+-]?)?[ \t]*(?:#[^\n]*)?\r?\n")
_NAME_AND_VALUE = re.compile(  # {name: DB_PASSWORD, value: x} of containers, <add key="password" value="x"/>
    r"\b((?:name|key)\\*[\"']?\s*[:=]\s*\\*[\"']?(?P<name>[\w.-]+)\\*[\"']?"
    r"(?:[,;][ \t]*|[ \t]+|,?[ \t]*\n[+ -]?[ \t]*)\\*[\"']?value\\*[\"']?\s*[:=]\s*)"
    r"(?:(?P<quote>\\*[\"'])(?P<quoted>.+?)(?P=quote)|[^\s\"'][^\n]*?(?=[,}\]>]*(?:\s|$)))",
    re.IGNORECASE,
)
_INDENT = re.compile(r"[+-]?[ \t]*")


class _Name(NamedTuple):
    """A name that may be of a credential, where it stands, and how sure that is."""

    text: str
    start: int
    end: int
    strong: bool  # its value is a credential whatever it looks like


def without_assigned(text: str) -> str:
    """Returns `text` with `***` in the place of each value that the name of a credential is given."""
    text = _NAME_AND_VALUE.sub(_without_value, text)
    parts: list[str] = []
    done = 0
    for match in _NAME.finditer(text):
        if match.start() < done or strength(match[0]) is Strength.none:
            continue
        name = _Name(match[0], match.start(), match.end(), _is_strong(match, text))
        for start, end in _values(text, name):
            parts += [text[done:start], MASK]
            done = end
    return "".join([*parts, text[done:]])


def _without_value(pair: "re.Match[str]") -> str:
    """Masks the value where name and value are given to words of their own: `name: DB_PASSWORD, value: x`."""
    quote, value = pair["quote"] or "", pair["quoted"] or pair[0][len(pair[1]) :]
    is_reference = _NOTHING.fullmatch(value) or value.startswith(("${", "$(", "{{"))
    if strength(pair["name"]) is not Strength.strong or is_reference:
        return pair[0]
    return f"{pair[1]}{quote}{MASK}{quote}"


def _is_strong(match: "re.Match[str]", text: str) -> bool:
    name, before, after = (
        match[0],
        text[max(0, match.start() - 1) : match.start()],
        text[match.end() : match.end() + 2],
    )
    if strength(name) is Strength.strong:
        return not (name == "PWD" and re.match(r"=[/~]", after))  # the shell's folder
    in_query = before in ("?", "&", "#") and before and after.startswith("=")
    is_flag = name.startswith("-") and name.lower().endswith("token")
    return bool(in_query or is_flag) and names_credential(name)


def _values(text: str, name: _Name) -> list[tuple[int, int]]:
    """Returns start and end of each value that the name gets: none, one, or several literals that are
    joined."""
    before = text[max(0, name.start - 200) : name.start]
    if assigned := _ASSIGNED.match(text, name.end):
        if assigned["or"] and not _QUOTE.match(text, assigned.end()):
            return []
        line = before.rpartition("\n")[2] if "\n" in before or len(before) < 200 else "?"
        starts_line = _LINE_BEFORE.fullmatch(line) is not None
        said = _SAID_OF_ARGUMENT if _IS_VALUE_OF.search(before) else _SAID_OF_KEY
        if text[assigned.end() - 2 : assigned.end()] == ": " and said.match(text, assigned.end()):
            return []
        loose = assigned["operator"] != "=" or bool(assigned["space"]) or text[assigned.end() - 1] == " "
        return _value_at(text, assigned.end(), name, starts_line, loose)
    if (pair := _PAIR.match(text, name.end)) and _CALLED_BEFORE.search(before):
        literal = _value_at(text, pair.end(), name, False, False)
        return literal if literal and _PAIR_ENDS.match(text, literal[-1][1]) else []
    if text[name.end : name.end + 1] == ">" and before.endswith("<") and name.strong:
        end = text.find("</", name.end)
        return [(name.end + 1, end)] if name.end + 1 < end <= name.end + _LONGEST else []
    follows = re.compile(r"[ \t]+(?![-|&;<>\s])").match(text, name.end)
    if not follows or not name.strong:
        return []
    is_flag = name.text.startswith("-") or _COMMAND_BEFORE.search(before)  # or SQL's: password 'x'
    return (
        _value_at(text, follows.end(), name, False, False)
        if is_flag or text.startswith(('"', "'"), follows.end())
        else []
    )


def _value_at(text: str, at: int, name: _Name, starts_line: bool, loose: bool) -> list[tuple[int, int]]:
    if name.strong and starts_line and (block := _BLOCK.match(text, at)):
        return _block(text, block.end(), name)
    if continued := re.compile(r"\\\r?\n[+ -]?[ \t]*").match(text, at):
        at = continued.end()
    elif following := re.compile(r"\r?\n[+ -]?[ \t]*(?=[\"'])").match(text, at):
        at = following.end()
    if (braced := _PLACEHOLDER.match(text, at)) and _is_name(braced[1]):
        return []
    reference = _NOTHING.match(text, at)
    if reference and reference[0][0] in "${<%":
        after = text[reference.end() : reference.end() + 1]
        if not after or after in " \t\n\"'`,;&)]}":
            return []
    if quoted := _QUOTE.match(text, at):
        return _literals(text, quoted, name)
    if text[at : at + 1] in _CLOSES or text.startswith("$(", at):
        return _in_brackets(text, at, name)
    return _bare(text, at, name, starts_line, loose)


def _literals(text: str, quoted: "re.Match[str]", name: _Name) -> list[tuple[int, int]]:
    """Returns start and end of the inside of each literal of a joined value, such as "a" + "b"."""
    insides: list[tuple[int, int]] = []
    following: re.Match[str] | None = quoted
    while following:
        start, quote = following.end(), following["quote"]
        line_end = _or_end(text, text.find("\n", start))
        line = text[text.rfind("\n", 0, quoted.start()) + 1 : quoted.start()][-500:]
        if (
            not insides
            and line.count(quote) % 2
            and quote not in text[start : min(line_end, start + _LONGEST)]
        ):
            return []  # it closes what stands before: "Password: "
        end = _closing(text, start, quote)
        if end is None:
            end = line_end
        value = text[start:end]
        if value.strip() and _is_secret(value, name, in_quotes=True):
            insides.append((start, end))
        behind = end + len(quote)
        joined = _NEXT_LITERAL.match(text, behind)
        following = _QUOTE.match(text, joined.end()) if joined and insides else None
    return insides


def _closing(text: str, start: int, quote: str) -> int | None:
    """Returns where the closing quote begins; None where there is none in reach."""
    escape = "" if quote.startswith("\\") else r"\\.|"
    inside = re.compile(
        rf"(?:{escape}(?!{re.escape(quote)}).){{0,{_LONGEST}}}?(?={re.escape(quote)})", re.DOTALL
    )
    bracket = inside.match(text, start)
    return bracket.end() if bracket else None


def _or_end(text: str, place: int) -> int:
    return len(text) if place < 0 else place


def _in_brackets(text: str, at: int, name: _Name) -> list[tuple[int, int]]:
    """Returns start and end of all that stands in the brackets; under the name `auth` only of a pair of
    literals."""
    start = at + 2 if text[at] == "$" else at + 1
    opens = text[start - 1]
    depth, end = 1, min(len(text), start + _LONGEST)
    for part in _PARTS.finditer(text, start, end):
        depth += (part[0] == opens) - (part[0] == _CLOSES[opens])
        if not depth:
            end = part.start()
            break
    inside = text[start:end]
    is_pair = name.text.lower().lstrip("-") == "auth" and "," in inside and re.search(r"[\"']", inside)
    return [(start, end)] if inside.strip(" \t\n*") and (name.strong or is_pair) else []


def _bare(text: str, at: int, name: _Name, starts_line: bool, loose: bool) -> list[tuple[int, int]]:
    if called := _CALL.match(text, at):
        if not (name.strong and _WRAPS.fullmatch(called[0])):
            return []
        return _in_brackets(text, called.end() - 1, name)
    end_of = _END_OF_WORDS if loose and name.strong else _END if loose else _END_OF_WORD
    end_match = end_of.search(text, at)
    if starts_line and loose and name.strong:
        end_match = re.compile(r"[ \t]+#|\r?\n").search(text, at)
    end = end_match.start() if end_match else len(text)
    value = text[at:end].rstrip()
    return [(at, at + len(value))] if value and _is_secret(value, name, in_quotes=False) else []


def _is_secret(value: str, name: _Name, in_quotes: bool) -> bool:
    if _NOTHING.fullmatch(value) or value == MASK:
        return False
    if not name.strong:
        return is_random(value)
    is_reference = _ATTRIBUTE.fullmatch(value) and not in_quotes
    return not (is_reference or _is_name(value))


def _is_name(value: str) -> bool:
    """Whether the value is the name of a credential itself, as in `password=password` or `x.password`."""
    last = value.rpartition(".")[2]
    return re.fullmatch(r"[A-Za-z_][A-Za-z_-]*", last) is not None and strength(last) is not Strength.none


def _block(text: str, start: int, name: _Name) -> list[tuple[int, int]]:
    """Returns start and end of the lines below that are indented more than the name: a YAML block, list or
    mapping."""
    line_start = text.rfind("\n", 0, name.start) + 1
    line = text[line_start : name.start]
    header = re.match(r"@@ .* @@ ", line)
    column = 1 + len(line) - header.end() if header else len(line.rstrip("\"'"))
    first, end, place = start, start, start
    while place < len(text):
        stop = _or_end(text, text.find("\n", place))
        content = text[place:stop]
        if content[1:].strip():
            indent = _INDENT.match(content)
            if not indent or indent.end() <= column or content.startswith(("@@", "+++", "---")):
                break
            first = first if end > start else place + indent.end()
            end = stop
        place = stop + 1
    return [(first, end)] if end > first else []
