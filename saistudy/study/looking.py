"""What a run saw, at any threshold: saved detections matched once, cut as often as somebody asks."""

import json
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import pandas as pd

from saistudy.evaluation import metrics
from saistudy.evaluation.truth import BOX
from saistudy.paths import Refusal, results
from saistudy.study.frames.testing import highest
from saistudy.study.record import predicted, read_record
from saistudy.study.saved import read_frame, shown

OUTCOMES = ("found", "missed", "false alarm", "quiet")  # of an image
CURVE_N = 200  # thresholds of `curve`


@dataclass(frozen=True)
class Seen:
    """One model of a run on one split.

    images: a row each, as saved; truth: boxes in pixels; matches: of `metrics.match`. cut: the threshold
    chosen on val. frames_per_day: of a fixed camera, None where there is none. top: the largest score of
    each image, -inf without one. at_match, at_truth: row of the image of each match and each box.
    """

    profile: str
    run: str
    model: str
    split: str
    names: dict[int, str]
    cut: float
    frames_per_day: float | None
    images: pd.DataFrame
    truth: pd.DataFrame
    matches: pd.DataFrame
    top: np.ndarray = field(repr=False)
    at_match: np.ndarray = field(repr=False)
    at_truth: np.ndarray = field(repr=False)

    @property
    def positive(self) -> np.ndarray:
        """Whether each image has a box of truth, bool (N,)."""
        return np.bincount(self.at_truth, minlength=len(self.images)) > 0


@lru_cache(maxsize=8)
def runs(profile: str) -> dict[str, list[str]]:
    """Run name to its models, the trained one of the longest patience first: runs with saved detections."""
    found = {}
    for path in sorted(results(profile).glob("*/record.json")):
        record = json.loads(path.read_text())
        models = [row["model"] for row in record.get("metrics", []) if "threshold" in row]
        if models and record.get("predictions"):
            found[path.parent.name] = [*dict.fromkeys(models)][::-1]
    return found


def model_of(profile: str, run: str) -> str:
    """The model of a run that is shown first.

    Raises:
        Refusal: the run has no record with detections.
    """
    if run not in runs(profile):
        known = ", ".join(runs(profile)) or "none, so execute notebooks/stage1.ipynb first"
        raise Refusal(f"{shown(results(profile))} has no run '{run}' to look at; it has {known}.")
    return runs(profile)[run][0]


@lru_cache(maxsize=4)
def seen(profile: str, run: str, model: str, split: str) -> Seen:
    """A model of a run on val or test, at the tensor that it was trained at.

    Raises:
        Refusal: record or files are not there, or there is no image in the split.
    """
    record = read_record(profile, run)
    saved = [read_frame(profile, run, name) for name in ("images", "truth")]
    saved.append(predicted(profile, run, model))
    images, truth, found = (_of(split, frame) for frame in saved)
    if images.empty:
        raise Refusal(f"run {run} has no image in the split '{split}': choose val or test.")
    matches, rows = metrics.match(truth, found, images), pd.Index(images["image"])
    cut = next(row["threshold"] for row in record["metrics"] if row["model"] == model)
    names = {int(number): name for number, name in record["data"]["names"].items()}
    frames = record["params"].get("frames_per_day")
    at = (rows.get_indexer(frame["image"]) for frame in (matches, truth))
    return Seen(
        profile, run, model, split, names, cut, frames, images, truth, matches, highest(matches, images), *at
    )


def _of(split: str, frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame["split"] == split].reset_index(drop=True)


def figures(one: Seen, cut: float) -> dict:
    """Precision, recall and F1 of boxes, recall and false positives of images, alarms per camera and day.

    The first are `metrics.prf`, the images' those of `metrics.image_rates`, and the rate per camera-day is
    that of `alarms.recall_at`, where it stands what such a rate cannot mean; None without fixed cameras.
    """
    alarm, positive = one.top >= cut, one.positive
    false_n, negatives_n = int((alarm & ~positive).sum()), int((~positive).sum())
    found_n, positives_n = int((alarm & positive).sum()), int(positive.sum())
    rate = one.frames_per_day and negatives_n and false_n * one.frames_per_day / negatives_n
    return metrics.prf(one.matches, one.truth, cut) | {
        "image_recall": found_n / positives_n if positives_n else None,
        "image_false_positive_rate": false_n / negatives_n if negatives_n else None,
        "alarms_per_camera_day": rate if one.frames_per_day and negatives_n else None,
        "image_positives_n": positives_n,
        "image_negatives_n": negatives_n,
    }


def curve(one: Seen) -> pd.DataFrame:
    """Precision and recall of boxes at CURVE_N thresholds from the lowest score to 1.

    Columns threshold, precision (NaN where nothing is that sure), recall.
    """
    score, right = one.matches["score"].to_numpy(float), one.matches["tp"].to_numpy(bool)
    order = np.argsort(-score, kind="stable")
    cuts = np.linspace(score.min() if len(score) else 0, 1, CURVE_N)
    n = np.searchsorted(-score[order], -cuts, side="right")
    tp = np.append(0, np.cumsum(right[order]))[n]
    with np.errstate(invalid="ignore"):
        frame = {"threshold": cuts, "precision": tp / n, "recall": tp / max(1, len(one.truth))}
    return pd.DataFrame(frame)


