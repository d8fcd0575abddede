"""Per-image predictions, the classes they carry, and the rows of a record that are made of them."""

import copy
import dataclasses
import shutil
from pathlib import Path

import numpy as np
import painted
import pandas as pd
import pytest
import torch
import yaml
from torch import nn

from saistudy.evaluation import metrics, predict, score
from saistudy.evaluation import truth as ground
from saistudy.evaluation.truth import BOX
from saistudy.paths import Refusal


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


@pytest.fixture(scope="module")
def models(trained, tmp_path_factory):
    """One network under four class tables: as in stage 1, swapped, and with smoke alone, named or not."""
    folder, weights = tmp_path_factory.mktemp("models"), trained.stops[-1]["weights"]
    return {
        "stage 1": weights,
        "swapped": with_classes(weights, [1, 0], {0: "smoke", 1: "fire"}, folder / "swapped.pt"),
        "named": with_classes(weights, [1], {0: "Smoke "}, folder / "named.pt"),
        "single_cls": with_classes(weights, [1], {0: "item"}, folder / "single.pt"),
    }


def by_model(models, tree, folder: Path) -> dict[str, pd.DataFrame]:
    found = predict.predict_models(models, tree, 64, 4, "cpu", folder, splits=["test"])
    return {m: found[found["model"] == m].drop(columns="model").reset_index(drop=True) for m in models}


def alike(one: pd.DataFrame, other: pd.DataFrame, name: str) -> None:
    pd.testing.assert_frame_equal(one, other, check_exact=False, rtol=1e-4, obj=name)


def test_on_two_classes_each_detection_has_the_number_of_its_name(models, enlarged, tmp_path):
    found = by_model(models, enlarged, tmp_path)
    whole = found["stage 1"]
    smoke = whole[whole["class"] == 1].reset_index(drop=True)
    # neither all detections nor none are smoke, so that a wrong number would be seen
    assert 0 < len(smoke) < len(whole) and set(whole["class"]) == {0, 1}
    # what lies on smoke-coloured ground is called smoke: enlarged paints class i % 2 on image i
    best = whole.drop_duplicates("image").set_index("image")["class"]
    painted_as = enlarged.rows.set_index("image")["boxes"].map(lambda boxes: int(boxes[0, 0]))
    assert (best == painted_as[best.index]).mean() > 0.5
    alike(found["swapped"], whole, "swapped")
    alike(found["named"], smoke, "named")
    alike(found["single_cls"], smoke, "single_cls")


def test_on_smoke_alone_the_fire_of_a_model_with_both_classes_does_not_count(models, enlarged, tmp_path):
    whole = by_model({"stage 1": models["stage 1"]}, enlarged, tmp_path)["stage 1"]
    smoke = whole[whole["class"] == 1].assign(**{"class": 0}).reset_index(drop=True)
    alone = relabelled(enlarged, tmp_path / "alone", {1: 0}, {0: "smoke"})
    for name, found in by_model(models, alone, tmp_path).items():
        alike(found, smoke, name)


def relabelled(tree, folder: Path, numbers: dict[int, int], names: dict[int, str]):
    """The same images with some of the boxes, under other numbers, as data of their own."""
    shutil.copytree(tree.folder, folder)
    rows = tree.rows.copy()
    for i, row in rows.iterrows():
        boxes = np.array([[numbers[int(box[0])], *box[1:]] for box in row["boxes"] if int(box[0]) in numbers])
        rows.at[i, "boxes"] = boxes.reshape(-1, 5)
        lines = "".join(f"{int(box[0])} {' '.join(map(str, box[1:]))}\n" for box in boxes)
        (folder / "labels" / row["split"] / f"{Path(row['image']).stem}.txt").write_text(lines)
    told = yaml.safe_load((folder / "data.yaml").read_text()) | {"path": str(folder), "names": names}
    (folder / "data.yaml").write_text(yaml.safe_dump(told))
    return dataclasses.replace(tree, folder=folder, yaml=folder / "data.yaml", rows=rows, names=names)


