"""Says with which columns MLflow's table of an experiment opens: a view as its button *Views* saves one.

The format is no interface of MLflow (it is that of 3.17, found by saving a view): where it cannot be read the
page says so in a line, and the table has its usual columns. A view holds an order of columns too, but MLflow
often overwrites it while it loads; so these are few enough to be seen at once.
"""

import json

from pmexp.metrics.task_metrics import TASK_METRICS

VIEW = "pmexp"  # in the page's address and in its list of views
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"  # the experiment has it
_TAGS = ("variant", "system", "model", "dataset", "seed")
_METRICS = (  # those that no run has are not shown
    *(f"final/{split}/{name}" for split in ("test", "val") for name in TASK_METRICS),
    "final/memory/saved_bytes",
    "final/speed/step_ms",
)


def view() -> str:
    """Returns the value of VIEW_TAG."""
    columns = [*(f"tags.`{name}`" for name in _TAGS), *(f"metrics.`{name}`" for name in _METRICS)]
    state = json.dumps({"selectedColumns": columns})
    return json.dumps({"name": VIEW, "createdAt": 0, "updatedAt": 0, "state": state})
