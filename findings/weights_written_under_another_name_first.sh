#!/usr/bin/env bash
# safetensors 0.8.0: save_file(tensors, path) does not write into `path`: it makes a file `.tmp` with six random letters
# beside it, of mode 600 whatever the umask, writes and syncs there, and renames it. So a process that ends meanwhile
# leaves a file of the size of the weights that no later save removes, and a save over an existing file needs room for
# both; the saved file's mode is 600, where open() would have left 644.
# Output seen:
# names while writing: ['.tmpe3yQ4r']; mode of the file: 600; of one that open() makes: 644
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet safetensors==0.8.0 numpy
cat >"$folder/save.py" <<'PYTHON'
import os
import re
import stat
import sys
import threading
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

os.umask(0o022)
root = Path(sys.argv[1]) / "weights"
root.mkdir()
seen, done = set(), threading.Event()


def watch():
    while not done.is_set():
        seen.update(os.listdir(root))


watcher = threading.Thread(target=watch)
watcher.start()
weights = {"w": np.ones(60_000_000, dtype=np.float32)}
save_file(weights, root / "model.safetensors")
done.set()
watcher.join()
others = seen - {"model.safetensors"}
mode = stat.S_IMODE((root / "model.safetensors").stat().st_mode)
(root / "own").write_bytes(b"")
own = stat.S_IMODE((root / "own").stat().st_mode)
print(f"names while writing: {sorted(others)}; mode of the file: {mode:o}; of one that open() makes: {own:o}")
assert others and all(re.fullmatch(r"\.tmp\w{6}", name) for name in others)
assert (mode, own) == (0o600, 0o644)
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/save.py" "$folder"
