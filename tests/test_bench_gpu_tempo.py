"""Tempo on and off, on the CPU: the same code with a tiny BERT."""

import subprocess
import sys

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM

from pmexp.bench.gpu.tempo import tempo_on_and_off
from pmexp.packed_dropout import PackedDropout, replace_dropout


def test_a_step_with_tempo_and_without() -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    model = BertForMaskedLM(BertConfig(**sizes, vocab_size=99, attn_implementation="eager")).train()
    replace_dropout(model, PackedDropout)
    tokens = torch.arange(32).reshape(2, 16)

    def loss(module: nn.Module) -> Tensor:
        return F.cross_entropy(module(input_ids=tokens).logits.flatten(0, 1), tokens.flatten())

    found = tempo_on_and_off(model, loss, torch.device("cpu"), pairs=2)
    assert found.loss_on == found.loss_off > 0  # forward has stock's bits
    assert found.ms_on > 0 and found.low <= found.ratio <= found.high and found.peak_bytes_on > 0
    lines = list(found.what_ran.values())
    assert lines.count("in-place GELU (erf): backward by torch on cpu") == 3
    assert lines.count("in-place LayerNorm: keeps its output") == 6
    assert lines.count("dropped probabilities recomputed from bits") == 2
    assert not any("InplaceGELU" in type(module).__name__ for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_it_needs_torch_and_transformers_alone() -> None:
    """Neither configuration nor Triton is imported for it."""
    script = (
        "import sys; sys.modules |= dict.fromkeys(['hydra', 'omegaconf', 'triton', 'mlflow', 'datasets', 'scipy']);"
        "import pmexp.bench.gpu.tempo; assert 'pmexp.config' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
