"""Says how many texts are longer than the tokens that they are given, whose ends no model sees."""

import logging
from typing import Any

log = logging.getLogger(__name__)


def cut_in(encoding: Any, length: int) -> int:
    """Returns how many texts of an encoding were cut to `length` tokens.

    A tokenizer in Python does not tell: of such it is how many texts have so many tokens.
    """
    if encoding.encodings is not None:
        return sum(bool(each.overflowing) for each in encoding.encodings)
    masks = encoding.get("attention_mask") or [[1] * len(ids) for ids in encoding["input_ids"]]
    return sum(sum(mask) == length for mask in masks)


def warn_of_cut(key: str, cut: int, texts: int, length: int) -> None:
    """Warns where texts were cut. key: of the configuration, which gives `length`."""
    if cut and texts > 1:  # one alone is a sample that the model is tried with, and comes again
        log.warning("%s: %d of %d texts go on behind %d tokens, where they are cut", key, cut, texts, length)
