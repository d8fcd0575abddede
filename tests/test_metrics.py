"""Average precision, matches and operating points: against both COCO libraries and by hand."""

import contextlib
import io
import time

import numpy as np
import pandas as pd
import pytest
from faster_coco_eval import COCO as FasterCOCO
from faster_coco_eval import COCOeval_faster
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from saistudy.evaluation import metrics
from saistudy.evaluation.cocoeval import BOX
from saistudy.evaluation.stats import group_bootstrap_weights
from saistudy.paths import Refusal

CLASSES = {0: "fire", 1: "smoke"}
TRUTH = ["image", "class", "x1", "y1", "x2", "y2"]
PREDICTIONS = ["image", "class", "score", "x1", "y1", "x2", "y2"]


def frames(truth, predictions, images):
    return (
        pd.DataFrame(truth, columns=TRUTH),
        pd.DataFrame(predictions, columns=PREDICTIONS),
        pd.DataFrame({"image": images, "width": 640, "height": 480}),
    )


def reference(truth, predictions, images, coco=COCO, coco_eval=COCOeval) -> np.ndarray:
    """COCO's first six figures, -1 for missing; images by name, the order of equal scores."""
    number = {name: n for n, name in enumerate(sorted(images["image"]), start=1)}
    parts = [
        [
            {
                "id": n,
                "image_id": number[row["image"]],
                "category_id": row["class"],
                "bbox": [row["x1"], row["y1"], row["x2"] - row["x1"], row["y2"] - row["y1"]],
                "area": (row["x2"] - row["x1"]) * (row["y2"] - row["y1"]),
                "iscrowd": 0,
                "score": row.get("score"),
            }
            for n, row in enumerate(frame.to_dict("records"), start=1)
        ]
        for frame in (truth, predictions)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        sides = []
        for annotations in parts:
            side = coco()
            side.dataset = {
                "images": [{"id": n, "width": 640, "height": 480} for n in number.values()],
                "categories": [{"id": k, "name": v} for k, v in CLASSES.items()],
                "annotations": annotations,
            }
            side.createIndex()
            sides.append(side)
        evaluation = coco_eval(*sides, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return np.asarray(evaluation.stats[:6])


# Few whole coordinates and scores: IoU of exactly one half, equal IoU and equal scores do occur.
side = st.sampled_from([10, 20, 40, 120])
corner = st.sampled_from([0, 10])
box = st.tuples(corner, corner, side, side).map(lambda b: (*b[:2], b[0] + b[2], b[1] + b[3]))
image = st.sampled_from(["a", "b"])
label = st.sampled_from([0, 0, 1])
score = st.sampled_from([0.2, 0.5, 0.9])
a_truth = st.tuples(image, label, box).map(lambda t: (*t[:2], *t[2]))
a_guess = st.tuples(image, label, score, box).map(lambda t: (*t[:3], *t[3]))
truths = st.lists(a_truth, max_size=3) | st.lists(a_truth, min_size=5, max_size=12)
guesses = st.lists(a_guess, max_size=3) | st.lists(a_guess, min_size=8, max_size=25)


def none_to_minus_one(value):
    return -1 if value is None else value


@settings(max_examples=100, deadline=None, derandomize=True)
@given(truths, guesses)
def test_equals_both_coco_libraries(truth, predictions):
    three = frames(truth, predictions, ["d", "b", "a", "c"])
    mine = metrics.coco(*three, CLASSES)
    seen = [mine[k] for k in ("ap50_95", "ap50", "ap_small", "ap_medium", "ap_large")]
    slow, fast = reference(*three), reference(*three, FasterCOCO, COCOeval_faster)
    # figures 0, 1, 3, 4, 5 of COCO's list: all, IoU .5, small, medium, large
    for theirs in (slow, fast):
        assert list(map(none_to_minus_one, seen)) == pytest.approx(theirs[[0, 1, 3, 4, 5]], abs=1e-9)
    own = metrics.ap50(metrics.match(*three), three[0])
    assert none_to_minus_one(own) == pytest.approx(slow[1], abs=1e-9)


def realistic(images_n: int, boxes_n: int, seed: int):
    """Truth with jittered copies and strays as predictions, all scores different."""
    rng = np.random.default_rng(seed)
    names = [f"i{n:05d}" for n in range(images_n)]
    corners = rng.uniform(0, 400, (images_n * 2, 2))
    boxes = np.hstack([corners, corners + rng.uniform(8, 150, corners.shape)])
    truth = pd.DataFrame(boxes, columns=BOX)
    truth.insert(0, "image", rng.choice(names[: images_n * 3 // 4], len(boxes)))
    truth.insert(1, "class", rng.integers(0, 2, len(boxes)))
    source = truth.sample(images_n * boxes_n, replace=True, random_state=seed)
    predictions = source.assign(score=rng.permutation(len(source)) / len(source))
    predictions[BOX] += rng.normal(0, 8, (len(source), 4))
    strays = rng.random(len(source)) < 0.5
    predictions.loc[strays, "image"] = rng.choice(names, strays.sum())
    predictions[["x2", "y2"]] = np.maximum(
        predictions[["x2", "y2"]].to_numpy(), predictions[["x1", "y1"]].to_numpy() + 1
    )
    images = pd.DataFrame({"image": names, "width": 640, "height": 480})
    return truth, predictions.reset_index(drop=True), images


def test_equals_coco_on_realistic_frames():
    three = realistic(150, 10, seed=1)
    slow = reference(*three)
    assert 0.05 < slow[1] < 0.95
    assert metrics.ap50(metrics.match(*three), three[0]) == pytest.approx(slow[1], abs=1e-9)
    assert metrics.coco(*three, CLASSES)["ap50_95"] == pytest.approx(slow[0], abs=1e-9)


def test_only_the_best_hundred_count():
    # 100 misses with better scores push the one hit out of an image and class
    misses = [("a", 0, 0.9 - n / 1000, 200, 200, 210, 210) for n in range(100)]
    three = frames([("a", 0, 0, 0, 10, 10)], [*misses, ("a", 0, 0.1, 0, 0, 10, 10)], ["a"])
    assert metrics.ap50(metrics.match(*three), three[0]) == reference(*three)[1] == 0
    # with 99 it is the hundredth, and right at precision 1/100
    three = frames([("a", 0, 0, 0, 10, 10)], [*misses[1:], ("a", 0, 0.1, 0, 0, 10, 10)], ["a"])
    assert metrics.ap50(metrics.match(*three), three[0]) == pytest.approx(0.01)


# Two boxes; by falling score: hit, miss, second find of the same box, hit. Precision 1, 1/2, 1/3,
# 1/2 at recall 1/2, 1/2, 1/2, 1: interpolated 1 at the 51 recalls 0 to .50, 1/2 at the other 50.
BY_HAND = frames(
    [("a", 1, 0, 0, 100, 100), ("b", 1, 0, 0, 10, 10)],
    [
        ("a", 1, 0.9, 0, 0, 100, 90),
        ("b", 1, 0.8, 50, 50, 60, 60),
        ("a", 1, 0.7, 0, 0, 100, 100),
        ("b", 1, 0.6, 0, 0, 10, 8),
    ],
    ["a", "b", "c"],
)


def test_average_precision_by_hand():
    matches = metrics.match(*BY_HAND)
    assert matches.sort_values("score")["tp"].tolist() == [True, False, False, True]
    assert matches.sort_values("score")["truth"].tolist() == [1, -1, -1, 0]
    expected = (51 + 50 * 0.5) / 101
    assert metrics.ap50(matches, BY_HAND[0]) == pytest.approx(expected, abs=1e-12)
    figures = metrics.coco(*BY_HAND, CLASSES)
    assert figures["ap50"] == pytest.approx(expected, abs=1e-12)
    assert figures["ap50_by_class"] == {"fire": None, "smoke": pytest.approx(expected)}
    assert (figures["images_n"], figures["boxes_n"]) == (3, 2)
    # no box between 32 and 96 pixels: None, not COCO's -1
    assert figures["ap_medium"] is None and figures["ap_small"] is not None


def test_of_equal_iou_the_last_box_is_taken():
    # the first guess covers both boxes, IoU 1/2 each, and takes the second, which the next one hits
    three = frames(
        [("a", 0, 0, 0, 10, 10), ("a", 0, 10, 0, 20, 10)],
        [("a", 0, 0.9, 0, 0, 20, 10), ("a", 0, 0.8, 10, 0, 20, 10)],
        ["a"],
    )
    matches = metrics.match(*three)
    assert matches["truth"].tolist() == [1, -1]
    assert metrics.ap50(matches, three[0]) == pytest.approx(reference(*three)[1], abs=1e-12)


def test_iou_of_exactly_one_half_matches():
    # 10 x 10 against 10 x 5 inside it: 50/100
    three = frames([("a", 0, 0, 0, 10, 10)], [("a", 0, 0.5, 0, 0, 10, 5)], ["a"])
    assert metrics.match(*three)["tp"].tolist() == [True]
    assert metrics.match(*three, iou=0.51)["tp"].tolist() == [False]


@pytest.mark.parametrize("empty", ["truth", "predictions", "both"])
def test_empty_frames(empty, capfd):
    truth = [] if empty != "predictions" else [("a", 0, 0, 0, 10, 10)]
    predictions = [] if empty != "truth" else [("a", 0, 0.5, 0, 0, 10, 5)]
    three = frames(truth, predictions, ["a"])
    # without truth there is nothing to average; with truth and no prediction it is 0
    expected = 0 if truth else None
    assert metrics.coco(*three, CLASSES)["ap50"] == expected
    matches = metrics.match(*three)
    assert metrics.ap50(matches, three[0]) == expected
    assert metrics.threshold(matches, three[0]) == 1.0
    # a library that prints into a notebook would be seen here
    assert capfd.readouterr().out == ""


def test_row_order_changes_nothing():
    truth, predictions, images = realistic(40, 5, seed=2)
    value = metrics.ap50(metrics.match(truth, predictions, images), truth)
    shuffled = [f.sample(frac=1, random_state=3) for f in (truth, predictions, images)]
    assert metrics.ap50(metrics.match(*shuffled), shuffled[0]) == pytest.approx(value, abs=1e-12)


def test_weights_equal_repeated_images():
    truth, predictions, images = realistic(60, 6, seed=4)
    groups = [f"g{n // 5}" for n in range(60)]
    weights = group_bootstrap_weights(groups, 5, np.random.default_rng(5))
    matches = metrics.match(truth, predictions, images)
    values = metrics.ap50_resampled(matches, truth, images["image"], weights)
    for value, row in zip(values, weights, strict=True):
        # each image put in as many times as it was drawn, under names that keep the copies together
        copies = [
            (name, f"{name}-{k}") for name, n in zip(images["image"], row, strict=True) for k in range(n)
        ]
        copied = pd.DataFrame(copies, columns=["image", "copy"])
        three = [
            f.merge(copied, on="image").assign(image=lambda x: x["copy"])
            for f in (truth, predictions, images)
        ]
        assert value == pytest.approx(reference(*three)[1], abs=1e-9)
        series = pd.Series(row, index=images["image"])
        assert metrics.ap50(matches, truth, series) == pytest.approx(value, abs=1e-12)


def test_resample_without_truth_has_no_value():
    truth, predictions, images = BY_HAND
    matches = metrics.match(truth, predictions, images)
    weights = np.array([[0, 0, 3], [1, 1, 1]])
    values = metrics.ap50_resampled(matches, truth, images["image"], weights)
    assert np.isnan(values).tolist() == [True, False]


def test_bootstrap_is_fast_enough():
    truth, predictions, images = realistic(2_000, 10, seed=6)
    groups = [f"g{n // 20}" for n in range(2_000)]
    start = time.perf_counter()
    weights = group_bootstrap_weights(groups, 1_000, np.random.default_rng(7))
    matches = metrics.match(truth, predictions, images)
    values = metrics.ap50_resampled(matches, truth, images["image"], weights)
    assert time.perf_counter() - start < 10
    # the resamples lie around the value of the whole set
    low, high = np.quantile(values, [0.025, 0.975])
    assert low < metrics.ap50(matches, truth) < high


def test_threshold_by_hand():
    # F1 from .9 down, 2 tp / (kept + 2 boxes): 2/3, 2/4, 2/5, 4/6: a tie, the higher score wins
    matches = metrics.match(*BY_HAND)
    assert metrics.threshold(matches, BY_HAND[0]) == 0.9


def test_threshold_is_the_best_of_all():
    truth, predictions, images = realistic(50, 6, seed=8)
    predictions["score"] = predictions["score"].round(2)  # equal scores, which no cut can part
    matches = metrics.match(truth, predictions, images)
    f1 = {t: metrics.prf(matches, truth, t)["f1"] for t in np.unique(predictions["score"])}
    best = max(f1.values())
    assert metrics.threshold(matches, truth) == max(t for t, v in f1.items() if v == best)


def test_prf_by_hand():
    matches = metrics.match(*BY_HAND)
    counts = {"tp_n": 1, "fp_n": 2, "fn_n": 1}
    expected = {"precision": 1 / 3, "recall": 1 / 2, "f1": 2 / 5, **counts}
    # at .7, which itself counts: one hit, a miss, a second find of the same box
    assert metrics.prf(matches, BY_HAND[0], 0.7) == pytest.approx(expected)
    nothing = metrics.prf(matches, BY_HAND[0], 0.95)
    assert (nothing["precision"], nothing["recall"], nothing["f1"]) == (None, 0, 0)


def test_cutting_after_matching_equals_matching_after_cutting():
    truth, predictions, images = realistic(50, 6, seed=9)
    late = metrics.prf(metrics.match(truth, predictions, images), truth, 0.4)
    kept = predictions[predictions["score"] >= 0.4]
    assert late == metrics.prf(metrics.match(truth, kept, images), truth, 0.0)


def test_image_rates_by_hand():
    # a and b have boxes, c and d have none; alarms at .5: a (wrong place, still an alarm) and c
    truth, predictions, images = frames(
        [("a", 0, 0, 0, 9, 9), ("a", 1, 0, 0, 9, 9), ("b", 1, 0, 0, 9, 9)],
        [
            ("a", 0, 0.2, 0, 0, 9, 9),
            ("a", 1, 0.5, 90, 90, 99, 99),
            ("b", 1, 0.49, 0, 0, 9, 9),
            ("c", 0, 0.8, 0, 0, 9, 9),
            ("c", 0, 0.7, 0, 0, 9, 9),
        ],
        ["a", "b", "c", "d"],
    )
    expected = {"recall": 0.5, "false_positive_rate": 0.5, "positives_n": 2, "negatives_n": 2}
    assert metrics.image_rates(truth, predictions, images, 0.5) == expected
    # a set in which every image has a box has no false positive rate
    only = metrics.image_rates(truth, predictions[:3], images[:2], 0.5)
    assert only["false_positive_rate"] is None


def test_refuses():
    truth, predictions, images = BY_HAND
    with pytest.raises(Refusal, match="further"):
        metrics.match(truth, predictions, images[:1])
    with pytest.raises(Refusal, match="each image once"):
        metrics.match(truth, predictions, pd.concat([images, images]))
    with pytest.raises(Refusal, match="2 models"):
        metrics.match(truth, predictions.assign(model=["m", "n", "m", "n"]), images)
    with pytest.raises(Refusal, match="finite"):
        metrics.match(truth, predictions.assign(score=np.nan), images)
    with pytest.raises(Refusal, match=r"classes \[1\]"):
        metrics.coco(truth, predictions, images, {0: "fire"})
    with pytest.raises(Refusal, match="without a weight"):
        metrics.ap50_resampled(metrics.match(*BY_HAND), truth, ["a"], np.ones((1, 1)))
