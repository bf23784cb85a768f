"""Defines a command by its keys: key=value or --key value, --help, and one line for what cannot be read."""

import os
import re
import shlex
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from pmexp.command_line import output
from pmexp.command_line.ending import exit_code
from pmexp.command_line.suggest import allowed_values, meant, one_of
from pmexp.errors import UserError
from pmexp.masking import masked_arguments
from pmexp.shown import folded

_SWITCH = ("true", "false")
_FLAG = re.compile(r"--?[A-Za-z]|--$")  # no value: a negative number begins otherwise
_LISTED = 16  # keys at most that an error names
_typed_as: ContextVar[tuple[str, ...]] = ContextVar("typed_as", default=())


@contextmanager
def typed_as(*words: str) -> Iterator[None]:
    """Lets the command that runs inside it call itself by these words, such as `pmexp fit`."""
    token = _typed_as.set(words)
    try:
        yield
    finally:
        _typed_as.reset(token)


def called(module: str, python: str = "python") -> list[str]:
    """The words that a person typed to start the command of a module."""
    return [*(_typed_as.get() or (python, "-m", module))]


@dataclass(frozen=True)
class Key:
    """A key of a command, what it means, and its value where nobody sets it."""

    name: str
    meaning: str
    default: str = ""  # empty: the command does without a value, and `meaning` says what then happens
    allowed: tuple[str, ...] = ()  # empty: any text
    several: tuple[str, ...] = ()  # what is allowed between commas, where the command itself checks it
    group: str = ""  # its value is an option of this group of conf/


def switch(name: str, meaning: str) -> Key:
    """A key that is true or false; on the command line `--name` alone is true."""
    return Key(name, meaning, "false", _SWITCH)


@dataclass(frozen=True)
class Others:
    """Arguments that a command hands on, such as the overrides of a run."""

    meaning: str
    takes: Callable[[str], bool]  # whether an argument is one of them
    names: Callable[[], Iterable[str]]  # keys that a misspelt one may mean
    key: Callable[[str], Key | None]  # the key that `--name` means


@dataclass(frozen=True)
class Given:
    """What was typed behind a command, read by its keys."""

    module: str
    typed: tuple[str, ...]
    values: Mapping[str, str]  # every key of the command; empty where it has no value
    set: tuple[str, ...]  # the keys that were typed, as key=value
    others: tuple[str, ...]

    def __getitem__(self, key: str) -> str:
        return self.values[key]

    def optional(self, key: str) -> str | None:
        """The value of a key, None where it has none."""
        return self.values[key] or None

    def is_on(self, key: str) -> bool:
        """Whether a switch is true."""
        return self.values[key] == "true"

    def path(self, key: str) -> Path | None:
        """The path that a key names, None where it has no value; ~ is the home folder, as a shell has it."""
        return Path(os.path.expanduser(self.values[key])) if self.values[key] else None

    def new_file(self, key: str, extension: str) -> Path | None:
        """The file that a key names and that is to be written; None where it has no value. Raises UserError
        where it cannot be, MachineError where the disk is full: before minutes of work, not after."""
        file = self.path(key)
        if file is not None:
            output.check_file(file, key, extension)
        return file

    def new_folder(self, key: str) -> Path | None:
        """The folder that a key names and that files are to be written in, checked as by `new_file`."""
        folder = self.path(key)
        if folder is not None:
            output.check_folder(folder, key)
        return folder

    def write_page(self, key: str, page: Callable[[], str]) -> None:
        """Writes the page, in Markdown, to the file that a key names and prints its place; prints the page
        without one."""
        file = self.new_file(key, ".md")
        text = page()
        if file is None:
            print(text, end="")
        else:
            output.write(file, text)
            print(file)

    def again(self, python: str = "python") -> str:
        """The command line that was typed, without credentials."""
        return shlex.join([*called(self.module, python), *masked_arguments(list(self.typed))])


