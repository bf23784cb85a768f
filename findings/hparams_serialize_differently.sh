#!/usr/bin/env bash
# tensorboard 2.21.0 on protobuf 7.36: the same hyperparameters make other bytes in each process. HParamsPluginData holds
# them in a protobuf map, and SerializeToString gives no order to a map's entries unless it is asked for one
# (deterministic=True). Who appends to an event file, or compares two by content or digest, takes equal runs for
# different ones.
# Output seen:
# digests of 6 processes: 6 as SerializeToString makes them by default, 1 with deterministic=True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tensorboard==2.21.0 protobuf==7.36.2 "setuptools<81"
cat >"$folder/once.py" <<'PYTHON'
import hashlib
import sys

from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

data = HParamsPluginData()
for number in range(40):
    data.session_start_info.hparams[f"train.key_{number}"].number_value = number
content = data.SerializeToString(deterministic=True) if sys.argv[1:] else data.SerializeToString()
print(hashlib.sha256(content).hexdigest())
PYTHON
several() { for _ in 1 2 3 4 5 6; do "$folder/venv/bin/python" -W ignore "$folder/once.py" "$@"; done | sort -u | wc -l; }
default=$(several)
deterministic=$(several deterministic)
echo "digests of 6 processes: $default as SerializeToString makes them by default, $deterministic with deterministic=True"
test "$default" -gt 1
test "$deterministic" -eq 1
