"""Has Hydra compose, once for each choice of options: runs that differ in values share what was composed.

Imports no torch.
"""

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, is_dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import hydra
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.override_parser.types import Override, OverrideType
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import AnyNode, DictConfig, OmegaConf, ValueNode, open_dict
from omegaconf.errors import OmegaConfBaseException

from pmexp.command import config_files, override_effect
from pmexp.command.overrides import chooses_option, key_of, parsed
from pmexp.command.plugins import plugin_folders
from pmexp.command.schema import conf_folder, default_of, group_of, groups, launchers, type_at
from pmexp.config import RunConfig, build, parse, register
from pmexp.config.values import Blueprint, blueprint_of, with_values, written
from pmexp.errors import UserError, error_line


@dataclass(frozen=True)
class Source:
    """Where a composition begins."""

    name: str = "config"  # the YAML file's
    folder: Path | None = None  # holds options of one's own, beside those of conf/


OWN = Source()
_KEPT = 64  # compositions, of some 600 KB each
_PLAIN = (bool, int, float, str, type(None))
_folder: ContextVar[Path | None] = ContextVar("folder", default=None)


class FolderOfOptions(SearchPathPlugin):
    """Adds the folders of plugins and of a source to where Hydra looks for options."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for plugin in plugin_folders():
            search_path.append(provider="plugin", path=f"file://{plugin}")
        if folder := _folder.get():
            search_path.append(provider="command-line", path=f"file://{folder}")


class _Shared(NamedTuple):
    """Holds what Hydra composed of some lines."""

    whole: DictConfig  # Hydra's own part included
    of_run: DictConfig  # without it
    blueprint: Blueprint | None  # None where OmegaConf has to resolve what values refer to
    takes_values: bool  # a plain value changes nothing but its key and what refers to it


@dataclass(frozen=True)
class Composed:
    """Holds what Hydra composed, and the plain values that a run has in it."""

    _kept: _Shared
    _values: Mapping[str, Any]  # they have the types that their keys declare

    @property
    def whole(self) -> DictConfig:
        """The configuration with Hydra's own part and without the values."""
        return self._kept.whole

    def run(self) -> RunConfig:
        """The checked configuration. Raises UserError and OmegaConf's errors."""
        if self._kept.blueprint:
            return build(self._kept.blueprint, self._values)
        with with_values(self._kept.of_run, self._values):
            return parse(self._kept.of_run)


def _sources_of_pmexp() -> int:
    """How many places Hydra reads options from: its own, conf/, the schema and the plugins."""
    return 3 + len(plugin_folders())


@cache
def introduce() -> None:
    """Tells Hydra the schema, the launchers and how files are read; needed before anything is composed."""
    register()
    launchers()
    config_files.use()
    Plugins.instance().register(FolderOfOptions)
    for folder in plugin_folders():
        config_files.check_not_hidden(folder)


@contextmanager
def ready(typed: Sequence[Override], source: Source = OWN) -> Iterator[None]:
    """Makes Hydra ready to compose. Its warnings and its unexpected errors become a UserError."""
    introduce()
    if source.folder or any(override.key_or_group == "hydra.searchpath" for override in typed):
        _kept.cache_clear()  # files of one's own may have changed since
    folder = _folder.set(source.folder)
    try:
        with (
            warnings.catch_warnings(),
            hydra.initialize_config_dir(str(conf_folder()), version_base="1.3"),
        ):
            warnings.simplefilter("error", UserWarning)
            yield
    except (UserError, HydraException, OmegaConfBaseException):
        raise
    except Exception as error:
        line = " ".join(str(override.input_line) for override in typed)
        raise UserError(
            _without_parent(typed) or f"{line}: is no configuration ({error_line(error)})"
        ) from error
    finally:
        _folder.reset(folder)


def composed(typed: Sequence[Override], source: Source) -> Composed:
    """What Hydra composes of the overrides. Those that set plain values are left out of it, and put into what
    is composed of the others, where a value stands at the key and none of the others concerns it."""
    values = {key_of(override): override.value() for override in typed if _sets_plain_value(override)}
    others = [override for override in typed if key_of(override) not in values]
    if values:
        with suppress(Exception):  # it is raised again where all that was typed is composed
            kept = _kept(_lines(others), source)
            if all(_stands(key, kept, others, source) for key in values):
                with with_values(kept.of_run, values):
                    return Composed(kept, {key: written(kept.of_run, key) for key in values})
    return Composed(_kept(_lines(typed), source), {})


def whole(typed: Sequence[Override], source: Source = OWN) -> DictConfig:
    """The configuration as Hydra composes it, its own part included."""
    config = _of_hydra(source.name, *_lines(typed))
    override_effect.check(config, typed)
    sources = config.hydra.runtime.config_sources
    if len(sources) > _sources_of_pmexp():
        for folder in [Path(each.path) for each in sources if each.schema == "file"]:
            config_files.check_not_hidden(folder)
        override_effect.check_hydra(config, _plain())
    return config


@lru_cache(maxsize=_KEPT)
def _kept(lines: tuple[str, ...], source: Source) -> _Shared:
    config = whole(parsed(lines, launches=True), source)
    of_run = copy.deepcopy(config, {id(config.hydra): AnyNode()})  # it goes at once
    with open_dict(of_run):
        del of_run["hydra"]
    searched = len(config.hydra.runtime.config_sources) - bool(source.folder) > _sources_of_pmexp()
    read_by_us = [OmegaConf.to_container(part) for part in (config.hydra.launcher, config.hydra.sweeper)]
    return _Shared(config, of_run, blueprint_of(of_run), not searched and "${" not in str(read_by_us))


def _lines(overrides: Sequence[Override]) -> tuple[str, ...]:
    return tuple(str(override.input_line) for override in overrides)


def _sets_plain_value(override: Override) -> bool:
    """Whether it sets a declared key, which holds no group of others, to a number, a truth value, a text that
    refers to nothing, or null."""
    key, value = key_of(override), override.value()
    if override.type is not OverrideType.CHANGE or override.is_hydra_override() or group_of(key):
        return False
    declared = type_at(key)
    if declared is None or is_dataclass(declared):
        return False
    refers = isinstance(value, str) and ("${" in value or value == "???")
    return isinstance(value, _PLAIN) and not refers


def _stands(key: str, kept: _Shared, others: Sequence[Override], source: Source) -> bool:
    """Whether a value stands at the key, none of the `others` concerns it, and no group of options of one's
    own has its name."""
    if not kept.takes_values or (source.folder and (source.folder / key).is_dir()):
        return False
    node: Any = kept.of_run
    for part in key.split("."):
        if not isinstance(node, DictConfig) or node._is_none() or node._is_interpolation():
            return False
        node = node._get_node(part, validate_access=False)
    values = [override for override in others if not chooses_option(override)]
    return isinstance(node, ValueNode) and not any(override_effect.concerns(each, key) for each in values)


def _of_hydra(name: str, *lines: str) -> DictConfig:
    return hydra.compose(name, overrides=list(lines), return_hydra_config=True)


@cache
def _plain() -> DictConfig:
    return _of_hydra(OWN.name)


def _without_parent(typed: Sequence[Override]) -> str:
    """Returns the error line for a key that lies below one that is null; empty where none does."""
    for override in typed:
        parts = key_of(override).split(".")
        for key in (".".join(parts[:count]) for count in range(1, len(parts) + 1)):
            cls = type_at(key)
            if is_dataclass(cls) and default_of(key) is None:
                group = next(each for each in sorted(groups()) if type_at(each) is cls)
                return f"{override.input_line}: {key} is null; choose it first, by +{group}@{key}=<option>"
    return ""
