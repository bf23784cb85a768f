"""Longer position tables: the trained rows again, in every architecture that has such a table."""

from typing import Any

import pytest
import torch
import transformers as hf

from pmexp.config import ModelConfig, ModelKind
from pmexp.errors import UserError
from pmexp.models import positions

SIZES: dict[str, Any] = {
    "vocab_size": 99, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 16, "pad_token_id": 1,
}  # fmt: skip
DISTIL = {"vocab_size": 99, "dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 16}
MODELS: dict[str, Any] = {
    "bert": lambda: hf.BertModel(hf.BertConfig(**SIZES, max_position_embeddings=20)),
    "distilbert": lambda: hf.DistilBertModel(hf.DistilBertConfig(**DISTIL, max_position_embeddings=20)),
    "roberta": lambda: hf.RobertaModel(hf.RobertaConfig(**SIZES, max_position_embeddings=22)),
    "longformer": lambda: hf.LongformerModel(
        hf.LongformerConfig(**SIZES, max_position_embeddings=22, attention_window=[4])
    ),
}


def model_config(count: int) -> ModelConfig:
    return ModelConfig(name="a-model", kind=ModelKind.bert, positions=count)


@pytest.mark.parametrize("name", MODELS)
def test_the_trained_positions_are_repeated(name: str) -> None:
    torch.manual_seed(0)
    module = MODELS[name]().eval()
    assert positions.limit(module) == 20
    short = torch.randint(3, 99, (1, 20))
    before = module(short).last_hidden_state
    assert positions.extend(module, model_config(50)) == "positions 20 repeated to 50"
    assert positions.limit(module) == 50
    assert torch.equal(module(short).last_hidden_state, before)
    table = module.embeddings.position_embeddings
    rows = table.weight[table.num_embeddings - 50 :]
    assert torch.equal(rows[20:40], rows[:20]) and torch.equal(rows[40:], rows[:10])
    (module(torch.randint(3, 99, (2, 50))).last_hidden_state * torch.randn(16)).sum().backward()
    assert rows.requires_grad and module.embeddings.position_embeddings.weight.grad[-1].any()


@pytest.mark.parametrize("window", [4, [4, 8]])
@pytest.mark.parametrize("length", [1, 4, 5, 8, 13])
def test_the_computed_length_is_what_the_layers_see(window: int | list[int], length: int) -> None:
    sizes = {**SIZES, "num_hidden_layers": 2 if isinstance(window, list) else 1}
    config = hf.LongformerConfig(**sizes, max_position_embeddings=22, attention_window=window)
    for module in (hf.LongformerModel(config), MODELS["bert"]()):
        seen: list[int] = []
        module.encoder.layer[0].register_forward_pre_hook(
            lambda _, args, kwargs, seen=seen: seen.append((args or tuple(kwargs.values()))[0].shape[1]),
            with_kwargs=True,
        )
        with torch.no_grad():
            module(torch.randint(3, 99, (1, length)))
        assert seen == [positions.computed_length(length, module)]


def test_what_cannot_be_extended_says_so() -> None:
    rotary = hf.GPTJModel(hf.GPTJConfig(vocab_size=99, n_embd=16, n_layer=1, n_head=2, rotary_dim=4))
    assert positions.limit(rotary) == 2048
    with pytest.raises(UserError, match="no table of positions"):
        positions.extend(rotary, model_config(4096))
    with pytest.raises(UserError, match="no more than the 20"):
        positions.extend(MODELS["bert"](), model_config(20))
