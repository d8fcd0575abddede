"""Loose overlap and bins of size: against pycocotools, and by hand."""

import contextlib
import io

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from saistudy.evaluation import cocoeval, metrics, sizes
from saistudy.evaluation.cocoeval import BOX
from saistudy.paths import Refusal

CLASSES = {0: "fire", 1: "smoke"}
IMAGES = pd.DataFrame({"image": ["a", "b", "c"], "width": [100, 400, 50], "height": [50, 200, 50]})


def frames(truth, predictions, images=IMAGES):
    return (
        pd.DataFrame(truth, columns=["image", "class", *BOX]),
        pd.DataFrame(predictions, columns=["image", "class", "score", *BOX]),
        images,
    )


def side(boxes: pd.DataFrame, images: pd.DataFrame, share: bool) -> COCO:
    """One side of an evaluation by pycocotools; areas in square pixels or as shares of the image."""
    size = {row.image: (n, row.width * row.height) for n, row in enumerate(images.itertuples(), start=1)}
    made = COCO()
    made.dataset = {
        "images": [{"id": n} for n, _ in size.values()],
        "categories": [{"id": k, "name": v} for k, v in CLASSES.items()],
        "annotations": [
            {
                "id": n,
                "image_id": size[row["image"]][0],
                "category_id": row["class"],
                "bbox": [row["x1"], row["y1"], row["x2"] - row["x1"], row["y2"] - row["y1"]],
                "area": (row["x2"] - row["x1"])
                * (row["y2"] - row["y1"])
                / (size[row["image"]][1] if share else 1),
                "iscrowd": 0,
                "score": row.get("score"),
            }
            for n, row in enumerate(boxes.to_dict("records"), start=1)
        ],
    }
    made.createIndex()
    return made


def reference(three, iou, bins, share: bool) -> np.ndarray:
    """Mean precision of pycocotools (overlaps, bins); NaN without truth."""
    truth, predictions, images = three
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(side(truth, images, share), side(predictions, images, share), "bbox")
        evaluation.params.iouThrs = np.asarray(iou)
        evaluation.params.areaRng, evaluation.params.areaRngLbl = bins, [str(b) for b in bins]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][..., -1]
    seen = np.where(precision > -1, precision, np.nan)
    with np.errstate(invalid="ignore"):
        counts = (~np.isnan(seen)).sum((1, 2))
        return np.where(counts > 0, np.nansum(seen, (1, 2)) / np.maximum(counts, 1), np.nan)


# Sides that give areas on both sides of, and on, the edges of both kinds of bins; scores that tie.
length = st.sampled_from([2, 5, 10, 32, 48])
corner = st.sampled_from([0, 1, 4])
box = st.tuples(corner, corner, length, length).map(lambda b: (*b[:2], b[0] + b[2], b[1] + b[3]))
image, label = st.sampled_from(["a", "b", "c"]), st.sampled_from([0, 1, 1])
score = st.sampled_from([0.2, 0.5, 0.9])
a_truth = st.tuples(image, label, box).map(lambda t: (*t[:2], *t[2]))
a_guess = st.tuples(image, label, score, box).map(lambda t: (*t[:3], *t[3]))
COCO_IOU = np.linspace(0.5, 0.95, 10)


def none_to_nan(values):
    return [np.nan if value is None else value for value in values]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(a_truth, max_size=12), st.lists(a_guess, max_size=25))
def test_bins_of_size_equal_pycocotools(truth, predictions):
    three = frames(truth, predictions)
    rows = pd.DataFrame(sizes.by_size(*three, CLASSES))
    for measure, mine in rows.groupby("measure"):
        bins = mine[["low", "high"]].to_numpy().tolist()
        theirs = reference(three, COCO_IOU, bins, share=measure == "area_frac")
        assert none_to_nan(mine["ap50"]) == pytest.approx(theirs[0], abs=1e-9, nan_ok=True)
        assert none_to_nan(mine["ap50_95"]) == pytest.approx(theirs.mean(0), abs=1e-9, nan_ok=True)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(a_truth, max_size=12), st.lists(a_guess, max_size=25))
def test_loose_overlap_equals_pycocotools_and_the_matches(truth, predictions):
    three = frames(truth, predictions)
    mine = none_to_nan([sizes.loose(*three, CLASSES)["ap10"]])
    assert mine == pytest.approx(reference(three, [0.1], [[0, 1e10]], share=False)[0], abs=1e-9, nan_ok=True)
    # what is bootstrapped is the same figure
    own = metrics.ap50(metrics.match(*three, iou=sizes.LOOSE_IOU), three[0])
    assert none_to_nan([own]) == pytest.approx(mine, abs=1e-9, nan_ok=True)


def test_a_tenth_of_overlap_is_enough():
    # 10 x 10 and, inside it, 10 x 2: IoU 20/100; 10 x 1: exactly .1; 9 x 1: .09
    for corners, found in (((0, 0, 10, 2), 1), ((0, 0, 10, 1), 1), ((0, 0, 9, 1), 0)):
        three = frames([("a", 1, 0, 0, 10, 10)], [("a", 1, 0.9, *corners)])
        seen = sizes.loose(*three, CLASSES)
        assert seen == {"ap10": found, "ap10_by_class": {"fire": None, "smoke": found}}
        assert cocoeval.coco(*three, CLASSES)["ap50"] == 0


def test_bins_by_hand():
    # a is 5,000 px: 10 x 10 is .02 of it, an edge; b is 80,000: 10 x 8 is .001, an edge, and 40 x 40 is .02
    three = frames(
        [("a", 1, 0, 0, 10, 10), ("b", 1, 0, 0, 10, 8), ("b", 1, 50, 50, 90, 90)],
        [("a", 1, 0.9, 0, 0, 10, 10), ("b", 1, 0.8, 50, 50, 90, 90)],
    )
    rows = sizes.by_size(*three, CLASSES)
    by_share = [(r["low"], r["high"], r["boxes_n"], r["ap50"]) for r in rows if r["measure"] == "area_frac"]
    assert by_share == [
        (0.0, 0.001, 1, 0.0),
        (0.001, 0.005, 1, 0.0),
        (0.005, 0.02, 2, 1.0),
        (0.02, 0.1, 2, 1.0),
        (0.1, 1.0, 0, None),
    ]
    by_pixel = [(r["low"], r["high"], r["boxes_n"], r["ap50_95"]) for r in rows if r["measure"] == "area_px2"]
    # 51 of 101 recall points at precision 1: one of the two small boxes is found
    small = pytest.approx(51 / 101)
    assert by_pixel == [(0, 1024, 2, small), (1024, 9216, 1, pytest.approx(1.0)), (9216, 1e10, 0, None)]
    whole = cocoeval.coco(*three, CLASSES)
    assert [whole[f"boxes_{name}_n"] for name in ("small", "medium", "large")] == [2, 1, 0]
    assert [whole["ap_small"], whole["ap_medium"], whole["ap_large"]] == [r[3] for r in by_pixel]


def test_refuses_as_coco_does():
    three = frames([("a", 2, 0, 0, 10, 10)], [])
    for function in (sizes.loose, sizes.by_size):
        with pytest.raises(Refusal, match=r"classes \[2\]"):
            function(*three, CLASSES)
        with pytest.raises(Refusal, match="further"):
            function(*frames([("z", 1, 0, 0, 10, 10)], []), CLASSES)
