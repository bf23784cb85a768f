#!/usr/bin/env bash
# torch 2.13.0: under FakeTensorMode a storage handed to Tensor.set_ outlives every tensor that used it. The mode's cache
# of dispatches holds the call's arguments as a part of the cache's key, the storage among them, so a simulation that
# counts live storages sees memory that nothing holds any more. With the cache switched off the storage goes with its
# last tensor.
# Output seen:
# cache on: storage alive after its tensors are gone: True
# cache off: storage alive after its tensors are gone: False
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy
cat >"$folder/look.py" <<'PYTHON'
import gc
import weakref

import torch
import torch._functorch.config
from torch._dynamo import config  # noqa: F401  makes the caches' settings known
from torch._subclasses.fake_tensor import FakeTensorMode


def alive_after(cached: bool) -> bool:
    mode = FakeTensorMode()
    mode.cache_enabled = cached
    with mode:
        x, t = torch.empty(8), torch.empty(8)
        t.set_(x.untyped_storage(), 0, (8,), (1,))
        seen = weakref.ref(x.untyped_storage())
        del x, t
    gc.collect()
    return seen() is not None


on, off = alive_after(True), alive_after(False)
print("cache on: storage alive after its tensors are gone:", on)
print("cache off: storage alive after its tensors are gone:", off)
assert on and not off
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/look.py"
