"""Times low-rank adapters on a decoder like Llama, by peft: a dropout on the input of every adapter."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from pmexp.bench.gpu.bench import Bench
from pmexp.bench.gpu.budget import Budget
from pmexp.bench.gpu.turns import in_turn
from pmexp.bench.gpu.ways import Way, Ways
from pmexp.packed_dropout import PackedDropout, replace_dropout
from pmexp.variants.seeded import SeededDropout

_RATE, _RANK = 0.1, 16
_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
_SIZES = {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 8, "num_attention_heads": 16}
_TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
_BATCH, _TOKENS, _WORDS = 4, 2048, 32000
_TINY_TOKENS, _TINY_WORDS = 16, 99
_ROUNDS = 8
_TORCH_MASKS = "pm-drop with rng=torch"  # draws nn.Dropout's masks, of the check alone
_STOCK = f"dropout {_RATE}"


def lora(bench: Bench, budget: Budget) -> None:
    """Writes the table "lora": steps with the adapters' dropout off, stock, packed and seeded."""
    try:
        import peft
    except ImportError as error:
        bench.left_out(f"LoRA: peft cannot be imported ({error})")
        return
    bench.note(f"LoRA by peft {peft.__version__}, rank {_RANK}, on {', '.join(_TARGETS)}; all in bf16")
    module, loss = _decoder(bench, peft)
    ways = {
        _STOCK: Way(),
        "dropout 0": Way(_without_dropout),
        f"{_STOCK} by pm-drop": Way(partial(replace_dropout, dropout=PackedDropout)),
        f"{_STOCK} by seed-only": Way(partial(replace_dropout, dropout=SeededDropout)),
        _TORCH_MASKS: Way(partial(replace_dropout, dropout=PackedDropout, rng="torch")),
    }
    steps = Ways(module, loss, ways)
    with bench.part("LoRA with nn.Dropout's masks"):
        expected, got = (steps.gradients(name)[0] for name in (_STOCK, _TORCH_MASKS))
        what = "LoRA with nn.Dropout's masks, packed, has its loss, bit for bit"
        bench.check(what, torch.equal(expected, got), f"{got.item()} against {expected.item()}")
    calls = {name: partial(steps.step, name) for name in ways if name != _TORCH_MASKS}
    for name, turn in in_turn(bench, calls, budget, _ROUNDS).items():
        ledger = steps.saved_for_backward(name)
        cells = {"saved_MiB": ledger.total_bytes / 2**20, "masks_MiB": ledger.mask_bytes / 2**20}
        bench.row("lora", step=name, **turn.cells(), **cells)


def _decoder(bench: Bench, peft: Any) -> tuple[nn.Module, Callable[[nn.Module], Tensor]]:
    """The decoder with adapters, of random weights, and its loss on random tokens."""
    sizes, length, words = (_TINY, _TINY_TOKENS, _TINY_WORDS) if bench.tiny else (_SIZES, _TOKENS, _WORDS)
    torch.manual_seed(0)
    with torch.device(bench.device):
        model = LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=words, use_cache=False)).bfloat16()
        config = peft.LoraConfig(
            r=_RANK,
            lora_dropout=_RATE,
            target_modules=_TARGETS,
            task_type="CAUSAL_LM",
            init_lora_weights=False,  # else B is 0 and no dropout matters to the loss
        )
        adapted = peft.get_peft_model(model, config, autocast_adapter_dtype=False)
        tokens = torch.randint(words, (_BATCH, length))
    module: nn.Module = adapted.bfloat16().train()

    def loss(tree: nn.Module) -> Tensor:
        loss: Tensor = tree(input_ids=tokens, labels=tokens).loss
        return loss

    return module, loss


def _without_dropout(module: nn.Module) -> None:
    """Makes the layer as peft does for lora_dropout=0."""
    for parent in module.modules():
        for name, child in parent.named_children():
            if type(child) is nn.Dropout:
                setattr(parent, name, nn.Identity())
