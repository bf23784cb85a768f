"""Chooses runs by state and by label."""

from collections.abc import Mapping, Sequence

from pmexp.errors import UserError
from pmexp.run_folder.found import FoundRun
from pmexp.run_folder.state import State

STATES = (
    State.pending, State.running, State.finished, State.oom, State.failed, State.interrupted, State.stale,
)  # fmt: skip
AGAIN = (State.failed, State.interrupted, State.stale)  # what retry runs


def states(text: str, allowed: Sequence[State] = STATES) -> list[State]:
    """The states of `state=failed,oom`. Raises UserError for another word."""
    names = [state.name for state in allowed]
    for word in text.split(","):
        if word not in names:
            raise UserError(f"state: {word!r} is unknown; allowed are {', '.join(names)}")
    return [State[word] for word in text.split(",")]


def chosen(
    runs: Sequence[FoundRun], states: Sequence[State], labels: Mapping[str, Sequence[str]]
) -> list[FoundRun]:
    """The runs in one of the states that have one of the values of each label.

    Raises UserError for a value that no run has.
    """
    for label, values in labels.items():
        known = sorted({str(run.labels[label]) for run in runs if label in run.labels})
        for value in values:
            if value not in known:
                raise UserError(f"{label}={value}: no run has it; there are {', '.join(known) or 'none'}")
    return [
        run
        for run in runs
        if run.state in states
        and all(str(run.labels.get(label)) in values for label, values in labels.items())
    ]
