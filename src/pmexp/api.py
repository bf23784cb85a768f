"""Offers what the commands do to Python: compose, run, load_runs, parity and fit. Errors are UserError.

Each function imports what it needs when it is called.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pmexp.command.explain import explained
from pmexp.config import RunConfig
from pmexp.errors import UserError
from pmexp.extras import missing_named
from pmexp.shown import class_of

if TYPE_CHECKING:
    import pandas as pd


def compose(*overrides: str) -> RunConfig:
    """Returns the checked configuration of one run, as ``python -m pmexp.train`` composes it.

    Args:
        overrides: as they are typed, such as "variant=pm-drop" and "train.lr=1e-4".

    Raises:
        UserError: an override is wrong, or the run has no use for it.
    """
    from pmexp.command.compose import compose_run

    with _told("compose", overrides):
        return compose_run(overrides)


def run(config: RunConfig) -> dict[str, Any]:
    """Executes a run in this process, unless it is finished already, and returns its summary.

    The summary is that of summary.json in `config.folder`: status, labels, settings, metrics (bytes, ms, nats
    as in the catalog), environment, replacement, outcome.

    Raises:
        UserError: something that the run needs cannot be had, or another process executes it.
        MachineError: the disk is full.
        Interrupted: a stop signal came; calling it again goes on from the checkpoint.
    """
    if not isinstance(config, RunConfig):
        raise UserError(f"run: {class_of(config)} is no configuration; give what compose() returns")
    from pmexp.run_folder.folder import RunFolder
    from pmexp.training.run import run as execute

    execute(config)
    summary: dict[str, Any] = json.loads(RunFolder(config.folder).summary.read_text(encoding="utf-8"))
    return summary


def load_runs(name: str = "default", runs_dir: Path | str = "runs") -> "pd.DataFrame":
    """Returns a row for each run of an experiment, by its id, whatever state it is in.

    The columns are the state (finished, oom, failed, running, ...), the labels (task, model, dataset,
    variant, system, seed), the settings by their dotted keys, and the final metrics by their names in the
    catalog. A setting or metric that a run does not have is missing in its row.

    Raises:
        UserError: there is no such experiment.
    """
    if not isinstance(name, str):
        raise UserError(
            f"load_runs: {class_of(name)} is no name of an experiment; give a text, as in 'default'"
        )
    if not isinstance(runs_dir, str | Path):
        raise UserError(f"load_runs: {class_of(runs_dir)} is no folder of runs; give runs_dir as in 'runs'")
    with missing_named("report"):
        import pandas as pd

    from pmexp.run_folder.found import find_runs

    rows: dict[str, Mapping[str, Any]] = {}
    for each in find_runs(Path(runs_dir), name):
        metrics = each.summary.metrics if each.summary else {}
        rows[each.run_id] = {"state": each.state.name, **each.settings, **each.labels, **metrics}
    frame = pd.DataFrame.from_dict(rows, orient="index")
    return frame.rename_axis("run_id")


def parity(
    a: str = "baseline", b: str = "pm-drop-same-masks", *overrides: str, steps: int = 20
) -> dict[str, Any]:
    """Returns the certificate of whether two dropouts, or two system stacks, train alike, bit for bit.

    Args:
        a, b: variants, or import paths of dropouts, such as "mypkg.MyDropout".
        overrides: keys of both sides, or of one behind "a." or "b.".
        steps: how many are taken in lock-step, until one differs.

    Returns:
        The content of certificate.json: verdict ("equal" or "different"), sentence, first_difference, ...

    Raises:
        UserError: the sides cannot be compared, or a training fails.
        MachineError: memory does not suffice for both.
    """
    from pmexp.parity.command import certified
    from pmexp.parity.options import COMMAND, parity_options

    with _told("parity", overrides):
        return certified(parity_options(COMMAND.read([f"a={a}", f"b={b}", f"steps={steps}", *overrides])))


def fit(*keys: str) -> dict[str, Any]:
    """Returns whether a training step fits into memory and the largest one that does, as `pmexp.fit` says.

    Args:
        keys: of that command and of the run, such as "budget=A100-80GB" and "model=bert-large".

    Returns:
        peak_bytes, by_category (bytes), fits, largest (samples or tokens), probes, ...

    Raises:
        UserError: a key is wrong, or the run cannot be simulated.
    """
    from pmexp.fit.answer import answer
    from pmexp.fit.options import COMMAND, fit_options

    with _told("fit", keys):
        options = fit_options(COMMAND.read(list(keys)))
        return answer(options).record(options)


@contextmanager
def _told(function: str, overrides: Sequence[object]) -> Iterator[None]:
    """Turns what is wrong with the overrides of a call into a UserError that says what helps in Python."""
    for given in overrides:
        if not isinstance(given, str):
            raise UserError(
                f"{function}: {class_of(given)} is no override; give each by itself, as in "
                f"{function}('variant=pm-drop', 'train.lr=1e-4')"
            )
    with explained():
        yield
