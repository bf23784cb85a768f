#!/usr/bin/env bash
# torch 2.13.0, pytest 9.2.0: pytest's monkeypatch does not take back what it sets in torch._inductor.config.
# Its undo deletes the option, where that of pytest 9.1.1 restored it: nobody can read it then, and torch.compile fails
# in that process. An option that is another name for one of torch.compiler.config keeps the patched value there.
# torch's own `config.patch` restores both.
# Output seen: own_readable=False other_name_readable=False compiler=True
#              by torch's patch: own=True other_name=False compiler=False
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 pytest==9.2.0 numpy
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import torch
import torch._inductor.config as config
from pytest import MonkeyPatch

config.debug = True  # its default is False
with config.patch({"debug": False, "force_disable_caches": True}):
    pass
by_patch = config.debug, config.force_disable_caches, torch.compiler.config.force_disable_caches

with MonkeyPatch.context() as patch:
    patch.setattr(config, "debug", False)
    patch.setattr(config, "force_disable_caches", True)  # another name for torch.compiler.config's
readable = hasattr(config, "debug"), hasattr(config, "force_disable_caches")
kept = torch.compiler.config.force_disable_caches

print(f"own_readable={readable[0]} other_name_readable={readable[1]} compiler={kept}")
print(f"by torch's patch: own={by_patch[0]} other_name={by_patch[1]} compiler={by_patch[2]}")
assert (readable, kept, by_patch) == ((False, False), True, (True, False, False))
PYTHON
