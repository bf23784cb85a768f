"""The columns that MLflow's table of an experiment opens with: a view as its button *Views* saves one.

The format is no interface of MLflow (it is that of 3.17, found by saving a view): where it cannot be read the
page says so in a line, and the table has its usual columns.
"""

import json

from pmexp.metrics.task_metrics import TASK_METRICS

VIEW = "pmexp"  # in the page's address and in its list of views
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"  # of the experiment
_TAGS = ("variant", "system", "model", "dataset", "seed")
_METRICS = (  # those that no run has are not shown
    *(f"test/{name}" for name in TASK_METRICS),
    "memory/saved_bytes",
    "memory/mask_bytes_per_element",
    "memory/peak_bytes",
    "speed/step_ms",
    *(f"val/{name}" for name in TASK_METRICS),
)
_WIDTH = 190  # pixels of a metric's column: its name fits


def view() -> str:
    """The value of VIEW_TAG."""
    tags, metrics = (
        [f"{kind}.`{name}`" for name in names]
        for kind, names in (("tags", _TAGS), ("metrics", [f"final/{name}" for name in _METRICS]))
    )
    state = {
        "selectedColumns": [*tags, *metrics],
        "columnOrder": ["attributes.`Run Name`", "runDateAndNestInfo", "duration", *tags, *metrics],
        "columnWidths": dict.fromkeys(metrics, _WIDTH),
    }
    return json.dumps({"name": VIEW, "createdAt": 0, "updatedAt": 0, "state": json.dumps(state)})
