"""How sure we are. Arrays in, arrays out.

Two layers of variance are kept apart: which images the test set holds (bootstrap over whole groups:
cameras, events or video runs) and which seed trained the model (paired differences over seeds).
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy import special

from saistudy.paths import Refusal

GROUPS_MIN = 20
"""Below this many groups there is no bootstrap interval: with few groups percentiles lie too close together
(Cameron, Gelbach & Miller 2008, The Review of Economics and Statistics 90:414). The plain 95 % interval held
the truth in 83 % of simulated test sets with 5 groups, 90 % with 10, 92 % with 20 and 94 % with 40; the
expanded one of `interval` in 94 % with 20 and 95 % with 30 and 100 (4,000 sets each, 10 images a group, half
of the variance between groups: tests/test_coverage.py). With groups of very unequal size or very
skewed effects it still falls short: 93 and 92 % with 30 groups."""

SEEDS_MIN = 6
"""Fewest paired seeds for "equivalent". With 5 the smallest two-sided sign-flip p is 2/2^5 =
0.0625, so that no difference could have been shown; with 6 it is 0.031, and the half-width of the
95 % t interval is 1.05 standard deviations."""

SIGN_FLIP_MAX = 20
"""Most differences whose sign patterns are counted out: 2^20 is a million."""

BLANK_FRAC_MAX = 0.05
"""Largest share of resamples without a value (no truth drawn) that an interval may leave out."""

Verdict = Literal["better", "worse", "equivalent", "unresolved"]


class Interval(NamedTuple):
    """Mean and the bounds around it, in the unit of the values; no bounds below two values."""

    mean: float
    low: float | None
    high: float | None


def group_bootstrap_weights(groups: Sequence[str], resamples_n: int, rng: np.random.Generator) -> np.ndarray:
    """How often each image stands in each resample, int32 (resamples_n, N).

    Whole groups are drawn with replacement, as many as there are (the cluster bootstrap: images of
    one camera or video resemble each other; drawn singly they give too narrow an interval).
    One matrix serves both models of a comparison: that makes the interval a paired one.

    Args:
        groups: group of each image, (N,).

    Raises:
        Refusal: fewer than two groups.
    """
    names, member = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    if len(names) < 2:
        raise Refusal(
            f"{len(names)} group was seen, two or more were expected: an interval over groups needs"
            " images from several cameras, events or video runs; print none."
        )
    share = np.full(len(names), 1 / len(names))
    drawn = rng.multinomial(len(names), share, size=resamples_n).astype(np.int32)
    return drawn[:, member]


def interval(
    values: Sequence[float], groups_n: float = math.inf, level: float = 0.95
) -> tuple[float | None, float | None]:
    """Bounds (low, high) of bootstrap values over `groups_n` groups: the expanded percentile interval.

    The plain percentile interval (Efron & Tibshirani 1993, chapter 13) is too narrow for few groups: by
    sqrt((n - 1) / n), and by the normal's quantile where Student's belongs. So the percentiles are taken
    further out, at Phi(-sqrt(n / (n - 1)) t(1 - (1 - level) / 2, n - 1)): Hesterberg 2015, The American
    Statistician 69:371. Without `groups_n` it is the plain one.

    Both bounds are None below `GROUPS_MIN` groups. NaN marks a resample without any truth; such are left out,
    and where they are more than `BLANK_FRAC_MAX`, or nothing is left, there are no bounds either.
    """
    values = np.asarray(values, dtype=np.float64)
    seen = values[~np.isnan(values)]
    if groups_n < GROUPS_MIN or not len(seen) or len(seen) < (1 - BLANK_FRAC_MAX) * len(values):
        return None, None
    tail = (1 - level) / 2
    if math.isfinite(groups_n):
        widened = math.sqrt(groups_n / (groups_n - 1)) * special.stdtrit(groups_n - 1, tail)
        tail = float(special.ndtr(widened))
    low, high = np.quantile(seen, [tail, 1 - tail])
    return float(low), float(high)


def seed_interval(differences: Sequence[float], level: float = 0.95) -> Interval:
    """Mean of paired differences over seeds and its Student t interval; no bounds for one seed.

    mean +- t(1 - (1 - level)/2, n - 1) s / sqrt(n) (Student 1908), s with n - 1 in the denominator.

    Raises:
        Refusal: no difference, or one that is not finite.
    """
    d = _differences(differences)
    if len(d) < 2:
        return Interval(float(d[0]), None, None)
    half = special.stdtrit(len(d) - 1, (1 + level) / 2) * d.std(ddof=1) / np.sqrt(len(d))
    return Interval(float(d.mean()), float(d.mean() - half), float(d.mean() + half))


def sign_flip(differences: Sequence[float]) -> float:
    """Exact two-sided p of paired differences.

    The share of the 2^n sign patterns whose sum is at least as far from 0 as the one seen: Fisher's
    randomisation test (The Design of Experiments, 1935, section 21). Never below 2/2^n.

    Raises:
        Refusal: no difference, one that is not finite, or more than `SIGN_FLIP_MAX`.
    """
    d = _differences(differences)
    if len(d) > SIGN_FLIP_MAX:
        raise Refusal(
            f"{len(d)} differences were seen, at most {SIGN_FLIP_MAX} were expected: the exact test"
            " counts out every sign pattern; use scipy.stats.permutation_test with random ones."
        )
    sums = np.zeros(1)
    for value in d:
        sums = np.concatenate([sums + value, sums - value])
    rounding = 1e-12 * np.abs(d).sum()  # sums that are equal on paper must count as equal
    return float(np.mean(np.abs(sums) >= abs(d.sum()) - rounding))


def holm(p: Sequence[float]) -> np.ndarray:
    """p adjusted for the family they form, float64 (m,), in the order given.

    Holm 1979, Scandinavian Journal of Statistics 6:65.

    Raises:
        Refusal: a p outside 0 to 1, or NaN.
    """
    p = np.asarray(p, dtype=np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise Refusal(
            f"The p values {p.tolist()} were seen, numbers from 0 to 1 were expected: leave out the"
            " comparisons that were not made."
        )
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted


def can_be_met(n: int, comparisons: int, alpha: float) -> bool:
    """Whether n paired seeds can reach alpha at all. Ask before training, not after.

    The smallest sign-flip p, 2/2^n, times Holm's first factor, the number of comparisons.
    """
    return min(1.0, comparisons * 2 / 2**n) <= alpha


def verdict(
    differences: Sequence[float],
    interval: tuple[float | None, float | None] | Interval,
    margin: float,
    alpha: float,
    p_adjusted: float,
    p_equivalent: float,
) -> Verdict:
    """What may be said of an arm against the baseline: one of four words.

    "better" or "worse": p_adjusted <= alpha and the interval lies wholly above or below 0.
    "equivalent": otherwise, if p_equivalent <= alpha, the whole interval lies strictly inside
    -margin..margin and there are at least `SEEDS_MIN` seeds.
    "unresolved": otherwise.
    A difference that is resolved but smaller than the margin is "better" or "worse": the interval
    printed beside it says how little.

    Args:
        differences: arm minus baseline, one a seed, higher is better.
        interval: (low, high) of their mean, or the whole `Interval`; None where there is none.
        margin: smallest difference that matters, in the same unit, set before the run.
        alpha: error rate of the family, set before the run; of "better" and "worse", and once more of
            "equivalent".
        p_adjusted: p of no difference (`layers.p_value`) after `holm` over the family.
        p_equivalent: p of a difference that matters (`layers.p_equivalent`) after `holm` over the family.

    Raises:
        Refusal: a negative margin.
    """
    if not margin >= 0:
        raise Refusal(f"The margin {margin} was seen, 0 or more was expected: correct it.")
    low, high = interval[-2:]
    if low is None or high is None:
        return "unresolved"
    if p_adjusted <= alpha and (low > 0 or high < 0):
        return "better" if low > 0 else "worse"
    inside = -margin < low and high < margin and len(differences) >= SEEDS_MIN
    return "equivalent" if inside and p_equivalent <= alpha else "unresolved"


def _differences(differences: Sequence[float]) -> np.ndarray:
    d = np.asarray(differences, dtype=np.float64)
    if d.ndim != 1 or not len(d) or not np.isfinite(d).all():
        raise Refusal(
            f"The differences {d.tolist()} were seen, a row of finite numbers was expected: pass"
            " one difference a seed, only of seeds that both arms have."
        )
    return d
