#!/usr/bin/env bash
# transformers 5.23.0: under Trainer the weight of a mixture's load-balancing loss is router_aux_loss_coef times the steps
# of accumulation. The model divides the language model's loss by all labels of the step, as Trainer asks, and adds the
# balancing loss of each micro-batch whole; nobody divides that. So the same batch in four parts trains the routers with
# four times the weight, and logs another loss. Mixtral and Qwen2-MoE do it; output_router_logits=True adds the loss.
# Output seen, what balancing adds to the logged loss (all texts are equal, so that each part weighs the same):
# Mixtral: one batch 2.01, four parts 8.04
# Qwen2Moe: one batch 2.04, four parts 8.17
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 numpy==2.4.6
cat >"$folder/balance.py" <<'PYTHON'
import sys

import torch
from transformers import (MixtralConfig, MixtralForCausalLM, Qwen2MoeConfig, Qwen2MoeForCausalLM, Trainer,
                          TrainingArguments)

sizes = dict(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
             intermediate_size=8, num_experts_per_tok=2, output_router_logits=True)
models = {
    "Mixtral": (MixtralForCausalLM, MixtralConfig(**sizes, num_local_experts=4)),
    "Qwen2Moe": (Qwen2MoeForCausalLM, Qwen2MoeConfig(**sizes, num_experts=4, moe_intermediate_size=8,
                                                     shared_expert_intermediate_size=8)),
}
text = torch.arange(3, 9)
data = [{"input_ids": text, "labels": text}] * 8


def loss(model_class, config, steps, coefficient):
    torch.manual_seed(0)
    config.router_aux_loss_coef = coefficient
    arguments = TrainingArguments(sys.argv[1], per_device_train_batch_size=8 // steps, gradient_accumulation_steps=steps,
                                  max_steps=1, logging_steps=1, learning_rate=0.0, use_cpu=True, report_to=[],
                                  save_strategy="no", disable_tqdm=True)
    trainer = Trainer(model_class(config), arguments, train_dataset=data)
    trainer.train()
    return trainer.state.log_history[0]["loss"]


for name, model in models.items():
    one, four = (loss(*model, steps, 1.0) - loss(*model, steps, 0.0) for steps in (1, 4))
    print(f"{name}: one batch {one:.2f}, four parts {four:.2f}")
    assert abs(four / one - 4) < 1e-3
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/balance.py" "$folder/out" 2>"$folder/err" | grep -v "^{" ||
    { cat "$folder/err" >&2; exit 1; }
