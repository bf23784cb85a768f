r"""Text and tables as LaTeX: every letter is set as it is read, under pdfTeX's default fonts and any other.

Needs \usepackage{booktabs}. What has neither a command nor an accent is set as its code, such as U+1F600.
"""

import re
import unicodedata
from collections.abc import Sequence

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
_ACCENTS = {
    "GRAVE ACCENT": "`", "ACUTE ACCENT": "'", "CIRCUMFLEX ACCENT": "^", "TILDE": "~", "MACRON": "=",
    "BREVE": "u", "DOT ABOVE": ".", "DIAERESIS": '"', "RING ABOVE": "r", "DOUBLE ACUTE ACCENT": "H",
    "CARON": "v", "CEDILLA": "c",
}  # fmt: skip


def escaped(text: str) -> str:
    """`text` for the inside of a paragraph, a caption or a cell."""
    text = " ".join(unicodedata.normalize("NFC", text).replace("\0", " ").split())
    text = re.sub(r"([-,])(?=\1)", "\\1\0", text)  # two of them would be drawn as one
    return "".join("{}" if letter == "\0" else _letter(letter) for letter in text)


def label(*parts: str) -> str:
    """A name for \\label and \\ref out of several words."""
    return "-".join(re.sub(r"[^A-Za-z0-9:.-]+", "-", part) for part in parts)


def table(headings: Sequence[str], cells: Sequence[Sequence[str]], caption: str, name: str) -> str:
    """A `table` environment, the first column to the left, the others to the right."""

    def row(line: Sequence[str]) -> str:
        return " & ".join(map(escaped, line)) + r" \\"

    lines = [
        r"\begin{table}[t]",
        rf"\caption{{{escaped(caption)}}}",
        rf"\label{{{name}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(headings) - 1)}}}",
        r"\toprule",
        row(headings),
        r"\midrule",
        *map(row, cells),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


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
