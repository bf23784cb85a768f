"""Entry point: `pmexp train`, or `python -m pmexp.train`, runs one configuration, with `-m` a sweep."""

import sys

from pmexp import logs
from pmexp.command_line import exit_code, importing
from pmexp.lasting_imports import lasting_imports

with importing("train"), lasting_imports():
    from hydra_plugins.pmexp_launchers.sweep import distinct
    from pmexp.command.compose import compose_run, compose_sweep
    from pmexp.command.explain import explained
    from pmexp.command.flags import read, show
    from pmexp.command.result import result_line
    from pmexp.config.train import MEASURED_STEPS
    from pmexp.errors import SweepAsked, UserError


def main() -> int:
    """Returns the exit code: 0 done, 1 a run failed, 2 bad input, 130 interrupted."""
    return exit_code(_train, interrupted="interrupted: run the same command to go on")


def _train() -> None:
    try:
        _execute()
    except SweepAsked as error:
        raise UserError(error.to_train) from None


@explained()
def _execute() -> None:
    line = read(sys.argv[1:])
    if line.shows:
        show(line)
        return
    logs.to_terminal()  # what Hydra shows is in its log lines too
    if line.sweeps:
        sweep = compose_sweep(line.overrides, line.source)
        runs = distinct(sweep.runs)
        if len(runs) < len(sweep.runs):
            print(f"{len(sweep.runs)} combinations are {len(runs)} different runs; each is executed once")
        if shared := sum(run.train.shared_with is not None for run in runs):
            said = f"and take {MEASURED_STEPS} steps for memory and speed"
            print(f"{shared} of {len(runs)} runs share the training of another, {said}")
        sweep.launcher.sweep(runs)
    else:
        config = compose_run(line.overrides, line.source)
        with lasting_imports():  # imports torch, for which a wrong configuration need not wait
            from pmexp.training.run import run

        run(config)
        print(result_line(config))
        print(f"{config.run_id}: {config.folder / 'summary.json'}")


if __name__ == "__main__":
    code = main()
    if "torch.distributed" not in sys.modules:
        sys.exit(code)
    from pmexp.systems.ranks import end_process  # imports torch, which --help does without

    end_process(code)
