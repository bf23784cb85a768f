"""Texts that are longer than their tokens are counted, by tokenizers that tell which, and by others."""

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from transformers import BartConfig, BartForConditionalGeneration

from composed import config
from pmexp.datasets.base import Split
from pmexp.models.byte_pairs import train_byte_pairs
from pmexp.models.cut_texts import cut_in
from pmexp.models.pairs import encoded_pairs
from pmexp.models.text import encoded, train_tokenizer

TEXTS: list[tuple[str, ...]] = [("a b",), ("a b a",), ("a b a b",)]
SPLIT = Split(TEXTS, np.zeros(3, dtype=np.int64))


def test_texts_that_are_cut_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = train_tokenizer(SPLIT, 20)
    with caplog.at_level(logging.WARNING):
        encoded(tokenizer, SPLIT, 6)  # with [CLS] and [SEP] the longest just fits
        assert caplog.messages == []
        encoded(tokenizer, SPLIT, 5)
    assert caplog.messages == ["dataset.max_length: 1 of 3 texts go on behind 5 tokens, where they are cut"]


def test_sources_and_targets_that_are_cut_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = train_byte_pairs(SPLIT, 258)
    sizes: Any = {
        f"{side}_{what}": 1
        for side in ("encoder", "decoder")
        for what in ("layers", "attention_heads", "ffn_dim")
    }
    module = BartForConditionalGeneration(BartConfig(vocab_size=258, d_model=8, **sizes))
    pairs = Split([(text, text) for (text,) in TEXTS], np.zeros(0, dtype=np.int64))
    dataset = replace(config("task=smoke/t5-small-wmt16").dataset, max_target_length=4, source_prefix="")
    with caplog.at_level(logging.WARNING):
        encoded_pairs(tokenizer, module, pairs, 7, dataset)
    assert caplog.messages == [
        "dataset.max_target_length: 2 of 3 texts go on behind 4 tokens, where they are cut",
        "dataset.max_length: 1 of 3 texts go on behind 7 tokens, where they are cut",
    ]


def test_a_tokenizer_in_python_has_those_counted_that_are_full() -> None:
    class Told(dict[str, Any]):
        encodings = None

    assert cut_in(Told(input_ids=[[1, 2, 3], [1, 2, 0]], attention_mask=[[1, 1, 1], [1, 1, 0]]), 3) == 1
    assert cut_in(Told(input_ids=[[1, 2, 3], [1, 2]]), 3) == 1
