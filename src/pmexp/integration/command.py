"""Reads the keys, writes the page, and returns an exit code."""

from collections.abc import Sequence

from pmexp.command.explain import explained
from pmexp.command_line import Command, Given, Key

COMMAND = Command(
    "pmexp.integration",
    "what PM-Drop needs of each supported model, and what it reaches there",
    (Key("out", "the file that the page is written to; without it the page is printed"),),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 done, 2 bad input, 130 interrupted."""
    return COMMAND.run(arguments, _write)


@explained()
def _write(given: Given) -> None:
    def text() -> str:
        from pmexp.integration.page import page  # imports torch, for which a wrong key need not wait

        return page(given.again())

    given.write_page("out", text)
