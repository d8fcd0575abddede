"""Frames of what testing shows at every threshold: precision by recall, and recall by false alarms a day."""

import numpy as np
import pandas as pd

from saistudy.evaluation import metrics, stats
from saistudy.study import comparisons
from saistudy.study.frames import cases
from saistudy.study.record import predicted
from saistudy.study.saved import read_frame

RECALLS = np.linspace(0, 1, 101)  # COCO's
GRID_N = 61
FRAMES_PER_DAY = 2880.0  # of records that do not say: a frame in 30 s, PyroSDIS' usual pace
PRECISION = [*cases.KEYS, "recall", "precision", "low", "high", "seeds_n", "groups_n"]
ALARMS = [*cases.KEYS, "false_alarms_per_day", "recall", "low", "high"]
ALARMS += ["negatives_n", "positives_n", "frames_per_day", "seeds_n", "groups_n"]


def precision_recall(profile: str, found: list[dict], weights: comparisons.Weights) -> pd.DataFrame:
    """Precision at COCO's 101 recalls, IoU .5, mean of the classes and of the seeds; its mean is AP50.

    low and high are the 95 % interval over groups of the test images, each recall by itself (not of the
    whole curve at once); empty below `stats.GROUPS_MIN` groups.
    """
    parts = [_precision(profile, case, weights) for case in found]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=PRECISION)


def _precision(profile: str, case: dict, weights: comparisons.Weights) -> pd.DataFrame:
    """The rows of one case; none where no test image has a box."""
    truth, test = _test(profile, case)
    if truth.empty:
        return pd.DataFrame(columns=PRECISION)
    matched = (metrics.match(truth, _predicted(profile, record, case), test) for record in case["runs"])
    stacked = _stacked(test, weights)
    curves = [precisions(matches, truth, test["image"], stacked) for matches in matched]
    groups_n = test["group"].nunique()
    values = dict(zip(("precision", "low", "high"), _banded(curves, groups_n), strict=True))
    counts = {"seeds_n": len(curves), "groups_n": groups_n}
    return pd.DataFrame(cases.keys(case) | {"recall": RECALLS} | values | counts)[PRECISION]


def precisions(matches: pd.DataFrame, truth: pd.DataFrame, images, weights: np.ndarray) -> np.ndarray:
    """Interpolated precision at each of `RECALLS` on each resample, mean of the classes with truth: (R, 101).

    The rule of `metrics.ap50_resampled`, whose values are the means of these rows. NaN without truth.

    Args:
        matches, images, weights: as there.
    """
    index = pd.Index(images)
    at, at_truth = index.get_indexer(matches["image"]), index.get_indexer(truth["image"])
    score, tp = matches["score"].to_numpy(float), matches["tp"].to_numpy(bool)
    order = np.argsort(-score, kind="stable")  # matches come by image name, which parts equal scores
    total, classes_n = np.zeros((len(weights), len(RECALLS))), np.zeros((len(weights), 1))
    for label in truth["class"].unique():
        mine = order[matches["class"].to_numpy()[order] == label]
        boxes_n = weights[:, at_truth[truth["class"].to_numpy() == label]].sum(1)
        for r in np.flatnonzero(boxes_n):
            total[r] += _interpolated(weights[r, at[mine]], tp[mine], boxes_n[r])
        classes_n[:, 0] += boxes_n > 0
    return np.divide(total, classes_n, out=np.full_like(total, np.nan), where=classes_n > 0)


def _interpolated(weight: np.ndarray, tp: np.ndarray, boxes_n: float) -> np.ndarray:
    """Precision at `RECALLS` of detections in falling score (pycocotools, accumulate), float64 (101,)."""
    right, seen = np.cumsum(weight * tp), np.cumsum(weight)
    precision = right / (seen + np.spacing(1))
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return np.append(precision, 0.0)[np.searchsorted(right / boxes_n, RECALLS, side="left")]


