"""Entry point: ``python -m pmexp.train`` runs one configuration, with ``-m`` a sweep of them."""

import logging
import os
import sys
import tempfile

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from pmexp.composition import conf_folder, in_small, introduce
from pmexp.composition_errors import explain
from pmexp.config import RunConfig, parse
from pmexp.errors import Interrupted, SweepFailed, UserError


def main() -> int:
    """Returns the exit code: 0 done, 1 a run failed, 2 bad input, 130 interrupted."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("pmexp").setLevel(logging.INFO)
    try:
        config = _compose_or_sweep()
        if config is not None:
            from pmexp.experiment import run  # imports torch, for which a wrong configuration need not wait

            run(config)
            print(f"{config.run_id}: {config.folder / 'summary.json'}")
    except UserError as error:
        return _end(f"error: {error}", code=2)
    except (HydraException, OmegaConfBaseException) as error:
        return _end(f"error: {explain(error)}", code=2)
    except SweepFailed as error:
        return _end(str(error), code=1)
    except (Interrupted, KeyboardInterrupt) as error:
        return _end(f"interrupted: {str(error) or 'run the same command to go on'}", code=130)
    return 0


def _compose_or_sweep() -> RunConfig | None:
    """The one configuration to run; None when Hydra has done all (a sweep, --help, --cfg)."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then leaves its exceptions to `main`
    flags = [argument for argument in sys.argv[1:] if argument in ("-m", "--multirun")]
    sys.argv[1:] = flags + in_small([argument for argument in sys.argv[1:] if argument not in flags])
    introduce()
    composed: list[DictConfig] = []
    command = hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")
    with tempfile.TemporaryDirectory() as scratch:
        if flags:
            sys.argv.append(
                f"hydra.sweep.dir={scratch}"
            )  # for its multirun.yaml; ours is the sweep's plan.json
        command(composed.append)()
    return parse(composed[0]) if composed else None


def _end(message: str, code: int) -> int:
    print(message, file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
