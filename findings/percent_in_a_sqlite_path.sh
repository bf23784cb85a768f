#!/usr/bin/env bash
# SQLAlchemy 2.1.9 with MLflow 3.17.2: SQLAlchemy decodes percent signs in the path of sqlite:///, MLflow does not, so
# for a database in a folder named `a%20b` they disagree: MLflow makes the folder `a%20b` and the database is opened in
# `a b`, which is another place (here it is there, and gets the database).
# Output seen:
# in 'a b': True, in 'a%20b': False
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet mlflow==3.17.2 sqlalchemy==2.1.9
cat >"$folder/place.py" <<'PYTHON'
import sys
from pathlib import Path

from mlflow import MlflowClient

root = Path(sys.argv[1])
(root / "a b").mkdir()
(root / "a%20b").mkdir()
MlflowClient(f"sqlite:///{root}/a%20b/mlflow.db").search_experiments()
there = {name: (root / name / "mlflow.db").is_file() for name in ("a b", "a%20b")}
print(", ".join(f"in {name!r}: {found}" for name, found in there.items()))
assert there == {"a b": True, "a%20b": False}
PYTHON
cd "$folder" && "$folder/venv/bin/python" -W ignore "$folder/place.py" "$folder" 2>/dev/null
