"""Reads the keys, prints the plan, executes it piece by piece, and ends with the reports."""

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

from pmexp.command.compose import compose_sweep, launcher
from pmexp.command.explain import explained
from pmexp.command.schema import CONFIG_DIR, RUN_KEYS, options
from pmexp.command_line import Command, Given, Key, one_of, switch, whole
from pmexp.config import RunConfig
from pmexp.errors import SweepFailed, UserError
from pmexp.fit.options import COMMAND as FIT
from pmexp.fit.options import FitOptions, fit_options
from pmexp.reproduce.choice import START_S, STUDY, Piece, choose, table
from pmexp.shown import one_by_one

_PLANNED_CARD = "NVIDIA A100-SXM4-80GB"  # plans are made for it on a machine without a GPU
COMMAND = Command(
    "pmexp.reproduce",
    "runs what of the study fits into some hours on this machine's GPUs, and reports it",
    (
        Key("hours", "hours that there are", "2"),
        switch("plan", "prints what is run and what is left out, and runs nothing"),
        switch("smoke", "runs in small the experiments that have such a form, on any machine"),
        Key(
            "experiments",
            f"a list of these alone, such as {STUDY[0]},{STUDY[1]}; without it all of the study",
        ),
        Key(
            "card", f"the GPU, by the name that CUDA gives it; without it this machine's, or {_PLANNED_CARD}"
        ),
        Key("gpus", "how many; without it those of this machine, or 1"),
        Key("utilisation", "share of the card's peak that a step is assumed to reach", "0.4"),
        CONFIG_DIR,
        Key("step_times", 'a JSON file {"<task>": <milliseconds a step>} of measured steps'),
    ),
    others=RUN_KEYS,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 done, 1 a run failed, 2 bad input or no GPU or no data, 130 interrupted."""
    return COMMAND.run(arguments, _reproduce, interrupted="interrupted: run the same command to go on")


@explained()
def _reproduce(given: Given) -> None:
    began = time.monotonic()
    names = given["experiments"].split(",") if given["experiments"] else list(STUDY)
    for name in names:
        one_of("experiments", name, STUDY)
    card, gpus = _device(given)
    choice = _options(given, card, gpus)
    pieces = choose(one_by_one("planning", names), choice, gpus)
    print(f"{given['hours']} h on {gpus} x {card}: {choice.budget_hours:g} GPU-hours\n\n{table(pieces)}")
    peak = f"a step reaches {choice.utilisation:.0%} of the card's peak (utilisation)"
    print(f"\nAssumed: {peak}, and a run takes {START_S:g} s beside its steps.")
    if given.is_on("plan"):
        return
    taken = [piece for piece in pieces if not piece.why]
    if given.is_on("smoke"):
        _execute(_in_small(taken, choice.overrides), gpus, given, began)
    else:
        _execute(taken, gpus, given, began)


def _device(given: Given) -> tuple[str, int]:
    """The card and how many of it. Raises UserError where runs need a GPU and there is none."""
    import torch

    there = torch.cuda.device_count()
    if not there and not given.is_on("plan") and not given.is_on("smoke"):
        raise UserError(
            "hours: this machine has no CUDA GPU, which the sizes of the study need; plan=true shows what "
            "would run, smoke=true runs it in small"
        )
    gpus = whole("gpus", given["gpus"] or str(there or 1), what="number of GPUs", most=there or None)
    return given["card"] or (torch.cuda.get_device_name() if there else _PLANNED_CARD), gpus


def _options(given: Given, card: str, gpus: int) -> FitOptions:
    """What pmexp.fit cost=true needs to know. Raises UserError for a wrong value."""
    known = [f"card={card}", f"budget_hours={given['hours']}", f"utilisation={given['utilisation']}"]
    known += [f"config_dir={given['config_dir']}"] if given["config_dir"] else []
    known += [f"step_times={given['step_times']}"] if given["step_times"] else []
    try:
        read = fit_options(FIT.read([*known, *given.others]))
    except UserError as error:
        raise UserError(str(error).replace("budget_hours", "hours")) from None
    return replace(read, budget_hours=gpus * read.budget_hours)


def _in_small(pieces: Sequence[Piece], overrides: Sequence[str]) -> list[Piece]:
    """The small form of each experiment of the pieces that has one."""
    small = []
    for name in dict.fromkeys(piece.experiment for piece in pieces):
        if name in options("experiment/smoke"):
            runs = compose_sweep([f"experiment=smoke/{name}", *overrides]).runs
            small.append(Piece(name, "all in small", runs, 1, None))
        else:
            print(f"{name} has no form in small; left out")
    return small


def _execute(pieces: Sequence[Piece], gpus: int, given: Given, began: float) -> None:
    """Runs the pieces one after another, while there is time, and reports each experiment.

    Raises UserError before the first run where data, a checkpoint or a device cannot be had, and SweepFailed
    at the end where runs failed.
    """
    from hydra_plugins.pmexp_launchers import processes  # starts processes: only to run

    processes.preload()
    processes.check([run for piece in pieces for run in piece.runs])
    failed, names = [], dict.fromkeys(_named(piece.runs) for piece in pieces)
    for piece in pieces:
        if time.monotonic() - began > 3600 * float(given["hours"]):
            print(f"left out, since the time is over: {piece.experiment}, {piece.task}")
            continue
        print(f"\n{piece.experiment}, {piece.task}")
        at_once = gpus if piece.gpus == 1 else 1  # a run of several processes sees every GPU
        try:
            launcher([f"hydra.launcher.n_jobs={at_once}"]).sweep(piece.runs)
        except SweepFailed as error:
            failed.append(str(error))
    for name, folder in names:
        subprocess.run(
            [sys.executable, "-P", "-m", "pmexp_analysis", name, f"runs_dir={folder}"], check=False
        )
    if failed:
        raise SweepFailed("\n".join(failed))


def _named(runs: Sequence[RunConfig]) -> tuple[str, str]:
    return runs[0].name, runs[0].runs_dir
