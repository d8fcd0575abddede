"""The metrics of a run: each of its models on each set of test images, from saved predictions alone."""

import numpy as np
import pandas as pd

from saistudy.evaluation import metrics
from saistudy.evaluation import truth as ground

PUBLISHED, DISJOINT = "published", "group-disjoint"


def seen_groups(index: pd.DataFrame) -> set[str]:
    """Groups (video runs or cameras) with an image in train or val."""
    return set(index.loc[index["split"] != "test", "group"])


def subsets(images: pd.DataFrame, seen: set[str]) -> dict[str, pd.DataFrame]:
    """The test images as published, and those whose group no training or validation image shares."""
    test = images[images["split"] == "test"]
    return {PUBLISHED: test, DISJOINT: test[~test["group"].isin(seen)]}


def rows(models, predictions, truth, images, names: dict[int, str], seen: set[str]) -> list[dict]:
    """One row per model and set of test images, ready for a record.

    The threshold is the one with the best F1 on val, frozen, and reported on test.

    Args:
        models: names of the models; one without a single detection gets its row too.
        predictions: as `predict.predict` returns them, with a column `model`.
        truth, images: of val and test, as `truth.val_and_test` returns them.
        names: class table of truth and predictions.
        seen: groups that training or validation saw.
    """
    found = []
    for model in models:
        mine = predictions[predictions["model"] == model]
        cut = _threshold(mine, truth, images)
        for subset, test in subsets(images, seen).items():
            found.append({"model": model, "subset": subset, **_row(mine, truth, test, names, cut)})
    return found


def _threshold(predictions, truth, images) -> float:
    """Score with the best F1 on val; 1.0 where there is no true detection on it."""
    val = images[images["split"] == "val"]
    matches = metrics.match(_of(truth, val), _of(predictions, val), val)
    return metrics.threshold(matches, _of(truth, val))


def _row(predictions, truth, test, names: dict[int, str], cut: float) -> dict:
    """Metrics on one set of images; every ratio beside its counts."""
    counts = {"images_n": len(test), "groups_n": test["group"].nunique(), "threshold": cut}
    if test.empty or _of(truth, test).empty:
        return counts | {"ap50": None, "why": "no image with a box in this set"}
    mine, boxes = _of(predictions, test), _of(truth, test)
    matches = metrics.match(boxes, mine, test)
    images = metrics.image_rates(boxes, mine, test, cut)
    return (
        counts
        | metrics.coco(boxes, mine, test, names)
        | metrics.prf(matches, boxes, cut)
        | {f"image_{key}": value for key, value in images.items()}
    )


def _of(frame: pd.DataFrame, images: pd.DataFrame) -> pd.DataFrame:
    """Rows of the given images."""
    return frame[frame["image"].isin(images["image"])].reset_index(drop=True)


def differences(mine, base, truth, test, weights: np.ndarray) -> np.ndarray:
    """AP50 of one model minus that of another on each resample of the test images: float64 (R,).

    Args:
        mine, base: predictions of the two models; weights: (R, images_n) from
            `stats.group_bootstrap_weights`, columns in the order of `test`.
    """
    boxes = _of(truth, test)
    ap = [
        metrics.ap50_resampled(metrics.match(boxes, _of(p, test), test), boxes, test["image"], weights)
        for p in (mine, base)
    ]
    return ap[0] - ap[1]


def retention(models, predictions, index: pd.DataFrame, smoke: int = 1) -> list[dict]:
    """AP50 for smoke of each model on a test split: what fine-tuning kept of stage 1.

    Args:
        models: names of the models; one without a single detection gets its row too.
        predictions: of `predict.smoke_only`, smoke being class 0.
        index: rows of the tree; smoke: its class number there (FASDD: 1).
    """
    images = ground.images(index, "test")
    truth = ground.truth(index, "test")
    truth = truth[truth["class"] == smoke].assign(**{"class": 0}).reset_index(drop=True)
    found = []
    for model in models:
        mine = predictions[predictions["model"] == model].reset_index(drop=True)
        figures = metrics.coco(truth, mine, images, {0: "smoke"})
        found.append(
            {
                "model": model,
                "ap50_smoke": figures["ap50"],
                "images_n": len(images),
                "boxes_n": len(truth),
            }
        )
    return found
