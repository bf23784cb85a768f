"""Encodes pairs of a source and its target for a sequence-to-sequence model."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from pmexp.config import DatasetConfig, Padding
from pmexp.datasets.base import Split
from pmexp.errors import UserError
from pmexp.models.cut_texts import cut_in, warn_of_cut
from pmexp.models.examples import EVALUATION, Batch
from pmexp.models.objectives import IGNORED

_AT_ONCE = 4096  # texts; bounds the memory of a tokenizer's call


class TokenRows:
    """Holds texts as token ids in a row, without padding."""

    def __init__(self, texts: Iterable[Sequence[int]]) -> None:
        """texts: the ids of each text."""
        rows = [np.asarray(ids, np.int32) for ids in texts]
        self.lengths: NDArray[np.int64] = np.array([len(row) for row in rows], np.int64)  # (texts,)
        self._starts = np.cumsum(self.lengths) - self.lengths
        self._ids = np.concatenate([*rows, np.zeros(0, np.int32)])

    @property
    def largest(self) -> int:
        """The largest id of a token; -1 where there is none."""
        return int(self._ids.max(initial=-1))

    def padded(self, rows: NDArray[np.int64], width: int, filling: int) -> Tensor:
        """(rows, width) int64: texts of at most `width` tokens, filled up on the right."""
        tokens = np.full((len(rows), width), filling, np.int64)
        for place, row in enumerate(rows):
            start, length = self._starts[row], self.lengths[row]
            tokens[place, :length] = self._ids[start : start + length]
        return torch.from_numpy(tokens)


@dataclass(frozen=True)
class PairExamples:
    """Gives sources as inputs and targets as labels, IGNORED where a target is filled up.

    The decoder reads its target one token late, which is teacher forcing.
    """

    sources: TokenRows
    targets: TokenRows
    references: Sequence[str]  # the targets as texts, whole
    widths: tuple[int, int]  # the most tokens of a source, and of a target
    padding: Padding
    pad: int  # the id that fills up a source
    decoder_inputs: Callable[[Tensor], Tensor]  # what the decoder reads for labels

    def __len__(self) -> int:
        return len(self.references)

    @property
    def bucketed(self) -> bool:
        return self.padding is Padding.bucketed

    @property
    def lengths(self) -> Tensor:
        """(samples,) int64: the tokens of source and target together."""
        return torch.from_numpy(self.sources.lengths + self.targets.lengths)

    def batch(self, rows: Tensor, epoch: int) -> Batch:
        places = rows.numpy()
        widths = [
            most if self.padding is Padding.max else min(most, -(-int(tokens.lengths[places].max()) // 8) * 8)
            for tokens, most in zip((self.sources, self.targets), self.widths, strict=True)
        ]
        ids = self.sources.padded(places, widths[0], self.pad)
        mask = torch.arange(widths[0]) < torch.from_numpy(self.sources.lengths[places])[:, None]
        labels = self.targets.padded(places, widths[1], IGNORED)
        inputs = {"input_ids": ids, "attention_mask": mask.long()}
        inputs["decoder_input_ids"] = self.decoder_inputs(labels.clone())  # FSMT writes into what it is given
        references = [self.references[row] for row in places] if epoch == EVALUATION else ()
        return Batch(inputs, labels, references, of_language=True)


def encoded_pairs(
    tokenizer: Any, module: PreTrainedModel, split: Split, length: int, config: DatasetConfig
) -> PairExamples:
    """The pairs of `split`, sources behind their prefix and cut to `length` tokens, targets to theirs.

    Raises UserError for a target with a token that the decoder does not have.
    """
    assert isinstance(split.inputs, list) and config.max_target_length
    sources = [config.source_prefix + source for source, _ in split.inputs]
    references = [target for _, target in split.inputs]

    def rows(texts: list[str], most: int, keyword: str, key: str) -> TokenRows:
        options = {"truncation": True, "max_length": most, "return_attention_mask": False}
        cut = 0

        def ids() -> Iterator[list[int]]:
            nonlocal cut
            for start in range(0, len(texts), _AT_ONCE):
                encoding = tokenizer(**{keyword: texts[start : start + _AT_ONCE]}, **options)
                cut += cut_in(encoding, most)
                yield from encoding["input_ids"]

        tokens = TokenRows(ids())
        warn_of_cut(key, cut, len(texts), most)
        return tokens

    targets = rows(references, config.max_target_length, "text_target", "dataset.max_target_length")
    writes = module.get_output_embeddings()
    if writes is not None and targets.largest >= len(writes.weight):
        raise UserError(
            f"model.path: the tokenizer in {tokenizer.name_or_path} has token {targets.largest} in a target, "
            f"and the decoder of {type(module).__name__} writes {len(writes.weight)} tokens; give the "
            "tokenizer that the weights were trained with"
        )
    return PairExamples(
        rows(sources, length, "text", "dataset.max_length"),
        targets,
        references,
        (length, config.max_target_length),
        config.padding,
        tokenizer.pad_token_id,
        decoder_inputs_of(module),
    )


def decoder_inputs_of(module: PreTrainedModel) -> Callable[[Tensor], Tensor]:
    """Returns what makes of labels, (samples, positions) int64, what the decoder of `module` reads.

    It is a function of the class, or where that has none (M2M100, Blenderbot) what its forward does with
    labels.
    """
    own: Callable[[Tensor], Tensor] | None = getattr(module, "prepare_decoder_input_ids_from_labels", None)
    config = module.config
    return own or partial(_one_later, first=config.decoder_start_token_id, filling=config.pad_token_id)


def _one_later(labels: Tensor, first: int, filling: int) -> Tensor:
    later = labels.roll(1, dims=1)
    later[:, 0] = first
    return later.masked_fill(later == IGNORED, filling)
