"""Bootstrap intervals of many small samples at once."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from scipy import stats

from pmexp_analysis.numbers.stats import Array, is_constant

_RESAMPLES = 2000
_AT_ONCE = 2_000_000  # resampled numbers in memory, about


def bootstrap_intervals(samples: Sequence[Array], level: float = 0.95) -> list[tuple[float, float] | None]:
    """Bias-corrected accelerated bootstrap interval (Efron, 1987) of the mean of each sample, shape (n,).

    None for n < 2; a constant sample's is its number. Five seeds are few for it: it comes out too narrow,
    which is why the t interval decides. The same samples give the same intervals.
    """
    found: list[tuple[float, float] | None] = [None] * len(samples)
    by_size: dict[int, list[int]] = defaultdict(list)
    for place, sample in enumerate(samples):
        if sample.size > 1 and is_constant(sample, float(np.abs(sample).max())):
            found[place] = float(sample[0]), float(sample[0])
        elif sample.size > 1:
            by_size[sample.size].append(place)
    for size, places in by_size.items():
        step = max(1, _AT_ONCE // (_RESAMPLES * size))
        for start in range(0, len(places), step):
            part = places[start : start + step]
            values = np.stack([samples[place] for place in part])
            # Tiny numbers would underflow when cubed; a power of two leaves ties among means as they are.
            scale = np.exp2(np.frexp(np.abs(values).max(axis=1, keepdims=True))[1] - 1.0)
            interval = stats.bootstrap(
                (values / scale,),
                np.mean,
                axis=-1,
                n_resamples=_RESAMPLES,
                confidence_level=level,
                method="BCa",
                rng=np.random.default_rng(0),
            ).confidence_interval
            for row, place in enumerate(part):
                low, high = interval.low[row] * scale[row, 0], interval.high[row] * scale[row, 0]
                found[place] = float(low), float(high)
    return found
