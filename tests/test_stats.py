"""Intervals, tests and verdicts: against scipy, brute force and cases worked by hand."""

import math
from itertools import combinations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from saistudy.evaluation import stats
from saistudy.paths import Refusal


def test_weights_draw_whole_groups():
    groups = np.array(["b", "a", "b", "c", "c", "c"])
    weights = stats.group_bootstrap_weights(groups, 200, np.random.default_rng(0))
    assert weights.shape == (200, 6)
    assert np.issubdtype(weights.dtype, np.integer)
    # images of one group are drawn together
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, 3] == weights[:, 4]).all() and (weights[:, 3] == weights[:, 5]).all()
    # as many groups are drawn as there are (columns 0, 1 and 3 stand for b, a and c)
    assert (weights[:, [0, 1, 3]].sum(1) == 3).all()


def test_weights_are_uniform_over_groups():
    groups = np.repeat(np.arange(8).astype(str), 3)
    weights = stats.group_bootstrap_weights(groups, 20_000, np.random.default_rng(1))[:, ::3]
    # a group's count is Binomial(8, 1/8): mean 1, variance 7/8; 0.03 is four standard errors
    assert np.allclose(weights.mean(0), 1, atol=0.03)
    assert np.allclose(weights.var(0), 7 / 8, atol=0.06)


def test_weights_refuse_one_group():
    with pytest.raises(Refusal, match="1 group"):
        stats.group_bootstrap_weights(["a", "a"], 10, np.random.default_rng(0))


def test_bootstrap_of_a_mean_agrees_with_scipy():
    values = np.random.default_rng(2).normal(size=40)
    groups = [f"g{i}" for i in range(40)]
    weights = stats.group_bootstrap_weights(groups, 20_000, np.random.default_rng(3))
    low, high = stats.interval(weights @ values / weights.sum(1))
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(4)
    ).confidence_interval
    # two random sets of resamples: the bounds, of standard error 0.16, agree to a fraction of it
    assert low == pytest.approx(theirs.low, abs=0.015)
    assert high == pytest.approx(theirs.high, abs=0.015)


def test_interval_by_hand():
    # 0..100: the 2.5 % and 97.5 % points lie at 2.5 and 97.5
    assert stats.interval(np.arange(101)) == pytest.approx((2.5, 97.5))
    assert stats.interval(np.arange(101), level=0.8) == pytest.approx((10, 90))


def test_expanded_interval_by_hand():
    # 25 groups: t(.975, 24) = 2.0639 from the table, times sqrt(25/24) = 2.1064; Phi(-2.1064) = .01758
    low, high = stats.interval(np.arange(10_001), 25)
    assert (low, high) == pytest.approx((175.8, 10_000 - 175.8), abs=0.5)
    # of many groups it is the plain one
    assert stats.interval(np.arange(101), 1e9) == pytest.approx((2.5, 97.5), abs=1e-6)


def test_expanded_interval_of_a_mean_is_the_t_interval():
    values = np.random.default_rng(7).normal(size=30)
    weights = stats.group_bootstrap_weights(np.arange(30), 40_000, np.random.default_rng(8))
    theirs = scipy.stats.ttest_1samp(values, 0).confidence_interval()
    # the bounds have a standard error of .18; the plain percentile interval is .02 narrower at each end
    assert stats.interval(weights @ values / 30, 30) == pytest.approx((theirs.low, theirs.high), abs=0.012)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.floats(-1, 1), min_size=2, max_size=50), st.integers(20, 200), st.integers(1, 100))
def test_fewer_groups_never_give_a_narrower_interval(values, groups_n, more_n):
    few, many, plain = (stats.interval(values, n) for n in (groups_n, groups_n + more_n, math.inf))
    assert few[0] <= many[0] <= plain[0] <= plain[1] <= many[1] <= few[1]


def test_below_twenty_groups_there_is_no_interval():
    assert stats.interval(np.arange(101), 19) == (None, None)
    assert None not in stats.interval(np.arange(101), 20)


def test_interval_leaves_few_blanks_out_and_refuses_many():
    values = np.arange(101.0)
    # 5 of 106 without a value are below 5 %, 6 of 107 above
    assert stats.interval([*values, *[np.nan] * 5]) == pytest.approx((2.5, 97.5))
    assert stats.interval([*values, *[np.nan] * 6]) == (None, None)
    assert stats.interval([]) == (None, None)


@pytest.mark.parametrize("level", [0.9, 0.95])
def test_seed_interval_agrees_with_scipy(level):
    d = np.random.default_rng(5).normal(0.01, 0.02, size=8)
    theirs = scipy.stats.ttest_1samp(d, 0).confidence_interval(level)
    assert stats.seed_interval(d, level) == pytest.approx((d.mean(), theirs.low, theirs.high))


def test_seed_interval_by_hand():
    # 1, 2, 3: mean 2, s 1; t(.975, 2) = 4.3027 from the table; 4.3027 / sqrt 3 = 2.4841
    assert stats.seed_interval([1, 2, 3]) == pytest.approx((2, 2 - 2.4841, 2 + 2.4841), abs=1e-4)
    assert stats.seed_interval([0.5]) == (0.5, None, None)


@pytest.mark.parametrize("bad", [[], [0.1, np.nan], [[0.1, 0.2]]])
def test_seed_interval_refuses(bad):
    with pytest.raises(Refusal, match="differences"):
        stats.seed_interval(bad)


