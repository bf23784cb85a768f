"""Defines what the training loop draws its batches from: rows of one split, encoded for one model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pmexp.datasets.base import Lazy
from pmexp.datasets.listops import padded
from pmexp.datasets.listops_trees import PAD, VOCABULARY
from pmexp.datasets.pictures import Pictures
from pmexp.models.colours import BY_DEFAULT, Colours
from pmexp.models.images import ImageBatches
from pmexp.models.objectives import IGNORED, counted

EVALUATION = -1  # the epoch of examples that are evaluated: the same ones every time

_CHOSEN, _MASKED, _RANDOM = 0.15, 0.8, 0.1  # as in section 3.1 of Devlin et al., NAACL 2019


@dataclass(frozen=True)
class Batch:
    """Holds the inputs and labels of some samples as a model and its objective take them."""

    inputs: dict[str, Tensor]  # keyword arguments of the model, samples first; uint8 are pixels
    labels: Tensor  # int64, (samples,) or (samples, positions) with IGNORED; float32 (samples,) of numbers
    references: Sequence[str] = ()  # (samples,) the whole targets of a seq2seq evaluation
    of_language: bool = False  # its labels are tokens, whose scores are too wide to keep in an evaluation
    colours: Colours = BY_DEFAULT  # what makes numbers of its pixels

    def to(self, device: torch.device) -> "Batch":
        """Returns the batch on `device`, as the model takes it: 8-bit pixels become numbers there, so that a
        quarter of the bytes is copied."""
        inputs = {
            name: self._as_taken(tensor.to(device, non_blocking=True)) for name, tensor in self.inputs.items()
        }
        return replace(self, inputs=inputs, labels=self.labels.to(device, non_blocking=True))

    def each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """Returns the batch with `change` of each of its tensors."""
        inputs = {name: change(tensor) for name, tensor in self.inputs.items()}
        return replace(self, inputs=inputs, labels=change(self.labels))

    def pin_memory(self) -> "Batch":
        """Returns a copy in pinned memory, out of which a GPU copies beside its work: torch's loader asks."""
        return self.each(Tensor.pin_memory)

    def _as_taken(self, tensor: Tensor) -> Tensor:
        return self.colours.numbers(tensor) if tensor.dtype == torch.uint8 else tensor

    @property
    def targets(self) -> int:
        """Returns how many labels count."""
        return counted(self.labels)

    @property
    def positions(self) -> tuple[int, int]:
        """Returns the positions of texts with a mask of their padding, and how many of them are padding; none
        where pictures stand beside the texts, since all such samples have equally many."""
        mask = None if "pixel_values" in self.inputs else self.inputs.get("attention_mask")
        if mask is None:
            return (0, 0)
        computed, used = mask.numel(), int(mask.count_nonzero())
        if "decoder_input_ids" in self.inputs:
            computed, used = computed + self.labels.numel(), used + self.targets
        return computed, computed - used


class Examples(Protocol):
    """Makes batches of a split's samples by their rows."""

    def __len__(self) -> int: ...

    def batch(self, rows: Tensor, epoch: int) -> Batch:
        """The samples of `rows` (int64), on the CPU: a function of rows and epoch and of nothing else."""


@dataclass(frozen=True)
class TensorExamples:
    """A split held in memory. Integer inputs may be int32; batches are int64."""

    inputs: dict[str, Tensor]  # samples first
    labels: Tensor  # int64: (samples,), or (samples, positions) of words; float32: (samples,) numbers
    colours: Colours = BY_DEFAULT

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, rows: Tensor, epoch: int) -> Batch:
        inputs = {name: _widened(tensor[rows]) for name, tensor in self.inputs.items()}
        return Batch(inputs, self.labels[rows], colours=self.colours)


