"""Test sets and seeds drawn from a truth that is known: what an interval or a verdict is checked against."""

import numpy as np
import pandas as pd

IMAGES_PER_GROUP = 10


def additive(groups_n: int, rng: np.random.Generator, images_n: int = IMAGES_PER_GROUP):
    """Values of true mean 0, half of the variance between groups, and the group of each: two (N,) arrays."""
    groups = np.repeat(np.arange(groups_n).astype(str), images_n)
    values = np.repeat(rng.normal(size=groups_n), images_n) + rng.normal(size=groups_n * images_n)
    return values, groups


def unequal(groups_n: int, rng: np.random.Generator):
    """As `additive`, with groups of very unequal size, most of 2 to 40 images."""
    images_n = 1 + rng.poisson(rng.lognormal(2, 0.8, groups_n))
    groups = np.repeat(np.arange(groups_n).astype(str), images_n)
    return np.repeat(rng.normal(size=groups_n), images_n) + rng.normal(size=len(groups)), groups


def skewed(groups_n: int, rng: np.random.Generator):
    """As `additive`, with effects of the groups from an exponential: a few groups far above the rest."""
    effects = rng.exponential(size=groups_n) - 1
    groups = np.repeat(np.arange(groups_n).astype(str), IMAGES_PER_GROUP)
    return np.repeat(effects, IMAGES_PER_GROUP) + rng.normal(size=len(groups)), groups


def detections(groups_n: int, rng: np.random.Generator, models_n: int = 1):
    """A test set whose groups differ in how hard they are, and what each of some models finds on it.

    Each image holds a box with probability .8. A model finds it with a probability and a score that
    depend on the group, and raises Poisson false alarms whose rate and score do, too; half of the variance of
    each is shared by the models. All models are alike in truth: their true difference in AP is 0.

    Returns:
        (truth, predictions of each model, images) in the frames of `cocoeval`; images with `group`.
    """
    n = groups_n * IMAGES_PER_GROUP
    names, at = np.array([f"i{i:06d}" for i in range(n)]), np.repeat(np.arange(groups_n), IMAGES_PER_GROUP)
    images = pd.DataFrame({"image": names, "group": [f"g{g:05d}" for g in at], "width": 640, "height": 480})
    positive = rng.random(n) < 0.8
    truth = boxes(names[positive], 0.0)
    shared = rng.normal(size=(2, groups_n))
    found = []
    for _ in range(models_n):
        ease, clutter = (shared + rng.normal(size=(2, groups_n))) / np.sqrt(2)
        hit = positive & (rng.normal(size=n) < 0.5 + ease[at])
        false_n = rng.poisson(0.5 * np.exp(0.7 * clutter[at]))
        score = np.concatenate(
            [
                rng.normal(1 + 0.5 * ease[at][hit], 1),
                rng.normal(-0.5 + 0.5 * np.repeat(clutter[at], false_n), 1),
            ]
        )
        frame = pd.concat([boxes(names[hit], 0.0), boxes(np.repeat(names, false_n), 300.0)])
        found.append(frame.assign(score=1 / (1 + np.exp(-score))).reset_index(drop=True))
    return truth, found, images


def boxes(names: np.ndarray, corner_px: float) -> pd.DataFrame:
    """One box of 50 x 50 px of class 0 for each image name."""
    return pd.DataFrame(
        {"image": names, "class": 0, "x1": corner_px, "y1": corner_px, "x2": corner_px + 50.0}
    ).assign(y2=corner_px + 50.0)


def family(
    rng: np.random.Generator, delta: np.ndarray, ratio: float, seeds_n: int = 8, groups_n: int = 30
) -> tuple[np.ndarray, np.ndarray]:
    """Differences of arms from one baseline, and the part of them that this test set adds, group by group.

    The mean over seeds has a standard deviation of 1, that over groups of `ratio`; half of both variances is
    the baseline's, and so common to all arms.

    Args:
        delta: true difference of each arm, (A,).

    Returns:
        differences (A, seeds_n); effects of the groups (A, groups_n), whose mean is in every difference.
    """
    arms_n = len(delta)
    seeds = rng.normal(size=(arms_n, seeds_n)) + rng.normal(size=seeds_n)
    groups = rng.normal(size=(arms_n, groups_n)) + rng.normal(size=groups_n)
    effects = ratio * np.sqrt(groups_n / 2) * groups
    differences = delta[:, None] + np.sqrt(seeds_n / 2) * seeds + effects.mean(1, keepdims=True)
    return differences, effects
