"""Defines sentences whose words have a class each: their tags."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class TaggedWords:
    """Holds the words of each sentence and the number of each word's tag; a sentence has at least a word."""

    sentences: list[tuple[str, ...]]
    tags: list[NDArray[np.int64]]  # (words,) of each sentence

    def __len__(self) -> int:
        return len(self.sentences)

    def __getitem__(self, index: int) -> tuple[str, ...]:
        return self.sentences[index]

    @property
    def labels(self) -> NDArray[np.int64]:
        """(words,): the tags of all words in a row."""
        return np.concatenate([*self.tags, np.zeros(0, dtype=np.int64)])

    def take(self, rows: NDArray[np.int64]) -> "TaggedWords":
        return TaggedWords([self.sentences[row] for row in rows], [self.tags[row] for row in rows])
