r"""Tables in LaTeX that are as wide as \linewidth and no wider, on lines of 345 pt (`article`) and more.

Every column is a paragraph of a share of the line. A table with more columns than fit becomes several, each
of which begins with the columns that name its rows. Needs array, booktabs, longtable and siunitx.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from pmexp_analysis.pages.latex import broken, number_cell

NEEDS = "% needs \\usepackage{array, booktabs, longtable, siunitx}\n"
_LINE, _GAP = 345.0, 6.0  # points: of `article`; between two columns
_SET = rf"\footnotesize\sloppy\setlength{{\tabcolsep}}{{{_GAP / 2:g}pt}}\sisetup{{retain-explicit-plus=true}}"
_LONG = 30  # letters of a word in a caption
_LETTER, _WIDE_LETTER, _POWER = 4.5, 7.5, 22.0  # points at \footnotesize; of a power of ten beside its digits
_DIGIT_GAP = 1.5  # points between groups of three, which siunitx sets in five digits and more
_NARROWEST, _TEXT, _WIDEST_TEXT = 24.0, 62.0, 140.0  # points: a column of numbers, of text at least, at most
_NUMBERS = re.compile(r"[-+<≤≥±\d][-+.,±<≤≥%x\de ]*( to [-+.\de ]+)?( \S+)?|yes|no")


@dataclass(frozen=True)
class Line:
    """The cells of a row, and the places of those in bold."""

    cells: Sequence[str]
    bold: frozenset[int] = field(default_factory=frozenset)


@dataclass(frozen=True)
class _Column:
    """How a column is set: text to the left, numbers to the right; its least and natural width in points."""

    is_text: bool
    least: float
    natural: float


def table(headings: Sequence[str], lines: Sequence[Line | str], caption: str, name: str) -> str:
    """A `table` for the body of a paper; a text among the lines is a heading of those below it.

    Raises ValueError where its columns do not fit into a line.
    """
    rows = [line for line in lines if isinstance(line, Line)]
    columns = _columns(headings, [row.cells for row in rows])
    (places,) = _groups(columns, 1)
    body = []
    for line in lines:
        if isinstance(line, str):
            body += [
                r"\midrule",
                rf"\multicolumn{{{len(headings)}}}{{@{{}}p{{\linewidth}}@{{}}}}{{{broken(line, _LONG)}}} \\",
            ]
        else:
            body.append(_row(line, columns, places))
    heading = [r"\toprule", _row(Line(headings), [_Column(True, 0, 0)] * len(headings), places)]
    return "\n".join(
        [
            r"\begin{table}[t]",
            _SET,
            rf"\caption{{{broken(caption, _LONG)}}}",
            rf"\label{{{name}}}",
            rf"\begin{{tabular}}{{{_preamble(columns, places)}}}",
            *heading,
            *([] if lines and isinstance(lines[0], str) else [r"\midrule"]),
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def fits(headings: Sequence[str], lines: Sequence[Line | str]) -> bool:
    """Whether the columns of these lines fit into one `table`."""
    cells = [line.cells for line in lines if isinstance(line, Line)]
    return len(_groups(_columns(headings, cells), 1)) == 1


def longtables(
    headings: Sequence[str], cells: Sequence[Sequence[str]], caption: str, name: str, keys: int
) -> Iterator[str]:
    """Yields as many `longtable` as the columns need; the first `keys` columns name a row and begin each."""
    columns = _columns(headings, cells)
    for part, places in enumerate(_groups(columns, keys)):
        heading = _row(Line(headings), [_Column(True, 0, 0)] * len(headings), places)
        said = caption if part == 0 else f"{caption} (continued)"
        yield "\n".join(
            [
                rf"\begingroup{_SET}\setlength{{\LTcapwidth}}{{\linewidth}}",
                rf"\begin{{longtable}}{{{_preamble(columns, places)}}}",
                rf"\caption{{{broken(said, _LONG)}}}\label{{{name}{f'-{part + 1}' * (part > 0)}}}\\",
                rf"\toprule {heading} \midrule \endfirsthead",
                rf"\toprule {heading} \midrule \endhead",
                r"\bottomrule \endfoot",
                *(_row(Line(line), columns, places) for line in cells),
                r"\end{longtable}",
                r"\endgroup",
                "",
            ]
        )


def _row(line: Line, columns: Sequence[_Column], places: Sequence[int]) -> str:
    cells = []
    for place in places:
        if place in line.bold:  # without siunitx, of which two versions have two ways to bold numbers
            cells.append(rf"\textbf{{{broken(line.cells[place])}}}")
        else:
            cells.append((broken if columns[place].is_text else number_cell)(line.cells[place]))
    return " & ".join(cells) + r" \\"


def _preamble(columns: Sequence[_Column], places: Sequence[int]) -> str:
    widths = _widths([columns[place] for place in places])
    sides = [r"\raggedright" if columns[place].is_text else r"\raggedleft" for place in places]
    parts = [
        rf">{{{side}\arraybackslash}}p{{{int(1e4 * width / _LINE) / 1e4:.4f}\linewidth}}"
        for side, width in zip(sides, widths, strict=True)
    ]
    return "@{}" + "".join(parts) + "@{}"


def _columns(headings: Sequence[str], cells: Sequence[Sequence[str]]) -> list[_Column]:
    made = []
    for place, heading in enumerate(headings):
        texts = [line[place] for line in cells]
        is_text = place == 0 or not all(_NUMBERS.fullmatch(text) for text in texts)
        if is_text:
            natural = max(map(_points, [heading, *texts]))
            made.append(_Column(True, min(_TEXT, natural), min(max(natural, _NARROWEST), _WIDEST_TEXT)))
        else:
            numbers = [piece for text in texts for piece in re.split(r"[\s±]+", text)]
            least = max(_NARROWEST, *map(_points, [*numbers, *re.split(r"[\s/_-]+", heading)]))
            made.append(_Column(False, least, max(least, *map(_points, texts))))
    return made


@lru_cache(maxsize=4096)
def _points(text: str) -> float:
    """About how wide `text` is set, rather too much than too little."""
    wide = sum(letter.isupper() or letter in "mw%±≤≥<" for letter in text)
    gaps = sum((len(digits) - 1) // 3 for digits in re.findall(r"\d{5,}", text))
    power = _POWER * bool(re.search(r"\de[+-]?\d", text))
    return _LETTER * (len(text) - wide) + _WIDE_LETTER * wide + _DIGIT_GAP * gaps + power


def _groups(columns: Sequence[_Column], keys: int) -> list[list[int]]:
    """The places of the columns of each table: the keys, and as many others as fit beside them."""
    named = list(range(keys))
    groups = [named]
    for place in range(keys, len(columns)):
        wanted = [*groups[-1], place]
        if sum(columns[p].least + _GAP for p in wanted) - _GAP <= _LINE or groups[-1] == named:
            groups[-1] = wanted
        else:
            groups.append([*named, place])
    return groups


def _widths(columns: Sequence[_Column]) -> list[float]:
    """The width of each column in points on a line of 345: what is to spare goes to those that want more, and
    then to text."""
    room = _LINE - _GAP * (len(columns) - 1)
    widths = [column.least for column in columns]
    for wants in (
        [column.natural - column.least for column in columns],
        [_LINE * column.is_text or 1.0 for column in columns],
    ):
        spare, wanted = room - sum(widths), sum(wants)
        share = min(1.0, max(0.0, spare) / wanted) if wanted else 0.0
        widths = [width + share * want for width, want in zip(widths, wants, strict=True)]
    scale = min(1.0, room / sum(widths))
    return [scale * width for width in widths]
