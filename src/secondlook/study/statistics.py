"""Statistics of the study: every number with an interval and an n. scipy does the arithmetic; this file fixes the choices.

mean            t interval over independent seeds
paired          differences by seed: t interval, and the exact sign-flip p
welch           unpaired, unequal variances; of published numbers from means and spreads
share           fraction of independent trials: Wilson interval
clustered_share fraction of cells that come in groups: t interval over the groups
design_share    fraction of the cells of a grid that was chosen, not drawn: no interval
holm            p values adjusted for the number of declared comparisons
"""

import itertools
import math
from dataclasses import asdict, dataclass

import numpy as np
import scipy  # whose parts are loaded where they are used: most processes need no more than one quantile of t
from numpy.typing import ArrayLike

from secondlook.errors import Mistake

LEVEL = 0.95
ROUNDING, LEAST = 1e-8, -14  # a larger difference is none of rounding in double precision; the least power of ten of a bound
EXACT_FLIPS = 18  # largest n whose 2^n sign patterns are all enumerated
SAMPLED_FLIPS = 100_000


@dataclass(frozen=True)
class Estimate:
    """A measured number: value, interval (None where the number is exact, such as a deterministic run) and n; what the interval
    covers, where n is too small for LEVEL."""

    value: float
    low: float | None = None
    high: float | None = None
    n: int = 1
    p: float | None = None
    coverage: float | None = None

    def __post_init__(self) -> None:
        for name in ("value", "low", "high", "p", "coverage"):
            number = getattr(self, name)
            object.__setattr__(self, name, None if number is None else float(number))
        object.__setattr__(self, "n", int(self.n))

    @property
    def ends(self) -> tuple[float, float]:
        """The interval; the value twice where it is exact."""
        return (self.value if self.low is None else self.low, self.value if self.high is None else self.high)

    def within(self, low: float, high: float) -> bool:
        """Whether all of the interval lies in [low, high]."""
        return low <= self.ends[0] and self.ends[1] <= high

    def outside(self, low: float, high: float) -> bool:
        """Whether no part of the interval lies in [low, high]."""
        return self.ends[1] < low or high < self.ends[0]

    def as_dict(self) -> dict:
        return asdict(self)


def _sample(values: ArrayLike, least: int) -> np.ndarray:
    values = np.asarray(values, dtype=float).ravel()
    if len(values) < least:
        raise Mistake(f"an interval needs at least {least} values, got {len(values)}")
    if not np.isfinite(values).all():
        raise Mistake("a mean over runs that diverged says nothing: use the median, or count them")
    return values


def bound(difference: float) -> float:
    """The power of ten that a difference of rounding does not exceed, 1e-14 at least: its own digits depend on the processor. A
    difference above 1e-8 is none of rounding, and stays what it is."""
    if not difference <= ROUNDING:
        return difference
    return 10.0 ** max(math.ceil(math.log10(difference)) if difference > 0 else -math.inf, LEAST)


def mean(values: ArrayLike, level: float = LEVEL) -> Estimate:
    """Mean of independent values with its t interval. Equal values give an interval of no width."""
    x = _sample(values, 2)
    half = scipy.special.stdtrit(len(x) - 1, (1 + level) / 2) * x.std(ddof=1) / np.sqrt(len(x))
    return Estimate(x.mean(), x.mean() - half, x.mean() + half, len(x))


