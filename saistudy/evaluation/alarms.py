"""What a camera operator sees: recall where false alarms are rationed, and how soon an event is found.

The frames are those of `cocoeval`. An image is an alarm when its largest score, of any class, is >= the
threshold, and positive when it has a box of truth, of any class, as in `metrics.image_rates`.
"""

import numpy as np
import pandas as pd

from saistudy.evaluation.cocoeval import check
from saistudy.paths import Refusal


def recall_at(
    truth: pd.DataFrame,
    matches: pd.DataFrame,
    images: pd.DataFrame,
    frames_per_day: float,
    false_alarms_per_day: float,
) -> dict:
    """Recall at the lowest threshold that keeps to a budget of false alarms per camera and day.

    A false alarm is an alarm on an image without truth; the rate per camera and day is false alarms /
    negatives x frames_per_day, and the lowest score whose rate is at or under the budget is the threshold.

    What it cannot mean: the alarms that a camera will raise. The negatives of a data set are no random
    day: PyroSDIS' were taken beside fires, so that a rate on them measures the edge of an event, and
    FASDD's are no fixed cameras. Frames of one camera follow each other, so their alarms come in runs. And
    with few negatives the rate moves in large steps, `step_per_day` each: 2,880 frames a day (one in
    30 s) and 550 negatives make 5.2 a day of a single false alarm.

    Args:
        matches: from `metrics.match`, at the overlap from which a box counts as found.
        frames_per_day: frames that a camera is assumed to take in a day.
        false_alarms_per_day: the budget.

    Returns:
        threshold, recall (of positive images), box_recall (fractions), rate_per_day, step_per_day,
        false_alarms_n, negatives_n, found_n, positives_n, boxes_found_n, boxes_n, frames_per_day,
        budget_per_day and why. Threshold, recalls, rate and the counts of what was found are None, with
        `why` saying the reason, where there are no negatives, no detection, or where even the highest
        score exceeds the budget; a recall is None where there is no positive.

    Raises:
        Refusal: as `metrics.match`; frames_per_day not above 0, or a budget below 0.
    """
    check(truth, matches, images)
    _refuse_days(frames_per_day, false_alarms_per_day)
    best = _best(matches, images)
    positive = images["image"].isin(truth["image"]).to_numpy()
    negatives_n = int((~positive).sum())
    given = {
        "frames_per_day": frames_per_day,
        "budget_per_day": false_alarms_per_day,
        "step_per_day": frames_per_day / negatives_n if negatives_n else None,
        **{"negatives_n": negatives_n, "positives_n": int(positive.sum()), "boxes_n": len(truth)},
    }
    cut, why = _cut(best[~positive], matches["score"], frames_per_day, false_alarms_per_day)
    if cut is None:
        return given | dict.fromkeys(_FOUND) | {"why": why}
    found_n, false_n = int((best[positive] >= cut).sum()), int((best[~positive] >= cut).sum())
    boxes_n = int(matches["tp"][matches["score"] >= cut].sum())
    rates = found_n / positive.sum() if positive.any() else None, boxes_n / len(truth) if len(truth) else None
    values = cut, *map(_plain, rates), false_n * frames_per_day / negatives_n, false_n, found_n, boxes_n
    return given | dict(zip(_FOUND, values, strict=True)) | {"why": None}


_FOUND = (
    *("threshold", "recall", "box_recall", "rate_per_day", "false_alarms_n", "found_n"),
    "boxes_found_n",
)


def _plain(value) -> float | None:
    return None if value is None else float(value)


def _refuse_days(frames_per_day: float, false_alarms_per_day: float) -> None:
    if not (frames_per_day > 0 and false_alarms_per_day >= 0):
        raise Refusal(
            f"{frames_per_day} frames and {false_alarms_per_day} false alarms a day were seen, more than 0"
            " frames and 0 or more false alarms were expected: correct them."
        )


def _best(scored: pd.DataFrame, images: pd.DataFrame) -> np.ndarray:
    """Largest score of each image in the order of `images`, float64 (N,); -inf without a detection."""
    best = scored.groupby("image")["score"].max()
    return best.reindex(images["image"]).astype(float).fillna(-np.inf).to_numpy()


def _cut(negatives: np.ndarray, scores: pd.Series, frames: float, budget: float):
    """The lowest score whose rate is at or under the budget, or None and why."""
    if not len(negatives):
        return None, "no image without boxes: there is nothing to raise a false alarm on"
    if scores.empty:
        return None, "no detection at all: there is no score to set a threshold at"
    candidates = np.unique(scores.to_numpy(float))
    false_n = len(negatives) - np.searchsorted(np.sort(negatives), candidates, side="left")
    inside = false_n * frames <= budget * len(negatives)  # products of whole numbers are exact
    if not inside.any():
        rate = false_n[-1] * frames / len(negatives)
        return None, f"even at the highest score there are {rate:.3g} false alarms a day"
    return float(candidates[inside][0]), None
