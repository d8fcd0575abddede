"""Verdicts over seeds and test set together: against scipy, by hand, and on a truth that is known."""

from collections import Counter

import numpy as np
import pytest
import scipy.stats
import simulated

from saistudy.evaluation import layers, stats
from saistudy.paths import Refusal
from saistudy.study import paired

GROUPS_N, RESAMPLES_N, ALPHA = 30, 400, 0.05


def spread(variance: float, mean: float = 0.0) -> np.ndarray:
    """1,000 values whose mean and variance are the given ones to the last digit."""
    return mean + np.sqrt(variance) * np.tile([-1.0, 1.0], 500)


@pytest.mark.parametrize("seeds_n", [6, 8])
@pytest.mark.parametrize("ratio", [0.1, 1.0, 5.0])
def test_p_is_that_of_welch(seeds_n, ratio):
    rng = np.random.default_rng(seeds_n)
    d = rng.normal(1.5, 1, seeds_n)
    effects = rng.normal(0, ratio, GROUPS_N)
    effects -= effects.mean()
    # the variance of a bootstrap mean on paper: the sum of squares over the square of the number
    resampled = spread((effects**2).sum() / GROUPS_N**2, d.mean())
    theirs = scipy.stats.ttest_ind(d, effects, equal_var=False).pvalue
    expected = max(theirs, stats.sign_flip(d))
    assert layers.p_value(d, resampled, GROUPS_N) == pytest.approx(expected, rel=1e-9)


def test_p_without_one_of_the_layers():
    d = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    # no variance of the test set: the paired t test, or the exact test where that says less
    assert layers.p_value(d, np.full(9, 3.5), 30) == max(2 / 64, scipy.stats.ttest_1samp(d, 0).pvalue)
    # no variance of the seeds: t with 29 degrees of freedom; 3.5 over 2 sqrt(30/29)
    expected = 2 * scipy.stats.t.sf(3.5 / (2 * np.sqrt(30 / 29)), 29)
    assert layers.p_value([3.5] * 6, spread(4, 3.5), 30) == pytest.approx(expected)
    # neither: what is left is the exact test
    assert layers.p_value([3.5] * 6, np.full(9, 3.5), 30) == 2 / 64
    assert layers.p_value([0.0] * 6, np.zeros(9), 30) == 1


