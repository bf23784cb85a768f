r"""Text and tables as LaTeX: every letter is set as it is read, under pdfTeX's default fonts and any other.

Needs \usepackage{booktabs}. What has neither a command nor an accent is set as its code, such as U+1F600.
"""

import re
import unicodedata
from collections.abc import Sequence

_LETTERS = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$", "|": r"\textbar{}",
    '"': r"{\ttfamily\char34}", "'": r"\textquotesingle{}", "`": r"\textasciigrave{}",
    "[": "{[}", "]": "{]}", "*": "{*}",  # behind the end of a row they would be its options
    "±": r"$\pm$", "≥": r"$\geq$", "≤": r"$\leq$", "≠": r"$\neq$", "≈": r"$\approx$", "×": r"$\times$", "·": r"$\cdot$",
    "−": "$-$", "→": r"$\to$", "←": r"$\leftarrow$", "∞": r"$\infty$", "°": r"$^\circ$", "…": r"\ldots{}",
    "µ": r"$\mu$", "–": "--", "—": "---", "‘": "`", "’": "'", "“": "``", "”": "''", "§": r"\S{}", "©": r"\copyright{}",
    "ß": r"\ss{}", "æ": r"\ae{}", "Æ": r"\AE{}", "œ": r"\oe{}", "Œ": r"\OE{}", "ø": r"\o{}", "Ø": r"\O{}", "ł": r"\l{}",
    "Ł": r"\L{}", "ı": r"\i{}", "\N{NO-BREAK SPACE}": "~",
}  # fmt: skip
_GREEK = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon phi chi psi omega"
for _name in _GREEK.split():
    _LETTERS[unicodedata.lookup(f"GREEK SMALL LETTER {_name.replace('lambda', 'lamda')}")] = f"$\\{_name}$"
_ACCENTS = dict(zip("̧̀́̂̃̄̆̇̈̊̋̌", "`'^~=u.\"rHvc", strict=True))


def escaped(text: str) -> str:
    """`text` for the inside of a paragraph, a caption or a cell."""
    text = "".join(map(_letter, " ".join(unicodedata.normalize("NFC", text).split())))
    return re.sub(r"([-,])(?=\1)", r"\1{}", text) if re.search(r"--|,,", text) else text  # no ligatures


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
    base, *marks = unicodedata.normalize("NFD", letter)
    if len(marks) == 1 and marks[0] in _ACCENTS and base.isascii() and base.isalpha():
        base = {"i": r"\i", "j": r"\j"}.get(base, base) if marks[0] != "̧" else base
        return f"\\{_ACCENTS[marks[0]]}{{{base}}}"
    return f"U+{ord(letter):04X}"