@pytest.mark.parametrize(
    ("model", "names", "expected"),
    [
        ({0: "fire", 1: "smoke"}, {0: "fire", 1: "smoke"}, {0: 0, 1: 1}),
        ({0: "smoke", 1: "fire"}, {0: "fire", 1: "smoke"}, {0: 1, 1: 0}),
        ({0: "fire", 1: "smoke"}, {0: "smoke"}, {1: 0}),
        ({0: " Smoke"}, {0: "fire", 1: "smoke"}, {0: 1}),
        ({0: "item"}, {0: "fire", 1: "smoke"}, {0: 1}),
        ({0: "item"}, {3: "plume"}, {0: 3}),  # the one class that there is
        ({0: "item"}, {0: "cat", 1: "dog"}, {}),
        ({0: "item"}, {0: "item", 1: "smoke"}, {0: 0}),
        ({0: "person"}, {0: "smoke"}, {}),
    ],
)
def test_classes_are_matched_by_name(model, names, expected):
    assert predict.shared(model, names) == expected


def test_a_model_of_other_classes_is_refused(models, enlarged, tmp_path):
    cats = dataclasses.replace(enlarged, names={0: "cat", 1: "dog"})
    with pytest.raises(Refusal, match="named.pt detects Smoke , nothing of cat, dog"):
        detect(models["named"], cats, tmp_path)


def test_what_a_model_can_output_of_a_table(models):
    known = {name: predict.classes(weights, {0: "fire", 1: "smoke"}) for name, weights in models.items()}
    both = ["fire", "smoke"]
    assert known == {"stage 1": both, "swapped": both, "named": ["smoke"], "single_cls": ["smoke"]}


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
        "event": "",
        "width": 100,
        "height": 100,
        "boxes": np.array(boxes, dtype=float).reshape(-1, 5),
    }


def test_retention_is_the_ap50_of_each_class_that_a_model_has():
    here, there = (0.3, 0.3, 0.4, 0.4), (0.75, 0.75, 0.3, 0.3)  # HERE and THERE as labels
    index = pd.DataFrame(
        [index_row("t1", (1, *here), (0, *there)), index_row("t2", (1, *here)), index_row("t3")]
    )
    predictions = pd.concat(
        [
            frame(("t1", 1, 0.9, *THERE), ("t1", 1, 0.8, *HERE), ("t1", 0, 0.7, *THERE), model="both"),
            frame(("t1", 1, 0.8, *HERE), ("t2", 1, 0.7, *HERE), model="smoke"),
        ]
    )
    known = {"both": ["fire", "smoke"], "smoke": ["smoke"], "none": ["fire", "smoke"]}
    found = score.retention(known, predictions, *ground.val_and_test(index), NAMES)
    assert [row["model"] for row in found] == ["both", "smoke", "none"]
    # smoke where fire is counts as a false detection: precision 1/2 up to recall 1/2
    assert [row["ap50_smoke"] for row in found] == pytest.approx([0.5 * 51 / 101, 1.0, 0.0], abs=1e-9)
    assert [row["ap50_fire"] for row in found] == [pytest.approx(1.0, abs=1e-9), None, 0.0]
    assert [row.get("why") for row in found] == [None, "the model has no class fire", None]
    counts = [(row["images_n"], row["boxes_fire_n"], row["boxes_smoke_n"]) for row in found]
    assert counts == [(3, 1, 2)] * 3


def test_retention_on_a_split_without_a_class_says_so():
    index = pd.DataFrame([index_row("t1", (1, 0.3, 0.3, 0.4, 0.4))])
    frames = ground.val_and_test(index)
    (row,) = score.retention({"m": ["fire", "smoke"]}, FOUND.iloc[:0].assign(model="m"), *frames, NAMES)
    assert (row["ap50_fire"], row["ap50_smoke"], row["boxes_fire_n"]) == (None, 0.0, 0)
    assert row["why"] == "no box of fire in this split"


def test_an_image_is_seen_whose_group_has_an_image_in_another_split():
    index = pd.DataFrame([index_row(f"i{n}") for n in range(5)])
    index["split"] = ["train", "val", "test", "test", "val"]
    index["group"] = ["a", "b", "a", "c", "b"]
    _, images = ground.val_and_test(index)
    assert images["image"].tolist() == ["i1", "i4", "i2", "i3"]
    assert images["seen"].tolist() == [False, False, True, False]
    test = images[images["split"] == "test"]
    assert set(test.loc[test["seen"], "group"]) == score.seen_groups(index) & set(test["group"])


