"""How good detections are: matches, average precision fit for a bootstrap, operating points.

The frames are those of `cocoeval`, and so is the reference that the average precision here equals.
"""

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter

import numpy as np
import pandas as pd

from saistudy.evaluation.cocoeval import BOX, check, coco
from saistudy.paths import Refusal

__all__ = ["ap50", "ap50_resampled", "coco", "image_rates", "match", "prf", "threshold"]

DETECTIONS_MAX = 100
"""Detections of an image and class that count, best scores first (pycocotools, maxDets)."""


def match(
    truth: pd.DataFrame, predictions: pd.DataFrame, images: pd.DataFrame, iou: float = 0.5
) -> pd.DataFrame:
    """The predictions that count, with `tp` (bool) and `truth` (position of the box found, or -1).

    COCO's rule (pycocotools, evaluateImg): in each image and class the best 100 scores, in falling
    order, each take the free box with the largest IoU of at least `iou` (on equal IoU the last).
    A detection's flag depends on better scores alone, so cutting at a threshold leaves it as it is.
    Rows come ordered by image name and falling score.

    Raises:
        Refusal: as `coco`, save for the classes.
    """
    check(truth, predictions, images)
    order = np.argsort(-predictions["score"].to_numpy(), kind="stable")
    ranked = predictions.iloc[order].sort_values("image", kind="stable")
    ranked = ranked[ranked.groupby(["image", "class"]).cumcount() < DETECTIONS_MAX]
    ranked = ranked.reset_index(drop=True)
    detection, box = _pairs(ranked, truth)
    overlap = _iou(ranked[BOX].to_numpy(float)[detection], truth[BOX].to_numpy(float)[box])
    near = overlap >= min(iou, 1 - 1e-10)
    found = np.full(len(ranked), -1)
    for d, b in _greedy(detection[near], box[near], overlap[near]):
        found[d] = b
    return ranked.assign(tp=found >= 0, truth=found)


