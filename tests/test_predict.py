"""Per-image predictions, the classes they carry, and the rows of a record that are made of them."""

import copy
from pathlib import Path

import numpy as np
import painted
import pandas as pd
import pytest
import torch
from torch import nn

from saistudy.evaluation import predict, score
from saistudy.evaluation import truth as ground
from saistudy.evaluation.truth import BOX


def detect(weights, tree, folder: Path, imgsz=64, split: str = "test") -> pd.DataFrame:
    return predict.predict(weights, tree, split, imgsz, 4, "cpu", folder)


@pytest.fixture(scope="module")
def enlarged(tmp_path_factory):
    """Painted rectangles of several sizes, larger than any tensor here."""
    sizes = [(256, 192), (200, 151), (251, 199)]
    counts = {"train": 1, "val": 3, "test": 6}
    folder = tmp_path_factory.mktemp("enlarged") / "tree"
    return painted.tree(folder, counts, {0: "fire", 1: "smoke"}, sizes, [0, 1], seed=5)


@pytest.mark.parametrize("imgsz", [64, [96, 64]])
def test_boxes_are_in_the_pixels_of_the_original(trained, enlarged, tmp_path, imgsz):
    found = detect(trained.stops[-1]["weights"], enlarged, tmp_path, imgsz)
    assert list(found.columns) == ["image", "split", "group", "class", "score", *BOX]
    assert found["score"].between(0.01, 1).all() and set(found["split"]) == {"test"}
    for row in enlarged.rows[enlarged.rows["split"] == "test"].itertuples():
        mine = found[found["image"] == row.image]
        assert mine["score"].is_monotonic_decreasing and set(mine["group"]) == {row.group}
        # a box lies where the rectangle was painted, in an image three to four times the tensor
        overlaps = [painted.iou(box, painted.truth_px(row)[0]) for box in mine[BOX].to_numpy()]
        assert max(overlaps) > 0.6


def test_truth_and_images(enlarged):
    truth, images = ground.val_and_test(enlarged.rows)
    rows = enlarged.rows[enlarged.rows["split"] != "train"]
    assert sorted(images["image"]) == sorted(rows["image"])
    # exact to the six decimals of a label
    painted_px = np.concatenate([painted.truth_px(row) for row in rows.itertuples()])
    assert np.allclose(truth.set_index("image").loc[rows["image"], BOX], painted_px, atol=1e-9)
    assert truth["class"].tolist() == [0, 1, 0, 0, 1, 0, 1, 0, 1]


def test_equal_weights_are_run_once_and_named_twice(trained, enlarged, tmp_path):
    weights = trained.stops[-1]["weights"]
    both = predict.predict_models({"a": weights, "b": weights}, enlarged, 64, 4, "cpu", tmp_path)
    a, b = (both[both["model"] == m].drop(columns="model").reset_index(drop=True) for m in "ab")
    assert len(a) and a.equals(b)
    assert (
        a[a["split"] == "val"].reset_index(drop=True).equals(detect(weights, enlarged, tmp_path, split="val"))
    )


def with_classes(weights: Path, rows: list[int], names: dict[int, str], path: Path) -> Path:
    """A checkpoint that outputs the given class rows of another one, under other names."""
    checkpoint = copy.deepcopy(torch.load(weights, weights_only=False))
    model = checkpoint["model"]
    head = model.model[-1]
    for branch in head.cv3:
        old = branch[-1]
        branch[-1] = nn.Conv2d(old.in_channels, len(rows), 1).to(old.weight.dtype)
        branch[-1].weight.data, branch[-1].bias.data = old.weight.data[rows], old.bias.data[rows]
    head.nc = len(rows)
    head.no = head.nc + 4 * head.reg_max
    model.names, model.nc = names, len(rows)
    model.yaml["nc"] = len(rows)
    torch.save(checkpoint, path)
    return path


def test_smoke_is_found_under_whatever_number_a_model_gives_it(trained, enlarged, tmp_path):
    weights = trained.stops[-1]["weights"]
    models = {
        "stage 1": weights,
        "swapped": with_classes(weights, [1, 0], {0: "smoke", 1: "fire"}, tmp_path / "swapped.pt"),
        "named": with_classes(weights, [1], {0: "smoke"}, tmp_path / "named.pt"),
        "single": with_classes(weights, [1], {0: "item"}, tmp_path / "single.pt"),
    }
    found = predict.smoke_only(models, enlarged, 64, 4, "cpu", tmp_path)
    assert set(found["class"]) == {0}
    frames = {m: found[found["model"] == m].drop(columns="model").reset_index(drop=True) for m in models}
    whole = detect(weights, enlarged, tmp_path)
    smoke = whole[whole["class"] == 1].assign(**{"class": 0}).reset_index(drop=True)
    # neither all detections nor none are smoke, so that a wrong number would be seen
    assert 0 < len(smoke) < len(whole)
    for name, frame in frames.items():
        pd.testing.assert_frame_equal(frame, smoke, check_exact=False, rtol=1e-4, obj=name)


def frame(*rows: tuple, model: str | None = None) -> pd.DataFrame:
    """(image, class, score, x1, y1, x2, y2) as a frame of predictions, or of truth without the score."""
    columns = ["image", "class", "score", *BOX]
    made = pd.DataFrame(rows, columns=columns).astype({"class": int, "score": float})
    return made.assign(model=model) if model else made.drop(columns="score")


