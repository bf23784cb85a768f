#!/usr/bin/env bash
# MLflow 3.17.2, sqlite store: a run that ended and is set back to RUNNING, as one that is resumed, keeps the end time
# of before, and MlflowClient has no way to clear it: update_run takes a status and a name alone, and the store takes
# end_time=None for "leave it". Its pages then show a running run with an end and a duration.
# Output seen:
# status=RUNNING has_end_time=True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet mlflow==3.17.2
cat >"$folder/resume.py" <<'PYTHON'
import sys

from mlflow import MlflowClient

client = MlflowClient(f"sqlite:///{sys.argv[1]}/mlflow.db")
run = client.create_run(client.create_experiment("resumed"))
client.set_terminated(run.info.run_id, "KILLED")
client.update_run(run.info.run_id, status="RUNNING")
info = client.get_run(run.info.run_id).info
print(f"status={info.status} has_end_time={info.end_time is not None}")
assert info.status == "RUNNING" and info.end_time is not None
PYTHON
cd "$folder" && "$folder/venv/bin/python" -W ignore "$folder/resume.py" "$folder" 2>/dev/null
