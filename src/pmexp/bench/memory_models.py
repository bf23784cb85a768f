"""Makes the models of level=memory: small ones of the shapes in which a dropped tensor enters a product.

Each is a module that is called without arguments and returns its loss. Its inputs are buffers of it, so that
no account takes them for something that a forward saves.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import transformers as hf
from torch import Tensor, nn
from transformers.models.bart.modeling_bart import BartDecoderLayer, BartEncoderLayer

from pmexp.extras import need

RANK = 16
_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
_WORDS = 512


@dataclass(frozen=True)
class Sizes:
    """Says how large a model of level=memory is."""

    width: int
    inner: int  # width of the MLP
    heads: int
    layers: int
    batch: int
    tokens: int


QUICK = Sizes(width=32, inner=64, heads=2, layers=2, batch=2, tokens=16)


class Trained(nn.Module):
    """A model that is called without arguments and returns its loss, a scalar."""

    def __init__(self, model: nn.Module, **inputs: Tensor) -> None:
        super().__init__()
        self.model = model
        for name, tensor in inputs.items():
            self.register_buffer(name, tensor)

    def layers(self) -> Sequence[nn.Module]:
        """The layers that activation checkpointing runs again."""
        raise NotImplementedError


class LanguageModel(Trained):
    def forward(self) -> Tensor:
        loss: Tensor = self.model(input_ids=self.ids, labels=self.ids).loss
        return loss

    def layers(self) -> Sequence[nn.Module]:
        body: Any = self.model
        return list(body.model.layers)


class Classifier(Trained):
    def forward(self) -> Tensor:
        loss: Tensor = self.model(input_ids=self.ids, attention_mask=self.mask, labels=self.labels).loss
        return loss

    def layers(self) -> Sequence[nn.Module]:
        body: Any = self.model
        return list(body.bert.encoder.layer)


class Pair(Trained):
    """An encoder's and a decoder's layer, whose inputs are made by somebody else's layers in a real model."""

    source: Tensor
    target: Tensor
    causal: Tensor
    direction: Tensor

    def forward(self) -> Tensor:
        encoder, decoder = self.layers()
        source = encoder(self.source * 1, None)
        target = decoder(self.target * 1, attention_mask=self.causal, encoder_hidden_states=source)
        loss: Tensor = (target.float() * self.direction).sum()
        return loss

    def layers(self) -> Sequence[nn.Module]:
        return list(self.model.children())


class Layer(Trained):
    source: Tensor
    direction: Tensor

    def forward(self) -> Tensor:
        output: Tensor = self.model(self.source * 1)
        return (output.float() * self.direction).sum()

    def layers(self) -> Sequence[nn.Module]:
        return [self.model]


def lora_llama(p: float, sizes: Sizes, half: bool = False) -> Trained:
    """A Llama whose seven kinds of linear layer have an adapter behind a dropout of rate `p` each.

    half: the frozen weights are in bf16. Raises UserError where peft is not installed.
    """
    need("models: LoRA", "peft")
    import peft

    torch.manual_seed(0)
    config = hf.LlamaConfig(
        hidden_size=sizes.width,
        intermediate_size=sizes.inner,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        vocab_size=_WORDS,
        use_cache=False,
    )
    adapters = peft.LoraConfig(
        r=RANK,
        lora_dropout=p,
        target_modules=_TARGETS,
        init_lora_weights=False,  # else B is 0 and no dropout matters to the loss
    )
    model = hf.LlamaForCausalLM(config)
    peft.inject_adapter_in_model(adapters, model)
    for parameter in model.parameters():
        if half and not parameter.requires_grad:
            parameter.data = parameter.data.bfloat16()
    return LanguageModel(model, ids=torch.randint(_WORDS, (sizes.batch, sizes.tokens)))


def bart_layers(p: float, sizes: Sizes) -> Trained:
    """An encoder and a decoder layer of BART, eager attention."""
    torch.manual_seed(0)
    config = hf.BartConfig(
        d_model=sizes.width,
        encoder_ffn_dim=sizes.inner,
        decoder_ffn_dim=sizes.inner,
        encoder_attention_heads=sizes.heads,
        decoder_attention_heads=sizes.heads,
        dropout=p,
        attention_dropout=p,
        activation_dropout=p,
        attn_implementation="eager",
    )
    later = torch.ones(sizes.tokens, sizes.tokens, dtype=torch.bool).triu(1)
    causal = torch.zeros(later.shape).masked_fill(later, torch.finfo(torch.float32).min)
    layers = nn.ModuleList([BartEncoderLayer(config, 0), BartDecoderLayer(config, 0)])
    return Pair(layers, causal=causal[None, None], target=_hidden(sizes), **_hidden_states(sizes))


def torch_layer(p: float, sizes: Sizes) -> Trained:
    """torch's own encoder layer, with GELU."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(
        sizes.width, sizes.heads, sizes.inner, p, activation="gelu", batch_first=True
    )
    return Layer(layer, **_hidden_states(sizes))


def tinybert(p: float, sizes: Sizes) -> Trained:
    """A classifier of BERT's architecture, eager attention."""
    torch.manual_seed(0)
    config = hf.BertConfig(
        vocab_size=_WORDS,
        hidden_size=sizes.width,
        intermediate_size=sizes.inner,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        hidden_dropout_prob=p,
        attention_probs_dropout_prob=p,
        attn_implementation="eager",
    )
    ids = torch.randint(_WORDS, (sizes.batch, sizes.tokens))
    return Classifier(
        hf.BertForSequenceClassification(config),
        ids=ids,
        mask=torch.ones_like(ids),
        labels=torch.arange(sizes.batch) % 2,
    )


def _hidden_states(sizes: Sizes) -> dict[str, Tensor]:
    return {"source": _hidden(sizes), "direction": _hidden(sizes) / sizes.width}


def _hidden(sizes: Sizes) -> Tensor:
    return torch.randn(sizes.batch, sizes.tokens, sizes.width)


Build = Callable[[float, Sizes], Trained]