def _banded(curves: list[np.ndarray], groups_n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean over seeds of the first row, and its bounds over the further ones (resamples) point by point.

    Args:
        curves: (1 + R, points) a seed.

    Returns:
        mean, low, high: float64 (points,); the bounds NaN where there are none.
    """
    mean = np.mean(curves, axis=0)
    bounds = [stats.interval(values, groups_n) for values in mean[1:].T]
    low, high = np.array(bounds, dtype=float).T
    return mean[0], low, high


def alarms_per_day(profile: str, found: list[dict], weights: comparisons.Weights) -> pd.DataFrame:
    """Stage 2: share of the images with smoke that raise an alarm, by the false alarms a camera-day allowed.

    As `alarms.recall_at`, on a grid from the smallest step that the negatives can show to an alarm in every
    frame; where even the highest score breaks the budget there is no alarm at all, and recall 0. FASDD has no
    fixed cameras, so stage 1 is left out; without negatives there are no rows. What such a rate cannot mean
    stands at `alarms.recall_at`.
    """
    parts = [_alarms(profile, case, weights) for case in found if case["stage"] == 2]
    parts = [part for part in parts if len(part)]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=ALARMS)


def _alarms(profile: str, case: dict, weights: comparisons.Weights) -> pd.DataFrame:
    """The rows of one case; none without both negatives and positives."""
    truth, test = _test(profile, case)
    positive = test["image"].isin(truth["image"]).to_numpy()
    if positive.all() or not positive.any():
        return pd.DataFrame(columns=ALARMS)
    frames = float(case["runs"][0]["params"].get("frames_per_day", FRAMES_PER_DAY))
    budgets = np.geomspace(frames / (~positive).sum(), frames, GRID_N)
    stacked, groups_n = _stacked(test, weights), test["group"].nunique()
    best = [highest(_predicted(profile, record, case), test) for record in case["runs"]]
    curves = [recalls(values, positive, stacked, budgets / frames) for values in best]
    values = dict(zip(("recall", "low", "high"), _banded(curves, groups_n), strict=True))
    row = cases.keys(case) | {"false_alarms_per_day": budgets} | values
    row |= {"negatives_n": int((~positive).sum()), "positives_n": int(positive.sum())}
    row |= {"frames_per_day": frames, "seeds_n": len(best), "groups_n": groups_n}
    return pd.DataFrame(row)[ALARMS]


def highest(predictions: pd.DataFrame, images: pd.DataFrame) -> np.ndarray:
    """Largest score of each image, of any class, float64 (N,); -inf without a detection."""
    best = predictions.groupby("image")["score"].max().reindex(images["image"])
    return best.astype(float).fillna(-np.inf).to_numpy()


def recalls(best: np.ndarray, positive: np.ndarray, weights: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Share of positives above the lowest threshold that keeps to each share of negatives: (R, G).

    Args:
        best: of `highest`; positive: bool (N,); weights: (R, N) how often each image counts.
        shares: largest share of the negatives that may raise an alarm, ascending, (G,).

    Returns:
        NaN where a resample has no positive or no negative.
    """
    falling, rising = np.argsort(-best[~positive], kind="stable"), np.argsort(best[positive])
    ceilings = np.append(best[~positive][falling], -np.inf)  # an alarm is above the first negative too many
    at = np.searchsorted(best[positive][rising], ceilings, side="right")
    found = np.full((len(weights), len(shares)), np.nan)
    for row, weight in zip(found, weights, strict=True):
        false_n = np.cumsum(weight[~positive][falling])
        right_n = np.append(0, np.cumsum(weight[positive][rising]))
        if false_n[-1] and right_n[-1]:
            allowed = shares * false_n[-1] * (1 + 1e-9)  # a budget of whole steps is not lost to rounding
            first = np.searchsorted(false_n, allowed, side="right")
            row[:] = 1 - right_n[at[first]] / right_n[-1]
    return found


def _stacked(images: pd.DataFrame, weights: comparisons.Weights) -> np.ndarray:
    """Every image once, and below it the resamples where there are groups enough: (1 or 1 + R, N)."""
    once, drawn = np.ones((1, len(images)), int), weights(images)
    return once if drawn is None else np.vstack([once, drawn])


def _test(profile: str, case: dict) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Truth and images of the test split of a case's runs."""
    run = case["runs"][0]["run"]
    frames = (read_frame(profile, run, name) for name in ("truth", "images"))
    return tuple(frame[frame["split"] == "test"].reset_index(drop=True) for frame in frames)


def _predicted(profile: str, record: dict, case: dict) -> pd.DataFrame:
    """Detections of a case's model in one run, on its test images."""
    frame = predicted(profile, record["run"], case["model"])
    return frame[frame["split"] == "test"].reset_index(drop=True)
