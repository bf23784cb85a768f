"""Sentences of tagged words as tokens: which of them has a label."""

import logging
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Regex, Tokenizer, normalizers
from tokenizers import models as token_models
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import ByteLevel, Metaspace, Sequence, WhitespaceSplit
from tokenizers.pre_tokenizers import Split as SplitBy
from transformers import PreTrainedTokenizerFast

from pmexp.datasets.base import Split
from pmexp.datasets.tagged_words import TaggedWords
from pmexp.models.objectives import IGNORED
from pmexp.models.words import encoded_words


def test_the_first_token_of_a_word_alone_has_its_tag(caplog: pytest.LogCaptureFixture) -> None:
    """Behind it come its other tokens and the padding; two equal words in a row are two."""
    pieces = Tokenizer(WordPiece({"[UNK]": 0, "[PAD]": 1, "ab": 2, "##c": 3, "d": 4}, unk_token="[UNK]"))
    pieces.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=pieces, unk_token="[UNK]", pad_token="[PAD]")
    tags = [np.array([5, 6, 7]), np.array([8, 9, 5, 6])]
    words = TaggedWords([("abc", "d", "d"), ("abcc", "abc", "d", "d")], tags)
    with caplog.at_level(logging.WARNING):
        examples = encoded_words(tokenizer, Split(words, words.labels), 6, ["input_ids"])
    assert examples.inputs["input_ids"].tolist() == [[2, 3, 4, 4, 1, 1], [2, 3, 3, 2, 3, 4]]
    no = IGNORED
    assert examples.labels.tolist() == [[5, no, 6, 7, no, no], [8, no, no, 9, no, 5]]
    assert examples.labels.dtype is torch.int64
    assert "dataset.max_length: 1 of 7 words have no token within 6" in caplog.text


_BYTES = token_models.BPE({"Ġ": 0, "a": 1, "b": 2, "ab": 3, "Ġab": 4, "<pad>": 5}, [("a", "b"), ("Ġ", "ab")])
_PIECES = token_models.BPE({"▁": 0, "a": 1, "b": 2, "ab": 3, "▁ab": 4, "<pad>": 5}, [("a", "b"), ("▁", "ab")])


def _by_pieces(text: Any, model: Any, normalizer: Any = None) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(model)
    if text:
        tokenizer.pre_tokenizer = text
    if normalizer:
        tokenizer.normalizer = normalizer
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>")


@pytest.mark.parametrize(
    "tokenizer",
    [
        _by_pieces(ByteLevel(add_prefix_space=False), _BYTES),  # GPT-2, RoBERTa, BART
        _by_pieces(ByteLevel(add_prefix_space=True), _BYTES),
        _by_pieces(
            Sequence(
                [SplitBy(Regex(" ?[a-z]+"), "isolated"), ByteLevel(add_prefix_space=False, use_regex=False)]
            ),
            _BYTES,
        ),  # Llama 3, Qwen
        _by_pieces(Metaspace(prepend_scheme="never"), _PIECES),
        _by_pieces(Metaspace(prepend_scheme="first", split=False), _PIECES),
        _by_pieces(
            None, _PIECES, normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        ),  # Llama 2
    ],
    ids=["bytes", "bytes-prefixed", "bytes-split", "pieces-never", "pieces-first", "pieces-prepended"],
)
def test_a_word_has_the_tokens_that_it_has_in_running_text(tokenizer: Any) -> None:
    words = TaggedWords([("ab", "ab")], [np.array([5, 6])])
    examples = encoded_words(tokenizer, Split(words, words.labels), 2, ["input_ids"])
    assert examples.inputs["input_ids"].tolist() == [[4, 4]]
    assert examples.labels.tolist() == [[5, 6]]
