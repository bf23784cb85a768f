"""Defines pictures with texts, of which pairs are made that belong together or do not."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pmexp.datasets.pictures import Pictures
from pmexp.errors import UserError

CLASSES = ["other", "own"]  # what the text beside a picture is: another picture's, or its own


@dataclass(frozen=True)
class Captioned:
    """Samples 2i and 2i + 1 have the picture of text i; the first has text i too, the second another's text.

    Which text the second has is drawn by who makes a batch. Two pictures may have one text in common, and a
    picture several: `drawn` never draws a text that describes the picture.
    """

    pictures: NDArray[np.float32] | Pictures
    texts: list[str]
    picture_of: NDArray[np.int64]  # (texts,), rows of `pictures`

    def __len__(self) -> int:
        return 2 * len(self.texts)

    def __getitem__(self, index: int) -> NDArray[np.float32] | NDArray[np.uint8]:
        """Returns the picture of a sample."""
        return self.pictures[int(self.picture_of[index // 2])]

    @property
    def labels(self) -> NDArray[np.int64]:
        """Returns the class of each sample."""
        return np.tile([CLASSES.index("own"), CLASSES.index("other")], len(self.texts)).astype(np.int64)

    def check(self, place: str) -> None:
        """Raises UserError, with `place`, where no other picture's text is there to be drawn for a text."""
        text, texts = np.unique(self.texts, return_inverse=True, return_counts=True)[1:]
        picture = np.bincount(self.picture_of)
        both = np.unique(np.stack([self.picture_of, text]), axis=1, return_inverse=True, return_counts=True)
        alike = texts[text] + picture[self.picture_of] - both[2][both[1].ravel()]
        if (alike == len(self.texts)).any():
            row = int((alike == len(self.texts)).argmax())
            raise UserError(
                f"dataset.text_columns: {place} has no text of another picture beside {self.texts[row]!r}; "
                "give pictures that are described differently"
            )

    def drawn(self, row: int, random: np.random.Generator) -> int:
        """Returns a text for the picture of text `row` that belongs to another one, each row as likely."""
        while True:
            other = int(random.integers(len(self.texts)))
            if self.texts[other] != self.texts[row] and self.picture_of[other] != self.picture_of[row]:
                return other
