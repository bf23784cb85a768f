"""Knows the keys by their dotted names: which exist, their types, and which one a misspelt key may mean.

Imports no torch.
"""

import typing
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from pmexp.command.plugins import plugin_folders
from pmexp.command_line import Key, Others, meant
from pmexp.config import RunConfig
from pmexp.config.checks import SWITCH

_LAUNCHER = "hydra.launcher."
# Annotations would else be evaluated anew for each key.
_type_hints: Callable[[Any], dict[str, Any]] = cache(typing.get_type_hints)


def conf_folder() -> Path:
    """The YAML files: beside this module in an installed package, at the top of a source tree."""
    installed = Path(__file__).parents[1] / "conf"
    return installed if installed.is_dir() else Path(__file__).parents[3] / "conf"


@cache
def launchers() -> dict[str, Any]:
    """The dataclass with the keys of each launcher, by its name."""
    from hydra_plugins.pmexp_launchers.keys import LocalLauncherConf, SlurmLauncherConf  # Hydra

    return {"local": LocalLauncherConf, "slurm": SlurmLauncherConf}


@cache
def groups() -> frozenset[str]:
    """The groups of options in conf/, such as model and task/memory."""
    folders = (folder for folder in conf_folder().rglob("*") if any(folder.glob("*.yaml")))
    return frozenset(str(folder.relative_to(conf_folder())) for folder in folders)


def folders_of_options() -> tuple[Path, ...]:
    """Where the options lie that every command knows: conf/, and those of plugins."""
    return conf_folder(), *plugin_folders()


def options(group: str, *own: Path) -> list[str]:
    """The options of a group, of pmexp, of plugins and of folders of one's own, sorted."""
    folders = (*folders_of_options(), *own)
    return sorted({file.stem for folder in folders for file in (folder / group).glob("*.yaml")})


def options_of_pmexp(group: str) -> list[str]:
    """The options of a group of conf/, sorted."""
    return sorted(file.stem for file in (conf_folder() / group).glob("*.yaml"))


@cache
def type_at(key: str) -> Any:
    """The type of a key, without its None; None where there is no such key."""
    if key.startswith(_LAUNCHER):
        hints = (_type_in(conf, key.removeprefix(_LAUNCHER)) for conf in launchers().values())
        return next((hint for hint in hints if hint is not None), None)
    return _type_in(RunConfig, key)


def group_of(key: str) -> str:
    """The group of conf/ whose options a key chooses from; empty for other keys."""
    group = key.partition("@")[0]
    return group if group in groups() else ""


def is_text(key: str) -> bool:
    """Whether the values of a key are texts."""
    return type_at(key) is str


def is_list(key: str) -> bool:
    """Returns whether the key takes a list."""
    return get_origin(type_at(key)) is list


def is_list_of_texts(key: str) -> bool:
    """Returns whether the key takes a list of texts."""
    return is_list(key) and get_args(type_at(key)) == (str,)


def takes_new_keys(key: str) -> bool:
    """Whether keys of one's own may stand below a key."""
    return type_at(key) is Any or get_origin(type_at(key)) is dict


def takes_any_key(key: str) -> bool:
    """Whether a key is, or lies below, options that are given to code of one's own."""
    group, _, _ = key.partition(".options")
    return key.startswith(f"{group}.options") and takes_new_keys(f"{group}.options")


def default_of(key: str) -> Any:
    """What a key of a dataclass gets where nothing sets it; None for what is no such key."""
    parent, _, name = key.rpartition(".")
    cls = type_at(parent) if parent else RunConfig
    for field in fields(cls) if is_dataclass(cls) else ():
        if field.name == name:
            return default_in(field)
    return None


def takes_null(key: str) -> bool:
    """Whether a key may be null."""
    parent, _, name = key.rpartition(".")
    hint = _member(type_at(parent) if parent else RunConfig, name)
    return get_origin(hint) in (Union, UnionType) and NoneType in get_args(hint)


def default_in(field: Field[Any]) -> Any:
    """What a field of a dataclass gets where nothing sets it."""
    return field.default if field.default_factory is MISSING else field.default_factory()


def unknown_key(key: str) -> str:
    """Returns the error line for a key that does not exist."""
    group, _, package = key.partition("@")
    if group_of(key) and package and is_dataclass(type_at(package)) and default_of(package) is None:
        return f"{package} is null; write +{group}@{package}=<option>"
    parent = key.rpartition(".")[0]
    owners = [
        name for name, conf in launchers().items() if _type_in(conf, key.removeprefix(_LAUNCHER)) is not None
    ]
    if key.startswith(_LAUNCHER) and owners:
        return f"{key} is a key of hydra/launcher={' and '.join(owners)} alone"
    if parent and takes_new_keys(parent):
        return f"{key} is new there; write +{key}=<value>"
    return f"{key} is not a key; {meant(key, keys())}--help lists the keys"


def key_of_flag(name: str) -> Key | None:
    """The key of a run or a launcher that `--name` means, where - may stand for _; None where it is none."""
    for key in (name, name.replace("-", "_")):
        if group_of(key) or key == "hydra/launcher" or type_at(key) is not None:
            return Key(key, "", allowed=SWITCH if type_at(key) is bool else ())
    return None


def is_of_run(argument: str) -> bool:
    """Whether an argument is to be read as an override of a run: it is no plain name beside its keys."""
    if argument.startswith("--"):
        return False
    key, equals, _ = argument.partition("=")
    return not (equals and key.isidentifier()) or type_at(key) is not None or key in groups()


@cache
def keys() -> tuple[str, ...]:
    """All keys of a run and of the launchers."""
    of_launchers = (key for conf in launchers().values() for key in _keys_of(conf, _LAUNCHER))
    return tuple(dict.fromkeys([*_keys_of(RunConfig, ""), *of_launchers]))


def _keys_of(cls: type[Any], prefix: str) -> Iterator[str]:
    hints = _type_hints(cls)
    for field in fields(cls):
        hint = _without_none(hints[field.name])
        yield prefix + field.name
        if is_dataclass(hint):
            assert isinstance(hint, type)
            yield from _keys_of(hint, f"{prefix}{field.name}.")


def _type_in(cls: Any, key: str) -> Any:
    hint = cls
    for part in key.split("."):
        hint = _without_none(_member(hint, part))
    return hint


def _member(hint: Any, name: str) -> Any:
    if is_dataclass(hint):
        return _type_hints(hint).get(name)
    if get_origin(hint) is dict:
        return get_args(hint)[1]
    if get_origin(hint) is list and name.isdigit():
        return get_args(hint)[0]
    return Any if hint is Any else None


def _without_none(hint: Any) -> Any:
    if get_origin(hint) in (Union, UnionType):
        return next(each for each in get_args(hint) if each is not NoneType)
    return hint


CONFIG_DIR = Key("config_dir", "a folder with options of your own, beside those of conf/")
RUN_KEYS = Others(
    "every key of pmexp train, such as model=tinybert dataset=reuters-r8 train.batch_size=64",
    is_of_run,
    keys,
    key_of_flag,
)
