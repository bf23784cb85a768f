"""Knows what may be typed behind a subcommand: its keys, their values, and a run's. Imports no torch."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, is_dataclass
from enum import Enum
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, get_args

from pmexp.cli.subcommands import Subcommand
from pmexp.command_line import Command
from pmexp.errors import UserError

_SWITCH = ["true", "false"]
_CRITERIA = ("criteria", "protocol.criteria")  # a group, and the key that its options are put at
_FOLDER_OF_OPTIONS = ("--config-dir", "-cd")
_NAMING_FOLDER = ("--config-dir=", "config_dir=")


@dataclass
class Offer:
    """What may follow the arguments that stand behind a subcommand."""

    chosen: Subcommand
    before: Sequence[str]
    _commands: list[Command] = field(init=False)

    def __post_init__(self) -> None:
        self._commands = list(self._fitting(commands_of(self.chosen)))

    def names(self) -> list[str]:
        """The keys, without what stands between a group of keys and its own."""
        return [*self._own, *self._of_run]

    def flags(self) -> list[str]:
        """The keys as flags, and the flags of Hydra where the command takes them."""
        own = (name.replace("_", "-") for name in self._own)
        return [*(f"--{name}" for name in (*own, *self._of_run, "help")), *self._hydra_flags]

    def words(self) -> list[str]:
        """What may stand without a key: the words that choose one of several commands, and values of the key
        that may be left out."""
        words = [] if self.before else [one.prefix[0] for one in commands_of(self.chosen) if one.prefix]
        for one in self._commands:
            words += self.values(one.word) if one.word else []
        return words

    def values(self, key: str) -> list[str]:
        """The values that are known of a key; empty where any text may stand."""
        if self._own.get(key):
            return self._own[key]
        if group := self._group_of_own(key):
            return _options(group, self._folders())
        if key == "name":
            return self._experiments()
        return self._values_of_run(key)

    def behind(self, flag: str) -> list[str] | None:
        """The values that follow a flag, which may be unknown; None where a flag takes none."""
        if flag in self._hydra_flags:
            return self._hydra_flags[flag]
        key = flag.lstrip("-").replace("-", "_")
        values = self.values(key)
        takes_value = flag.startswith("--") and (key in self._own or key in self._of_run)
        return values if takes_value and values != _SWITCH else None

    @cached_property
    def _own(self) -> dict[str, list[str]]:
        """The allowed values of each of the commands' own keys."""
        own: dict[str, list[str]] = {}
        for one in self._commands:
            for key in one.keys:
                own.setdefault(key.name, []).extend((*key.allowed, *key.several))
        return own

    def _group_of_own(self, key: str) -> str:
        return next((one.group for each in self._commands for one in each.keys if one.name == key), "")

    @cached_property
    def _of_run(self) -> list[str]:
        """The keys of a run, where the command takes them: those that a value can be given."""
        names = {name for one in self._commands if one.others for name in one.others.names()}
        if "seed" not in names:
            return sorted(names)
        from pmexp.command.schema import groups, keys, type_at  # Hydra, which other commands do without

        known = groups()
        return [
            *(group for group in sorted(known) if "/" not in group and group != _CRITERIA[0]),
            "@".join(_CRITERIA),
            "hydra/launcher",
            *(
                key
                for key in keys()
                if key not in known and not is_dataclass(type_at(key)) and "._" not in key
            ),
        ]

    @cached_property
    def _hydra_flags(self) -> dict[str, list[str] | None]:
        """The values of Hydra's flags, long and short; None for those without one. Runs alone have them."""
        if self.chosen.module != "pmexp.train":
            return {}
        from pmexp.command.flags import SWITCHES, VALUED

        flags: dict[str, list[str] | None] = {}
        for flag, short in SWITCHES.items():
            flags |= dict.fromkeys(filter(None, (flag, short)), None)
        for flag, (short, allowed) in VALUED.items():
            flags |= {key: list(allowed) for key in (flag, short)}
        names = [file.stem for folder in self._folders() for file in folder.glob("*.yaml")]
        return flags | {"--config-name": names, "-cn": names}

    def _fitting(self, commands: Sequence[Command]) -> Iterator[Command]:
        """The commands that the words and the values before choose."""
        first = tuple(self.before[:1])
        prefix = first if first in [one.prefix for one in commands] else ()
        for one in commands:
            settled = {key.name: key.allowed[0] for key in one.keys if len(key.allowed) == 1}
            typed = dict(word.split("=", 1) for word in self.before if "=" in word)
            if one.prefix == prefix and all(typed.get(key, value) == value for key, value in settled.items()):
                yield one

    def _experiments(self) -> list[str]:
        from pmexp.run_folder.found import experiments

        typed = [word.partition("=")[2] for word in self.before if word.startswith("runs_dir=")]
        with suppress(UserError):  # there are no runs yet
            return experiments(Path(os.path.expanduser(typed[-1] if typed else "runs")))
        return []

    def _values_of_run(self, key: str) -> list[str]:
        from pmexp.command.schema import group_of, launchers, type_at

        if key == "hydra/launcher":
            return [*launchers()]
        if group_of(key):
            return _options(group_of(key), self._folders())
        if key == "variant.dropout":
            from pmexp.variants.table import DROPOUTS

            return [*DROPOUTS]
        hint = type_at(key)
        for one in (hint, *get_args(hint)):
            if one is bool:
                return _SWITCH
            if isinstance(one, type) and issubclass(one, Enum):
                return [member.name for member in one]
        return []

    def _folders(self) -> list[Path]:
        """Where options lie: conf/, those of plugins, and the folder of one's own that was typed before."""
        from pmexp.command.schema import folders_of_options

        own = [word.partition("=")[2] for word in self.before if word.startswith(_NAMING_FOLDER)]
        own += [behind for flag, behind in pairwise(self.before) if flag in _FOLDER_OF_OPTIONS]
        return [*folders_of_options(), *(Path(os.path.expanduser(folder)) for folder in own)]


def commands_of(chosen: Subcommand) -> list[Command]:
    """The commands of a subcommand: one, or several that words or values choose among."""
    module, _, names = chosen.keys.partition(":")
    commands: list[Command] = []
    for name in names.split():
        held: Any = resolve_name(f"{module}:{name}")
        held = held() if callable(held) else held
        commands += held.values() if isinstance(held, dict) else [held]
    return commands


def _options(group: str, folders: Iterable[Path]) -> list[str]:
    """The options of a group, those of folders below it among them."""
    files = ((file, folder / group) for folder in folders for file in (folder / group).rglob("*.yaml"))
    return sorted({str(file.relative_to(top).with_suffix("")) for file, top in files})