def missed(one: Seen, cut: float) -> np.ndarray:
    """Boxes of truth missed at a threshold in each image, int (N,)."""
    found = one.at_match[(one.matches["tp"] & (one.matches["score"] >= cut)).to_numpy()]
    return _counts(one, one.at_truth) - _counts(one, found)


def worst(one: Seen, cut: float) -> np.ndarray:
    """The largest score of a false detection of each image at or above a threshold, -inf without one."""
    false = (~one.matches["tp"] & (one.matches["score"] >= cut)).to_numpy()
    value = np.full(len(one.images), -np.inf)
    np.maximum.at(value, one.at_match[false], one.matches["score"].to_numpy(float)[false])
    return value


def _counts(one: Seen, at: np.ndarray) -> np.ndarray:
    return np.bincount(at, minlength=len(one.images))


def outcomes(one: Seen, cut: float) -> np.ndarray:
    """What an operator would see of each image, one of OUTCOMES: an alarm or none, with smoke or without."""
    alarm, positive = one.top >= cut, one.positive
    return np.select([alarm & positive, ~alarm & positive, alarm], OUTCOMES[:3], OUTCOMES[3])


def misses(one: Seen, cut: float, n: int) -> list[str]:
    """The images with the most missed boxes, at most n, those of `views.misses`."""
    return _largest(one, missed(one, cut), 0, n)


def alarms(one: Seen, cut: float, n: int) -> list[str]:
    """The images with the highest false scores, at most n, those of `views.alarms`."""
    return _largest(one, worst(one, cut), -np.inf, n)


def _largest(one: Seen, values: np.ndarray, above: float, n: int) -> list[str]:
    """Images by falling value, equal ones by name."""
    names = one.images["image"].to_numpy(str)
    kept = np.flatnonzero(values > above)
    return names[kept[np.lexsort((names[kept], -values[kept]))][:n]].tolist()


def boxes(one: Seen, image: str, cut: float) -> tuple[list, list]:
    """True boxes and predicted ones at or above a threshold: x1, y1, x2, y2 in pixels and words, each.

    The words are the class, where there are several, and the score of a predicted one.
    """
    (row,) = np.flatnonzero(one.images["image"].to_numpy() == image)
    mine = one.matches[(one.at_match == row) & (one.matches["score"] >= cut).to_numpy()]
    true = one.truth[one.at_truth == row]
    classes = [f"{one.names[k]} " if len(one.names) > 1 else "" for k in mine["class"]]
    words = [f"{name}{score:.2f}" for name, score in zip(classes, mine["score"], strict=True)]
    return worded(true, one.names), [*zip(*_sides(mine), words, strict=True)]


def worded(true: pd.DataFrame, names: dict[int, str]) -> list[tuple]:
    """True boxes with their class as words, none where there is one class only."""
    return [*zip(*_sides(true), [names[k] if len(names) > 1 else "" for k in true["class"]], strict=True)]


def _sides(frame: pd.DataFrame) -> list[list[float]]:
    return [frame[side].astype(float).tolist() for side in BOX]


def agreement(one: Seen, other: Seen) -> pd.DataFrame:
    """The same images under two models, each at its own threshold: how many of each outcome under each.

    Raises:
        Refusal: the two were not tested on the same images.
    """
    _refuse_others(one, other)
    both = [pd.Categorical(outcomes(s, s.cut), OUTCOMES) for s in (one, other)]
    rows, columns = (
        pd.Series(side, name=f"{s.run} {s.model}") for side, s in zip(both, (one, other), strict=True)
    )
    return pd.crosstab(rows, columns, dropna=False).reindex(OUTCOMES).reindex(OUTCOMES, axis=1)


def parted(one: Seen, other: Seen) -> list[str]:
    """Images whose outcome differs between two models, each at its own threshold, in their order."""
    _refuse_others(one, other)
    apart = outcomes(one, one.cut) != outcomes(other, other.cut)
    return one.images.loc[apart, "image"].tolist()


def _refuse_others(one: Seen, other: Seen) -> None:
    if one.images["image"].tolist() != other.images["image"].tolist():
        raise Refusal(
            f"{one.run} was tested on {len(one.images)} images and {other.run} on {len(other.images)} others:"
            " choose two runs of one stage."
        )


def filmed(one: Seen) -> list[str]:
    """Groups whose images say when they were taken, by name."""
    return sorted(one.images.loc[one.images["time"].notna(), "group"].unique())


def film(one: Seen, group: str) -> pd.DataFrame:
    """The images of a group in time: image, time, score (largest, NaN without one), positive.

    Raises:
        Refusal: its images say no time.
    """
    frame = one.images.assign(score=np.where(np.isfinite(one.top), one.top, np.nan), positive=one.positive)
    frame = frame[(frame["group"] == group) & frame["time"].notna()]
    if frame.empty:
        raise Refusal(
            f"no image of the group '{group}' says when it was taken: choose a run of fixed cameras."
        )
    return frame.sort_values(["time", "image"])[["image", "time", "score", "positive"]].reset_index(drop=True)
