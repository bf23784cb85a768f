#!/usr/bin/env bash
# transformers 5.23.0, safetensors 0.8.0, torch 2.13.0, Linux CPU: weights of a loaded model can change with the file.
# from_pretrained of a safetensors checkpoint in the dtype it is stored in leaves every parameter a view of the mapped
# file: writing other bytes of the same size into the file changes the model in memory, with no call to it. A model
# loaded in another dtype has copies of all parameters that were converted. The same holds for safetensors'
# load_file, not for load. So a file that is written in place (not replaced) must not belong to a model in use.
# Output seen: same_dtype=23/23 converted=0/23 load_file=0.0 load=32.0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy transformers==5.23.0 safetensors==0.8.0
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load, load_file, save_file
from transformers import BertConfig, BertModel
from transformers.utils.logging import disable_progress_bar

disable_progress_bar()


def overwrite_with_zeros(path):
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    with path.open("r+b") as file:
        file.seek(start)
        file.write(bytes(len(content) - start))


def zeroed(dtype):
    with tempfile.TemporaryDirectory() as folder:
        config = BertConfig(
            vocab_size=32, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
        )
        fresh = BertModel(config)
        for parameter in fresh.parameters():
            torch.nn.init.ones_(parameter)
        fresh.save_pretrained(folder)
        model = BertModel.from_pretrained(folder, dtype=dtype)
        assert all(bool((p == 1).all()) for p in model.parameters())
        overwrite_with_zeros(Path(folder) / "model.safetensors")
        parameters = list(model.parameters())
        return f"{sum(bool((p == 0).all()) for p in parameters)}/{len(parameters)}"


with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "w.safetensors"
    save_file({"w": torch.ones(32)}, path)
    mapped, copied = load_file(path)["w"], load(path.read_bytes())["w"]
    overwrite_with_zeros(path)
    sums = f"load_file={mapped.sum().item()} load={copied.sum().item()}"
found = f"same_dtype={zeroed(torch.float32)} converted={zeroed(torch.bfloat16)} {sums}"
print(found)
assert found == "same_dtype=23/23 converted=0/23 load_file=0.0 load=32.0"
PYTHON
