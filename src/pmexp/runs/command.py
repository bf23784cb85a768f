"""The command: arguments in, lines and an exit code out."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from pmexp.command.exit_code import end, exit_code
from pmexp.errors import SweepFailed, UserError
from pmexp.masking import masked
from pmexp.run_folder.found import FoundRun, experiments, find_runs
from pmexp.run_folder.state import State
from pmexp.runs import choice, table
from pmexp.runs.again import AGAIN, retry
from pmexp.shown import printable

_FILTERS = "task= model= dataset= variant= system= seed=, such as variant=pm-drop,baseline"


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 done, 1 a run failed again, 2 bad input, 130 interrupted."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    commands: dict[str, Callable[[list[str]], None]] = {"retry": _retry, "repair": _repair}
    command = commands.get(given[0] if given else "", _list)
    try:
        code = exit_code(lambda: command(given[command is not _list :]))
        sys.stdout.flush()
    except SweepFailed as error:
        return end(str(error), code=1)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def _list(arguments: list[str]) -> None:
    parser = _parser(
        "",
        "List the experiments, or the runs of one.",
        epilog="python -m pmexp.runs retry NAME runs again what failed, was interrupted or is stale; "
        "python -m pmexp.runs repair [NAME] makes MLflow agree with the journals. Each has --help.",
    )
    parser.add_argument("name", nargs="?", help="the experiment: a folder under --runs-dir")
    _add_filters(parser, choice.STATES)
    parser.add_argument("--json", action="store_true", help="for a program")
    parser.add_argument("--watch", action="store_true", help="draw again until nothing runs any more")
    args = parser.parse_intermixed_args(arguments)
    runs_dir = Path(args.runs_dir).resolve()
    if args.name is None:
        if args.state or args.watch:
            raise UserError("--state and --watch are for the runs of one experiment; name it")
        found = {name: find_runs(runs_dir, name) for name in experiments(runs_dir)}
        print(table.experiments_json(found) if args.json else "\n".join(table.experiment_lines(found)))
        return
    read = _reader(runs_dir, args)
    if args.watch:
        from pmexp.runs.watch import watch  # rich

        runs = watch(read)
    else:
        runs = read([])
    print(table.runs_json(runs) if args.json else _listing(args.name, runs))


def _retry(arguments: list[str]) -> None:
    parser = _parser("retry", "Run again what failed, was interrupted or is stale.")
    parser.add_argument("name", help="the experiment")
    _add_filters(parser, AGAIN)
    parser.epilog = (
        "hydra/launcher=... and hydra.launcher.*=... say how, as for python -m pmexp.train -m; without: local"
    )
    args = parser.parse_intermixed_args(arguments)
    overrides = [word for word in args.filters if word.startswith(("hydra/", "hydra."))]
    args.filters = [word for word in args.filters if word not in overrides]
    runs = _reader(Path(args.runs_dir).resolve(), args, AGAIN)([])
    print(f"{args.name}: again {table.counts(runs)}" if runs else f"{args.name}: nothing to run again")
    if runs:
        retry(runs, overrides)


def _repair(arguments: list[str]) -> None:
    parser = _parser("repair", "Make MLflow agree with the journals: status, steps, no duplicates.")
    parser.add_argument("name", nargs="?", help="the experiment (default: all)")
    parser.add_argument(
        "--uri", help="the tracker of all of them, in place of each one's own: for runs made without one"
    )
    args = parser.parse_args(arguments)
    from pmexp.tracking.repair import repair  # imports MLflow, which takes seconds

    runs_dir = Path(args.runs_dir).resolve()
    for name in [args.name] if args.name else experiments(runs_dir):
        for line in repair(runs_dir, name, args.uri):
            print(printable(masked(f"{name}: {line}")), flush=True)


def _reader(
    runs_dir: Path, args: argparse.Namespace, allowed: Sequence[State] = choice.STATES
) -> Callable[[Sequence[FoundRun]], list[FoundRun]]:
    """What reads the chosen runs; it gets what it read before."""
    states = choice.states(args.state, allowed) if args.state else allowed
    labels = choice.labels(args.filters)

    def read(before: Sequence[FoundRun]) -> list[FoundRun]:
        runs = find_runs(runs_dir, args.name, {run.run_id: run for run in before})
        return choice.chosen(runs, states, labels)

    return read


def _listing(name: str, runs: Sequence[FoundRun]) -> str:
    again = [run for run in runs if run.state in AGAIN]
    lines = [*(table.run_lines(runs) if runs else []), f"{name}: {table.counts(runs)}"]
    if again:
        lines.append(f"logs: {again[0].path.parent}/<run>/log.txt; again: python -m pmexp.runs retry {name}")
    return "\n".join(lines)


def _parser(command: str, description: str, epilog: str = "") -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m pmexp.runs {command}".rstrip(), description=description, epilog=epilog
    )
    parser.add_argument("--runs-dir", default="runs", help="where the run folders are (default: %(default)s)")
    return parser


def _add_filters(parser: argparse.ArgumentParser, states: Sequence[State]) -> None:
    parser.add_argument("filters", nargs="*", metavar="label=value", help=_FILTERS)
    parser.add_argument("--state", help=f"only these: {','.join(state.name for state in states)}")