def median(values: ArrayLike, level: float = LEVEL) -> Estimate:
    """Median with the distribution-free interval of order statistics; a miss may be infinite. The interval covers at least
    `level`; where n is too small for that (below 6 at 95 %), it is the whole range, and says what that covers."""
    x = np.sort(np.asarray(values, dtype=float).ravel())
    n = len(x)
    if n == 0:
        raise Mistake("a median needs at least one value")
    k = int(scipy.stats.binom.ppf((1 - level) / 2, n, 0.5))  # ranks k and n + 1 - k, counted from 1
    low, high = (x[k - 1], x[n - k]) if k >= 1 else (x[0], x[-1])
    coverage = None if k >= 1 else 1 - 0.5 ** (n - 1)
    with np.errstate(invalid="ignore"):
        middle = x[n // 2] if n % 2 else (x[n // 2 - 1] + x[n // 2]) / 2
    return Estimate(middle, low, high, n, coverage=coverage)


def sign_flip(differences: ArrayLike) -> float:
    """Two-sided p of the mean difference under random signs: all 2^n patterns up to n = 18, else 100,000 drawn ones."""
    d = _sample(differences, 1)
    if len(d) <= EXACT_FLIPS:
        signs = np.array(list(itertools.product((1, -1), repeat=len(d))), dtype=float)
        extra = 0
    else:
        signs = np.random.default_rng(0).choice((1.0, -1.0), size=(SAMPLED_FLIPS, len(d)))
        extra = 1
    at_least = np.abs(signs @ d) >= abs(d.sum()) * (1 - 1e-12)
    return float((at_least.sum() + extra) / (len(signs) + extra))


def paired(a: ArrayLike, b: ArrayLike, level: float = LEVEL) -> Estimate:
    """Mean of a - b, matched by seed, with its t interval and the sign-flip p."""
    a, b = _sample(a, 2), _sample(b, 2)
    if len(a) != len(b):
        raise Mistake(f"a paired comparison needs as many values on both sides, got {len(a)} and {len(b)}")
    found = mean(a - b, level)
    return Estimate(found.value, found.low, found.high, found.n, sign_flip(a - b))


def welch(a: ArrayLike, b: ArrayLike, level: float = LEVEL) -> Estimate:
    """Mean of a minus mean of b, unpaired, with Welch's interval and p; n is the smaller of the two."""
    a, b = _sample(a, 2), _sample(b, 2)
    test = scipy.stats.ttest_ind(a, b, equal_var=False)
    interval = test.confidence_interval(level)
    return Estimate(a.mean() - b.mean(), interval.low, interval.high, min(len(a), len(b)), test.pvalue)


def welch_published(a: tuple[float, float], b: tuple[float, float], n: int, level: float = LEVEL) -> Estimate:
    """The same of published numbers: mean and standard deviation of `n` runs of each."""
    s2, t2 = a[1] ** 2 / n, b[1] ** 2 / n
    freedom = (n - 1) * (s2 + t2) ** 2 / (s2**2 + t2**2)
    difference, error = a[0] - b[0], (s2 + t2) ** 0.5
    half = scipy.special.stdtrit(freedom, (1 + level) / 2) * error
    p = 2 * scipy.special.stdtr(freedom, -abs(difference) / error)
    return Estimate(difference, difference - half, difference + half, n, p)


def share(hits: ArrayLike, level: float = LEVEL) -> Estimate:
    """Fraction of true values among independent trials, with Wilson's interval."""
    hits = np.asarray(hits, dtype=bool).ravel()
    if not len(hits):
        raise Mistake("a share needs at least one trial")
    interval = scipy.stats.binomtest(int(hits.sum()), len(hits)).proportion_ci(level, method="wilson")
    return Estimate(hits.mean(), interval.low, interval.high, len(hits))


def clustered_share(hits: ArrayLike, groups: ArrayLike, level: float = LEVEL) -> Estimate:
    """Fraction of true values among cells that come in equal groups (neighbours on a grid are no independent trials): the
    mean of the groups' fractions with a t interval over groups, cut to [0, 1]; n is the number of groups."""
    hits, groups = np.asarray(hits, dtype=float).ravel(), np.asarray(groups).ravel()
    found = mean([hits[groups == group].mean() for group in np.unique(groups)], level)
    low, high = found.ends
    return Estimate(found.value, max(low, 0), min(high, 1), found.n)


def design_share(hits: ArrayLike, groups: ArrayLike) -> Estimate:
    """Fraction of true values among the cells of a design, each group of cells with the same weight. What was chosen is no
    sample of anything: there is no interval, and n is 1."""
    hits, groups = np.asarray(hits, dtype=float).ravel(), np.asarray(groups).ravel()
    return Estimate(float(np.mean([hits[groups == group].mean() for group in np.unique(groups)])))


def holm(p_values: ArrayLike) -> list[float]:
    """Holm's adjusted p values, in the given order."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p)
    stepped = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order])
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted.tolist()
