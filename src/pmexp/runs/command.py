"""Lists, retries and repairs runs, and returns an exit code."""

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from pmexp.command_line import Command, Given, Key, Others, asks_help, called, exit_code, switch
from pmexp.errors import UserError
from pmexp.masking import masked
from pmexp.run_folder.folder import RunFolder
from pmexp.run_folder.found import FoundRun, experiments, find_runs
from pmexp.run_folder.plan import LABELS
from pmexp.run_folder.state import State
from pmexp.runs import choice, table
from pmexp.shown import printable

_LAUNCHER = ("hydra/", "hydra.")
_ANY_KEY = "any key of the runs: only those with one of these values, as in train.lr=1e-3,1e-4"
_SETTINGS = Others(
    _ANY_KEY,
    lambda argument: _is_setting(argument.partition("=")[0]) and "=" in argument,
    lambda: filter(_is_setting, _keys_of_runs()),
    lambda name: Key(name, _ANY_KEY) if _is_setting(name) else None,
)
_AGAIN = Others(
    f"{_ANY_KEY}; hydra/launcher=... and hydra.launcher.*=... say how, as for pmexp sweep; without: local",
    lambda argument: argument.startswith(_LAUNCHER) or _SETTINGS.takes(argument),
    lambda: (*filter(_taken_again, _keys_of_runs()), "hydra/launcher"),
    lambda name: _key_of_launcher(name) if name.startswith(_LAUNCHER) else _SETTINGS.key(name),
)
_MODULE = "pmexp.runs"
_NAMED = 3  # the most folders with a damaged result that a list names once more
_RUNS_DIR = Key("runs_dir", "where the run folders are", "runs")
_FILTERS = tuple(Key(label, f"only these, as in {label}=A,B; without it any") for label in LABELS)


def _state(allowed: Sequence[State]) -> Key:
    names = tuple(state.name for state in allowed)
    return Key("state", f"only these, of {','.join(names)}; without it all of them", several=names)


