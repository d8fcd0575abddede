"""COCO's figures from frames in memory, and the check that the frames belong together.

Frames, coordinates in original pixels, class a whole number:
    predictions: model, image, class, score, x1, y1, x2, y2 (one model; model may be left out)
    truth: image, class, x1, y1, x2, y2 (images without boxes have no row here)
    images: image, width, height (every image that was looked at, one row each)
Further columns are ignored. The caller picks the split: pass one split of each frame.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from faster_coco_eval import COCO, COCOeval_faster

from saistudy.paths import Refusal

BOX = ["x1", "y1", "x2", "y2"]
SIZES = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e10)}
"""COCO's bins of the area of a box, square pixels of the original image; both ends belong to a bin."""


def coco(
    truth: pd.DataFrame, predictions: pd.DataFrame, images: pd.DataFrame, classes: Mapping[int, str]
) -> dict:
    """COCO's average precision and what it was counted on.

    Returns:
        ap50, ap50_95, ap_small, ap_medium, ap_large (fractions; None where no truth falls in the
        bin, COCO's -1), ap50_by_class (class name to ap50), images_n, boxes_n, boxes_small_n,
        boxes_medium_n, boxes_large_n. The bins are `SIZES`, areas being width x height of the box in
        original pixels, so they compare across image sizes.

    Raises:
        Refusal: a box of an image that is not in `images` or of a class that is not in `classes`,
            an image twice, several models, a value that is not finite.
    """
    return figures(evaluated(truth, predictions, images, classes), truth, images, classes)


def figures(
    evaluation: COCOeval_faster, truth: pd.DataFrame, images: pd.DataFrame, classes: Mapping[int, str]
) -> dict:
    """What `coco` returns, of a finished evaluation at COCO's overlaps and bins."""
    areas = evaluation.params.areaRngLbl
    return {
        "ap50": ap(evaluation, areas.index("all"), iou=0),
        "ap50_95": ap(evaluation, areas.index("all")),
        **{f"ap_{name}": ap(evaluation, areas.index(name)) for name in SIZES},
        "ap50_by_class": by_class(evaluation, classes),
        "images_n": len(images),
        "boxes_n": len(truth),
        **{f"boxes_{name}_n": within(area(truth), *bounds) for name, bounds in SIZES.items()},
    }


def evaluated(
    truth: pd.DataFrame,
    predictions: pd.DataFrame,
    images: pd.DataFrame,
    classes: Mapping[int, str],
    iou: Sequence[float] | None = None,
    bins: Sequence[tuple[float, float]] | None = None,
    share: bool = False,
) -> COCOeval_faster:
    """A finished evaluation of faster-coco-eval.

    Args:
        iou: overlaps that count as found, ascending; COCO's .5 to .95 without it.
        bins: (low, high) of each bin of areas, both ends within; COCO's four, "all" first, without it.
        share: areas are shares of the image (fractions), not square pixels.

    Raises:
        Refusal: as `coco`.
    """
    check(truth, predictions, images)
    _refuse_classes(set(truth["class"]) | set(predictions["class"]), classes)
    shared = {
        "images": _coco_images(images),
        "categories": [{"id": int(k), "name": v} for k, v in classes.items()],
    }
    sides = [
        COCO({**shared, "annotations": _annotations(boxes, images, share)}, print_function=_silent)
        for boxes in (truth, predictions)
    ]
    evaluation = COCOeval_faster(*sides, iouType="bbox", print_function=_silent)
    if iou is not None:
        evaluation.params.iouThrs = np.asarray(iou, dtype=float)
    if bins is not None:
        evaluation.params.areaRng = [list(bounds) for bounds in bins]
        evaluation.params.areaRngLbl = [f"{low}-{high}" for low, high in bins]
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation


def _refuse_classes(seen: set, classes: Mapping[int, str]) -> None:
    if strange := sorted(seen - set(classes)):
        raise Refusal(
            f"Boxes of the classes {strange} were seen, {sorted(classes)} were expected: leave them"
            " out or map them first."
        )


def ap(evaluation: COCOeval_faster, area: int, iou: int | slice = slice(None)) -> float | None:
    """Mean precision at positions of the evaluation's areas and overlaps; None without truth there."""
    precision = evaluation.eval["precision"][iou, ..., area, -1]  # overlap, recall, class; at maxDets 100
    return _mean(precision)


def by_class(evaluation: COCOeval_faster, classes: Mapping[int, str]) -> dict[str, float | None]:
    """Class name to average precision at the first overlap, over the first bin of areas."""
    precision = evaluation.eval["precision"][0, :, :, 0, -1]
    return {classes[c]: _mean(precision[:, i]) for i, c in enumerate(evaluation.params.catIds)}


def _mean(precision: np.ndarray) -> float | None:
    """Mean without COCO's -1 (no truth in the bin)."""
    seen = precision[precision > -1]
    return float(seen.mean()) if seen.size else None


def area(boxes: pd.DataFrame) -> np.ndarray:
    """Width x height of boxes, square pixels, float64 (N,)."""
    x1, y1, x2, y2 = boxes[BOX].to_numpy(float).T
    return (x2 - x1) * (y2 - y1)


def shares(boxes: pd.DataFrame, images: pd.DataFrame) -> np.ndarray:
    """Share of its image that each box covers, float64 (N,), a fraction."""
    whole = (images["width"] * images["height"]).set_axis(images["image"])
    return area(boxes) / whole.reindex(boxes["image"]).to_numpy(float)


def within(values: np.ndarray, low: float, high: float) -> int:
    """How many values lie in a bin, both ends within, as COCO has it."""
    return int(((values >= low) & (values <= high)).sum())


def _silent(*_: object) -> None:
    """Takes what faster-coco-eval would print."""


def _coco_images(images: pd.DataFrame) -> list[dict]:
    rows = images.sort_values("image")[["width", "height"]].to_numpy().tolist()
    return [{"id": n, "width": w, "height": h} for n, (w, h) in enumerate(rows, start=1)]


def _annotations(boxes: pd.DataFrame, images: pd.DataFrame, share: bool) -> list[dict]:
    ids = pd.Index(images["image"].sort_values()).get_indexer(boxes["image"]) + 1
    x1, y1, x2, y2 = boxes[BOX].to_numpy(float).T
    columns = {
        "id": range(1, len(boxes) + 1),  # COCO takes 0 for "no match"
        "image_id": ids.tolist(),
        "category_id": boxes["class"].tolist(),
        "bbox": np.stack([x1, y1, x2 - x1, y2 - y1], axis=1).tolist(),
        "area": (shares(boxes, images) if share else area(boxes)).tolist(),
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
