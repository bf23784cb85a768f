"""What the tests of typed words share: the type of a command, and the words of a small run of texts."""

from collections.abc import Callable

Command = Callable[..., tuple[int, str, str]]  # what `command` makes: exit code, stdout, stderr
TINYBERT = ["model=tinybert", "model.pretrained=false"]
OF_TEXTS = ["dataset=sst2", *TINYBERT]
