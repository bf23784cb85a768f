#!/usr/bin/env bash
# torch 2.13.0: torch.save to a path on a full disk raises RuntimeError about positions in the archive, with no errno,
# no OSError in its chain and no word of a disk, so that a caller who tries again after ENOSPC does not see one. The
# same save into a Python stream keeps the OSError, errno 28.
# Output seen:
# path: RuntimeError, OSError in the chain: False, says 'space': False
# stream: OSError, OSError in the chain: True, says 'space': True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy
cat >"$folder/save.py" <<'PYTHON'
import torch


def told(name, save):
    try:
        save()
    except Exception as error:
        chain, one = [], error
        while one is not None:
            chain.append(one)
            one = one.__cause__ or one.__context__
        has = any(isinstance(e, OSError) for e in chain)
        says = any("space" in str(e).lower() for e in chain)
        print(f"{name}: {type(error).__name__}, OSError in the chain: {has}, says 'space': {says}")
        return has, says
    raise SystemExit("nothing was raised")


def into_stream():
    with open("/dev/full", "wb", buffering=0) as stream:  # a device that is always full
        torch.save({"x": torch.ones(10)}, stream)


assert told("path", lambda: torch.save({"x": torch.ones(10)}, "/dev/full")) == (False, False)
assert told("stream", into_stream) == (True, True)
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/save.py"
