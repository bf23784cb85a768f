"""Makes text from outside fit for a terminal, and tables of it. Imports no torch."""

import re
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence

WIDTH = 120  # columns of what --help prints


def printable(text: str, lines: bool = False) -> str:
    """`text` without letters that steer a terminal or turn the direction of what follows: they become their
    codes, such as \\x1b. A tab or line end becomes a blank; with `lines` line ends stay."""
    if text.isprintable():
        return text
    return "".join(letter if lines and letter == "\n" else _shown(letter) for letter in text)


def few(names: Sequence[object]) -> str:
    """Returns the first ten names, each cut to 40 letters, and how many more there are."""
    shown = [name if len(name) <= 40 else f"{name[:40]}..." for name in map(str, names[:10])]
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return printable(", ".join(shown)) + more


def first_five(names: Sequence[str]) -> str:
    """Returns the first five names, and an ellipsis where there are more."""
    return ", ".join([*names[:5], *["..."] * (len(names) > 5)])


def first_three(names: Sequence[str], between: str = ", ") -> str:
    """Returns the first three names, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return between.join(names[:3]) + more


def any_layer(name: str) -> str:
    """Returns a module's name with a star for its layer's number: equal layers have it in common."""
    return re.sub(r"\.\d+(?=\.|$)", ".*", name)


def counted(number: int, what: str) -> str:
    """Returns a number of things in words: 1 pair, 2 pairs."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def class_of(value: object) -> str:
    """Returns the name of a value's class with its article: a list, an int."""
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeio' else 'a'} {name}"


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Returns a table in Markdown. A bar in a cell, which would end it, is escaped."""
    lines = [[str(cell).replace("|", "\\|") for cell in line] for line in (head, ["---"] * len(head), *rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def aligned(rows: Sequence[Sequence[str]], right: Sequence[bool]) -> list[str]:
    """The rows as lines, each column as wide as its widest cell; `right`: which end on the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        )
        for row in rows
    ]


def folded(head: str, text: str) -> list[str]:
    """Returns `text` behind `head` in lines of WIDTH columns, or of 50 behind a longer head. It goes on below
    itself, and no word is broken."""
    return textwrap.wrap(
        text,
        max(WIDTH, len(head) + 50),
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_long_words=False,
        break_on_hyphens=False,
    )


def one_by_one(doing: str, names: Sequence[str]) -> Iterator[str]:
    """Yields the names, and says on stderr which one is begun: for work of minutes that else says nothing."""
    for number, name in enumerate(names, 1):
        print(f"{doing} {name} ({number} of {len(names)}) ...", file=sys.stderr, flush=True)
        yield name


def duration(seconds: float) -> str:
    """Says a time as people do: "3.4 s", "41 s", "4 min 5 s", "3 h 20 min"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 100:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def _shown(letter: str) -> str:
    if letter.isprintable():
        return letter
    return " " if letter in "\n\r\t" else letter.encode("unicode_escape", "backslashreplace").decode()
