"""Which metrics say how well a task was learned, and in which order metrics are shown."""

from collections.abc import Iterable, Sequence

from pmexp.metrics.catalog import metric_of

_SECTIONS = ("test", "val", "ood", "fgsm", "train", "memory", "speed")
_OF_SPLITS = _SECTIONS[:4]
_STEP_TIME = "speed/step_ms"
_OF_STEP_TIME = ("speed/samples_per_s", "speed/tokens_per_s", "speed/tflops_per_s", "speed/mfu")


def in_order(metrics: Iterable[str]) -> list[str]:
    """`metrics` in the catalog's order of sections: scores first, then memory, then speed, then the rest.
    Those of a section stay in their order."""

    def place(name: str) -> int:
        section = name.split("/")[0]
        return _SECTIONS.index(section) if section in _SECTIONS else len(_SECTIONS)

    return sorted(metrics, key=place)


def label_of(metric: str) -> str:
    """The catalog's words for `metric`, or its name when a journal holds one the catalog does not know."""
    try:
        return metric_of(metric).label
    except KeyError:
        return metric


def is_exact(metric: str) -> bool:
    """Whether one run has all there is to know of `metric`: it is counted, not sampled."""
    try:
        return metric_of(metric).exact
    except KeyError:
        return False


def measured_with(metric: str) -> str:
    """The metric whose measurement `metric` says in another unit; empty where it is measured by itself."""
    return _STEP_TIME if metric in _OF_STEP_TIME else ""


def is_score(metric: str) -> bool:
    """Whether `metric` is a score: a multiple of a step, such as 1/n, of which more is better."""
    return metric.split("/")[0] in _OF_SPLITS and _direction(metric) == "max"


def scores(metrics: Sequence[str], splits: Sequence[str] = ("test", "val")) -> list[str]:
    """A task's main metrics, the first of them foremost: of the first split that has any, those whose better
    end is that of its first one, in their order (see `main_first`). A loss leads only losses."""
    of_splits = [[m for m in metrics if m.startswith(f"{split}/")] for split in splits]
    for is_loss in (False, True):
        for names in of_splits:
            first = next((m for m in names if m.endswith("/loss") == is_loss and _direction(m) != "none"), "")
            if first:
                return [m for m in names if _direction(m) == _direction(first)]
    return []


def resolve(metric: str, metrics: Sequence[str]) -> str | None:
    """The metric that a criterion's word means among those of a task: `score`, `<split>/score` or a name."""
    if metric == "score":
        names = scores(metrics)
    elif metric.endswith("/score"):
        names = scores(metrics, [metric.removesuffix("/score")])
    else:
        names = [metric] if metric in metrics else []
    return names[0] if names else None


def _direction(metric: str) -> str:
    try:
        return metric_of(metric).direction
    except KeyError:
        return "none"
