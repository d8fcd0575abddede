"""One answer from both layers of variance: which seed trained the model, and which images tested it.

`stats` keeps the layers apart, and each has its own interval. A verdict needs them together: a difference
between two models moves with the test set for all seeds alike, so that differences which agree over seeds
may yet be those of this test set alone. Six arms equal in truth, eight seeds, 30 groups: when the wider of
the two intervals and the sign-flip test decided, some arm was called better or worse in 4 % of simulated
studies where the test set adds little variance, but in 13 % where it adds as much as the seeds and in 30 %
where it dominates; with `interval` and `p_value` in 2 to 5 % (2,000 studies each; tests/test_layers.py).
"Equivalent" by that interval alone was wrong of some arm in 8 to 11 % of studies whose six arms differ by the
margin; with `p_equivalent` adjusted for the family in 3 to 5 %.

All take the same three things: differences, arm minus baseline, one a seed; resampled, (R,), the mean over
seeds of the same difference on each bootstrap resample of the test set, NaN where it has no truth; groups_n.
"""

from collections.abc import Sequence

import numpy as np
from scipy import special

from saistudy.evaluation import stats
from saistudy.evaluation.stats import Interval


def interval(
    differences: Sequence[float], resampled: Sequence[float], groups_n: int, level: float = 0.95
) -> Interval:
    """Mean of the differences and its interval over seeds and groups together.

    The distances of the bounds of `stats.seed_interval` and of `stats.interval` from the mean are
    added as squares, below and above apart (MOVER: Zou & Donner 2008, Statistics in Medicine 27:1693). No
    bounds where one of the two has none: one seed, too few groups.

    Raises:
        Refusal: no difference, or one that is not finite.
    """
    mean, *by_seed = stats.seed_interval(differences, level)
    by_group = stats.interval(resampled, groups_n, level)
    if None in (*by_seed, *by_group):
        return Interval(mean, None, None)
    below = np.hypot(mean - by_seed[0], max(mean - by_group[0], 0))
    above = np.hypot(by_seed[1] - mean, max(by_group[1] - mean, 0))
    return Interval(mean, float(mean - below), float(mean + above))


def p_value(differences: Sequence[float], resampled: Sequence[float], groups_n: int) -> float:
    """Two-sided p that no layer alone can make small: the larger of two.

    One is the exact `stats.sign_flip` over seeds. The other is Welch's: the mean over the root of both
    variances of a mean, s^2 / n of the seeds and that of `resampled` times groups_n / (groups_n - 1), for a
    bootstrap variance is short by that; Student's t with the degrees of freedom of Satterthwaite (1946,
    Biometrics Bulletin 2:110). 1 where `interval` has no bounds: nothing is shown by what has no interval.

    Raises:
        Refusal: as `stats.sign_flip`.
    """
    over_seeds = stats.sign_flip(differences)
    mean, low, _ = interval(differences, resampled, groups_n)
    if low is None:
        return 1.0
    error, freedom = _welch(differences, resampled, groups_n)
    if not error:
        return over_seeds
    return float(max(over_seeds, 2 * special.stdtr(freedom, -abs(mean) / error)))


def p_equivalent(
    differences: Sequence[float], resampled: Sequence[float], groups_n: int, margin: float
) -> float:
    """p of a true difference as large as the margin, or larger: two one-sided tests in one number.

    The larger p of the tests against -margin and against margin (Schuirmann 1987, Journal of Pharmacokinetics
    and Biopharmaceutics 15:657), which is that of the nearer bound; both must reject, so that two cost
    nothing (Berger 1982, Technometrics 24:295). Error and degrees of freedom are those of `p_value`. 1 where
    `interval` has no bounds. `stats.holm` adjusts it for the family as it does any p.

    Args:
        margin: smallest difference that matters, in the unit of the differences.

    Raises:
        Refusal: no difference, or one that is not finite.
    """
    mean, low, _ = interval(differences, resampled, groups_n)
    if low is None:
        return 1.0
    room = margin - abs(mean)
    error, freedom = _welch(differences, resampled, groups_n)
    return float(special.stdtr(freedom, -room / error)) if error else float(room <= 0)


def _welch(differences: Sequence[float], resampled: Sequence[float], groups_n: int) -> tuple[float, float]:
    """Standard error of the mean over seeds and groups together, and Satterthwaite's degrees of freedom."""
    seeds = np.var(differences, ddof=1) / len(differences)
    groups = np.nanvar(resampled) * groups_n / (groups_n - 1)
    if not seeds + groups:
        return 0.0, np.inf
    freedom = (seeds + groups) ** 2 / (seeds**2 / (len(differences) - 1) + groups**2 / (groups_n - 1))
    return float(np.sqrt(seeds + groups)), float(freedom)
