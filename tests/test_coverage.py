"""How often an interval of 95 % holds the truth, on truth that is known. Each test states its bounds."""

import numpy as np
import pytest
import simulated

from saistudy.evaluation import metrics, stats
from saistudy.evaluation.stats import GROUPS_MIN

FULL = pytest.mark.full


def least(draws_n: int, share: float = 0.95) -> float:
    """Three standard errors below a share: an interval that holds it passes 998 times in 1,000."""
    return share - 3 * np.sqrt(share * (1 - share) / draws_n)


# with 100 draws only a coverage below 88 % is seen; with 1,000 it must lie within 93 to 97 %
DRAWS = [(100, least(100), 1.0), pytest.param((1_000, 0.93, 0.97), marks=FULL)]
NAMES = ["few", "counted"]


@pytest.mark.parametrize("draws", DRAWS, ids=NAMES)
@pytest.mark.parametrize("seeds_n", [3, 6, 8])
def test_seed_interval(seeds_n, draws):
    draws_n, low, high = draws
    rng = np.random.default_rng(seeds_n)
    bounds = [stats.seed_interval(rng.normal(0.01, 0.02, seeds_n)) for _ in range(draws_n)]
    assert low <= np.mean([b.low <= 0.01 <= b.high for b in bounds]) <= high


def additive(groups_n: int, draws_n: int, draw, expanded: bool = True, resamples_n: int = 1_000) -> float:
    """Share of simulated test sets whose interval of a mean over images holds its true value, 0."""
    rng, held = np.random.default_rng(groups_n), 0
    for _ in range(draws_n):
        values, groups = draw(groups_n, rng)
        weights = stats.group_bootstrap_weights(groups, resamples_n, rng)
        means = weights @ values / weights.sum(1)
        low, high = stats.interval(means, groups_n) if expanded else stats.interval(means)
        held += low <= 0 <= high
    return held / draws_n


@pytest.mark.parametrize("draws", DRAWS, ids=NAMES)
@pytest.mark.parametrize("groups_n", [GROUPS_MIN, 30, 100])
def test_group_bootstrap_of_a_mean(groups_n, draws):
    draws_n, low, high = draws
    assert low <= additive(groups_n, draws_n, simulated.additive) <= high


@FULL
@pytest.mark.parametrize(("groups_n", "covered"), [(5, 0.83), (10, 0.90), (20, 0.92), (40, 0.94)])
def test_the_plain_percentile_interval_is_too_narrow(groups_n, covered):
    # three standard errors of a share of 1,000; the reason of GROUPS_MIN cites these figures
    assert additive(groups_n, 1_000, simulated.additive, expanded=False) == pytest.approx(covered, abs=0.035)


@FULL
@pytest.mark.parametrize(
    ("draw", "covered"), [(simulated.unequal, 0.93), (simulated.skewed, 0.92)], ids=["unequal", "skewed"]
)
def test_unequal_and_skewed_groups_fall_short_by_no_more_than_is_said(draw, covered):
    assert additive(30, 1_000, draw) == pytest.approx(covered, abs=0.026)


@pytest.fixture(scope="module")
def true_ap50() -> float:
    """AP50 of the simulated detector on 10,000 groups: a hundredth of the variance with 100 groups."""
    truth, (found,), images = simulated.detections(10_000, np.random.default_rng(99))
    return metrics.ap50(metrics.match(truth, found, images), truth)


# 20 draws see a coverage below 80 %; 200 draws of 300 resamples must lie within 90 to 99 %
AP_DRAWS = [(20, least(20), 1.0), pytest.param((200, 0.9, 0.99), marks=FULL)]


@pytest.mark.parametrize("draws", AP_DRAWS, ids=NAMES)
@pytest.mark.parametrize("groups_n", [30, pytest.param(100, marks=FULL)])
def test_group_bootstrap_of_ap(groups_n, draws, true_ap50):
    draws_n, low, high = draws
    held = np.zeros(2)
    for n in range(draws_n):
        rng = np.random.default_rng([groups_n, n])
        truth, found, images = simulated.detections(groups_n, rng, models_n=2)
        weights = stats.group_bootstrap_weights(images["group"], 300, rng)
        matches = [metrics.match(truth, frame, images) for frame in found]
        one, other = (metrics.ap50_resampled(m, truth, images["image"], weights) for m in matches)
        # the AP of one model, and the paired difference of two that are alike in truth
        for k, (values, true) in enumerate([(one, true_ap50), (one - other, 0.0)]):
            bounds = stats.interval(values, groups_n)
            held[k] += bounds[0] <= true <= bounds[1]
    assert ((low <= held / draws_n) & (held / draws_n <= high)).all(), held
