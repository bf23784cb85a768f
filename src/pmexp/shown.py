"""Makes text from outside fit for a terminal. Imports no torch."""


def printable(text: str, lines: bool = False) -> str:
    """`text` without letters that steer a terminal or turn the direction of what follows: they become their
    codes, such as \\x1b. A tab or line end becomes a blank; with `lines` line ends stay."""
    if text.isprintable():
        return text
    return "".join(letter if lines and letter == "\n" else _shown(letter) for letter in text)


def _shown(letter: str) -> str:
    if letter.isprintable():
        return letter
    return " " if letter in "\n\r\t" else letter.encode("unicode_escape", "backslashreplace").decode()
