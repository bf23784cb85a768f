"""Encodes sentences of tagged words: the first token of a word has the word's tag, others have none."""

import logging
from collections.abc import Sequence
from typing import Any

import torch

from pmexp.datasets.base import Split, Texts
from pmexp.datasets.tagged_words import TaggedWords
from pmexp.errors import UserError
from pmexp.models.examples import TensorExamples
from pmexp.models.objectives import IGNORED

log = logging.getLogger(__name__)


def words_of(split: Split) -> Texts:
    """Returns the texts of a split, or the words of its sentences."""
    texts = split.inputs.sentences if isinstance(split.inputs, TaggedWords) else split.inputs
    assert isinstance(texts, list)
    return texts


def check_tells_words(tokenizer: Any) -> None:
    """Raises UserError for a tokenizer that does not tell to which word a token belongs."""
    if not tokenizer.is_fast:
        raise UserError(
            f"dataset.objective=token_classification: the tokenizer {type(tokenizer).__name__} does not tell "
            "to which word a token belongs; give a checkpoint with a tokenizer.json"
        )


def blank_before_words(tokenizer: Any) -> str:
    """Returns what stands in front of each word, so that its tokens are those that it has in running text.

    Byte pairs such as RoBERTa's and GPT-2's have the blank in a word's first token, and split a word without
    one as if it were the end of another.
    """

    def ids(text: str | list[str]) -> list[int]:
        taken: list[int] = tokenizer(
            text, is_split_into_words=isinstance(text, list), add_special_tokens=False
        )["input_ids"]
        return taken

    in_text, with_blank = ids("a a"), ids([" a", " a"])
    second = with_blank[len(with_blank) // 2 :]
    return " " if ids(["a", "a"]) != in_text and in_text[-len(second) :] == second else ""


def encoded_words(tokenizer: Any, split: Split, length: int, names: Sequence[str]) -> TensorExamples:
    """Each sentence cut and padded to `length` tokens, its labels (samples, positions) int64.

    names: of the model's inputs. Words behind the cut, and words without a token, have no label.
    """
    assert isinstance(split.inputs, TaggedWords)
    blank = blank_before_words(tokenizer)
    sentences = [[blank + word for word in sentence] for sentence in split.inputs.sentences]
    encoding = tokenizer(
        sentences, is_split_into_words=True, padding="max_length", truncation=True, max_length=length
    )
    labels = torch.full((len(sentences), length), IGNORED)
    for row, tags in enumerate(split.inputs.tags):
        before = None
        for place, word in enumerate(encoding.word_ids(row)):
            if word is not None and word != before:
                labels[row, place] = int(tags[word])
            before = word
    if cut := sum(map(len, sentences)) - int((labels != IGNORED).sum()):
        log.warning(
            "dataset.max_length: %d of %d words have no token within %d: neither trained on nor scored",
            cut,
            sum(map(len, sentences)),
            length,
        )
    inputs = {name: torch.tensor(encoding[name], dtype=torch.int32) for name in names if name in encoding}
    return TensorExamples(inputs, labels)
