"""Average precision of objects without edges and of small ones: loose overlap, and bins of size.

The frames are those of `cocoeval`, whose library counts here, too.
"""

from collections.abc import Mapping

import pandas as pd

from saistudy.evaluation import cocoeval

LOOSE_IOU = 0.1
"""Overlap from which a detection of smoke counts as found: where a plume ends is a matter of judgement. .1 is
in use on PyroNear's images (github.com/sermila88/Wildfire-Detection-DETR, src/images/eval: "IoU threshold =
0.1"); Pyronear's own audit of its labels takes .05."""

SHARES = (0.0, 0.001, 0.005, 0.02, 0.1, 1.0)
"""Edges of the bins of a box's share of its image, those in use for PyroSDIS. Each bin is about five times
the one before, so that its median of .17 % (40 x 40 of 1280 x 720 px) has neighbours on both sides. COCO's
edges, 32^2 and 96^2 of its usual 640 x 480 px, are shares of .33 % and 3 %: most smoke in one bin."""


def loose(
    truth: pd.DataFrame, predictions: pd.DataFrame, images: pd.DataFrame, classes: Mapping[int, str]
) -> dict:
    """ap10 and ap10_by_class: as ap50 and ap50_by_class of `cocoeval.coco`, at `LOOSE_IOU`.

    Raises:
        Refusal: as `cocoeval.coco`.
    """
    evaluation = cocoeval.evaluated(truth, predictions, images, classes, iou=[LOOSE_IOU])
    return {
        "ap10": cocoeval.ap(evaluation, area=0),
        "ap10_by_class": cocoeval.by_class(evaluation, classes),
    }


def by_size(
    truth: pd.DataFrame, predictions: pd.DataFrame, images: pd.DataFrame, classes: Mapping[int, str]
) -> list[dict]:
    """Average precision by the size of the object, ready for a record.

    COCO's rule (pycocotools, evaluateImg): boxes of truth outside a bin are set aside with the
    detections that find them, and so are unmatched detections outside it. A box on an edge counts in
    the bins on both sides.

    Returns:
        A row a bin: measure ("area_px2", COCO's bins of square pixels of the original image, or
        "area_frac", `SHARES` of the image), low, high (its edges; COCO's last ends at 1e10), ap50,
        ap50_95 (fractions; None where no truth falls in the bin), boxes_n (truth in the bin).

    Raises:
        Refusal: as `cocoeval.coco`.
    """
    frames = truth, predictions, images, classes
    return by_pixels(cocoeval.evaluated(*frames), truth) + by_shares(*frames)


def by_pixels(evaluation, truth: pd.DataFrame) -> list[dict]:
    """The rows of `by_size` in COCO's bins of pixels, of a finished evaluation in them."""
    bins = list(cocoeval.SIZES.values())
    return _rows("area_px2", bins, cocoeval.area(truth), evaluation, first=1)  # COCO's first bin is "all"


def by_shares(
    truth: pd.DataFrame, predictions: pd.DataFrame, images: pd.DataFrame, classes: Mapping[int, str]
) -> list[dict]:
    """The rows of `by_size` in bins of the share of the image."""
    bins = list(zip(SHARES[:-1], SHARES[1:], strict=True))
    evaluation = cocoeval.evaluated(truth, predictions, images, classes, bins=bins, share=True)
    return _rows("area_frac", bins, cocoeval.shares(truth, images), evaluation, first=0)


def _rows(measure: str, bins: list[tuple], sizes, evaluation, first: int) -> list[dict]:
    return [
        {
            "measure": measure,
            "low": low,
            "high": high,
            "ap50": cocoeval.ap(evaluation, at, iou=0),
            "ap50_95": cocoeval.ap(evaluation, at),
            "boxes_n": cocoeval.within(sizes, low, high),
        }
        for at, (low, high) in enumerate(bins, start=first)
    ]
