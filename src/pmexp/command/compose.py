"""Composes checked configurations out of `conf/` and overrides, for all entry points. Imports no torch."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from hydra_plugins.pmexp_launchers.sweep_launcher import SweepLauncher
from pmexp.command import config_files, override_effect
from pmexp.command import sweep_product as sweeping
from pmexp.command.overrides import key_of, parsed
from pmexp.command.schema import conf_folder, default_of, groups, launchers, type_at
from pmexp.config import RunConfig, parse, register, share_trainings
from pmexp.errors import UserError, error_line


@dataclass(frozen=True)
class Source:
    """Where a composition begins."""

    name: str = "config"  # the YAML file's
    folder: Path | None = None  # holds options of one's own, beside those of conf/


_OWN = Source()
_OWN_SOURCES = 3  # Hydra's options, conf/ and the schema
_folder: ContextVar[Path | None] = ContextVar("folder", default=None)


class FolderOfOptions(SearchPathPlugin):
    """Adds the folder of a source to where Hydra looks for options."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        if folder := _folder.get():
            search_path.append(provider="command-line", path=f"file://{folder}")


@dataclass(frozen=True)
class Sweep:
    runs: list[RunConfig]
    launcher: SweepLauncher


@cache
def introduce() -> None:
    """Tells Hydra the schema, the launchers and how files are read; needed before anything is composed."""
    register()
    launchers()
    config_files.use()
    Plugins.instance().register(FolderOfOptions)


def compose(overrides: Sequence[str], source: Source = _OWN) -> RunConfig:
    """The configuration of one run. Raises UserError and what `explain` puts into words."""
    typed = parsed(overrides)
    with _hydra(typed, source):
        config = _composed(typed, source)
        parameters = sweeping.with_parameters(config.hydra.sweeper.params, typed)
        override_effect.check_pinned(config, typed, sweeping.size(parameters))
        return _parsed(config)


def compose_run(overrides: Sequence[str], source: Source = _OWN) -> RunConfig:
    """Returns what `compose` does, and raises UserError for a key that the run has no use for."""
    run, typed = compose(overrides, source), parsed(overrides)
    if run.share_training and "share_training" in map(key_of, typed):
        raise UserError("share_training: is about the runs of a sweep; add -m, or leave it out")
    override_effect.check_effect([run], [typed])
    return run


def compose_sweep(overrides: Sequence[str], source: Source = _OWN) -> Sweep:
    """The runs of a sweep and what executes them. Raises UserError and what `explain` puts into words."""
    typed = parsed(overrides, sweep=True)
    with _hydra(typed, source):
        loader = GlobalHydra.instance().config_loader()
        for override in typed:
            override.config_loader = loader  # for the options that glob() chooses from
        of_hydra = [override for override in typed if override.is_hydra_override()]
        of_runs = [override for override in typed if not override.is_hydra_override()]
        first = next(sweeping.combinations(of_runs))
        one = _composed([*of_hydra, *first], source)
        launcher, parameters = _launcher(one), one.hydra.sweeper.params
        for override in of_runs if parameters else ():
            if override.is_sweep_override() and override.key_or_group == "experiment":
                raise UserError(f"{override.input_line}: these are sweeps themselves; start one at a time")
        product = sweeping.with_parameters(parameters, of_runs)
        given = list(sweeping.combinations(product))
        if arm := sweeping.beside(parameters, of_runs, product):
            given += sweeping.combinations(arm)
        runs = []
        for number, each in enumerate(given):
            known = number == 0 and each == first
            config = one if known else _composed([*of_hydra, *each], source)
            if config.hydra.sweeper.params != parameters:
                line = " ".join(str(override.input_line) for override in each)
                raise UserError(f"{line}: is a sweep of its own; start one at a time")
            runs.append(_parsed(config))
        override_effect.check_effect(runs, given)
        return Sweep(share_trainings(runs), launcher)


def check(overrides: Sequence[str], source: Source) -> list[str]:
    """The overrides as Hydra has to read them. Raises UserError as `compose` does, but for an open sweep."""
    typed = parsed(overrides, launches=True)
    with _hydra(typed, source):
        _composed(typed, source)
    return [str(override.input_line) for override in typed]


def compose_part(group: str, overrides: Sequence[str]) -> Any:
    """The checked configuration of one group alone, whatever the rest of the run may be."""
    typed = parsed(overrides)
    with _hydra(typed):
        return OmegaConf.to_object(_composed(typed, _OWN)[group])


def launcher(overrides: Sequence[str]) -> SweepLauncher:
    """The launcher of `python -m pmexp.train -m <overrides>`, for runs that need not be composed."""
    typed = parsed(overrides, sweep=True)
    with _hydra(typed):
        return _launcher(_composed(typed, _OWN))


@contextmanager
def _hydra(typed: Sequence[Override], source: Source = _OWN) -> Iterator[None]:
    """Makes Hydra ready to compose. Its warnings and its unexpected errors become a UserError."""
    introduce()
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


def _composed(typed: Sequence[Override], source: Source) -> DictConfig:
    """Returns the composed configuration, Hydra's part included."""
    config = _of_hydra(source.name, *(str(override.input_line) for override in typed))
    override_effect.check(config, typed)
    sources = config.hydra.runtime.config_sources
    if len(sources) > _OWN_SOURCES:
        for folder in [Path(each.path) for each in sources if each.schema == "file"]:
            config_files.check_not_hidden(folder)
        override_effect.check_hydra(config, _plain())
    return config


def _of_hydra(name: str, *lines: str) -> DictConfig:
    return hydra.compose(name, overrides=list(lines), return_hydra_config=True)


@cache
def _plain() -> DictConfig:
    return _of_hydra(_OWN.name)


def _parsed(config: DictConfig) -> RunConfig:
    with open_dict(config):
        del config["hydra"]
    return parse(config)


def _launcher(config: DictConfig) -> SweepLauncher:
    if config.hydra.launcher.get("_target_") not in [conf._target_ for conf in launchers().values()]:
        raise UserError(f"hydra/launcher: is none of pmexp; allowed are {', '.join(launchers())}")
    chosen: SweepLauncher = instantiate(config.hydra.launcher)
    return chosen


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
