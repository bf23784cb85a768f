"""`pmexp completion SHELL` prints what makes a shell complete `pmexp`; the shell then asks it by `line=`."""

import sys
from collections.abc import Iterable, Sequence
from importlib import resources

from pmexp.cli.offer import Offer
from pmexp.cli.subcommands import FLAGS, SUBCOMMANDS
from pmexp.command_line import Command, Given, Key

COMMAND = Command(
    "pmexp.cli.completion",
    'prints a script for a shell: put eval "$(pmexp completion bash)" into ~/.bashrc, or '
    "pmexp completion fish | source into fish's configuration",
    (
        Key("shell", "whose script", "bash", ("bash", "zsh", "fish")),
        Key("line", "the command line up to the cursor: prints what may stand in its last word's place"),
    ),
    word="shell",
)
_ALONE = "off"  # an option that stands in no list of others


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 done, 2 bad input."""
    return COMMAND.run(arguments, _answer)


def _answer(given: Given) -> None:
    if given["line"]:
        for completion in completions(given["line"]):
            print(completion)
        return
    script = resources.files(__package__).joinpath(f"completion.{given['shell']}")
    print(script.read_text(encoding="utf-8"), end="")


def completions(line: str) -> list[str]:
    """What may stand in the place of the last word of a command line, which may be empty: whole words, and
    beginnings that end with = or a dot. Empty where nothing is known, as of names of files."""
    typed = line.split()
    word = "" if line[-1:].isspace() else typed.pop()
    before = typed[1:]  # behind pmexp
    if not before:
        return _beginning(word, (*SUBCOMMANDS, *FLAGS))
    chosen = SUBCOMMANDS.get(before[0])
    if chosen is None or not chosen.keys:
        return []
    return sorted({*in_place_of(word, Offer(chosen, before[1:]))})


def in_place_of(word: str, offer: Offer) -> list[str]:
    """What may stand in the place of the last word, which may be empty, behind those of the offer."""
    values = offer.behind(offer.before[-1]) if offer.before else None
    if values is not None:  # the word before is a flag that waits for its value
        return _with_last_value("", word, values)
    name, equals, value = word.partition("=")
    if equals:
        return _with_last_value(f"{name}=", value, offer.values(name.lstrip("-").replace("-", "_")))
    if word.startswith("-"):
        return _to_the_next_dot(word, offer.flags(), "")
    return [*_to_the_next_dot(word, offer.names(), "="), *_beginning(word, offer.words())]


def _beginning(word: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(word)]


def _to_the_next_dot(word: str, names: Iterable[str], end: str) -> list[str]:
    """The names that begin with the word, up to the dot that comes next behind it: a run has 160 keys."""
    cut = ((name, name.find(".", len(word))) for name in _beginning(word, names))
    return [name[: dot + 1] if dot >= 0 else name + end for name, dot in cut]


def _with_last_value(key: str, typed: str, values: Iterable[str]) -> list[str]:
    """The typed values with the last of them made whole, as in seed=0,1 or system.parts=[flash,tempo; none
    that stands there already."""
    start = max(typed.rfind(mark) for mark in ",[") + 1
    before = {*typed[:start].lstrip("[").split(",")} | ({_ALONE} if "[" in typed else set())
    return [
        f"{key}{typed[:start]}{value}" for value in _beginning(typed[start:], values) if value not in before
    ]


if __name__ == "__main__":
    sys.exit(main())