IMAGES = pd.DataFrame(
    [
        ("v1", "val", "a"),
        ("v2", "val", "b"),
        ("t1", "test", "a"),
        ("t2", "test", "c"),
        ("t3", "test", "c"),
        ("t4", "test", "d"),
    ],
    columns=["image", "split", "group"],
).assign(width=100, height=100)
HERE, THERE = (10.0, 10.0, 50.0, 50.0), (60.0, 60.0, 90.0, 90.0)
TRUTH = frame(
    ("v1", 0, 1, *HERE), ("t1", 0, 1, *HERE), ("t2", 1, 1, *HERE), ("t3", 0, 1, *HERE), ("t3", 0, 1, *THERE)
)
# val: right at .8, wrong at .3 -> threshold .8; test: t1 and one of t3 found, t2 under the wrong class, t4 a
# false alarm, the other of t3 found below the threshold
FOUND = frame(
    ("v1", 0, 0.8, *HERE),
    ("v2", 0, 0.3, *HERE),
    ("t1", 0, 0.9, *HERE),
    ("t2", 0, 0.85, *HERE),
    ("t3", 0, 0.9, *HERE),
    ("t3", 0, 0.5, *THERE),
    ("t4", 1, 0.95, *THERE),
    model="one",
)
NAMES = {0: "fire", 1: "smoke"}


def test_rows_of_a_record():
    found = score.rows(["one", "none"], FOUND, TRUTH, IMAGES, NAMES, seen={"a", "b"})
    assert [(row["model"], row["subset"]) for row in found] == [
        ("one", "published"),
        ("one", "group-disjoint"),
        ("none", "published"),
        ("none", "group-disjoint"),
    ]
    whole, apart, nothing, _ = found
    # the threshold is that of val in both sets
    assert whole["threshold"] == apart["threshold"] == 0.8
    assert (whole["images_n"], whole["groups_n"], whole["boxes_n"]) == (4, 3, 4)
    assert (whole["tp_n"], whole["fp_n"], whole["fn_n"]) == (2, 2, 2)
    # images: t1, t2, t3 hold boxes and raise alarms, t4 holds none and raises one
    assert (whole["image_recall"], whole["image_positives_n"]) == (1.0, 3)
    assert (whole["image_false_positive_rate"], whole["image_negatives_n"]) == (1.0, 1)
    # group a was trained on: t1 falls out
    assert (apart["images_n"], apart["groups_n"], apart["boxes_n"]) == (3, 2, 3)
    assert (apart["tp_n"], apart["fp_n"], apart["fn_n"]) == (1, 2, 2)
    # fire: right, wrong, right of 2 boxes: precision 1 up to recall .5, then 2/3; smoke 0
    assert apart["ap50"] == pytest.approx((51 + 50 * 2 / 3) / 101 / 2, abs=1e-9)
    # a model that found nothing has its row, its boxes all missed
    assert (nothing["ap50"], nothing["tp_n"], nothing["fp_n"], nothing["fn_n"]) == (0.0, 0, 0, 4)
    assert nothing["threshold"] == 1.0 and nothing["precision"] is None


def test_a_set_without_boxes_says_why():
    seen = {"a", "b", "c"}
    _, apart = score.rows(["one"], FOUND, TRUTH, IMAGES, NAMES, seen)
    assert (apart["images_n"], apart["ap50"]) == (1, None) and apart["why"]
    _, empty = score.rows(["one"], FOUND, TRUTH, IMAGES, NAMES, seen | {"d"})
    assert (empty["images_n"], empty["groups_n"], empty["ap50"]) == (0, 0, None)


def test_groups_of_train_and_of_val_are_seen():
    rows = pd.DataFrame({"split": ["train", "val", "test", "test"], "group": ["a", "b", "b", "c"]})
    assert score.seen_groups(rows) == {"a", "b"}


def test_differences_of_two_models_on_resamples():
    test = IMAGES[IMAGES["split"] == "test"]
    nothing = FOUND.iloc[:0]
    # t1 alone; t3 alone (both boxes found); t4 alone has no truth
    weights = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    seen = score.differences(FOUND, nothing, TRUTH, test, weights)
    assert seen[:2] == pytest.approx([1.0, 1.0]) and np.isnan(seen[2])
    assert score.differences(FOUND, FOUND, TRUTH, test, weights)[:2].tolist() == [0.0, 0.0]


def index_row(image: str, *boxes: tuple) -> dict:
    return {
        "image": image,
        "split": "test",
        "group": "g",
        "width": 100,
        "height": 100,
        "boxes": np.array(boxes, dtype=float).reshape(-1, 5),
    }


def test_retention_counts_smoke_alone():
    here, there = (0.3, 0.3, 0.4, 0.4), (0.75, 0.75, 0.3, 0.3)  # HERE and THERE as labels
    index = pd.DataFrame(
        [index_row("t1", (1, *here), (0, *there)), index_row("t2", (1, *here)), index_row("t3")]
    )
    predictions = pd.concat(
        [
            frame(("t1", 0, 0.9, *THERE), ("t1", 0, 0.8, *HERE), model="on fire"),
            frame(("t1", 0, 0.8, *HERE), ("t2", 0, 0.7, *HERE), model="right"),
        ]
    )
    found = score.retention(["on fire", "right", "none"], predictions, index)
    # a detection on the fire is a false one: precision 1/2 up to recall 1/2
    assert [row["ap50_smoke"] for row in found] == pytest.approx([0.5 * 51 / 101, 1.0, 0.0], abs=1e-9)
    assert [(row["model"], row["images_n"], row["boxes_n"]) for row in found] == [
        ("on fire", 3, 2),
        ("right", 3, 2),
        ("none", 3, 2),
    ]
