"""Finds out whether a model guesses a token from what comes behind it, by changing that."""

import torch
from transformers import PreTrainedModel

from pmexp.config import RunConfig
from pmexp.errors import UserError
from pmexp.models.sample import output_of, unable

_TOKENS = 4
# A share of the largest number that a model gives. In small models with random weights looking ahead changes
# 2e-4 of it, and rounding 2e-7 where nothing looks ahead.
_ROUNDING = 1e-5


def refuse_looking_ahead(config: RunConfig, module: PreTrainedModel) -> None:
    """Raises UserError for a model whose scores of a token depend on later tokens: it would read its targets;
    and for one of sizes that cannot run.

    Architectures such as BERT have a class for causal_lm that does so until it is told that it decodes.
    """
    marks = {getattr(module.config, f"{name}_token_id", None) for name in ("pad", "bos", "eos")}
    known = range(module.get_input_embeddings().num_embeddings)
    one, other = [token for token in known if token not in marks][:2]  # XLM would not look at padding
    tokens = torch.tensor([[one] * _TOKENS, [one] * (_TOKENS - 1) + [other]])
    output = output_of(module, {"input_ids": tokens}, lambda error: unable(config, module, error))
    said, changed = output.logits[:, :-1].float()
    if (said - changed).abs().max() > _ROUNDING * said.abs().max():
        raise UserError(
            f"dataset.objective: causal_lm; {type(module).__name__} guesses a token from those behind it; "
            "set model.architecture.is_decoder=true where the architecture has it, or choose masked_lm"
        )
