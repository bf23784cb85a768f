#!/usr/bin/env bash
# MLflow 3.17.2, sqlite store: the value that a run shows for a metric, run.data.metrics, is not the one that was logged
# last. It is the one of the highest step; among these of the latest millisecond; and among these the greatest. An
# accuracy that is logged at the end without a step (step 0) thus does not replace one logged with a step, and of values
# that come by log_batch with one timestamp and step, such as those of an evaluation's batches, the run shows the
# maximum: the best accuracy, the worst loss. A NaN does not show beside any number. get_metric_history has them all.
# Output seen:
# without a step, after step 10: logged last 0.5, shown 0.9
# at one timestamp: logged last 0.5, shown 0.9
# NaN at one timestamp: logged last nan, shown 0.9
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet mlflow==3.17.2
cat >"$folder/metrics.py" <<'PYTHON'
import math
import sys

from mlflow import MlflowClient
from mlflow.entities import Metric

client = MlflowClient(f"sqlite:///{sys.argv[1]}/mlflow.db")
experiment = client.create_experiment("metrics")


def shown(*logged):
    run_id = client.create_run(experiment).info.run_id
    for value, timestamp, step in logged:
        client.log_batch(run_id, [Metric("accuracy", value, timestamp, step)])
    return client.get_run(run_id).data.metrics["accuracy"]


cases = {
    "without a step, after step 10": [(0.9, 1000, 10), (0.5, 2000, 0)],
    "at one timestamp": [(0.9, 1000, 0), (0.5, 1000, 0)],
    "NaN at one timestamp": [(0.9, 1000, 0), (math.nan, 1000, 0)],
}
for name, logged in cases.items():
    value = shown(*logged)
    print(f"{name}: logged last {logged[-1][0]}, shown {value}")
    assert value == 0.9
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/metrics.py" "$folder" 2>"$folder/err" || { cat "$folder/err" >&2; exit 1; }