class PaddedTexts:
    """Pads texts batch by batch to the longest of the batch, in eights of tokens for tensor cores."""

    def __init__(self, padded: TensorExamples, bucketed: bool) -> None:
        """padded: input_ids, attention_mask and perhaps more, each (samples, positions), padded on the right.
        bucketed: texts of similar length shall share a batch."""
        self._padded, self.bucketed = padded, bucketed
        self.lengths = _lengths(padded.inputs["attention_mask"])  # (samples,) int64, in tokens

    def __len__(self) -> int:
        return len(self._padded)

    def batch(self, rows: Tensor, epoch: int) -> Batch:
        longest = -(-int(self.lengths[rows].max()) // 8) * 8
        whole = self._padded.batch(rows, epoch)
        labels = whole.labels[:, :longest] if whole.labels.dim() == 2 else whole.labels
        return Batch({name: tensor[:, :longest] for name, tensor in whole.inputs.items()}, labels)


def _lengths(mask: Tensor) -> Tensor:
    """Returns the places up to the last that is no padding, of each row."""
    return (mask * torch.arange(1, mask.shape[1] + 1, dtype=mask.dtype)).amax(1).long()


@dataclass(frozen=True)
class MaskedTokens:
    """Hides some tokens of each block, to be guessed: BERT's masked language model.

    15 % of a block's tokens are chosen; of these 80 % become the mask token, 10 % a random one, 10 % stay.
    The choice is of (seed, epoch, row): another one in each epoch, one and the same in every evaluation.
    """

    blocks: NDArray[np.int32]  # (blocks, positions - 2), which may be mapped from a file
    ends: tuple[int, int]  # the tokens before and behind each block: [CLS] and [SEP]
    special: Tensor  # (ids,) int64: tokens that are never chosen, these two among them
    mask_token: int
    vocabulary: int  # a random token is drawn from so many
    seed: int

    def __len__(self) -> int:
        return len(self.blocks)

    def batch(self, rows: Tensor, epoch: int) -> Batch:
        tokens = self.rows(rows)
        special = torch.isin(tokens, self.special)
        drawn = np.stack([self._draw(int(row), epoch, tokens.shape[1]) for row in rows])
        choice, fate, random = torch.from_numpy(drawn).unbind(1)
        chosen = (choice < _CHOSEN) & ~special
        labels = tokens.masked_fill(~chosen, IGNORED)
        hidden = torch.where(fate < _MASKED, self.mask_token, tokens)
        replaced = (fate >= _MASKED) & (fate < _MASKED + _RANDOM)
        hidden = torch.where(replaced, (random * self.vocabulary).long(), hidden)
        return Batch({"input_ids": torch.where(chosen, hidden, tokens)}, labels, of_language=True)

    def rows(self, rows: Tensor) -> Tensor:
        """(rows, positions) int64: blocks with their ends, nothing hidden."""
        inner = torch.from_numpy(self.blocks[rows.numpy()]).long()
        first, last = (torch.full((len(rows), 1), end) for end in self.ends)
        return torch.cat([first, inner, last], dim=1)

    def _draw(self, row: int, epoch: int, positions: int) -> NDArray[np.float64]:
        return np.random.default_rng((self.seed, epoch - EVALUATION, row)).random((3, positions))


@dataclass(frozen=True)
class CausalTokens:
    """Cuts running text into blocks, in which each token is to be guessed from those before it in its block.

    The labels are the inputs one token later, so every token of the text but the first is a target once,
    however long the blocks are; what is left at the end is left out.
    """

    ids: NDArray[np.int32]  # (tokens,), which may be mapped from a file
    length: int  # tokens of a block

    def __len__(self) -> int:
        return (len(self.ids) - 1) // self.length

    def batch(self, rows: Tensor, epoch: int) -> Batch:
        places = rows[:, None] * self.length + torch.arange(self.length + 1)
        tokens = torch.from_numpy(self.ids[places.numpy()]).long()
        return Batch({"input_ids": tokens[:, :-1]}, tokens[:, 1:], of_language=True)


@dataclass(frozen=True)
class SymbolExamples:
    """Encodes sequences of symbols, each batch padded to the longest of its own, and to a multiple of 256."""

    sequences: Lazy  # each one holds token ids
    labels: Tensor  # (samples,) int64
    longest: int  # in tokens

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, rows: Tensor, epoch: int) -> Batch:
        tokens = torch.from_numpy(padded([self.sequences[int(row)] for row in rows], self.longest))
        mask = (tokens != VOCABULARY.index(PAD)).long()
        return Batch({"input_ids": tokens, "attention_mask": mask}, self.labels[rows])


class PictureExamples:
    """Decodes pictures as they are asked for, augmented except in an evaluation.

    labels: (samples,) int64. size: pixels of a side.
    """

    def __init__(
        self, pictures: Pictures, labels: Tensor, size: int, seed: int, colours: Colours = BY_DEFAULT
    ) -> None:
        self._labels, self._colours = labels, colours
        self._plain, self._augmented = (ImageBatches(pictures, train, size, seed) for train in (False, True))

    def __len__(self) -> int:
        return len(self._labels)

    def batch(self, rows: Tensor, epoch: int) -> Batch:
        batches = self._plain if epoch == EVALUATION else self._augmented
        pixels = batches.batch(rows.tolist(), epoch)
        return Batch({"pixel_values": pixels}, self._labels[rows], colours=self._colours)


def _widened(tensor: Tensor) -> Tensor:
    return tensor.long() if tensor.dtype == torch.int32 else tensor
