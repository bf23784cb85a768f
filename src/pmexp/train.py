"""Entry point: ``python -m pmexp.train`` runs one configuration, with ``-m`` a sweep of them."""

import os
import sys
import tempfile

import hydra
from omegaconf import DictConfig

from pmexp import logs
from pmexp.composition import conf_folder, in_small, introduce
from pmexp.composition_errors import end, exit_code
from pmexp.config import RunConfig, parse
from pmexp.errors import Interrupted, RankFailed, SweepFailed, UserError

_GO_ON = "run the same command to go on"


def main() -> int:
    """Returns the exit code: 0 done, 1 a run failed, 2 bad input, 130 interrupted."""
    logs.to_terminal()
    try:
        return exit_code(_train, interrupted=f"interrupted: {_GO_ON}")
    except (SweepFailed, RankFailed) as error:
        return end(str(error), code=1)
    except Interrupted as error:
        return end(f"interrupted: {str(error) or _GO_ON}", code=130)


def _train() -> None:
    config = _compose_or_sweep()
    if config is not None:
        from pmexp.experiment import run  # imports torch, for which a wrong configuration need not wait

        run(config)
        print(f"{config.run_id}: {config.folder / 'summary.json'}")


def _compose_or_sweep() -> RunConfig | None:
    """The one configuration to run; None when Hydra has done all (a sweep, --help, --cfg)."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then leaves its exceptions to `main`
    flags = [argument for argument in sys.argv[1:] if argument in ("-m", "--multirun")]
    sys.argv[1:] = flags + in_small([argument for argument in sys.argv[1:] if argument not in flags])
    for launcher in (argument for argument in sys.argv[1:] if argument.startswith("hydra/launcher=")):
        if not flags:
            raise UserError(f"{launcher}: launchers execute sweeps; add -m, also for a single run")
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


if __name__ == "__main__":
    code = main()
    if "torch.distributed" not in sys.modules:
        sys.exit(code)
    from pmexp.systems.ranks import end_process  # imports torch, which --help does without

    end_process(code)
