"""What the tests of typed words share: a command, its type, and the words of a small run of texts."""

import sys
from collections.abc import Callable

from pmexp import train

Command = Callable[..., tuple[int, str, str]]  # what `command` makes: exit code, stdout, stderr
TINYBERT = ["model=tinybert", "model.pretrained=false"]
OF_TEXTS = ["dataset=sst2", *TINYBERT]


def train_main(arguments: list[str]) -> int:
    before, sys.argv = sys.argv, ["train", *arguments]
    try:
        return train.main()
    finally:
        sys.argv = before
