"""Names scores of somebody's own that seem to be errors: they fall while a model learns."""

from collections.abc import Iterable
from itertools import combinations

from pmexp.own_code import is_import_path
from pmexp.shown import counted
from pmexp_analysis.numbers.trainings import NOTHING_LOGGED, Logged, logged
from pmexp_analysis.sources.experiment import Experiment

_VALIDATION = "val/"
_FEWEST_PAIRS = 6  # fewer pairs of evaluations say nothing
_MOST = 0.8  # the share of them in which a score may fall without a warning


def falling_scores(experiment: Experiment) -> list[str]:
    """Returns a line for each score of somebody's own that falls where the validation loss fell."""
    recorded = {metric for section in experiment.values for metric in section.metrics}
    names = sorted(
        metric for metric in recorded
        if metric.startswith(_VALIDATION) and is_import_path(metric.removeprefix(_VALIDATION))
    )  # fmt: skip
    if not names:
        return []
    losses = logged(experiment.finished, f"{_VALIDATION}loss")
    return [line for name in names if (line := _said(name, logged(experiment.finished, name), losses))]


def _said(metric: str, scores: dict[str, Logged], losses: dict[str, Logged]) -> str:
    changes = [
        change
        for run, values in scores.items()
        for change in _changes(_by_step(values), _by_step(losses.get(run, NOTHING_LOGGED)))
    ]
    falls, moves = sum(change < 0 for change in changes), sum(change != 0 for change in changes)
    if moves < _FEWEST_PAIRS or falls <= _MOST * moves:
        return ""
    return (
        f"{metric} fell in {falls} of {counted(moves, 'pair')} of evaluations of a run between which the "
        "validation loss fell. More is taken for better in a score of your own, in criteria and in the "
        "choice of the weights that are tested: if it is an error, return it with a minus and run again."
    )


def _by_step(values: Logged) -> dict[float, float]:
    return dict(zip(values.steps.tolist(), values.values.tolist(), strict=True))


def _changes(scores: dict[float, float], losses: dict[float, float]) -> Iterable[float]:
    """Yields by how much a score changed between an earlier and a later evaluation of a lower loss."""
    for earlier, later in combinations(sorted(scores.keys() & losses.keys()), 2):
        if losses[later] < losses[earlier]:
            yield scores[later] - scores[earlier]
