r"""How many pairs of runs show a difference: the power of the two-sided paired t test at 1 - LEVEL.

    power(n) = P(|T| > t_{n - 1}),    T noncentral t with n - 1 degrees of freedom and noncentrality sqrt(n) delta / s

delta is the mean difference, s the spread of the differences of pairs; t_{n - 1} is the two-sided limit of Student's t.
"""

from bisect import bisect_left

import numpy as np
from scipy import stats

from secondlook.study.statistics import LEVEL

POWER = 0.8
MOST = 10_000_000  # pairs that are asked about: more count as infinitely many
LARGEST = 1e3  # delta / s: above it two pairs are enough


def power(n: int, effect: float) -> float:
    """Of `n` pairs, 2 or more, for `effect` = delta / s, 0 or more."""
    shift, limit = np.sqrt(n) * min(effect, LARGEST), stats.t.ppf((1 + LEVEL) / 2, n - 1)
    return float(stats.nct.sf(limit, n - 1, shift) + stats.nct.cdf(-limit, n - 1, shift))


def needed(effect: float) -> float:
    """The least number of pairs with POWER."""
    pairs = range(2, MOST + 1)
    at = bisect_left(pairs, POWER, key=lambda n: power(n, effect))
    return pairs[at] if at < len(pairs) else np.inf


def spread(differences) -> tuple[float, float, float]:
    """Standard deviation of (n,) differences, 2 or more, and the ends of its chi-square interval."""
    s, freedom = float(np.std(differences, ddof=1)), len(differences) - 1
    low, high = (s * (freedom / stats.chi2.ppf(side, freedom)) ** 0.5 for side in ((1 + LEVEL) / 2, (1 - LEVEL) / 2))
    return s, low, high
