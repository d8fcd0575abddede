"""Fires as events in time: whether one is found at all, and after how many frames."""

import numpy as np
import pandas as pd

from saistudy.evaluation.cocoeval import check

COLUMNS = ["event", "image", "frame"]


def runs(truth: pd.DataFrame, images: pd.DataFrame) -> pd.DataFrame:
    """The positive images as events: event (a number from 0), image, frame (place in its event from 0).

    An event is a run of consecutive positive images (with a box of truth, of any class) of one group in
    the order of time, equal times by image name. An image without a box ends it, the end of the group
    does, and so does a change in `event`, a sequence without a long pause as `data.index` has it. Images
    without time are left out.

    Args:
        images: image, group, event (text) and time (datetime64 or a number, NaT or NaN where unknown).
    """
    dated = images[images["time"].notna()].sort_values(["group", "time", "image"], kind="stable")
    positive = dated["image"].isin(truth["image"])
    place = dated["group"].astype(str) + "\n" + dated["event"].astype(str)
    starts = (place != place.shift()) | (positive != positive.shift())
    found = dated.assign(event=starts.cumsum())[positive]
    number = pd.Series(found["event"].factorize()[0], found.index)
    frame = found.groupby("event").cumcount()
    return found.assign(event=number, frame=frame)[COLUMNS].reset_index(drop=True)


def detected(truth: pd.DataFrame, predictions: pd.DataFrame, images: pd.DataFrame, threshold: float) -> dict:
    """Event recall and time to detect, in frames.

    An event (`runs`) is found if any image of it alarms: a score, of any class, >= threshold. Its time to
    detect is the number of frames from its first positive image to the first alarm; 0 is at once. Frames
    and not seconds, for the clocks in PyroSDIS' names jump between 1 s and 600 s where the cadence is
    30 s (Pyronear counts in frames for that reason).

    What it cannot mean: time from ignition. An event starts with the first image that somebody boxed, and
    an event that is the first thing in its sequence (`onset_unseen_n`) may have begun before it.

    Args:
        images: with the columns of `runs`. All images of a sequence must be there: one that is missing
            is not counted as a frame.

    Returns:
        recall (fraction), frames_to_detect (median over the events found), frames_to_detect_max, events_n,
        found_n, missed_n, onset_unseen_n, undated_n (positive images left out), and why: None, or why
        there is no value.

    Raises:
        Refusal: as `cocoeval.check`.
    """
    check(truth, predictions, images)
    found = runs(truth, images)
    alarm = found["image"].isin(predictions["image"][predictions["score"] >= threshold])
    first = found[alarm].groupby("event")["frame"].min()
    events_n = found["event"].nunique()
    undated = images["image"][images["time"].isna()].isin(truth["image"])
    return {
        "recall": len(first) / events_n if events_n else None,
        "frames_to_detect": float(first.median()) if len(first) else None,
        "frames_to_detect_max": int(first.max()) if len(first) else None,
        **{"events_n": events_n, "found_n": len(first), "missed_n": events_n - len(first)},
        **{"onset_unseen_n": _onset_unseen(found, images), "undated_n": int(undated.sum())},
        "why": None if events_n else "no positive image has a time: there is no order to find an event in",
    }


def _onset_unseen(found: pd.DataFrame, images: pd.DataFrame) -> int:
    """Events whose first positive image is the first image of its group and sequence."""
    dated = images[images["time"].notna()].sort_values(["time", "image"], kind="stable")
    opening = dated.drop_duplicates(["group", "event"])["image"]
    return int(np.isin(found["image"][found["frame"] == 0], opening).sum())
