"""Intervals of a family hold together, the word follows from them and from nothing else, and power is that of drawn tests."""

import math

import numpy as np
import pytest
from scipy import stats

from secondlook.errors import Mistake
from secondlook.study import comparison
from secondlook.study.statistics import Estimate, holm

BASE = np.array([50.0, 51, 49, 50, 52, 48])
GAP = {
    "up": [2, 2.1, 1.9, 2, 2.2, 1.8],
    "down": [-2, -2.1, -1.9, -2, -2.2, -1.8],
    "small": [0.05, -0.1, 0.1, -0.05, 0.02, -0.02],
}
GAP |= {"wide": [3, -3, 1, -1, 2, -2], "none": [0.0] * 6}
FAMILY = {name: (BASE + gap, BASE) for name, gap in GAP.items()}


def test_a_family_has_bonferroni_s_intervals_and_holm_s_p():
    found = comparison.compare(FAMILY, margin=0.3)
    for name in ("up", "down", "small", "wide"):
        test = stats.ttest_rel(*FAMILY[name])
        ends = test.confidence_interval(1 - 0.05 / len(FAMILY))
        assert (found[name].difference.low, found[name].difference.high) == pytest.approx((ends.low, ends.high), rel=1e-9)
    p = [1.0 if name == "none" else stats.ttest_rel(*pair).pvalue for name, pair in FAMILY.items()]
    assert [each.holm for each in found.values()] == pytest.approx(holm(p))
    words = {"up": "better", "down": "worse", "small": "equivalent", "wide": "undecided", "none": "equivalent"}
    assert {name: each.word for name, each in found.items()} == words


def test_less_may_be_better_and_without_a_margin_nothing_is_the_same():
    words = {name: each.word for name, each in comparison.compare(FAMILY, sign=-1).items()}
    assert words == {"up": "worse", "down": "better", "small": "undecided", "wide": "undecided", "none": "undecided"}


@pytest.mark.parametrize(
    "low, high, word",
    [(0.1, 0.2, "better"), (-0.2, -0.1, "worse"), (-0.2, 0.2, "equivalent"), (-0.2, 0.4, "undecided"), (0, 0.4, "undecided")],
)
def test_the_word_follows_from_the_interval(low, high, word):
    """Even where the interval is on one side of zero within the margin: that a difference is small does not make it none."""
    assert comparison.word(Estimate((low + high) / 2, low, high, 5), margin=0.3) == word


def test_a_larger_family_needs_more_for_the_same_word():
    """p = .03 decides alone, and not among three."""
    x = np.array([1.0, 2, 3, 4, 5, 6])
    shift = x - x.mean() + x.std(ddof=1) * stats.t.ppf(0.985, 5) / 6**0.5
    pair = {"first": (shift, np.zeros(6))}
    assert stats.ttest_1samp(shift, 0).pvalue == pytest.approx(0.03)
    others = {"second": (x - x.mean(), np.zeros(6)), "third": (x - x.mean(), np.zeros(6))}
    assert comparison.compare(pair)["first"].word == "better"
    assert comparison.compare(pair | others)["first"].word == "undecided"


def test_unpaired_samples_have_welch_s_interval():
    a, b = BASE, np.array([47.0, 49, 48, 46, 48])
    found = comparison.compare({"one": (a, b), "two": (a, b)}, paired=False)["one"]
    ends = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.975)
    assert (found.difference.low, found.difference.high) == pytest.approx((ends.low, ends.high))


def test_what_is_no_pair_is_refused():
    with pytest.raises(Mistake, match="as many values on both sides, got 6 and 5"):
        comparison.compare({"one": (BASE, BASE[:5])})


@pytest.mark.parametrize("effect, count", [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10)])
def test_pairs_needed_are_those_of_the_tables(effect, count):
    """Of a two-sided paired t test at 5 % with a power of 80 %: the usual tables' small, middle and large effects."""
    assert comparison.needed(effect) == count
    assert comparison.power(count - 1, effect) < 0.8 <= comparison.power(count, effect)


@pytest.mark.parametrize("level", [0.95, 0.99])
def test_power_is_that_of_simulated_tests(level):
    """The share of 20,000 drawn tests that reject lies within 4.5 standard errors: false alarm 1 in 100,000."""
    n, effect, count = 20, 0.5, 20_000
    d = np.random.default_rng(0).normal(effect, 1, (count, n))
    rejected = (stats.ttest_1samp(d, 0, axis=1).pvalue < 1 - level).mean()
    expected = comparison.power(n, effect, level)
    assert abs(rejected - expected) < 4.5 * (expected * (1 - expected) / count) ** 0.5
    assert comparison.power(n, 0, level) == pytest.approx(1 - level, abs=1e-9)


def test_power_is_a_number_for_every_effect():
    """Where scipy knows no lower tail, as for 8 pairs and 2.6 spreads, power is the upper one, and grows with the effect."""
    found = [comparison.power(n, effect, 0.99) for n in (2, 8, 24) for effect in (0.1, 1.0, 2.6, 30.0)]
    assert all(0 <= value <= 1 for value in found) and all(found[i : i + 4] == sorted(found[i : i + 4]) for i in (0, 4, 8))


def test_ends_of_pairs_needed():
    assert comparison.needed(math.inf) == 2 and comparison.needed(1e-6) == math.inf


def test_the_interval_of_a_spread_covers():
    """95 % of 4,000 drawn samples of 20: within 4.5 standard errors, false alarm 1 in 100,000."""
    found = [comparison.spread(sample) for sample in np.random.default_rng(1).normal(0, 2, (4000, 20))]
    covered = np.mean([s.low <= 2 <= s.high for s in found])
    assert abs(covered - 0.95) < 4.5 * (0.95 * 0.05 / 4000) ** 0.5


def test_n_that_decides_is_at_the_family_s_level_with_the_spread_s_interval():
    n, here = comparison.n_to_decide(FAMILY, 0.5), comparison.power_of(FAMILY, 0.5)
    s, level = np.std(GAP["wide"], ddof=1), 1 - 0.05 / len(FAMILY)
    assert n["wide"].value == comparison.needed(0.5 / s, level) > comparison.needed(0.5 / s)
    assert n["wide"].low < n["wide"].value < n["wide"].high and here["wide"].low < here["wide"].value < here["wide"].high
    assert here["wide"].value == pytest.approx(comparison.power(6, 0.5 / s, level))
    assert (n["none"].value, here["none"].value) == (2, 1)  # pairs that do not scatter