def _pairs(ranked: pd.DataFrame, truth: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Positions (detection, box) of all pairs of one image and class, detections ascending."""
    keys = pd.MultiIndex.from_frame(pd.concat([ranked[["image", "class"]], truth[["image", "class"]]]))
    codes = keys.factorize()[0]
    mine, theirs = codes[: len(ranked)], codes[len(ranked) :]
    by_key = np.argsort(theirs, kind="stable")
    first = np.searchsorted(theirs[by_key], mine, side="left")
    n = np.searchsorted(theirs[by_key], mine, side="right") - first
    detection = np.repeat(np.arange(len(ranked)), n)
    within = np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n)
    return detection, by_key[np.repeat(first, n) + within]


def _iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU of boxes (n, 4) row by row, in the arithmetic of pycocotools (x, y, w, h)."""
    a_wh, b_wh = a[:, 2:] - a[:, :2], b[:, 2:] - b[:, :2]
    ends = np.minimum(a[:, :2] + a_wh, b[:, :2] + b_wh)
    sides = ends - np.maximum(a[:, :2], b[:, :2])
    shared = np.where((sides > 0).all(1), sides.prod(1), 0.0)
    union = a_wh.prod(1) + b_wh.prod(1) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def _greedy(detection: np.ndarray, box: np.ndarray, overlap: np.ndarray) -> list[tuple[int, int]]:
    taken: set[int] = set()
    found = []
    rows = zip(detection.tolist(), box.tolist(), overlap.tolist(), strict=True)
    for d, candidates in groupby(rows, key=itemgetter(0)):
        free = [(value, b) for _, b, value in candidates if b not in taken]
        if free:
            found.append((d, max(free)[1]))
            taken.add(found[-1][1])
    return found


def ap50(matches: pd.DataFrame, truth: pd.DataFrame, weights: pd.Series | None = None) -> float | None:
    """Average precision of matches, a fraction: COCO's 101 points, mean of the classes with truth.

    Args:
        matches: from `match` (at IoU 0.5 for AP50).
        weights: how often each image counts (index: image name); every image once without it.

    Returns:
        None without truth. A class without truth of positive weight is left out, as COCO does.
    """
    if weights is None:
        weights = pd.Series(1, index=pd.concat([matches["image"], truth["image"]]).unique())
    value = ap50_resampled(matches, truth, weights.index, weights.to_numpy()[None])[0]
    return None if np.isnan(value) else float(value)


def ap50_resampled(
    matches: pd.DataFrame, truth: pd.DataFrame, images: Sequence[str], weights: np.ndarray
) -> np.ndarray:
    """`ap50` of each resample, float64 (R,); NaN where a resample has no truth.

    Args:
        images: image names, (N,), in the order of the columns of `weights`.
        weights: how often each image stands in each resample, (R, N). Weighting equals repeating
            the image: the equal scores of its copies are neighbours and precision is interpolated.

    Raises:
        Refusal: an image without a weight.
    """
    index = pd.Index(images)
    at, at_truth = index.get_indexer(matches["image"]), index.get_indexer(truth["image"])
    if not index.is_unique or (at < 0).any() or (at_truth < 0).any():
        raise Refusal(
            "Boxes of images without a weight were seen, a weight for each was expected: pass every"
            " image once."
        )
    score, tp = matches["score"].to_numpy(float), matches["tp"].to_numpy(bool)
    name_order = index.argsort().argsort()
    order = np.lexsort((name_order[at], -score))  # equal scores by image name, as in coco()
    total, classes_n = np.zeros(len(weights)), np.zeros(len(weights))
    for label in truth["class"].unique():
        mine = order[matches["class"].to_numpy()[order] == label]
        boxes_n = weights[:, at_truth[truth["class"].to_numpy() == label]].sum(1)
        for r in np.flatnonzero(boxes_n):
            total[r] += _ap(weights[r, at[mine]], tp[mine], boxes_n[r])
        classes_n += boxes_n > 0
    return np.divide(total, classes_n, out=np.full(len(weights), np.nan), where=classes_n > 0)


def _ap(weight: np.ndarray, tp: np.ndarray, boxes_n: float) -> float:
    """101-point interpolated AP of detections in falling score (pycocotools, accumulate)."""
    if not len(tp):
        return 0.0
    right, seen = np.cumsum(weight * tp), np.cumsum(weight)
    precision = right / (seen + np.spacing(1))
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(right / boxes_n, np.linspace(0, 1, 101), side="left")
    return float(np.append(precision, 0.0)[at].mean())


def threshold(matches: pd.DataFrame, truth: pd.DataFrame) -> float:
    """Score from which on detections count as alarms, chosen on val: where F1 is largest.

    F1 is that of `prf`, all classes together. On equal F1 the highest score (fewest alarms); 1.0
    where no detection is right.
    """
    ranked = matches.sort_values("score", ascending=False, kind="stable")
    score, tp_n = ranked["score"].to_numpy(float), ranked["tp"].to_numpy().cumsum()
    f1 = 2 * tp_n / (np.arange(1, len(tp_n) + 1) + len(truth))
    last = np.append(score[1:] < score[:-1], True)[: len(score)]  # a cut never parts equal scores
    f1 = np.where(last, f1, 0.0)
    return float(score[f1.argmax()]) if f1.any() else 1.0


def prf(matches: pd.DataFrame, truth: pd.DataFrame, threshold: float) -> dict:
    """precision, recall, f1 (fractions, None for 0/0), tp_n, fp_n, fn_n at scores >= threshold."""
    alarms = matches["tp"][matches["score"] >= threshold]
    tp_n = int(alarms.sum())
    fp_n, fn_n = len(alarms) - tp_n, len(truth) - tp_n
    return {
        "precision": _ratio(tp_n, tp_n + fp_n),
        "recall": _ratio(tp_n, tp_n + fn_n),
        "f1": _ratio(2 * tp_n, 2 * tp_n + fp_n + fn_n),
        **{"tp_n": tp_n, "fp_n": fp_n, "fn_n": fn_n},
    }


def image_rates(
    truth: pd.DataFrame, predictions: pd.DataFrame, images: pd.DataFrame, threshold: float
) -> dict:
    """recall, false_positive_rate (fractions, None for 0/0), positives_n, negatives_n by image.

    An image is an alarm when its largest score, of any class, is >= threshold, and positive when it
    has a box of truth, of any class; where the boxes lie does not count.
    """
    check(truth, predictions, images)
    alarm = images["image"].isin(predictions["image"][predictions["score"] >= threshold])
    positive = images["image"].isin(truth["image"])
    positives_n, negatives_n = int(positive.sum()), int((~positive).sum())
    return {
        "recall": _ratio(int((alarm & positive).sum()), positives_n),
        "false_positive_rate": _ratio(int((alarm & ~positive).sum()), negatives_n),
        **{"positives_n": positives_n, "negatives_n": negatives_n},
    }


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
