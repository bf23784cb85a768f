#!/usr/bin/env bash
# transformers 5.23.0, torch 2.13.0: gradient checkpointing of a model's layers runs their forward hooks only once.
# GradientCheckpointingLayer (here OPT's decoder layer) checkpoints its forward inside of the module's call, so that
# hooks registered on the layer run in forward and not in the recomputation, while torch's checkpoint of the layer
# runs the pre-hook again. A pair of hooks that changes the layer for the time of its forward (here the activation
# function) is thus undone when backward recomputes: output equal, gradients wrong by more than 10 %, no error or
# warning, with use_reentrant False and True. A hook that only scales what leaves the layer is not concerned.
# Output seen:
# the model's own checkpointing: use_reentrant=False output=True gradient=False pre_hooks=2
# the model's own checkpointing: use_reentrant=True output=True gradient=False pre_hooks=2
# torch's checkpoint of each layer: use_reentrant=False output=True gradient=True pre_hooks=4
# torch's checkpoint of each layer: use_reentrant=True output=True gradient=True pre_hooks=4
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy transformers==5.23.0
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import torch
from torch.utils.checkpoint import checkpoint
from transformers import OPTConfig, OPTModel

torch.manual_seed(0)
config = OPTConfig(
    vocab_size=32, hidden_size=16, ffn_dim=32, num_hidden_layers=2, num_attention_heads=2, dropout=0.0,
    attention_dropout=0.0, word_embed_proj_dim=16, max_position_embeddings=32,
)  # fmt: skip
model = OPTModel(config).double().train()
layers = model.decoder.layers
entered = []


def enter(layer, args):
    entered.append(layer)
    layer.activation_fn = torch.nn.SiLU()


def leave(layer, args, output):
    layer.activation_fn = torch.nn.ReLU()


for layer in layers:
    layer.register_forward_pre_hook(enter)
    layer.register_forward_hook(leave)


def result(forward):
    entered.clear()
    model.zero_grad()
    output = forward()
    (output * torch.linspace(-1, 1, 16, dtype=output.dtype)).sum().backward()
    gradient = torch.cat([p.grad.flatten() for p in layers.parameters()])
    return output.detach(), gradient, len(entered)


def whole():
    return model(input_ids=torch.arange(8)[None], use_cache=False).last_hidden_state


def layer_by_layer(run):
    hidden = torch.linspace(-1, 1, 128, dtype=torch.float64).reshape(1, 8, 16).sin().requires_grad_()
    for layer in layers:
        output = run(layer, hidden)
        hidden = output[0] if isinstance(output, tuple) else output
    return hidden


def compared(name, reentrant, found, wanted):
    same = [torch.equal(a, b) for a, b in zip(found[:2], wanted[:2])]
    return f"{name}: use_reentrant={reentrant} output={same[0]} gradient={same[1]} pre_hooks={found[2]}"


lines, errors = [], []
wanted = result(whole)
assert wanted[2] == 2
for reentrant in (False, True):
    model.activation_checkpointing_enable({"use_reentrant": reentrant})
    found = result(whole)
    lines.append(compared("the model's own checkpointing", reentrant, found, wanted))
    errors.append(((found[1] - wanted[1]).norm() / wanted[1].norm()).item())
model.activation_checkpointing_disable()
wanted = result(lambda: layer_by_layer(lambda layer, hidden: layer(hidden)))
for reentrant in (False, True):
    found = result(
        lambda: layer_by_layer(lambda layer, hidden: checkpoint(layer, hidden, use_reentrant=reentrant))
    )
    lines.append(compared("torch's checkpoint of each layer", reentrant, found, wanted))
print(*lines, sep="\n")
print("relative errors of the gradients:", *(f"{error:.2f}" for error in errors))
assert lines == [
    "the model's own checkpointing: use_reentrant=False output=True gradient=False pre_hooks=2",
    "the model's own checkpointing: use_reentrant=True output=True gradient=False pre_hooks=2",
    "torch's checkpoint of each layer: use_reentrant=False output=True gradient=True pre_hooks=4",
    "torch's checkpoint of each layer: use_reentrant=True output=True gradient=True pre_hooks=4",
]
assert min(errors) > 0.1
PYTHON