LIST = Command(
    _MODULE,
    "lists the experiments, or the runs of one",
    (
        Key("name", "the experiment, a folder of runs_dir; without it all are listed"),
        _RUNS_DIR,
        _state(choice.STATES),
        *_FILTERS,
        switch("json", "as JSON, for a program"),
        switch("watch", "refresh the list until no run is running"),
    ),
    word="name",
    others=_SETTINGS,
)
RETRY = Command(
    _MODULE,
    "runs again what failed, was interrupted or is stale",
    (Key("name", "the experiment"), _RUNS_DIR, _state(choice.AGAIN), *_FILTERS),
    word="name",
    others=_AGAIN,
    prefix=("retry",),
)
REPAIR = Command(
    _MODULE,
    "makes the trackers agree with the journals: status, steps, no duplicates",
    (
        Key("name", "the experiment; without it all"),
        _RUNS_DIR,
        Key("trackers", "such as mlflow,csv, in place of each run's own: for runs made without them"),
        Key("uri", "of MLflow, in place of each run's own"),
    ),
    word="name",
    prefix=("repair",),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 done, 1 a run failed again, 2 bad input, 130 interrupted."""
    typed = list(sys.argv[1:] if arguments is None else arguments)
    match typed[:1]:
        case ["retry"]:
            return RETRY.run(typed[1:], _retry)
        case ["repair"]:
            return REPAIR.run(typed[1:], _repair)
    if asks_help(typed):
        return exit_code(lambda: print("\n".join(one.help() for one in (LIST, RETRY, REPAIR)), end=""))
    return LIST.run(typed, _list)


def _list(given: Given) -> None:
    runs_dir = _runs_dir(given)
    name, as_json, watches = given.optional("name"), given.is_on("json"), given.is_on("watch")
    if name is None:
        typed = (*given.set, *given.others)
        if narrowing := [key for key in typed if not key.startswith(("runs_dir=", "json="))]:
            raise UserError(f"{narrowing[0]}: is for the runs of one experiment; name it")
        listed = {name: find_runs(runs_dir, name) for name in experiments(runs_dir)}
        print(table.experiments_json(listed) if as_json else "\n".join(table.experiment_lines(listed)))
        return
    read = _reader(runs_dir, name, given)
    if watches:
        from pmexp.runs.watch import watch  # rich

        runs = watch(read)
    else:
        runs = read([])
    print(table.runs_json(runs) if as_json else _listing(name, runs, given))


def _is_setting(name: str) -> bool:
    return "." in name and not name.startswith(("-", ".", *_LAUNCHER))


def _taken_again(name: str) -> bool:
    return _is_setting(name) or name.startswith(_LAUNCHER)


def _keys_of_runs() -> list[str]:
    """The keys of a run, first those of training: lr= means train.lr, which every run has on record."""
    from pmexp.command.schema import keys  # Hydra again

    return sorted(keys(), key=lambda key: not key.startswith("train."))


def _key_of_launcher(name: str) -> Key | None:
    from pmexp.command.schema import key_of_flag  # imports Hydra, which a list does without

    return key_of_flag(name)


def _retry(given: Given) -> None:
    from pmexp.command.explain import explained  # Hydra again
    from pmexp.runs.again import retry

    name = given.optional("name")
    if name is None:
        raise UserError("name: is missing; name the experiment")
    runs = _reader(_runs_dir(given), name, given, choice.AGAIN)([])
    print(f"{name}: retrying {table.counts(runs)}" if runs else f"{name}: nothing to retry")
    if runs:
        with explained():
            retry(runs, [argument for argument in given.others if argument.startswith(_LAUNCHER)])


def _repair(given: Given) -> None:
    from pmexp.tracking.repair import repair  # imports MLflow, which takes seconds

    runs_dir = _runs_dir(given)
    trackers = tuple(filter(None, given["trackers"].split(",")))
    for name in [given["name"]] if given["name"] else experiments(runs_dir):
        for line in repair(runs_dir, name, given.optional("uri"), trackers):
            print(printable(masked(f"{name}: {line}")), flush=True)


def _runs_dir(given: Given) -> Path:
    return Path(os.path.expanduser(given["runs_dir"])).resolve()


def _reader(
    runs_dir: Path, name: str, given: Given, allowed: Sequence[State] = choice.STATES
) -> Callable[[Sequence[FoundRun]], list[FoundRun]]:
    """A function that reads the chosen runs; it gets what it read before."""
    states = choice.states(given["state"], allowed) if given["state"] else allowed
    filters = [f"{label}={given[label]}" for label in LABELS if given[label]]
    wanted = choice.wanted([*filters, *(other for other in given.others if not other.startswith(_LAUNCHER))])

    def read(before: Sequence[FoundRun]) -> list[FoundRun]:
        runs = find_runs(runs_dir, name, {run.run_id: run for run in before})
        if any(not run.settings for run in runs):  # most lists do without OmegaConf
            from pmexp.config import settings_of

            runs = [run if run.settings else replace(run, settings=settings_of(run)) for run in runs]
        return choice.chosen(runs, states, wanted)

    return read


def _listing(name: str, runs: Sequence[FoundRun], given: Given) -> str:
    without_result = [run for run in runs if run.state in choice.AGAIN]
    damaged = [run for run in without_result if RunFolder(run.path).is_finished()]  # which retry refuses
    again = [run for run in without_result if run not in damaged]
    lines = [*(table.run_lines(runs) if runs else []), f"{name}: {table.counts(runs)}"]
    if damaged:
        few = shlex.join(str(run.path) for run in damaged[:_NAMED])
        more = f" and {len(damaged) - _NAMED} more" if len(damaged) > _NAMED else ""
        count = f"{len(damaged)} result{'s' * (len(damaged) != 1)}"
        lines.append(f"damaged: {count}; remove {few}{more}, and start the same command as before")
    if again:
        place = [f"runs_dir={given['runs_dir']}"] if given["runs_dir"] != _RUNS_DIR.default else []
        command = shlex.join([*called(RETRY.module), *RETRY.prefix, name, *place])
        lines.append(f"logs: {again[0].path.parent}/<run>/log.txt; again: {command}")
    return "\n".join(lines)
