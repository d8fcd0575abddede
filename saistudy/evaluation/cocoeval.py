"""COCO's figures from frames in memory, and the check that the frames belong together.

Frames, coordinates in original pixels, class a whole number:
    predictions: model, image, class, score, x1, y1, x2, y2 (one model; model may be left out)
    truth: image, class, x1, y1, x2, y2 (images without boxes have no row here)
    images: image, width, height (every image that was looked at, one row each)
Further columns are ignored. The caller picks the split: pass one split of each frame.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from faster_coco_eval import COCO, COCOeval_faster

from saistudy.paths import Refusal

BOX = ["x1", "y1", "x2", "y2"]


def coco(
    truth: pd.DataFrame, predictions: pd.DataFrame, images: pd.DataFrame, classes: Mapping[int, str]
) -> dict:
    """COCO's average precision and what it was counted on.

    Returns:
        ap50, ap50_95, ap_small, ap_medium, ap_large (fractions; None where no truth falls in the
        bin, COCO's -1), ap50_by_class (class name to ap50), images_n, boxes_n. The size bins are
        COCO's: areas up to 32^2, up to 96^2 and above, as width x height of the box in original
        pixels, so they compare across image sizes.

    Raises:
        Refusal: a box of an image that is not in `images` or of a class that is not in `classes`,
            an image twice, several models, a value that is not finite.
    """
    check(truth, predictions, images)
    strange = sorted((set(truth["class"]) | set(predictions["class"])) - set(classes))
    if strange:
        raise Refusal(
            f"Boxes of the classes {strange} were seen, {sorted(classes)} were expected: leave them"
            " out or map them first."
        )
    parts = {
        "images": _coco_images(images),
        "categories": [{"id": int(k), "name": v} for k, v in classes.items()],
    }
    evaluation = COCOeval_faster(
        COCO({**parts, "annotations": _annotations(truth, images)}, print_function=_silent),
        COCO({**parts, "annotations": _annotations(predictions, images)}, print_function=_silent),
        iouType="bbox",
        print_function=_silent,
    )
    evaluation.evaluate()
    evaluation.accumulate()
    figures = _figures(evaluation, classes)
    return {**figures, "images_n": len(images), "boxes_n": len(truth)}


def _figures(evaluation: COCOeval_faster, classes: Mapping[int, str]) -> dict:
    precision = evaluation.eval["precision"][..., -1]  # IoU, recall, class, area; at maxDets 100
    areas = {name: i for i, name in enumerate(evaluation.params.areaRngLbl)}
    by_class = precision[0, :, :, areas["all"]]
    return {
        "ap50": _mean(by_class),
        "ap50_95": _mean(precision[..., areas["all"]]),
        **{f"ap_{a}": _mean(precision[..., areas[a]]) for a in ("small", "medium", "large")},
        "ap50_by_class": {classes[c]: _mean(by_class[:, i]) for i, c in enumerate(evaluation.params.catIds)},
    }


def _mean(precision: np.ndarray) -> float | None:
    """Mean without COCO's -1 (no truth in the bin)."""
    seen = precision[precision > -1]
    return float(seen.mean()) if seen.size else None


def _silent(*_: object) -> None:
    """Takes what faster-coco-eval would print."""


def _coco_images(images: pd.DataFrame) -> list[dict]:
    rows = images.sort_values("image")[["width", "height"]].to_numpy().tolist()
    return [{"id": n, "width": w, "height": h} for n, (w, h) in enumerate(rows, start=1)]


def _annotations(boxes: pd.DataFrame, images: pd.DataFrame) -> list[dict]:
    ids = pd.Index(images["image"].sort_values()).get_indexer(boxes["image"]) + 1
    x1, y1, x2, y2 = boxes[BOX].to_numpy(float).T
    columns = {
        "id": range(1, len(boxes) + 1),  # COCO takes 0 for "no match"
        "image_id": ids.tolist(),
        "category_id": boxes["class"].tolist(),
        "bbox": np.stack([x1, y1, x2 - x1, y2 - y1], axis=1).tolist(),
        "area": ((x2 - x1) * (y2 - y1)).tolist(),
        "score": boxes["score"].tolist() if "score" in boxes else [1.0] * len(boxes),
        "iscrowd": [0] * len(boxes),
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def check(truth: pd.DataFrame, predictions: pd.DataFrame, images: pd.DataFrame) -> None:
    """Nothing, when the three frames belong together.

    Raises:
        Refusal: a box of an unknown image, an image twice, several models, a value not finite.
    """
    known = set(images["image"])
    strange = sorted((set(truth["image"]) | set(predictions["image"])) - known)
    if strange or len(known) != len(images):
        raise Refusal(
            f"{len(images)} rows of {len(known)} images and boxes of {len(strange)} further ones"
            f" {strange[:3]} were seen, each image once and no further ones were expected: pass the"
            " three frames of one split."
        )
    if "model" in predictions and predictions["model"].nunique() > 1:
        raise Refusal(
            f"Predictions of {predictions['model'].nunique()} models were seen, one was expected:"
            " pass the rows of one model."
        )
    numbers = [truth[BOX].to_numpy(float), predictions[[*BOX, "score"]].to_numpy(float)]
    if not all(np.isfinite(values).all() for values in numbers):
        raise Refusal("A box or score that is no finite number was seen: predict again.")