@dataclass(frozen=True)
class Command:
    """A command, `pmexp <name>` or `python -m <module>`: its keys, and what it says of them."""

    module: str
    purpose: str
    keys: tuple[Key, ...]
    word: str = ""  # the key whose value may stand without key=
    others: Others | None = None
    prefix: tuple[str, ...] = ()  # words that stand before the keys and choose this command of its module

    def run(
        self,
        arguments: Sequence[str] | None,
        work: Callable[[Given], int | None],
        interrupted: str = "interrupted",
    ) -> int:
        """Prints --help, or reads `arguments` (sys.argv's where None) and does the work; the exit code."""
        typed = list(sys.argv[1:] if arguments is None else arguments)
        if asks_help(typed):
            return exit_code(lambda: print(self.help(), end=""))
        return exit_code(lambda: work(self.read(typed)), interrupted)

    def read(self, arguments: Sequence[str]) -> Given:
        """The arguments by their keys. Raises UserError for an unknown key, a wrong value, and two values."""
        values: dict[str, str] = {}
        others = []
        own = {key.name for key in self.keys}
        waiting = deque(arguments)
        while waiting:
            argument = waiting.popleft()
            if not argument.strip():
                raise UserError(f"{argument!r}: is an empty argument; leave it out, or write key=value")
            pair = self._pair(argument, waiting, values)
            if pair is None:
                others.append(argument)
                continue
            key, value = pair
            if not value.strip():
                raise UserError(f"{argument}: has no value; write {key}=VALUE or leave it out")
            if key not in own:
                others.append(f"{key}={value}")
            elif (other := values.setdefault(key, value)) != value:
                raise UserError(given_twice(f"{key}={other}", f"{key}={value}"))
        read = {key.name: values.get(key.name, key.default) for key in self.keys}
        for known in self.keys:
            if known.allowed and not read[known.name]:
                raise UserError(f"{known.name}: is missing; {allowed_values('', known.allowed)}")
            if known.allowed:
                one_of(known.name, read[known.name], known.allowed)
        if self.word == "name" and read["name"]:
            read["name"] = _experiment(read["name"], read.get("runs_dir", ""))
        typed = tuple(f"{key}={value}" for key, value in values.items())
        return Given(self.module, (*self.prefix, *arguments), read, typed, tuple(others))

    def help(self, how_typed: bool = True) -> str:
        """The text that --help prints: every key with its default and its meaning, and how keys are typed."""
        word = [f"[{self.word.upper()}]"] if self.word else []
        usage = " ".join([*called(self.module), *self.prefix, *word, "[key=value ...]" * bool(self.keys)])
        rows = [("key", "default", "meaning")] if self.keys else []
        for key in self.keys:
            allowed = f"; allowed are {', '.join(key.allowed)}" if key.allowed else ""
            rows.append((key.name, key.default or "-", key.meaning + allowed))
        widths = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
        lines = folded(f"{usage.strip()}   ", self.purpose)
        for name, value, text in rows:
            lines += folded(f"  {name:<{widths[0]}}  {value:<{widths[1]}}  ", text)
        if self.others:
            lines += folded("  and ", self.others.meaning)
        if self.keys and how_typed:
            alone = f"{self.word.upper()} alone is {self.word}={self.word.upper()}, " if self.word else ""
            lines.append(f"{alone}--key value is key=value, and --key alone key=true")
        return "\n".join(lines) + "\n"

    def _pair(self, argument: str, waiting: deque[str], before: Mapping[str, str]) -> tuple[str, str] | None:
        """The key and the value of an argument, None where it is handed on as it is. A flag takes its value
        from `waiting`; a word alone is the value of `word` where `before`, what was read, has none yet."""
        known = {key.name: key for key in self.keys}
        if argument.startswith("--"):
            flag, equals, value = argument[2:].partition("=")
            name = flag.replace("-", "_")
            key = known.get(name) or (self.others and self.others.key(flag))
            if key:
                return key.name, value if equals else _value(key, waiting)
            if self.others and self.others.takes(argument):
                return None
            raise self.unknown(argument, name)
        name, equals, value = argument.partition("=")
        if equals and name in known:
            return name, value
        if self.others and self.others.takes(argument):
            return None
        if not equals and self.word and self.word not in before and not argument.startswith("-"):
            return self.word, argument
        if not equals and (name in known or (self.others and name in {*self.others.names()})):
            raise UserError(f"{argument}: has no value; write {argument}=VALUE")
        raise self.unknown(argument, name)

    def unknown(self, argument: str, name: str) -> UserError:
        """The error of an argument whose `name` is no key."""
        if not name.strip("-+~"):
            return UserError(f"{argument}: names no key; write key=value")
        own = [key.name for key in self.keys]
        known = [*own, *(self.others.names() if self.others else ())]
        if not known:
            return UserError(f"{argument}: {' '.join(called(self.module))} takes no keys; leave it out")
        few = len(own) <= _LISTED and not self.others
        allowed = f"allowed are {', '.join(own)}" if few else "--help lists the keys"
        return UserError(f"{argument}: {name} is not a key; {meant(name, known)}{allowed}")


def _experiment(typed: str, runs_dir: str) -> str:
    """The name of an experiment, also where its folder was typed, as a shell completes it: runs/my-study/."""
    parent, name = os.path.split(os.path.abspath(typed))
    is_folder = "/" in typed and parent == os.path.abspath(os.path.expanduser(runs_dir))
    return name if is_folder else typed.rstrip("/")


def _value(key: Key, waiting: deque[str]) -> str:
    """The value of a flag, taken from what follows it; empty where it has none. A switch alone is true."""
    follows = waiting[0] if waiting else ""
    if "true" in key.allowed and not {*follows.lower().split(",")} <= {*key.allowed}:
        return "true"
    return "" if not waiting or _FLAG.match(follows) else waiting.popleft()


def given_twice(one: str, other: str) -> str:
    """Says that two arguments set one key. No colon follows them: behind the name of a credential it would
    make what is said a value, which is masked."""
    return f"{one} and {other} are given for the same key; leave one of them out"


def asks_help(arguments: Iterable[str]) -> bool:
    """Whether -h or --help is among the arguments."""
    return not {"-h", "--help"}.isdisjoint(arguments)
