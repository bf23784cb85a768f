"""A BERT as a masked language model on random tokens, and its loss, for Tempo and offload."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM

from pmexp.bench.gpu.bench import Bench

BATCH = 8  # samples of 512 tokens
_LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
_TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
_TOKENS, _WORDS = 512, 30522
_TINY_TOKENS, _TINY_WORDS = 16, 99
_GUESSED, _NO_LABEL = 0.15, -100

AUTOCAST, HALF = "bf16 autocast", "bf16 weights"  # over fp32 weights; weights, gradients and AdamW in bf16


def bert(bench: Bench, precision: str, batch: int) -> tuple[nn.Module, Callable[[nn.Module], Tensor]]:
    """BERT-Large with eager attention, in training mode, and its loss on `batch` samples of random tokens."""
    sizes, length, words = (_TINY, _TINY_TOKENS, _TINY_WORDS) if bench.tiny else (_LARGE, _TOKENS, _WORDS)
    torch.manual_seed(0)
    with torch.device(bench.device):
        module = BertForMaskedLM(BertConfig(**sizes, vocab_size=words, attn_implementation="eager")).train()
        tokens = torch.randint(words, (batch, length))
        labels = tokens.masked_fill(torch.rand(tokens.shape) >= _GUESSED, _NO_LABEL)
    if precision == HALF:
        module.bfloat16()

    def loss(tree: nn.Module) -> Tensor:
        with torch.autocast(bench.device.type, torch.bfloat16, enabled=precision == AUTOCAST):
            loss: Tensor = tree(input_ids=tokens, labels=labels).loss
            return loss

    return module, loss
