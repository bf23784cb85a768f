"""Small models of the architectures of transformers whose dropout is replaced, with random weights."""

import copy
from typing import Any

import torch
import transformers as hf
from torch import Tensor, nn

SMALL: dict[str, Any] = {"vocab_size": 99, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
BERT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
GPT = {"n_embd": 16, "n_layer": 1, "n_head": 2}
BART = {
    f"{side}_{what}": 1
    for side in ("encoder", "decoder")
    for what in ("layers", "attention_heads", "ffn_dim")
}
RATE = 0.25
MODELS: dict[str, tuple[Any, Any]] = {
    "bert": (hf.BertModel, hf.BertConfig(**SMALL, **BERT)),
    "roberta": (hf.RobertaModel, hf.RobertaConfig(**SMALL, **BERT)),
    "distilbert": (
        hf.DistilBertModel,
        hf.DistilBertConfig(**SMALL, dim=16, n_layers=1, n_heads=2, hidden_dim=16),
    ),
    "gpt2": (hf.GPT2Model, hf.GPT2Config(**SMALL, **GPT)),
    "gptj": (hf.GPTJModel, hf.GPTJConfig(**SMALL, **GPT, rotary_dim=4)),
    "deberta": (hf.DebertaV2Model, hf.DebertaV2Config(**SMALL, **BERT)),
    "t5": (hf.T5Model, hf.T5Config(**SMALL, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)),
    "bart": (hf.BartModel, hf.BartConfig(**SMALL, **BART, d_model=16)),
    "longformer": (hf.LongformerModel, hf.LongformerConfig(**SMALL, **BERT, attention_window=8)),
    "vit": (hf.ViTModel, hf.ViTConfig(**BERT, image_size=8, patch_size=4)),
}


def build(name: str, attention: str = "eager", layers: int | None = None) -> nn.Module:
    cls, config = MODELS[name]
    config = copy.deepcopy(config)
    for key, value in config.to_dict().items():
        if isinstance(value, float) and ("drop" in key):
            setattr(config, key, RATE)
    config._attn_implementation = attention
    config.num_hidden_layers = layers or config.num_hidden_layers
    torch.manual_seed(0)
    return cls(config).train()  # type: ignore[no-any-return]


def call(name: str, model: nn.Module) -> Tensor:
    ids = torch.arange(3, 35).view(2, 16)
    if name == "vit":
        return model(torch.linspace(-1, 1, 2 * 3 * 8 * 8).view(2, 3, 8, 8)).last_hidden_state
    inputs = {"input_ids": ids, "attention_mask": (torch.arange(16) < torch.tensor([[16], [11]])).long()}
    if name in ("t5", "bart"):
        inputs["decoder_input_ids"] = ids.flip(1)
    return model(**inputs).last_hidden_state
