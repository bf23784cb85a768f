"""Draws random ListOps trees with a number of tokens in a window (Nangia and Bowman, NAACL-SRW 2018).

The procedure is the published one with the settings of Long Range Arena (Tay et al., ICLR 2021): a node is a
digit with probability 0.75 and always at depth 10, else one of MIN, MAX, MED (the median, rounded down) and
SM (the sum modulo 10) with 2 to 10 arguments, all uniform. A tree is kept when its tokens are more than the
window's lower end and fewer than its upper one. Parentheses of the published files, which carry nothing,
are no tokens, there as here.

8 % of the trees fall between 500 and 2000 tokens; fewer than 1 in 10^13 reach 16,000. So trees are drawn
from the same procedure tilted towards the window, and kept with a probability that undoes the tilt:

    tilted law of a tree with n tokens  =  published law * exp(t * n) / normaliser
    kept, when n is in the window, with    exp(-t * (n - smallest kept n))

What is kept has exactly the published law under the window's condition, at any length and without changing
depth, arguments or probabilities; t = 0 is the published rejection itself. Under that law lengths fall off
quickly above a long window's lower end, by a factor e in 400 tokens at 16,000.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

OPERATORS = ("[MIN", "[MAX", "[MED", "[SM")
DIGITS = tuple("0123456789")
PAD, START = "[PAD]", "[CLS]"
VOCABULARY = (PAD, START, *DIGITS, *OPERATORS, "]")  # a token's id is its place

_FIRST_DIGIT, _FIRST_OPERATOR, _END = 2, 12, 16
_NODES_A_ROUND = 250_000  # bounds the memory of one round to about 25 MB

Tokens = NDArray[np.uint8]


@dataclass(frozen=True)
class Procedure:
    """Says how a random tree is drawn, and which trees are kept: `low` < tokens < `high`."""

    low: int
    high: int
    max_depth: int = 10
    max_args: int = 10
    leaf_probability: float = 0.75


@dataclass(frozen=True)
class Depth:
    """One depth of many trees: all nodes, in the order of their trees and parents."""

    tree: NDArray[np.int64]  # to which tree a node belongs
    args: NDArray[np.int64]  # number of arguments, 0 for a digit


class Trees:
    """Draws trees of one procedure. The sequence is a function of the generator's state alone."""

    def __init__(self, procedure: Procedure, rng: np.random.Generator) -> None:
        self._procedure, self._rng = procedure, rng
        self._tilt = tilt(procedure)
        mean, self._choices = tilted(procedure, self._tilt)
        self._batch = max(1, int(_NODES_A_ROUND / mean))

    def draw(self, count: int) -> tuple[list[Tokens], NDArray[np.uint8]]:
        """`count` trees as token ids, and their values 0 to 9."""
        trees: list[Tokens] = []
        values: list[NDArray[np.int64]] = []
        while len(trees) < count:
            accepted, labels = self._round()
            trees += accepted
            values.append(labels)
        return trees[:count], np.concatenate(values)[:count].astype(np.uint8)

    def _round(self) -> tuple[list[Tokens], NDArray[np.int64]]:
        levels, lengths = self._shapes()
        in_window = (lengths > self._procedure.low) & (lengths < self._procedure.high)
        odds = np.exp(-self._tilt * np.where(in_window, lengths - (self._procedure.low + 1), 0))
        kept = in_window & (self._rng.random(self._batch) < odds)
        if not kept.any():
            return [], np.zeros(0, dtype=np.int64)
        levels = [
            Depth(level.tree[mine], level.args[mine]) for level in levels for mine in [kept[level.tree]]
        ]
        return self._filled([level for level in levels if len(level.tree)], lengths[kept])

    def _shapes(self) -> tuple[list[Depth], NDArray[np.int64]]:
        """One batch of trees without their digits and operators, and their lengths in tokens.

        A tree that has outgrown the window is not finished.
        """
        levels: list[Depth] = []
        lengths = np.zeros(self._batch, dtype=np.int64)
        tree = np.arange(self._batch)
        for depth, chances in enumerate(self._choices, start=1):
            args = np.zeros(len(tree), dtype=np.int64)
            if depth < self._procedure.max_depth:
                place = np.searchsorted(chances, self._rng.random(len(tree)), side="right")
                args = np.where(place > 0, place + 1, 0)
            levels.append(Depth(tree, args))
            operators = tree[args > 0]
            lengths += np.bincount(tree, minlength=self._batch) + np.bincount(
                operators, minlength=self._batch
            )
            grown = lengths[tree] >= self._procedure.high
            tree = np.repeat(tree, np.where(grown, 0, args))
            if not len(tree):
                break
        return levels, lengths

    def _filled(
        self, levels: list[Depth], lengths: NDArray[np.int64]
    ) -> tuple[list[Tokens], NDArray[np.int64]]:
        """Draws digits and operators, evaluates from the leaves up, writes tokens from the root down."""
        drawn = [self._rng.integers(np.where(level.args > 0, 4, 10)) for level in levels]
        sizes = [np.ones(len(level.args), dtype=np.int64) for level in levels]
        values = drawn[-1]
        for depth in range(len(levels) - 2, -1, -1):
            inner, starts, args = _operators(levels[depth])
            sizes[depth][inner] = 2 + np.add.reduceat(sizes[depth + 1], starts)
            results = _evaluate(drawn[depth][inner], values, starts, args)
            values = drawn[depth].copy()
            values[inner] = results
        text = np.zeros(lengths.sum(), dtype=np.uint8)
        ends = np.cumsum(lengths)
        at = ends - lengths
        for depth, level in enumerate(levels):
            is_operator = level.args > 0
            text[at] = drawn[depth] + np.where(is_operator, _FIRST_OPERATOR, _FIRST_DIGIT)
            if not is_operator.any():
                break
            inner, starts, args = _operators(level)
            text[at[inner] + sizes[depth][inner] - 1] = _END
            before = np.cumsum(sizes[depth + 1]) - sizes[depth + 1]
            at = np.repeat(at[inner] + 1 - before[starts], args) + before
        return np.split(text, ends[:-1]), values


