"""The joint pool: whose images are in it, under which names and numbers; what the arms of stage 2 declare."""

import hashlib
import math

import numpy as np
import painted
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from saistudy import params
from saistudy.data import boxes, index, joint, tree
from saistudy.paths import PARAMS, Refusal
from saistudy.study import forecast
from saistudy.training import conditions
from saistudy.training.rect import RectTrainer

names = st.sampled_from(["a", "A", "b", "b_2", "B_2", "c"]).map(lambda stem: f"{stem}.jpg")
rows = st.dictionaries(names, st.sampled_from(index.SPLITS), max_size=6)


def dataset(name: str, split_of: dict[str, str], table: dict[int, str], bad=(), labels=(0,)) -> index.Dataset:
    """Images with a box for each label; their bytes are data set and name; `bad` train images are refused."""
    box = np.array([[label, 0.5, 0.5, 0.25, 0.5] for label in labels])
    made = [(image, split, "g", "", 8, 8, f"{name}:{image}", 0, box) for image, split in split_of.items()]
    notes = pd.DataFrame([index.note(image, "train", "unreadable") for image in bad], columns=index.NOTES)
    frame = pd.DataFrame(made, columns=index.COLUMNS).sort_values("image", ignore_index=True)
    total_n = len(frame) + len(index.refused(notes))
    told = "synthetic" if name == "pyro-sdis" else "published-format"
    return index.Dataset(name, frame, notes, total_n, table, told, lambda image: f"{name}:{image}".encode())


FASDD, PYRO = {0: "fire", 1: "smoke"}, {0: "smoke"}


@settings(max_examples=200, deadline=None)
@given(rows, rows, st.sets(names, max_size=2), st.sets(names, max_size=2))
def test_the_pool_is_all_of_the_second_and_the_train_images_of_the_first(first, second, bad, worse):
    one = dataset("fasdd_cv", first, FASDD, bad - first.keys(), labels=(0, 1))
    # the reader of the second frees its names, so no two of its stems are alike
    second = {image: split for image, split in second.items() if image.islower()}
    other = dataset("pyro-sdis", second, PYRO, {image for image in worse if image.islower()} - second.keys())
    pooled = joint.pool(one, other)
    mine = pooled.rows.set_index("image")
    sources = {image: pooled.read(image).decode() for image in mine.index}
    # each image comes from where its row comes from, once, under its own name where it is the second's
    assert sources == mine["sha256"].to_dict()
    wanted = {f"pyro-sdis:{image}" for image in second}
    wanted |= {f"fasdd_cv:{image}" for image, split in first.items() if split == "train"}
    assert sorted(sources.values()) == sorted(wanted)
    kept = {image: told for image, told in sources.items() if told.startswith("pyro-sdis")}
    assert kept == {image: f"pyro-sdis:{image}" for image in second}
    assert {image: mine.loc[image, "split"] for image in kept} == second
    assert set(mine.loc[mine.index.difference(list(kept)), "split"]) <= {"train"}
    # two images of one stem would share a label file
    stems = [image.rpartition(".")[0].casefold() for image in mine.index]
    assert len(set(stems)) == len(stems)
    # smoke is class 1 in both, fire stays where it was; the sources are as before
    for image, array in mine["boxes"].items():
        assert array[:, 0].tolist() == ([1] if image in kept else [0, 1])
    assert all(array[:, 0].tolist() == [0] for array in other.rows["boxes"])
    # images in = rows + refused, and reading in the order of storage reaches every image once
    assert pooled.images_n == len(pooled.rows) + len(index.refused(pooled.quarantine))
    assert sorted(pooled.storage) == sorted(mine.index)
    assert pooled.names == FASDD and pooled.provenance == "synthetic"


def test_refused_images_of_the_first_are_counted_where_they_would_train():
    one = dataset("fasdd_cv", {"a.jpg": "train", "t.jpg": "test"}, FASDD, bad=["x.jpg"])
    late = pd.DataFrame([index.note("y.jpg", "val", "unreadable")])
    one = index.Dataset(**vars(one) | {"quarantine": pd.concat([one.quarantine, late]), "images_n": 4})
    other = dataset("pyro-sdis", {"x.jpg": "val"}, PYRO, bad=["A.jpg"])
    pooled = joint.pool(one, other)
    # a and x are taken in the second set, the one by an image that was refused
    assert pooled.rows["image"].tolist() == ["a_2.jpg", "x.jpg"]
    assert pooled.quarantine["image"].tolist() == ["x_2.jpg", "A.jpg"] and pooled.images_n == 4


def test_the_order_of_storage_is_that_of_the_sources():
    one = dataset("fasdd_cv", {"a.jpg": "train", "b.jpg": "val"}, FASDD)
    other = dataset("pyro-sdis", {"a.jpg": "train", "c.jpg": "val"}, PYRO)
    other = index.Dataset(**vars(other) | {"storage": ("c.jpg", "a.jpg")})
    assert joint.pool(one, other).storage == ("a_2.jpg", "c.jpg", "a.jpg")


