"""Scores the entities that tags mark, by the law of the CoNLL shared tasks' script, as seqeval has it.

A tag is O, or a letter with a type, such as B-PER: B begins an entity, I and E go on with it, E ends it, and
S is one of a single word. What goes on with nothing, or with another type, begins an entity too.
"""

from collections.abc import Iterable, Sequence

LETTERS = "BIES"


def is_tag(tag: str) -> bool:
    """Whether `tag` is O, or one of LETTERS and a type with - between them."""
    letter, dash, kind = tag.partition("-")
    return tag == "O" or (len(letter) == 1 and letter in LETTERS and bool(dash and kind))


def entities(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """Returns (type, first word, last word) of each entity of a sentence."""
    marked: list[tuple[str, int, int]] = []
    open_ended = False  # whether the last entity may go on
    for place, tag in enumerate(tags):
        letter, _, kind = tag.partition("-")
        if letter == "O":
            open_ended = False
            continue
        goes_on = open_ended and letter in ("I", "E") and marked[-1][0] == kind
        first = marked.pop()[1] if goes_on else place
        marked.append((kind, first, place))
        open_ended = letter in ("B", "I")
    return marked


def entity_f1(predicted: Iterable[Sequence[str]], true: Iterable[Sequence[str]]) -> float:
    """F1 over all entities of all sentences, an entity being right with its type and both ends; 0 where there
    is none, said or true."""
    hits = said = there = 0
    for guess, truth in zip(map(entities, predicted), map(entities, true), strict=True):
        hits += len({*guess} & {*truth})
        said, there = said + len(guess), there + len(truth)
    return 2 * hits / (said + there) if said + there else 0.0