def tilted(procedure: Procedure, t: float) -> tuple[float, list[NDArray[np.float64]]]:
    """The mean number of tokens under tilt `t`, and for each depth from the root the cumulated chances of
    being a digit and of having 2, 3, ... arguments.

    With g the logarithm of a subtree's normaliser at the next depth, a digit weighs leaf * e^t and an
    operator with k arguments (1 - leaf) / (max_args - 1) * e^(2 t + k g).
    """
    leaf, args = procedure.leaf_probability, np.arange(2, procedure.max_args + 1)
    log_normaliser, mean = t, 1.0  # belong to the deepest level: a digit
    chances = [np.ones(1)]
    for _ in range(procedure.max_depth - 1):
        operator = np.log((1 - leaf) / len(args)) + 2 * t + args * log_normaliser
        weights = np.concatenate([[np.log(leaf) + t], operator])
        log_normaliser = float(np.logaddexp.reduce(weights))
        chance = np.exp(weights - log_normaliser)
        mean = float(chance[0] + (chance[1:] * (2 + args * mean)).sum())
        cumulated = np.cumsum(chance)
        chances.append(cumulated / cumulated[-1])
    return mean, chances[::-1]


def tilt(procedure: Procedure) -> float:
    """The t >= 0 that keeps most trees: the tilted mean length is then the window's lower end; 0 where the
    published mean lies above it."""
    low, high = 0.0, 8.0
    if tilted(procedure, low)[0] >= procedure.low:
        return low
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if tilted(procedure, middle)[0] < procedure.low else (low, middle)
    return low


def _operators(level: Depth) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Returns (their places in the level, where their arguments start in the next, how many they have)."""
    inner = np.flatnonzero(level.args)
    args = level.args[inner]
    return inner, np.cumsum(args) - args, args


def _evaluate(
    operators: NDArray[np.int64],
    values: NDArray[np.int64],
    starts: NDArray[np.int64],
    args: NDArray[np.int64],
) -> NDArray[np.int64]:
    ordered = values[np.lexsort((values, np.repeat(np.arange(len(args)), args)))]
    median = (ordered[starts + (args - 1) // 2] + ordered[starts + args // 2]) // 2
    total = np.add.reduceat(values, starts) % 10
    return np.choose(operators, [ordered[starts], ordered[starts + args - 1], median, total])
