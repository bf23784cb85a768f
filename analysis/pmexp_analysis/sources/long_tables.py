"""All that an experiment logged as one long table, for figures, which group and draw by pandas."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from pmexp_analysis.sources.experiment import Member

COLUMNS = ("run_id", "task", "system", "variant", "seed", "metric", "unit", "direction", "step", "value")


def curves_table(members: "Sequence[Member]") -> pd.DataFrame:
    """One row a (run, metric, step).

    A run resumed from a checkpoint writes the steps after it a second time: the later record counts.
    """
    curves = [member.run.curve for member in members]
    owner = np.repeat(np.arange(len(members)), [len(curve.values) for curve in curves])

    def label(values: list[str]) -> pd.Categorical:
        return pd.Categorical(values).take(owner)

    def column(name: str) -> pd.Categorical:
        return pd.Categorical([value for curve in curves for value in getattr(curve, name)])

    columns = {
        "run_id": label([m.run.run_id for m in members]),
        "task": label([m.labels.task for m in members]),
        "system": label([m.labels.system for m in members]),
        "variant": label([m.labels.variant for m in members]),
        "seed": np.array([m.labels.seed for m in members], dtype=np.int64)[owner],
        "metric": column("metrics"),
        "unit": column("units"),
        "direction": column("directions"),
        "step": np.concatenate([np.asarray(curve.steps, dtype=np.float64) for curve in curves]),
        "value": np.concatenate([np.asarray(curve.values, dtype=np.float64) for curve in curves]),
    }
    table = pd.DataFrame(columns, columns=list(COLUMNS))
    return table.drop_duplicates(["run_id", "metric", "step"], keep="last", ignore_index=True)