@pytest.mark.parametrize("seeds_n", [6, 8])
@pytest.mark.parametrize("ratio", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("mean", [-1.5, 0.2, 4.0])
def test_p_equivalent_is_that_of_two_one_sided_tests(mean, ratio, seeds_n):
    rng, margin = np.random.default_rng(seeds_n), 3.0
    d = rng.normal(mean, 1, seeds_n)
    effects = rng.normal(0, ratio, GROUPS_N)
    effects -= effects.mean()
    resampled = spread((effects**2).sum() / GROUPS_N**2, d.mean())
    below = scipy.stats.ttest_ind(d - margin, effects, equal_var=False, alternative="less").pvalue
    above = scipy.stats.ttest_ind(d + margin, effects, equal_var=False, alternative="greater").pvalue
    assert layers.p_equivalent(d, resampled, GROUPS_N, margin) == pytest.approx(max(below, above), rel=1e-9)


def test_p_equivalent_without_one_of_the_layers():
    d = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    theirs = scipy.stats.ttest_1samp(d, 6.0, alternative="less").pvalue
    assert layers.p_equivalent(d, np.full(9, 3.5), 30, 6.0) == pytest.approx(theirs)
    # no variance of the seeds: t with 29 degrees of freedom; (6 - 3.5) over 2 sqrt(30/29)
    expected = scipy.stats.t.sf(2.5 / (2 * np.sqrt(30 / 29)), 29)
    assert layers.p_equivalent([-3.5] * 6, spread(4, -3.5), 30, 6.0) == pytest.approx(expected)
    # neither: what is seen is the truth; a difference of the margin matters
    assert layers.p_equivalent([0.5] * 6, np.full(9, 0.5), 30, 0.6) == 0
    assert layers.p_equivalent([0.5] * 6, np.full(9, 0.5), 30, 0.5) == 1


def test_interval_adds_distances_as_squares():
    # seeds 1, 2, 3: 2 +- 2.4841 (test_stats); many groups: 2.5 and 97.5 of a hundred steps of .04 about 2
    resampled = 2 + 0.04 * (np.arange(101) - 50)
    half = np.hypot(2.4841, 0.04 * 47.5)
    assert layers.interval([1, 2, 3], resampled, 10**9) == pytest.approx((2, 2 - half, 2 + half), abs=1e-4)
    # lopsided groups give a lopsided interval; the bounds are never nearer than those of the seeds
    lopsided = layers.interval([1, 2, 3], 2 + 0.04 * np.arange(101), 10**9)
    assert lopsided == pytest.approx((2, 2 - 2.4841, 2 + np.hypot(2.4841, 0.04 * 97.5)), abs=1e-4)


@pytest.mark.parametrize(
    ("differences", "resampled", "groups_n"),
    [([0.5], np.zeros(9), 30), ([1, 2, 3], np.zeros(9), 19), ([1, 2, 3], np.full(9, np.nan), 30)],
)
def test_nothing_is_shown_without_both_intervals(differences, resampled, groups_n):
    assert layers.interval(differences, resampled, groups_n)[1:] == (None, None)
    assert layers.p_value(differences, resampled, groups_n) == 1
    assert layers.p_equivalent(differences, resampled, groups_n, 9.0) == 1


def test_refuses_differences_that_are_none():
    for function in (layers.interval, layers.p_value):
        with pytest.raises(Refusal, match="differences"):
            function([0.1, np.nan], np.zeros(9), 30)


def study(rng, delta, ratio: float, seeds_n: int = 8, groups_n: int = GROUPS_N) -> list[tuple]:
    """differences, resampled and the number of groups of each arm of one simulated study."""
    delta = np.asarray(delta, dtype=float)
    differences, effects = simulated.family(rng, delta, ratio, seeds_n, groups_n)
    weights = stats.group_bootstrap_weights(np.arange(groups_n), RESAMPLES_N, rng)
    noise = weights @ (effects - effects.mean(1, keepdims=True)).T / groups_n
    return [(d, d.mean() + noise[:, i], groups_n) for i, d in enumerate(differences)]


def verdicts(arms: list[tuple], margin: float) -> list[str]:
    """What the table says of each arm of a study."""
    family = [dict(zip(paired.LAYERS, arm, strict=True)) for arm in arms]
    paired.judge(family, margin, ALPHA)
    return [compared["verdict"] for compared in family]


def test_both_p_are_adjusted_for_the_family():
    margin = 4.0
    arms = study(np.random.default_rng(5), [0.0, 1.0, 2.0], ratio=1.0)
    family = [dict(zip(paired.LAYERS, arm, strict=True)) for arm in arms]
    paired.judge(family, margin, ALPHA)
    for key, raw in [
        ("p", [layers.p_value(*arm) for arm in arms]),
        ("p_equivalent", [layers.p_equivalent(*arm, margin) for arm in arms]),
    ]:
        one, two, three = np.sort(raw)
        steps = np.maximum.accumulate([3 * one, 2 * two, three])
        assert sorted(c[key] for c in family) == pytest.approx(np.minimum(steps, 1).tolist())


def wrong(said: list[str], delta, margin: float) -> set[str]:
    """The verdicts of a study that are not true of some arm."""
    kinds = {"better": lambda true: true <= 0, "worse": lambda true: true >= 0}
    kinds["equivalent"] = lambda true: abs(true) >= margin
    return {v for v, true in zip(said, delta, strict=True) if v in kinds and kinds[v](true)}


def errors(studies_n: int, truth, ratio: float, seed: int, **size) -> dict[str, float]:
    """Share of simulated studies with a wrong verdict of each kind on any arm; "told apart" is either of two.

    Args:
        truth: differences of the arms in deviations of their mean; the margin is `MARGIN` of these.
        size: seeds_n, groups_n.
    """
    unit, rng, counted = np.hypot(1, ratio), np.random.default_rng(seed), Counter()
    delta, margin = np.array(truth) * unit, MARGIN * unit
    for _ in range(studies_n):
        found = wrong(verdicts(study(rng, delta, ratio, **size), margin), delta, margin)
        counted.update(found | ({"told apart"} if found & {"better", "worse"} else set()))
    return {kind: counted[kind] / studies_n for kind in ("better", "worse", "told apart", "equivalent")}


def most(studies_n: int, share: float = ALPHA) -> float:
    """Three standard errors above a share: a rule at that share passes 998 times in 1,000."""
    return share + 3 * np.sqrt(share * (1 - share) / studies_n)


MARGIN = 4.0  # deviations of the mean of an arm
TRUTHS = {
    "all equal": [0, 0, 0, 0, 0, 0],
    "all at the margin": [MARGIN] * 6,
    "half at the margin": [MARGIN, -MARGIN, MARGIN, 0, 0, 0],
    "of every kind": [0, 0, MARGIN / 2, MARGIN, -MARGIN, 2 * MARGIN],
}
# 150 studies: .103, so that they see gross errors only (the wider interval's: .13 and .30); 2,000: .065
STUDIES = [150, pytest.param(2_000, marks=pytest.mark.full)]
RATIOS = [0.1, 1.0, 5.0]  # of the deviation that the test set adds to that of the seeds


@pytest.mark.parametrize("studies_n", STUDIES)
@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("truth", TRUTHS.values(), ids=TRUTHS)
def test_a_family_seldom_holds_a_wrong_verdict(truth, ratio, studies_n):
    """Each within alpha: a wrong "better" or "worse" anywhere in the family, and a wrong "equivalent"."""
    seen = errors(studies_n, truth, ratio, seed=0)
    assert max(seen["told apart"], seen["equivalent"]) <= most(studies_n), seen


@pytest.mark.full
@pytest.mark.parametrize("truth", TRUTHS.values(), ids=TRUTHS)
def test_nor_does_the_smallest_study(truth):
    """Fewest seeds and groups for which there is a verdict at all."""
    size = {"seeds_n": stats.SEEDS_MIN, "groups_n": stats.GROUPS_MIN}
    seen = errors(2_000, truth, ratio=1.0, seed=1, **size)
    assert max(seen["told apart"], seen["equivalent"]) <= most(2_000), seen


def test_seeds_and_groups_each_for_itself_tell_equal_arms_apart():
    """Why both layers are one here: two tests that are each passed by chance are passed together."""
    rng, told = np.random.default_rng(0), 0
    for _ in range(150):
        arms = study(rng, [0.0] * 6, ratio=5.0)
        adjusted = stats.holm([stats.sign_flip(d) for d, _, _ in arms])
        bounds = [(stats.seed_interval(d)[1:], stats.interval(r, n)) for d, r, n in arms]
        wider = [(min(a[0], b[0]), max(a[1], b[1])) for a, b in bounds]
        rows = zip(arms, wider, adjusted, strict=True)
        told += any(stats.verdict(arm[0], w, 0.0, ALPHA, p, 1.0) != "unresolved" for arm, w, p in rows)
    # .24 to .30 were counted; a rule of .05 would pass .103 once in 1,000
    assert told / 150 > most(150)


@pytest.mark.full
@pytest.mark.parametrize("ratio", RATIOS)
def test_equivalence_by_the_interval_alone_errs_too_often(ratio):
    """Why p_equivalent is adjusted for the family: the 95 % interval's 2.5 % of a comparison add up."""
    margin, rng, erred = MARGIN * np.hypot(1, ratio), np.random.default_rng(2), 0
    for _ in range(2_000):
        bounds = [layers.interval(*arm) for arm in study(rng, [margin] * 6, ratio)]
        erred += any(-margin < b.low and b.high < margin for b in bounds)
    # .08 to .11 were counted
    assert erred / 2_000 > most(2_000)


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize(
    ("delta", "margin", "verdict"), [(8, 1, "better"), (-8, 1, "worse"), (0, 6, "equivalent")]
)
def test_large_differences_and_none_are_told(delta, margin, verdict, ratio):
    """A rule that always says "unresolved" makes no error: what it must still find."""
    unit, rng, said = np.hypot(1, ratio), np.random.default_rng(3), Counter()
    for _ in range(100):
        said.update(verdicts(study(rng, [delta * unit] * 6, ratio), margin * unit))
    assert said[verdict] >= 0.9 * 6 * 100
