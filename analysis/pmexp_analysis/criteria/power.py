"""How many seeds settle a claim, by quantiles of Student's t (Phillips, 1990, for equivalence)."""

from scipy import special

from pmexp_analysis.numbers import stats

MOST_SEEDS = 1_000_000


def reach(n: int, std: float, two_sided: bool = False) -> float:
    """Returns how far from its limit a mean has to lie for n >= 2 pairs to settle it with a power of 0.8.

    std: standard deviation of a pair, whose unit the result has. two_sided: both limits of a margin count.
    """
    power = (1 + stats.POWER) / 2 if two_sided else stats.POWER
    quantiles = sum(float(special.stdtrit(n - 1, p)) for p in (1 - stats.SIGNIFICANCE, power))
    return float(quantiles * std / n**0.5)


def seeds_needed(std: float, distance: float, two_sided: bool = False) -> int:
    """Returns the fewest pairs, at most MOST_SEEDS, with which `reach` is no more than `distance`."""
    low, high = stats.FEWEST_PAIRS - 1, MOST_SEEDS
    while high - low > 1:  # the first n that suffices lies in (low, high]
        n = (low + high) // 2
        low, high = (low, n) if reach(n, std, two_sided) <= distance else (n, high)
    return high


def in_words(seeds: int) -> str:
    """A number of seeds as a sentence has it."""
    return f"about {seeds} seeds" if seeds < MOST_SEEDS else "over a million seeds"
