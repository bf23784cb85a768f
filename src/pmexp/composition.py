"""From `conf/` and overrides to one checked configuration: what the entry points share. Imports no torch."""

from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra.core.plugins import Plugins
from hydra.utils import instantiate

from hydra_plugins.pmexp_launchers.local import LocalLauncher
from hydra_plugins.pmexp_launchers.slurm import SlurmLauncher
from hydra_plugins.pmexp_launchers.sweep_launcher import SweepLauncher
from pmexp.config import RunConfig, parse, register
from pmexp.errors import UserError


def conf_folder() -> Path:
    """The YAML files: beside this module in an installed package, at the top of a source tree."""
    installed = Path(__file__).parent / "conf"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "conf"


def introduce() -> None:
    """Tells Hydra the schema and the launchers; needed once before anything is composed."""
    register()
    Plugins.instance().register(LocalLauncher)
    Plugins.instance().register(SlurmLauncher)


def in_small(arguments: Sequence[str]) -> list[str]:
    """Command-line arguments with ``experiment=X smoke=true`` as ``experiment=smoke/X``: every arm of the
    experiment for a few steps, at sizes and on data that any machine has.

    Raises UserError for an experiment that has no such form, and for smoke= without an experiment.
    """
    others = [argument for argument in arguments if not argument.startswith("smoke=")]
    chosen = [argument.partition("=")[2] for argument in arguments if argument.startswith("smoke=")]
    if not chosen or chosen[-1] == "false":
        return others
    allowed = sorted(file.stem for file in (conf_folder() / "experiment" / "smoke").glob("*.yaml"))
    names = [argument.partition("=")[2] for argument in others if argument.startswith("experiment=")]
    if chosen[-1] != "true" or len(names) != 1 or names[0] not in allowed:
        raise UserError(
            f"smoke={chosen[-1]}: needs one experiment; allowed are true and false, with experiment= one of "
            f"{', '.join(allowed)}"
        )
    return [f"experiment=smoke/{names[0]}" if a.startswith("experiment=") else a for a in others]


def compose(overrides: Sequence[str]) -> RunConfig:
    """The configuration of `python -m pmexp.train <overrides>`. Raises what `explain` puts into words."""
    introduce()
    with hydra.initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return parse(hydra.compose("config", overrides=list(overrides)))


def launcher(overrides: Sequence[str]) -> SweepLauncher:
    """The launcher of `python -m pmexp.train -m <overrides>`, for runs that need not be composed."""
    introduce()
    with hydra.initialize_config_dir(str(conf_folder()), version_base="1.3"):
        config = hydra.compose("config", overrides=list(overrides), return_hydra_config=True)
    found: SweepLauncher = instantiate(config.hydra.launcher)
    return found
