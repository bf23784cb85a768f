"""From `conf/` and overrides to one checked configuration: what the entry points share. Imports no torch."""

from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra.core.plugins import Plugins

from hydra_plugins.pmexp_launchers.local import LocalLauncher
from pmexp.config import RunConfig, parse, register


def conf_folder() -> Path:
    """The YAML files: beside this module in an installed package, at the top of a source tree."""
    installed = Path(__file__).parent / "conf"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "conf"


def introduce() -> None:
    """Tells Hydra the schema and the launcher; needed once before anything is composed."""
    register()
    Plugins.instance().register(LocalLauncher)


def compose(overrides: Sequence[str]) -> RunConfig:
    """The configuration of `python -m pmexp.train <overrides>`. Raises what `explain` puts into words."""
    introduce()
    with hydra.initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return parse(hydra.compose("config", overrides=list(overrides)))
