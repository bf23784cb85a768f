"""Writes the texts of an evaluation: the same for the same weights and sources, without random numbers."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

_SOURCE = ("input_ids", "attention_mask")


class Generation:
    """Has a sequence-to-sequence model write the targets of its sources, greedily or by beam search."""

    def __init__(
        self, module: PreTrainedModel, tokenizer: Any, beams: int, max_length: int, start: int, first: int
    ) -> None:
        """Puts the settings into `module`, in the place of all that its checkpoint may have wanted, such as
        sampling or penalties.

        max_length: tokens after which a text ends. start: the token that the decoder reads before a target in
        training, which for mBART is the target's language. first: the first token of a target, which is given
        where it is its language.
        """
        self._module, self._tokenizer = module, tokenizer
        own = module.config
        language = getattr(tokenizer, "tgt_lang", None)
        says_language = language is not None and tokenizer.convert_ids_to_tokens(first).strip("_") == language
        module.generation_config = GenerationConfig(
            num_beams=beams,
            max_new_tokens=max_length,
            do_sample=False,
            use_cache=True,
            decoder_start_token_id=start,
            forced_bos_token_id=first if says_language else None,
            bos_token_id=getattr(own, "bos_token_id", None),  # T5 has none
            eos_token_id=own.eos_token_id,
            pad_token_id=own.pad_token_id,
        )

    def texts(self, inputs: Mapping[str, Tensor], synced: bool) -> list[str]:
        """The text of each source; `inputs` has `input_ids` and `attention_mask`, (samples, positions).

        synced: goes on until the texts of all ranks are done, as an engine may need every rank in every
        forward.
        """
        written = self._module.generate(
            **{name: inputs[name] for name in _SOURCE},
            generation_config=self._module.generation_config,
            synced_gpus=synced,
        )
        texts: list[str] = self._tokenizer.batch_decode(
            written, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return texts

    def record(self) -> str:
        """Says how texts are written, for the record of a run."""
        settings = self._module.generation_config
        how = "greedily" if settings.num_beams == 1 else f"by {settings.num_beams} beams"
        return f"{how}, at most {settings.max_new_tokens} tokens"
