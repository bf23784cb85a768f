"""Says how MLflow's table of an experiment opens: a view as its button *Views* saves one.

The format is no interface of MLflow (it is that of 3.17, found by saving a view): where it cannot be read the
page says so in a line, and the table has its usual columns. MLflow sometimes overwrites the order of columns
and their widths while it loads; so these are few enough to be seen at once. It reads from no view which runs
are unfolded, and shows all of them in one list where they are sorted by anything but time.
"""

import json
from collections.abc import Collection

from pmexp.metrics.task_metrics import TASK_METRICS
from pmexp.run_folder.differences import Differing, keys_of, said

VIEW = "pmexp"  # in the page's address and in its list of views
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"  # the experiment has it
_LABELS = ("model", "dataset", "system")  # columns where runs differ in them
IN_MIB = {  # final values that have a column, and what they are once more in MiB: it shows a metric as it is
    "final/memory/saved_bytes": "MiB/saved",
    "final/memory/peak_tensor_bytes": "MiB/tensors",
    "final/memory/peak_bytes": "MiB/process",
}
_METRICS = (  # those that no run has are not shown
    *(f"final/test/{name}" for name in TASK_METRICS),
    *IN_MIB.values(),
    "final/speed/step_ms",
    *(f"final/val/{name}" for name in TASK_METRICS),
)
_NAME_WIDTH, _LEAST_WIDTH, _LETTER_WIDTH, _MARGIN = 300, 80, 7, 24  # CSS pixels
_VARIANT_LETTERS = len("baseline-other-masks")
_MOST_LETTERS = 64  # that a value is shown by; a digest and what has it take about so many
_CODE = "code."  # before the keys of settings that hold digests of own code
_SORT = {"orderByKey": "tags.`variant`", "orderByAsc": True}


def view(differing: Collection[Differing]) -> str:
    """Returns the value of VIEW_TAG: every run in a list, by variant, with a column for each label and
    setting that tells runs apart, as wide as its longest value. Digests of code, the longest, come last."""
    keys = keys_of(differing)
    letters = {key: max(len(said(each[key])) for each in differing if key in each) for key in keys}
    letters["variant"] = _VARIANT_LETTERS
    named = [("tags", name) for name in ("variant", *(key for key in keys if key in _LABELS), "seed")]
    digests = [key for key in keys if key.startswith(_CODE)]
    named += [("params", key) for key in keys if key not in _LABELS and key not in digests]
    named += [("metrics", name) for name in _METRICS]
    named += [("params", key) for key in digests]
    columns = {
        f"{kind}.`{name}`": _width(max(len(name), min(_MOST_LETTERS, letters.get(name, 0))))
        for kind, name in named
    }
    widths = {"attributes.`Run Name`": _NAME_WIDTH, **columns}
    state = {"selectedColumns": list(columns), "columnOrder": list(widths), "columnWidths": widths, **_SORT}
    return json.dumps({"name": VIEW, "createdAt": 0, "updatedAt": 0, "state": json.dumps(state)})


def _width(letters: int) -> int:
    return max(_LEAST_WIDTH, _LETTER_WIDTH * letters + _MARGIN)


def is_ours(told: str) -> bool:
    """Whether a view is as it was made here: one that a person saved has the time of that."""
    try:
        return bool(json.loads(told)["updatedAt"] == 0)
    except (ValueError, KeyError, TypeError):
        return False
