"""Names tasks whose scores are of the split that has selected the weights: each is the best of several."""

from pmexp_analysis.numbers.scores import scores
from pmexp_analysis.sources.experiment import Experiment

_VALIDATION, _SELECT, _BEST = "val/", "train.select", "best"


def scores_that_selected(experiment: Experiment) -> list[str]:
    """Returns a line for each task and system without a test score whose runs tested their best weights."""
    selecting = {
        (member.labels.task, member.labels.system)
        for member in experiment.finished
        if member.run.settings.get(_SELECT) == _BEST
    }
    return [
        f"{section.task}, {section.system}: scores are of the validation split, which has selected the "
        "weights too (train.select=best). Each is the best of its run's evaluations: higher than on new "
        "data, the more so the more they vary from one to the next. train.select=last has none of this."
        for section in experiment.values
        if (section.task, section.system) in selecting
        and next(iter(scores(list(section.metrics))), "").startswith(_VALIDATION)
    ]