def test_the_matrix_has_a_row_per_model_and_size_of_the_test_images_alone():
    good, none = FOUND.assign(model="good"), FOUND.iloc[:0].assign(model="good")
    rows = score.matrix(["good", "silent"], {"64x96": good, "32x32": none}, TRUTH, IMAGES, NAMES)
    sizes = [("good", [64, 96]), ("silent", [64, 96]), ("good", [32, 32]), ("silent", [32, 32])]
    assert [(row["model"], row["imgsz"]) for row in rows] == sizes
    test = [f[f["image"].str.startswith("t")] for f in (TRUTH, FOUND, IMAGES)]
    alone = metrics.coco(*test, NAMES)
    assert {key: rows[0][key] for key in score.SIZED} == {key: alone[key] for key in score.SIZED}
    assert [row["ap50"] for row in rows[1:]] == [0.0] * 3


def test_the_best_hundred_of_each_class_are_kept_not_of_each_image():
    n = 150
    rows = pd.DataFrame({"image": ["a/t1"] * 2 * n + ["b/t2"] * 3, "class": [0, 1] * n + [1] * 3})
    rows["score"] = np.linspace(0.99, 0.02, len(rows))
    rows[BOX] = [1.0, 2.0, 30.0, 40.0]
    index = pd.DataFrame({"image": ["t1", "t2"], "split": "test", "group": ["g", "h"]})
    kept = predict.label(rows.sample(frac=1, random_state=0), index)
    assert kept.groupby(["image", "class"]).size().to_dict() == {("t1", 0): 100, ("t1", 1): 100, ("t2", 1): 3}
    best = rows[rows["class"] == 1]["score"].head(100)
    mine = kept[(kept["image"] == "t1") & (kept["class"] == 1)]["score"]
    assert np.allclose(mine, best, atol=1e-6)


def test_without_a_test_split_figures_are_those_of_val():
    rows = pd.DataFrame({"split": ["train", "val", "val"], "group": ["a", "a", "b"]})
    assert score.seen_groups(rows, "val") == {"a"}
    chosen = IMAGES.assign(split="val"), TRUTH.assign(split="val"), FOUND.assign(split="val")
    images, truth, found = chosen
    as_val, _ = score.rows(["one"], found, truth, images, NAMES, set(), "val")
    assert as_val["images_n"] == len(IMAGES)
    assert as_val["threshold"] == metrics.threshold(metrics.match(truth, found, images), truth)
    assert score.rows(["one"], found, truth, images, NAMES, set())[0]["images_n"] == 0  # there is no test


def test_a_time_is_read_off_a_name_as_pyrosdis_writes_it():
    names = [
        "a_b-01_2024-05-06T07-08-09.jpg",
        "c_2023-12-31T23-59-59_2.jpg",
        "fire_CV000001.jpg",
        "x_2024-05.png",
    ]
    seen = ground.times(pd.Series(names))
    assert seen[0] == pd.Timestamp(2024, 5, 6, 7, 8, 9) and seen[1] == pd.Timestamp(2023, 12, 31, 23, 59, 59)
    assert seen[2:].isna().all()


def test_what_an_operator_sees_by_hand():
    """One camera, a frame in 30 s: two quiet, two with smoke (found from the second on), one quiet."""
    names = [f"cam_2024-05-06T07-0{i}-00.jpg" for i in range(5)]
    smoke = [(0, 0.3, 0.3, 0.4, 0.4)]
    index = pd.DataFrame([index_row(name, *(smoke if i in (2, 3) else [])) for i, name in enumerate(names)])
    images, truth = ground.images(index, "test"), ground.truth(index, "test")
    found = frame((names[0], 0, 0.2, *HERE), (names[2], 0, 0.3, *HERE), (names[3], 0, 0.9, *HERE), model="m")
    none, all_, events = score.operation(
        found, truth, images, 0.5, frames_per_day=300.0, budgets=[0.0, 100.0]
    )
    # one of three quiet frames alarms at .2: 300 / 3 = 100 a day
    assert (none["threshold"], none["recall"], none["rate_per_day"]) == (0.3, 1.0, 0.0)
    assert (all_["threshold"], all_["rate_per_day"], all_["step_per_day"]) == (0.2, 100.0, 100.0)
    assert (events["events_n"], events["recall"], events["frames_to_detect"]) == (1, 1.0, 1.0)
