"""How many seeds settle a claim, where its spread is known from few runs alone.

The spread of five pairs is easily half of the true one. Were it taken for the truth, the seeds that are said
to have a power of 0.8 would have 0.7. Here 0.8 is the mean over what the true spread may be, by quantiles of
the noncentral t (Julious and Owen, 2006, Pharmaceutical Statistics 5, 29-37). Both limits of a margin are
each missed with half of the probability that is left (Phillips, 1990, for equivalence), so that 0.8 is the
least.
"""

from dataclasses import dataclass

from scipy import special

from pmexp.protocol import CriterionConfig, Statistic
from pmexp_analysis.numbers import stats

MOST_SEEDS = 1_000_000


@dataclass(frozen=True)
class Spread:
    """The standard deviation of a pair, or of a run judged alone, and the degrees of freedom of it."""

    std: float
    freedom: int


def spread_for(criterion: CriterionConfig, std: float, freedom: int) -> Spread:
    """Returns the Spread that decides over `criterion`: a margin of so many sigmas moves with sigma, whose
    estimate from n runs has the variance sigma^2 / (2 n)."""
    if criterion.statistic is Statistic.difference_in_sigma:
        std = float((std**2 + criterion.threshold**2 / 2) ** 0.5)
    return Spread(std, freedom)


def reach(n: int, spread: Spread, two_sided: bool = False) -> float:
    """Returns how far from its limit a mean has to lie for n >= 2 new pairs to settle it with a power of 0.8.

    It has the unit of the spread. two_sided: both limits of a margin count.
    """
    power = (1 + stats.POWER) / 2 if two_sided else stats.POWER
    critical = special.stdtrit(n - 1, 1 - stats.SIGNIFICANCE)
    return float(special.nctdtrit(spread.freedom, critical, power) * spread.std / n**0.5)


def seeds_needed(spread: Spread, distance: float, two_sided: bool = False) -> int:
    """Returns the fewest pairs, at most MOST_SEEDS, with which `reach` is no more than `distance`."""
    low, high = stats.FEWEST_PAIRS - 1, MOST_SEEDS
    while high - low > 1:  # the first n that suffices lies in (low, high]
        n = (low + high) // 2
        low, high = (low, n) if reach(n, spread, two_sided) <= distance else (n, high)
    return high


def in_words(seeds: int) -> str:
    """A number of seeds as a sentence has it."""
    if seeds <= stats.FEWEST_PAIRS:
        return f"at least {stats.FEWEST_PAIRS} seeds"
    return f"about {seeds} seeds" if seeds < MOST_SEEDS else "over a million seeds"