@pytest.mark.parametrize("n", [2, 3, 5, 6, 8])
def test_sign_flip_agrees_with_scipy(n):
    rng = np.random.default_rng(n)
    for d in (rng.normal(0.5, 1, n), rng.integers(-3, 4, n) / 10):
        theirs = scipy.stats.permutation_test(
            (d,), np.mean, permutation_type="samples", n_resamples=np.inf
        ).pvalue
        assert stats.sign_flip(d) == pytest.approx(theirs)


def test_sign_flip_by_hand():
    # all of one sign: only the seen pattern and its mirror are as far out
    assert stats.sign_flip([0.1, 0.2, 0.3]) == 2 / 8
    assert stats.sign_flip([-0.1] * 6) == 2 / 64
    # 1, 1, -1: sums 3, 1, 1, 1 and mirrored, all at least 1
    assert stats.sign_flip([1, 1, -1]) == 1
    # 3, 1, -1: sums 5, 3, 3, 1 and mirrored; six of eight reach 3
    assert stats.sign_flip([3, 1, -1]) == 6 / 8
    assert stats.sign_flip([0.4]) == 1
    assert stats.sign_flip([0.0, 0.0]) == 1


def test_sign_flip_counts_ties_that_rounding_parts():
    # .1 + .2 is not .3 in binary: the patterns +.1 +.2 -.3 and -.1 -.2 +.3 both sum to 0 on paper
    assert stats.sign_flip([0.1, 0.2, -0.3]) == 1


def test_sign_flip_refuses_too_many():
    with pytest.raises(Refusal, match="at most 20"):
        stats.sign_flip(np.ones(21))


def test_holm_by_hand():
    # sorted .01 .03 .04 by 3, 2, 1: .03, .06, then .04 raised to .06
    assert stats.holm([0.04, 0.01, 0.03]).tolist() == pytest.approx([0.06, 0.03, 0.06])
    assert stats.holm([0.6, 0.7]).tolist() == [1, 1]
    assert stats.holm([]).tolist() == []


def closed_test(p: list[float], i: int) -> float:
    """Largest Bonferroni p of the sets that hold i: Holm by the closure principle (Marcus 1976)."""
    others = [j for j in range(len(p)) if j != i]
    sets = [(i, *s) for n in range(len(p)) for s in combinations(others, n)]
    return max(min(1, len(s) * min(p[j] for j in s)) for s in sets)


def test_holm_is_the_closed_bonferroni_test():
    rng = np.random.default_rng(6)
    for m in (1, 2, 4, 7):
        p = (rng.integers(0, 30, m) / 100).tolist()
        assert stats.holm(p).tolist() == pytest.approx([closed_test(p, i) for i in range(m)])


@pytest.mark.parametrize("bad", [1.1, -0.1, np.nan])
def test_holm_refuses(bad):
    with pytest.raises(Refusal, match="p values"):
        stats.holm([0.1, bad])


@pytest.mark.parametrize(
    ("n", "comparisons", "met"),
    # 2/2^5 = .0625; 2/2^6 = .03125; 2 x .03125 = .0625; 6 x 2/2^8 = .047; 7 x 2/2^8 = .055
    [(5, 1, False), (6, 1, True), (6, 2, False), (8, 6, True), (8, 7, False), (1, 1, False)],
)
def test_can_be_met(n, comparisons, met):
    assert stats.can_be_met(n, comparisons, 0.05) is met
    # the same from the parts: the clearest case there is, all differences of one sign
    clearest = stats.holm([stats.sign_flip(np.ones(n))] * comparisons)
    assert bool(clearest.max() <= 0.05) is met


SIX = [0.01] * 6


@pytest.mark.parametrize(
    ("differences", "interval", "p", "p_equivalent", "expected"),
    [
        (SIX, (0.01, 0.03), 0.03, 0.5, "better"),
        (SIX, (-0.03, -0.01), 0.03, 0.5, "worse"),
        # p on alpha counts, just above does not, whatever the interval
        (SIX, (0.01, 0.03), 0.05, 0.5, "better"),
        (SIX, (0.01, 0.03), 0.051, 0.5, "unresolved"),
        # a small p whose interval reaches 0 is not enough
        (SIX, (-0.001, 0.03), 0.03, 0.5, "unresolved"),
        (SIX, (0.0, 0.03), 0.03, 0.5, "unresolved"),
        # the same of the other p and the margin
        (SIX, (-0.01, 0.01), 0.5, 0.05, "equivalent"),
        (SIX, (-0.01, 0.01), 0.5, 0.051, "unresolved"),
        # a bound on the margin is not inside it, however small the p
        (SIX, (-0.01, 0.02), 0.5, 0.001, "unresolved"),
        (SIX, (-0.02, 0.01), 0.5, 0.001, "unresolved"),
        # five seeds are too few to call two arms equivalent
        (SIX[:5], (-0.01, 0.01), 0.5, 0.001, "unresolved"),
        # resolved, though smaller than the margin
        (SIX, (0.001, 0.003), 0.03, 0.001, "better"),
        # no significance, but wholly inside the margin
        (SIX, (0.001, 0.003), 0.2, 0.001, "equivalent"),
        (SIX[:1], (None, None), 1.0, 1.0, "unresolved"),
        (SIX, stats.Interval(0.02, 0.01, 0.03), 0.03, 0.5, "better"),
    ],
)
def test_verdict(differences, interval, p, p_equivalent, expected):
    assert stats.verdict(differences, interval, 0.02, 0.05, p, p_equivalent) == expected


def test_verdict_refuses_a_negative_margin():
    with pytest.raises(Refusal, match="margin"):
        stats.verdict(SIX, (0.0, 0.1), -0.01, 0.05, 0.5, 0.5)
