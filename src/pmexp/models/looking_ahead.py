"""Finds out whether a model guesses a token from what comes behind it, by changing that."""

import torch
from transformers import PreTrainedModel

from pmexp.config import RunConfig
from pmexp.errors import UserError
from pmexp.models.sample import output_of, unable

_TOKENS = 4
_ROUNDING = 1e-3  # a share of the largest number that a model gives; looking ahead changes far more


def refuse_looking_ahead(config: RunConfig, module: PreTrainedModel) -> None:
    """Raises UserError for a model whose scores of a token depend on later tokens: it would read its targets;
    and for one of sizes that cannot run.

    Architectures such as BERT have a class for causal_lm that does so until it is told that it decodes.
    """
    tokens = torch.arange(2 * _TOKENS).view(2, _TOKENS) % module.get_input_embeddings().num_embeddings
    tokens[:, :-1] = tokens[0, :-1]  # two texts that differ in their last token alone
    output = output_of(module, {"input_ids": tokens}, lambda error: unable(config, module, error))
    one, other = output.logits[:, :-1].float()
    if (one - other).abs().max() > _ROUNDING * one.abs().max():
        raise UserError(
            f"dataset.objective: causal_lm; {type(module).__name__} guesses a token from those behind it; "
            "set model.architecture.is_decoder=true where the architecture has it, or choose masked_lm"
        )