def test_what_cannot_be_pooled_is_refused():
    one, other = dataset("fasdd_cv", {}, FASDD), dataset("pyro-sdis", {}, {0: "plume"})
    with pytest.raises(Refusal, match="pyro-sdis has the class plume, fire, smoke were expected"):
        joint.pool(one, other)
    with pytest.raises(Refusal, match="stage 1 was trained on fasdd_cv-disjoint, whose test images"):
        joint.name("fasdd_cv-disjoint", "pyro-sdis")
    assert joint.name("fasdd_cv", "pyro-sdis") == "joint"
    assert joint.name("fasdd_cv", "pyro-sdis-disjoint") == "joint-disjoint"


def test_a_tree_of_the_pool_is_what_ultralytics_reads(tmp_path):
    """Built from two painted sets: files, labels and data.yaml on the disk."""
    counts = {"train": 3, "val": 2, "test": 2}
    trees = {
        "fasdd_cv": painted.tree(tmp_path / "fasdd", counts, FASDD, [(64, 48)], [0, 1]),
        "pyro-sdis": painted.tree(tmp_path / "pyro", counts, PYRO, [(64, 48)], [0], seed=2),
    }
    made = joint.pool(*(_dataset(name, found) for name, found in trees.items()))
    tree.build(made, tmp_path / "joint")
    told = yaml.safe_load((tmp_path / "joint" / "data.yaml").read_text())
    assert told["names"] == FASDD
    for split in ("val", "test"):
        files = {p.name for p in (tmp_path / "joint" / "images" / split).iterdir()}
        assert files == {f"{split}{i}.png" for i in range(2)}
    files = {p.stem for p in (tmp_path / "joint" / "images" / "train").iterdir()}
    assert files == {f"train{i}{end}" for i in range(3) for end in ("", "_2")}
    for i in range(3):
        for name, end in (("pyro-sdis", ""), ("fasdd_cv", "_2")):
            here, there = (tmp_path / "joint", f"train{i}{end}"), (trees[name].folder, f"train{i}")
            images = [
                (folder / "images/train" / f"{stem}.png").read_bytes() for folder, stem in (here, there)
            ]
            assert hashlib.sha256(images[0]).digest() == hashlib.sha256(images[1]).digest()
            row = trees[name].rows.set_index("image").loc[f"train{i}.png"]
            array = row["boxes"].copy()
            array[:, 0] = 1 if name == "pyro-sdis" else array[:, 0]
            assert (here[0] / "labels/train" / f"{here[1]}.txt").read_text() == boxes.format(array)


def _dataset(name: str, found) -> index.Dataset:
    """A painted tree as the data set that it would be read as."""
    at = found.rows.set_index("image")["split"]

    def read(image: str) -> bytes:
        return (found.folder / "images" / at[image] / image).read_bytes()

    made = found.rows.assign(event="", phash=0)
    made["sha256"] = [hashlib.sha256(read(image)).hexdigest() for image in made["image"]]
    notes = pd.DataFrame(columns=index.NOTES)
    return index.Dataset(name, made[index.COLUMNS], notes, len(made), found.names, "synthetic", read)


class Enough(Exception):
    """Ends a training before its first step."""


@pytest.mark.parametrize("profile", ["demo", "mini", "h200"])
def test_as_written_declares_what_ultralytics_chooses(profile, tmp_path):
    """A trainer of one class with as many iterations as the profile has; nothing is trained."""
    values = params.read("stage2", forecast.arm_files(profile, "stage2", "as-written"), {})
    train = values["train"] | values["change"]
    images_n = forecast.study(profile)["forecast"]["train_images_n"]["pyro-sdis"]
    iterations_n = math.ceil(images_n / max(train["batch"], train["nbs"])) * train["epochs"]
    seen = []

    def stop(trainer):
        seen.append(conditions.read_back(trainer))
        raise Enough

    one = painted.tree(tmp_path / "one", {"train": 4, "val": 2}, PYRO, [(64, 48)], [0])
    place = {"model": "yolov8n.yaml", "data": str(one.yaml), "project": str(tmp_path), "name": "run"}
    same = {key: train[key] for key in ("optimizer", "lr0", "momentum", "weight_decay")}
    small = {"imgsz": 64, "batch": 4, "nbs": 4, "epochs": iterations_n, "device": "cpu", "plots": False}
    trainer = RectTrainer(overrides=place | same | small)
    trainer.add_callback("on_train_start", stop)
    with pytest.raises(Enough):
        trainer.train()
    occurred = conditions.refuse_undeclared(same | small, seen[0], values["effective"])
    assert [row["key"] for row in occurred] == sorted(row["key"] for row in values["effective"])
    # as-meant names an optimizer, so that nothing differs
    meant = params.read("stage2", [PARAMS / profile / "stage2.yaml"], {})["train"]
    assert meant["optimizer"] != "auto" and not meant.keys() - train.keys()
