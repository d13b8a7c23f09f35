"""Intervals and tests against closed forms, against scipy, and against their own promise of coverage."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from secondlook.errors import Mistake
from secondlook.study import statistics as s

DRAWS = np.random.default_rng(7).normal(size=(2000, 5))


def test_mean_is_the_t_interval():
    x = [1.0, 2.0, 4.0, 8.0]
    found, expected = s.mean(x), stats.ttest_1samp(x, 0).confidence_interval(0.95)
    assert found.ends == pytest.approx((expected.low, expected.high)) and found.n == 4


def test_intervals_cover_as_often_as_they_say():
    covered = np.mean([found.ends[0] <= 0 <= found.ends[1] for found in map(s.mean, DRAWS)])
    assert abs(covered - 0.95) < 4 * np.sqrt(0.95 * 0.05 / len(DRAWS))  # false alarm 6e-5
    medians = [s.median(x) for x in np.random.default_rng(8).exponential(size=(2000, 11))]
    assert np.mean([m.low <= np.log(2) <= m.high for m in medians]) > 0.95 - 4 * np.sqrt(0.95 * 0.05 / 2000)


@pytest.mark.parametrize("n, ranks", [(5, (1, 5)), (6, (1, 6)), (9, (2, 8)), (20, (6, 15))])
def test_median_takes_order_statistics(n, ranks):
    found = s.median(range(1, n + 1))
    assert (found.low, found.high) == ranks and found.value == (n + 1) / 2
    assert found.coverage == (0.9375 if n == 5 else None)  # all five on one side of the true median: 2 / 2^5


def test_median_lets_a_miss_be_infinite():
    found = s.median([1, 2, 3, np.inf, np.inf])
    assert found.value == 3 and found.high == np.inf


def test_sign_flip_enumerates_every_pattern():
    d = np.array([0.3, -0.1, 0.7, 0.2, 0.4, 0.5])
    sums = [abs(np.dot(signs, d)) for signs in itertools.product((1, -1), repeat=6)]
    assert s.sign_flip(d) == np.mean([value >= d.sum() - 1e-9 for value in sums])
    assert s.sign_flip([1.0] * 6) == 2 / 64


def test_sign_flip_of_many_is_sampled_and_repeatable():
    d = np.random.default_rng(3).normal(0.2, 1, size=40)
    assert s.sign_flip(d) == s.sign_flip(d)
    assert s.sign_flip(d) == pytest.approx(stats.ttest_1samp(d, 0).pvalue, abs=0.02)


def test_paired_and_welch():
    a, b = DRAWS[0] + 1, DRAWS[1]
    assert s.paired(a, b).value == pytest.approx(np.mean(a - b)) and s.paired(a, b).p == s.sign_flip(a - b)
    assert s.welch(a, b).p == pytest.approx(stats.ttest_ind(a, b, equal_var=False).pvalue)


def test_share_is_wilson():
    found = s.share([True] * 9 + [False])
    expected = stats.binomtest(9, 10).proportion_ci(method="wilson")
    assert found.value == 0.9 and found.ends == pytest.approx((expected.low, expected.high))


def test_clustered_share_counts_groups():
    found = s.clustered_share([1, 1, 0, 0, 1, 1], [0, 0, 1, 1, 2, 2])
    assert found.n == 3 and found.value == pytest.approx(2 / 3) and found.high == 1


def test_holm_against_hand():
    assert s.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: s.mean([1.0]), "at least 2"),
        (lambda: s.mean([1.0, np.inf]), "diverged"),
        (lambda: s.paired([1, 2, 3], [1, 2]), "as many"),
        (lambda: s.share([]), "at least one"),
        (lambda: s.median([]), "at least one"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(Mistake, match=message):
        call()


def test_welch_of_published_numbers_is_that_of_the_runs():
    a, b = np.array([92.1, 92.4, 91.9, 92.2, 92.0]), np.array([90.3, 90.9, 90.1, 90.2, 90.6])
    known = s.welch_published((a.mean(), a.std(ddof=1)), (b.mean(), b.std(ddof=1)), 5)
    assert list(known.as_dict().values()) == pytest.approx(list(s.welch(a, b).as_dict().values()))


@pytest.mark.parametrize(
    "difference, expected",
    [(0, 1e-14), (6e-16, 1e-14), (1e-14, 1e-14), (2.5e-10, 1e-9), (1e-9, 1e-9), (2e-8, 2e-8), (1.3, 1.3), (math.inf, math.inf)],
)
def test_a_difference_of_rounding_is_bounded_by_a_power_of_ten(difference, expected):
    assert s.bound(difference) == expected


def test_no_bound_hides_what_is_not_a_number():
    assert math.isnan(s.bound(math.nan))
