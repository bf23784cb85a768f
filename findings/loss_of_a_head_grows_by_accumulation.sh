#!/usr/bin/env bash
# transformers 5.23.0: under Trainer the gradients of a classifier grow by the steps of accumulation. Trainer leaves the
# division to a model whose forward takes **kwargs, and gives it the number of labels; BertForSequenceClassification and
# LlamaForSequenceClassification take kwargs and do not pass the number on to their loss, so that four micro-batches of
# 2 give four times the gradient, and the loss in the log, of one batch of 8. With AdamW it looks like training as
# usual; clipping (max_grad_norm, 1.0 by default), SGD and every comparison of losses are off. A language model's head is
# right. transformers' issue 47688 reports it.
# Output seen, gradient norm of 4 micro-batches of 2 over that of one batch of 8:
# LlamaForCausalLM: 1.0
# LlamaForSequenceClassification: 4.0
# BertForSequenceClassification: 4.0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 numpy==2.4.6
cat >"$folder/accumulate.py" <<'PYTHON'
import sys

import torch
from transformers import (BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForCausalLM,
                          LlamaForSequenceClassification, Trainer, TrainingArguments)

sizes = dict(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
llama = LlamaConfig(**sizes, num_labels=3, pad_token_id=0)
bert = BertConfig(**sizes, num_labels=3, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)


def gradient_norm(model_class, config, steps):
    torch.manual_seed(0)
    model = model_class(config)
    texts = [torch.randint(3, 20, (6,)) for _ in range(8)]
    whole = model_class is LlamaForCausalLM
    data = [{"input_ids": text, "labels": text if whole else text[0] % 3} for text in texts]
    arguments = TrainingArguments(sys.argv[1], per_device_train_batch_size=8 // steps, gradient_accumulation_steps=steps,
                                  max_steps=1, logging_steps=1, learning_rate=0.0, use_cpu=True, report_to=[],
                                  save_strategy="no", disable_tqdm=True)
    trainer = Trainer(model, arguments, train_dataset=data)
    trainer.train()
    return trainer.state.log_history[0]["grad_norm"]


ratios = {}
for model_class, config in [(LlamaForCausalLM, llama), (LlamaForSequenceClassification, llama),
                            (BertForSequenceClassification, bert)]:
    ratio = gradient_norm(model_class, config, 4) / gradient_norm(model_class, config, 1)
    ratios[model_class.__name__] = round(ratio, 3)
for name, ratio in ratios.items():
    print(f"{name}: {ratio}")
assert list(ratios.values()) == [1.0, 4.0, 4.0]
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/accumulate.py" "$folder/out" 2>"$folder/err" | grep -v "^{" ||
    { cat "$folder/err" >&2; exit 1; }
