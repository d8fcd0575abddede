"""The metrics of a run: each of its models on each set of test images, from saved predictions alone."""

import numpy as np
import pandas as pd

from saistudy.evaluation import alarms, cocoeval, events, metrics, sizes

PUBLISHED, DISJOINT = "published", "group-disjoint"


def seen_groups(index: pd.DataFrame, reported: str = "test") -> set[str]:
    """Groups (video runs or cameras) with an image in another split than the reported one."""
    return set(index.loc[index["split"] != reported, "group"])


def subsets(images: pd.DataFrame, seen: set[str], reported: str = "test") -> dict[str, pd.DataFrame]:
    """The images of the reported split as published, and those whose group no other split shares."""
    test = images[images["split"] == reported]
    return {PUBLISHED: test, DISJOINT: test[~test["group"].isin(seen)]}


def rows(
    models, predictions, truth, images, names: dict[int, str], seen, reported: str = "test"
) -> list[dict]:
    """One row per model and set of test images, ready for a record.

    The threshold is the one with the best F1 on val, frozen, and reported on test.

    Args:
        models: names of the models; one without a single detection gets its row too.
        predictions: as `predict.predict` returns them, with a column `model`.
        truth, images: of val and test, as `truth.val_and_test` returns them.
        names: class table of truth and predictions.
        seen: groups that training or validation saw, of `seen_groups`.
        reported: the split, val where a data set has no test: threshold and figures are then of one split.
    """
    found = []
    for model in models:
        mine = predictions[predictions["model"] == model]
        cut = _threshold(mine, truth, images)
        for subset, test in subsets(images, seen, reported).items():
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
    frames = boxes, mine, test, names
    evaluation = cocoeval.evaluated(*frames)
    return (
        counts
        | cocoeval.figures(evaluation, boxes, test, names)
        | sizes.loose(*frames)
        | {"ap_by_size": sizes.by_pixels(evaluation, boxes) + sizes.by_shares(*frames)}
        | metrics.prf(matches, boxes, cut)
        | {f"image_{key}": value for key, value in images.items()}
    )


def matrix(models, detections, truth, images, names: dict[int, str]) -> list[dict]:
    """Each model at each evaluation size: what it finds where it is tested at another size than its own.

    Args:
        models: names of the models.
        detections: `predict.tensor_name` to the predictions at that size, with a column `model`.
        truth, images: of val and test; only test counts. No threshold, for that would need val at each size.

    Returns:
        Rows model, imgsz ([height, width], pixels), images_n, boxes_n, ap50, ap50_95, ap_small, ap_medium,
        ap_large (fractions, None without such a box) and boxes_small_n.
    """
    test = images[images["split"] == "test"].reset_index(drop=True)
    boxes = _of(truth, test)
    found = []
    for tensor, frame in detections.items():
        imgsz = [int(side) for side in tensor.split("x")]
        for model in models:
            mine = _of(frame[frame["model"] == model], test)
            told = metrics.coco(boxes, mine, test, names)
            found.append({"model": model, "imgsz": imgsz, **{key: told[key] for key in SIZED}})
    return found


SIZED = ("images_n", "boxes_n", "ap50", "ap50_95", "ap_small", "ap_medium", "ap_large", "boxes_small_n")


def operation(predictions, truth, images, cut: float, frames_per_day: float, budgets) -> list[dict]:
    """What an operator of the cameras of the test images would see of one model.

    Returns:
        A row per budget of false alarms per camera and day (`alarms.recall_at`, at `sizes.LOOSE_IOU`), and
        one at the threshold `cut` with the events found (`events.detected`).
    """
    test = images[images["split"] == "test"].reset_index(drop=True)
    mine, boxes = _of(predictions, test), _of(truth, test)
    matches = metrics.match(boxes, mine, test, iou=sizes.LOOSE_IOU)
    rows = [alarms.recall_at(boxes, matches, test, frames_per_day, budget) for budget in budgets]
    return [*rows, {"threshold": cut} | events.detected(boxes, mine, test, cut)]


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


def retention(models: dict[str, list[str]], predictions, truth, images, names: dict[int, str]) -> list:
    """AP50 by class of each model on the test split of stage 1: what fine-tuning kept of it.

    Args:
        models: model to the classes that it can output (`predict.classes`); one without a single detection
            gets its row too.
        predictions: on the test split, with a column `model`.
        truth, images: of stage 1; only test counts. names: its class table.

    Returns:
        Rows model, images_n, and of each class ap50_<class> and boxes_<class>_n. An AP50 that cannot be is
        None, and `why` says so in words.
    """
    test = images[images["split"] == "test"].reset_index(drop=True)
    boxes = _of(truth, test)
    found = []
    for model, known in models.items():
        mine = _of(predictions[predictions["model"] == model], test)
        ap50 = metrics.coco(boxes, mine, test, names)["ap50_by_class"]
        boxes_n = {word: int((boxes["class"] == number).sum()) for number, word in names.items()}
        found.append({"model": model, "images_n": len(test), **_kept(ap50, boxes_n, known)})
    return found


def _kept(ap50: dict, boxes_n: dict[str, int], known: list[str]) -> dict:
    """AP50 and boxes of each class, and why one has none."""
    why = [f"the model has no class {word}" for word in boxes_n if word not in known]
    why += [f"no box of {word} in this split" for word, n in boxes_n.items() if not n]
    figures = {f"ap50_{word}": ap50[word] if word in known else None for word in boxes_n}
    counts = {f"boxes_{word}_n": n for word, n in boxes_n.items()}
    return figures | counts | ({"why": ", ".join(why)} if why else {})
