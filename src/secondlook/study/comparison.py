r"""A family of declared comparisons: one interval for each, from which table and verdict take the same word.

    d +- t_{n - 1}(1 - alpha / (2 m)) s / sqrt(n),    alpha = 1 - LEVEL, m comparisons of the family

d is the mean difference of pairs, s their spread: Bonferroni's intervals, which hold together with LEVEL (unpaired: Welch's). A
comparison is

    better, worse   where its interval lies on one side of zero
    equivalent      else where it lies within the margin that counts as the same
    undecided       else

Holm's p of the t tests stands beside the word, and decides nothing. The n that would decide is that of the two-sided paired t
test at the same level:

    power(n) = P(|T| > t_{n - 1}),    T noncentral t with n - 1 degrees of freedom and noncentrality sqrt(n) delta / s

delta is the difference that matters.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from numpy.typing import ArrayLike

from secondlook.errors import Mistake
from secondlook.study.statistics import LEVEL, Estimate, holm, mean, welch

Family = Mapping[Any, tuple[ArrayLike, ArrayLike]]  # by name of the comparison, its two samples
WORDS = ("better", "worse", "equivalent", "undecided")
POWER = 0.8
MOST = 10_000_000  # pairs that are asked about: more count as infinitely many
LARGEST = 1e3  # delta / s: above it two pairs are enough


@dataclass(frozen=True)
class Compared:
    """One comparison of a family: the difference with its simultaneous interval, Holm's p, and the word."""

    difference: Estimate
    holm: float
    word: str


def simultaneous(comparisons: int) -> float:
    """The level of each of so many intervals that hold together with LEVEL."""
    return 1 - (1 - LEVEL) / comparisons


def compare(family: Family, margin: float = 0.0, sign: int = 1, paired: bool = True) -> dict[Any, Compared]:
    """Compare the first of each two samples with the second: by seed, where `paired`, else as independent ones.

    `family` has all declared comparisons by name; `margin` is what still counts as the same, 0 where that is not declared;
    `sign` is 1 where more is better, -1 where less is. Raises Mistake where the samples are no pairs, or fewer than two.
    """
    differences = {name: _difference(a, b, simultaneous(len(family)), paired) for name, (a, b) in family.items()}
    adjusted = holm(np.array([difference.p for difference in differences.values()], dtype=float))
    return {
        name: Compared(difference, p, word(difference, margin, sign))
        for (name, difference), p in zip(differences.items(), adjusted, strict=True)
    }


def differences(family: Family) -> dict[Any, Estimate]:
    """The paired differences of a family alone, with their simultaneous intervals."""
    return {name: found.difference for name, found in compare(family).items()}


def word(difference: Estimate, margin: float = 0.0, sign: int = 1) -> str:
    """What an interval says of a difference."""
    low, high = sorted(sign * end for end in difference.ends)
    if low > 0 or high < 0:
        return "better" if low > 0 else "worse"
    return "equivalent" if margin and difference.within(-margin, margin) else "undecided"


def _difference(a: ArrayLike, b: ArrayLike, level: float, paired: bool) -> Estimate:
    """Mean of a less that of b with its t interval and the p of the t test; pairs that do not scatter have 1 or 0."""
    if not paired:
        return welch(a, b, level)
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if a.shape != b.shape:
        raise Mistake(f"a paired comparison needs as many values on both sides, got {len(a)} and {len(b)}")
    found, error = mean(a - b, level), np.std(a - b, ddof=1) / np.sqrt(len(a))
    p = 2 * scipy.special.stdtr(found.n - 1, -abs(found.value) / error) if error else float(not found.value)
    return Estimate(found.value, found.low, found.high, found.n, p)


def power(n: int, effect: float, level: float = LEVEL) -> float:
    """Of `n` pairs, 2 or more, for `effect` = delta / s, 0 or more."""
    shift, limit = np.sqrt(n) * min(effect, LARGEST), scipy.special.stdtrit(n - 1, (1 + level) / 2)
    upper, lower = scipy.stats.nct.sf(limit, n - 1, shift), scipy.stats.nct.cdf(-limit, n - 1, shift)
    return float(upper if np.isnan(lower) else upper + lower)  # scipy has nan for some tails that are too small to matter


def needed(effect: float, level: float = LEVEL) -> float:
    """The least number of pairs with POWER."""
    pairs = range(2, MOST + 1)
    at = bisect_left(pairs, POWER, key=lambda n: power(n, effect, level))
    return pairs[at] if at < len(pairs) else np.inf


def spread(differences: ArrayLike) -> Estimate:
    """Standard deviation of (n,) differences, 2 or more, with its chi-square interval."""
    d = np.asarray(differences, dtype=float)
    s, freedom = float(d.std(ddof=1)), len(d) - 1
    low, high = (s * (freedom / scipy.stats.chi2.ppf(side, freedom)) ** 0.5 for side in ((1 + LEVEL) / 2, (1 - LEVEL) / 2))
    return Estimate(s, low, high, len(d))


def n_to_decide(family: Family, matters: float) -> dict[Any, Estimate]:
    """Of each comparison, the pairs that show a difference of `matters` at the family's level with POWER; the interval is that
    of the spread."""
    return _by_spread(family, lambda s, n, level: needed(_effect(matters, s), level))


def power_of(family: Family, matters: float) -> dict[Any, Estimate]:
    """Of each comparison, the probability that its own pairs show a difference of `matters` at the family's level."""
    return _by_spread(family, lambda s, n, level: power(n, _effect(matters, s), level))


def _by_spread(family: Family, of: Callable[[float, int, float], float]) -> dict[Any, Estimate]:
    """A function of the spread of each comparison, of its n and of the family's level, at the spread and at its ends."""
    level, found = simultaneous(len(family)), {}
    for name, (a, b) in family.items():
        s = spread(np.subtract(a, b))
        value, *ends = (of(end, s.n, level) for end in (s.value, *s.ends))
        found[name] = Estimate(value, min(ends), max(ends), s.n)
    return found


def _effect(matters: float, s: float) -> float:
    return matters / s if s else np.inf
