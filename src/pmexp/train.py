"""Entry point: ``python -m pmexp.train`` runs one configuration, with ``-m`` a sweep of them."""

import logging
import os
import sys
from pathlib import Path

import hydra
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from hydra_plugins.pmexp_launchers.local import LocalLauncher
from pmexp.config import parse, register
from pmexp.errors import Interrupted, SweepFailed, UserError


def main() -> int:
    """Returns the exit code: 0 done, 1 a run failed, 2 bad input, 130 interrupted."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then leaves its exceptions to the lines below
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("pmexp").setLevel(logging.INFO)
    register()
    Plugins.instance().register(LocalLauncher)
    try:
        hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")(_run)()
    except (UserError, HydraException, OmegaConfBaseException) as error:
        return _end(f"error: {_one_line(error)}", code=2)
    except SweepFailed as error:
        return _end(str(error), code=1)
    except (Interrupted, KeyboardInterrupt) as error:
        return _end(f"interrupted: {error or 'run the same command to go on'}", code=130)
    return 0


def conf_folder() -> Path:
    """The YAML files: beside this module in an installed package, at the top of a source tree."""
    installed = Path(__file__).parent / "conf"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "conf"


def _run(composed: DictConfig) -> None:
    config = parse(composed)
    from pmexp.experiment import run  # imports torch, which a wrong configuration need not wait for

    run(config)
    print(f"{config.run_id}: {config.folder / 'summary.json'}")


def _end(message: str, code: int) -> int:
    print(message, file=sys.stderr)
    return code


def _one_line(error: Exception) -> str:
    """Hydra's and OmegaConf's messages span lines; the later ones only repeat the type of the object."""
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else None
    lines = [
        line.strip() for text in (error, cause) if text for line in str(text).splitlines() if line.strip()
    ]
    told = [line for line in lines if not line.startswith(("object_type=", "reference_type=", "full_key:"))]
    return "; ".join(dict.fromkeys(told))


if __name__ == "__main__":
    sys.exit(main())
