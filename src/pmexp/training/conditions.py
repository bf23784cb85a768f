"""Notes where a run goes on with another machine, other threads or other versions than it began with."""

from collections.abc import Mapping

from pmexp.training.progress import Progress

_KEYS = (
    "device",
    "driver",
    "cpu",
    "threads",
    "dropout_backend",
    "python",
    "version_torch",
    "version_transformers",
    "version_pmexp",
    "git_commit",
    "git_diff",
)


def meet(progress: Progress, environment: Mapping[str, str | int]) -> str:
    """Keeps in `progress` under which conditions its next steps are taken, and says in what they differ from
    those of the steps before; empty where they do not, or no step tells.

    environment: that of this process, as measure.environment describes it.
    """
    before, now = progress.conditions, {key: str(environment.get(key)) for key in _KEYS}
    progress.conditions = now
    differing = [key for key in _KEYS if before is not None and before.get(key, now[key]) != now[key]]
    if before is None or not differing:
        return ""
    changes = ", ".join(f"{key} {now[key]} in place of {before[key]}" for key in differing)
    said = f"{changes} from step {progress.step + 1} on"
    progress.other_conditions = [*progress.other_conditions, said]
    return said
