"""Sentences of tagged words as tokens: which of them has a label."""

import logging

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import WhitespaceSplit
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
