#!/usr/bin/env bash
# hydra-core 1.3.8: Plugins.instance() executes every module below hydra_plugins once more, also one that has been
# imported: its module level runs twice, and a class that it defines is another class afterwards than the one that
# somebody imported before. isinstance with the earlier one is then false.
# Output seen: runs=2 same_class=False
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet hydra-core==1.3.8
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import os
import sys
import tempfile

folder = tempfile.mkdtemp()
os.makedirs(f"{folder}/hydra_plugins/finding")
with open(f"{folder}/hydra_plugins/finding/plugin.py", "w") as file:
    file.write("import builtins\nbuiltins.runs = getattr(builtins, 'runs', 0) + 1\nclass Plugin: pass\n")
open(f"{folder}/hydra_plugins/finding/__init__.py", "w").close()
sys.path.insert(0, folder)
import builtins

from hydra_plugins.finding.plugin import Plugin

before = Plugin
from hydra.core.plugins import Plugins

Plugins.instance()
import hydra_plugins.finding.plugin as after

seen = f"runs={builtins.runs} same_class={after.Plugin is before}"
print(seen)
assert seen == "runs=2 same_class=False"
PYTHON
