#!/usr/bin/env bash
# deepspeed 0.18.2, on one process of the CPU: ZeRO-2 with gradient accumulation steps by the last micro-batch alone.
# Every micro-batch replaces the gradient that the ones before it left, and the step divides by their number all the
# same. ZeRO-1 adds them up. Nothing warns, and with micro-batches that are alike the losses fall as they should. It is
# so in 0.17.6, 0.18.0 and 0.18.1 too, on one process and on two; 0.17.2 and 0.18.3 add them up.
# A weight of 0 and losses of weight * 1, weight * 10 and weight * 100 by SGD with lr=1: their mean gradient is 37.
# Output seen:
# stage 1: weight=-37.0
# stage 2: weight=-33.33
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 setuptools wheel
DS_BUILD_OPS=0 "$folder/venv/bin/pip" install --quiet --no-build-isolation deepspeed==0.18.2
cat > "$folder/train.py" <<'PYTHON'
import os
import sys
import warnings

import deepspeed
import torch

warnings.simplefilter("ignore")
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # it would be compiled, and is not needed
os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
torch.distributed.init_process_group("gloo", f"file://{sys.argv[2]}", rank=0, world_size=1)
INPUTS = (1.0, 10.0, 100.0)
module = torch.nn.Linear(1, 1, bias=False)
torch.nn.init.zeros_(module.weight)
config = {
    "train_micro_batch_size_per_gpu": 1,
    "gradient_accumulation_steps": len(INPUTS),
    "zero_optimization": {"stage": int(sys.argv[1])},
    "zero_allow_untested_optimizer": True,
}
engine = deepspeed.initialize(model=module, optimizer=torch.optim.SGD(module.parameters(), lr=1.0), config=config)[0]
for number in INPUTS:
    engine.backward(engine(torch.tensor([[number]])).sum())
    engine.step()
print(f"stage {sys.argv[1]}: weight={round(module.weight.item(), 2)}")
PYTHON
seen=$(for stage in 1 2; do
    DS_ACCELERATOR=cpu "$folder/venv/bin/python" -W ignore "$folder/train.py" $stage "$folder/store$stage" 2> "$folder/log" |
        grep "^stage" || cat "$folder/log"
done)
echo "$seen"
test "$seen" = "$(printf 'stage 1: weight=-37.0\nstage 2: weight=-33.33')"
