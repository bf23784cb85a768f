r"""Text and tables as LaTeX: every letter is set as it is read, under pdfTeX's default fonts and any other.

What has neither a command nor an accent is set as its code, such as U+1F600.
"""

import re
import unicodedata
from functools import lru_cache

_LETTERS = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": "$<$", ">": "$>$", "|": r"\textbar{}",  # other letters in LaTeX's old fonts
    '"': r"{\ttfamily\char34}", "'": r"\textquotesingle{}", "`": r"\textasciigrave{}",
    "[": "{[}", "]": "{]}", "*": "{*}",  # behind the end of a row they would be its options
    "±": r"$\pm$", "≥": r"$\geq$", "≤": r"$\leq$", "≠": r"$\neq$", "≈": r"$\approx$", "∞": r"$\infty$",
    "→": r"$\to$", "←": r"$\leftarrow$", "°": r"$^\circ$", "·": r"$\cdot$", "µ": r"$\mu$",
    "…": r"\ldots{}", "§": r"\S{}", "©": r"\copyright{}", "“": "``", "”": r"''", "—": "---",
    "ß": r"\ss{}", "æ": r"\ae{}", "Æ": r"\AE{}", "œ": r"\oe{}", "Œ": r"\OE{}", "ø": r"\o{}",
    "Ø": r"\O{}", "ł": r"\l{}", "Ł": r"\L{}",
    "\N{MULTIPLICATION SIGN}": r"$\times$", "\N{MINUS SIGN}": "$-$", "\N{EN DASH}": "--",
    "\N{LEFT SINGLE QUOTATION MARK}": "`", "\N{RIGHT SINGLE QUOTATION MARK}": "'",
    "\N{NO-BREAK SPACE}": "~",
}  # fmt: skip
for _name in re.findall(
    r"\w+",
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon phi "
    "chi psi omega",
):
    _LETTERS[unicodedata.lookup(f"GREEK SMALL LETTER {_name.replace('lambda', 'lamda')}")] = f"$\\{_name}$"
_BREAK = r"\allowbreak{}"
_LONG_WORD = 12  # letters of a cell; longer ones may be broken anywhere, for no hyphenation knows them
_PIECE = re.compile(r"\s+|(?P<sign>[/_:=+-](?=\S)|[.,](?=[^\s\d]))|[^\s/_:=+.,-]+|.", re.DOTALL)
_MINUS = re.compile(r"(?<![^\s(\[])-(?=\d)")
_NUMBER = re.compile(r"(?<![\w.])[+-]?\d+(\.\d+)?(e[+-]?\d+)?(±\d+(\.\d+)?(e[+-]?\d+)?)?(?=x?(?!\w))")
_ACCENTS = {
    "GRAVE ACCENT": "`", "ACUTE ACCENT": "'", "CIRCUMFLEX ACCENT": "^", "TILDE": "~", "MACRON": "=",
    "BREVE": "u", "DOT ABOVE": ".", "DIAERESIS": '"', "RING ABOVE": "r", "DOUBLE ACUTE ACCENT": "H",
    "CARON": "v", "CEDILLA": "c",
}  # fmt: skip


@lru_cache(maxsize=4096)  # tables say the same words and signs in every row
def escaped(text: str) -> str:
    """`text` for the inside of a paragraph, a caption or a cell."""
    text = " ".join(unicodedata.normalize("NFC", text).replace("\0", " ").split())
    text = re.sub(r"([-,])(?=\1)", "\\1\0", text)  # two of them would be drawn as one
    return "".join("{}" if letter == "\0" else _letter(letter) for letter in text)


def label(*parts: str) -> str:
    """A name for \\label and \\ref out of several words."""
    return "-".join(re.sub(r"[^A-Za-z0-9:.-]+", "-", part) for part in parts)


@lru_cache(maxsize=4096)
def broken(text: str, longest: int = _LONG_WORD) -> str:
    """`text` as `escaped` sets it, with a real minus, and with places to break a line: behind the signs in
    names, and anywhere in words of more than `longest` letters."""

    def piece(match: re.Match[str]) -> str:
        if match[0].isspace():
            return " "
        if match["sign"]:
            return escaped(match[0]) + _BREAK
        letters = list(map(escaped, match[0]))
        if len(letters) > longest or any(letter.startswith("U+") for letter in letters):
            return _BREAK.join(letters)
        return escaped(match[0])

    return _PIECE.sub(piece, _MINUS.sub("\N{MINUS SIGN}", unicodedata.normalize("NFC", text)))


@lru_cache(maxsize=4096)
def number_cell(text: str) -> str:
    """A cell whose numbers are set by siunitx, with a real minus; all else in it as `broken` sets it."""
    parts, end = [], 0
    for match in _NUMBER.finditer(text):
        mean, _, deviation = match[0].partition("±")
        spread = rf" $\pm$\,\num{{{deviation}}}" if deviation else ""
        parts += [broken(text[end : match.start()]), rf"\num{{{mean}}}{spread}"]
        end = match.end()
    return "".join([*parts, broken(text[end:])])


def _letter(letter: str) -> str:
    if letter in _LETTERS:
        return _LETTERS[letter]
    if letter.isascii():
        return letter if letter.isprintable() else f"U+{ord(letter):04X}"
    parts = unicodedata.normalize("NFD", letter)
    accent = _ACCENTS.get(unicodedata.name(parts[-1], "").removeprefix("COMBINING "))
    if accent is None or len(parts) != 2 or not (parts[0].isascii() and parts[0].isalpha()):
        return f"U+{ord(letter):04X}"
    return f"\\{accent}{{{parts[0]}}}"
