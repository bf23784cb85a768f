"""How things look in every figure: colours, markers, dashes, sizes."""

from collections.abc import Sequence
from dataclasses import dataclass

# Okabe-Ito, told apart with any colour vision and in grey print; black is the baseline's.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)))


@dataclass(frozen=True)
class Style:
    """How a variant looks in every figure of a report."""

    colour: str
    marker: str
    dash: str | tuple[int, tuple[float, ...]]


def styles(variants: Sequence[str], baseline: str) -> dict[str, Style]:
    """A Style a variant: the baseline black and solid, the others in the order given."""
    made = {baseline: Style("#000000", "*", "-")}
    for place, variant in enumerate(v for v in variants if v != baseline):
        dash = _DASHES[1 + place % (len(_DASHES) - 1)]
        colour = _COLOURS[place % len(_COLOURS)]
        marker = _MARKERS[(place + place // len(_COLOURS)) % len(_MARKERS)]  # shifted when colours repeat
        made[variant] = Style(colour, marker, dash)
    return made
