"""Says with which columns MLflow's table of an experiment opens: a view as its button *Views* saves one.

The format is no interface of MLflow (it is that of 3.17, found by saving a view): where it cannot be read the
page says so in a line, and the table has its usual columns. A view holds an order of columns too, but MLflow
often overwrites it while it loads; so these are few enough to be seen at once.
"""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pmexp.metrics.task_metrics import TASK_METRICS

if TYPE_CHECKING:
    from pmexp.tracking.record import LoggedValue

VIEW = "pmexp"  # in the page's address and in its list of views
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"  # the experiment has it
_FINAL, _MIB = "final/", "MiB/"
_LABELS = ("model", "dataset", "system")  # columns where runs differ in them
_METRICS = (  # those that no run has are not shown
    *(f"final/{split}/{name}" for split in ("test", "val") for name in TASK_METRICS),
    "MiB/saved",
    "MiB/peak_tensor",
    "final/speed/step_ms",
)


def view(parent: str, keys: Sequence[str]) -> str:
    """Returns the value of VIEW_TAG: the children of the run `parent` unfolded, a column for each of the
    labels and settings `keys`."""
    tags = ["variant", *(key for key in keys if key in _LABELS), "seed"]
    columns = [
        *(f"tags.`{name}`" for name in tags),
        *(f"params.`{key}`" for key in keys if key not in _LABELS),
        *(f"metrics.`{name}`" for name in _METRICS),
    ]
    state = json.dumps({"selectedColumns": columns, "runsExpanded": {parent: True}})
    return json.dumps({"name": VIEW, "createdAt": 0, "updatedAt": 0, "state": state})


def is_ours(told: str) -> bool:
    """Whether a view is as it was made here: one that a person saved has the time of that."""
    try:
        return bool(json.loads(told)["updatedAt"] == 0)
    except (ValueError, KeyError, TypeError):
        return False


def in_mib(final: Sequence["LoggedValue"]) -> list["LoggedValue"]:
    """The final values that are bytes once more in MiB, which MLflow's pages cannot show them in."""
    return [
        value._replace(metric=_mib_name(name), value=value.value and value.value / 2**20)
        for value in final
        if (name := value.metric.removeprefix(_FINAL)).endswith("_bytes")
    ]


def _mib_name(name: str) -> str:
    return _MIB + name.removeprefix("memory/").removesuffix("_bytes")
