"""The tree: what Ultralytics will read, continued after a kill, complete or not loaded at all."""

import errno
import hashlib
import io
import json
import os
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from saistudy.data import fasdd, index, pyrosdis, tree
from saistudy.paths import Refusal


def _jpeg(seed):
    pixels = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((64, 48), Image.Resampling.BICUBIC).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def dataset():
    """Nine images, three a split, every third a negative; image 4 lacks its end marker."""
    content = {f"a{i}.jpg": _jpeg(i) for i in range(9)}
    content["a4.jpg"] = content["a4.jpg"][:-2]
    examined = [
        index.examine(
            image,
            index.SPLITS[i // 3],
            lambda image=image: content[image],
            "" if i % 3 == 0 else "0 0.5 0.5 0.2 0.2\n1 0.25 0.25 0.1 0.123456\n",
            {0, 1},
        )
        for i, image in enumerate(content)
    ]
    rows, quarantine = index.assemble(examined)
    noted = pd.DataFrame([index.note("bad.jpg", "train", "unreadable")], columns=index.NOTES)
    quarantine = pd.concat([quarantine, noted], ignore_index=True)
    return index.Dataset("toy", rows, quarantine, {0: "fire", 1: "smoke"}, "synthetic", content.get)


def _content(folder):
    """Relative path -> bytes of everything in the folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_layout(dataset, tmp_path):
    path = tree.build(dataset, tmp_path / "tree")
    folder = tmp_path / "tree"
    assert path == folder / "data.yaml"
    assert yaml.safe_load(path.read_text()) == {
        "path": str(folder),
        "train": "images/train",
        "val": "images/val",
        "test": "images/test",
        "names": {0: "fire", 1: "smoke"},
    }
    content = _content(folder)
    expected = {"data.yaml", "index.parquet", "quarantine.csv", "tree.json"}
    for i in range(9):
        split = ("train", "val", "test")[i // 3]
        expected |= {f"images/{split}/a{i}.jpg", f"labels/{split}/a{i}.txt"}
    assert set(content) == expected
    assert content["labels/train/a0.txt"] == b""
    assert content["labels/train/a1.txt"] == (
        b"0 0.500000 0.500000 0.200000 0.200000\n1 0.250000 0.250000 0.100000 0.123456\n"
    )
    assert content["images/train/a1.jpg"] == _jpeg(1)
    # The missing end marker was added, nothing else.
    assert content["images/val/a4.jpg"] == _jpeg(4)


def test_counts_in_are_counts_out_and_refused(dataset, tmp_path):
    for negatives, left_out in ((True, 0), (False, 3)):
        folder = tmp_path / str(negatives)
        tree.build(dataset, folder, negatives)
        stamp = json.loads((folder / "tree.json").read_text())
        assert (stamp["refused_n"], stamp["left_out_n"]) == (1, left_out)
        out = len(list(folder.glob("images/*/*.jpg")))
        assert sum(stamp["images_n"].values()) == out
        assert out + stamp["refused_n"] + stamp["left_out_n"] == 10


def test_ultralytics_accepts_every_image_and_rewrites_none(dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("YOLO_OFFLINE", "1")
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path / "config"))
    from ultralytics.data.utils import verify_image_label

    tree.build(dataset, tmp_path / "tree")
    before = _content(tmp_path / "tree")
    boxes_n = 0
    for photo in sorted((tmp_path / "tree").glob("images/*/*.jpg")):
        label = str(photo).replace("/images/", "/labels/").replace(".jpg", ".txt")
        _, lb, _, _, _, missing, _, _, corrupt, message = verify_image_label(
            (str(photo), label, "", False, 2, 0, 0, False)
        )
        boxes_n += len(lb)
        assert (missing, corrupt, message) == (0, 0, "")
    assert boxes_n == 12
    assert _content(tmp_path / "tree") == before


def test_load_gives_back_what_was_built(dataset, tmp_path):
    tree.build(dataset, tmp_path / "tree")
    built = tree.load(tmp_path / "tree")
    assert (built.name, built.provenance, built.names) == ("toy", "synthetic", dataset.names)
    assert built.fingerprint == index.fingerprint(built.rows) == index.fingerprint(dataset.rows)
    assert built.yaml.is_file()
    pd.testing.assert_frame_equal(built.rows.drop(columns="boxes"), dataset.rows.drop(columns="boxes"))


def test_without_negatives_the_fingerprint_differs(dataset, tmp_path):
    tree.build(dataset, tmp_path / "tree", negatives=False)
    built = tree.load(tmp_path / "tree")
    assert len(built.rows) == 6 and (built.rows["boxes"].map(len) == 2).all()
    assert built.fingerprint != index.fingerprint(dataset.rows)


def test_killed_and_built_again_it_continues(dataset, tmp_path):
    folder, seen = tmp_path / "tree", []

    def dies(image):
        if len(seen) == 5:
            raise KeyboardInterrupt
        seen.append(image)
        return dataset.read(image)

    with pytest.raises(KeyboardInterrupt):
        tree.build(replace(dataset, read=dies), folder)
    with pytest.raises(Refusal, match="no finished tree"):
        tree.load(folder)
    # One of the five was damaged afterwards and a temporary file was left behind.
    damaged = next(folder.glob("images/train/a1.jpg"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    (folder / "images/train/.a9.jpg.part").write_bytes(b"half")
    again = []
    tree.build(replace(dataset, read=lambda i: again.append(i) or dataset.read(i)), folder)
    assert sorted(again) == ["a1.jpg", "a5.jpg", "a6.jpg", "a7.jpg", "a8.jpg"]
    tree.build(dataset, tmp_path / "straight")
    kept, straight = _content(folder), _content(tmp_path / "straight")
    for content in (kept, straight):
        content.pop("data.yaml")
    assert kept == straight


def test_a_finished_tree_is_not_read_again(dataset, tmp_path):
    tree.build(dataset, tmp_path / "tree")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "tree").rglob("*")}
    tree.build(replace(dataset, read=None), tmp_path / "tree")
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "tree").rglob("*")} == before


def test_another_index_replaces_the_tree(dataset, tmp_path):
    folder = tmp_path / "tree"
    tree.build(dataset, folder)
    (folder / "images/train/a1.npy").write_bytes(b"left by cache=disk")
    (folder / "labels/train.cache").write_bytes(b"left by Ultralytics")
    rows = dataset.rows.copy()
    rows["split"] = rows["split"].map({"train": "test", "test": "train", "val": "val"})
    tree.build(replace(dataset, rows=rows), folder)
    tree.build(replace(dataset, rows=rows), tmp_path / "fresh")
    assert set(_content(folder)) == set(_content(tmp_path / "fresh"))
    assert tree.load(folder).fingerprint == index.fingerprint(rows)


def test_a_missing_file_is_put_back(dataset, tmp_path):
    tree.build(dataset, tmp_path / "tree")
    (tmp_path / "tree/images/test/a7.jpg").unlink()
    tree.build(dataset, tmp_path / "tree")
    assert (tmp_path / "tree/images/test/a7.jpg").read_bytes() == _jpeg(7)


def test_a_foreign_folder_is_left_alone(dataset, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(Refusal, match="something else than a tree"):
        tree.build(dataset, tmp_path)
    assert _content(tmp_path) == {"thesis.tex": b"years of work"}


def test_bytes_that_changed_since_the_index_are_refused(dataset, tmp_path):
    with pytest.raises(Refusal, match="no longer the image that was indexed"):
        tree.build(replace(dataset, read=lambda image: _jpeg(99)), tmp_path / "tree")
    with pytest.raises(Refusal, match="no finished tree"):
        tree.load(tmp_path / "tree")


def test_a_split_of_negatives_only_is_refused_without_negatives(dataset, tmp_path):
    rows = dataset.rows.copy()
    empty = [np.empty((0, 5)) if s == "val" else a for s, a in zip(rows["split"], rows["boxes"], strict=True)]
    with pytest.raises(Refusal, match="val would hold no image"):
        tree.build(replace(dataset, rows=rows.assign(boxes=empty)), tmp_path / "tree", False)
    assert not (tmp_path / "tree").exists()


def test_a_full_disk_is_told_and_leaves_no_finished_tree(dataset, tmp_path):
    def full(image):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(Refusal, match=r"cannot be filled \(No space left on device\)"):
        tree.build(replace(dataset, read=full), tmp_path / "tree")
    assert not (tmp_path / "tree/tree.json").exists()


def test_load_of_nothing(tmp_path):
    with pytest.raises(Refusal, match="build it first"):
        tree.load(tmp_path / "absent")


@pytest.mark.parametrize("reader", [fasdd.read, pyrosdis.read])
def test_real_photographs_become_a_tree_and_the_source_stays(real, tmp_path, reader):
    source = {path: path.stat().st_mtime_ns for path in real.rglob("*")}
    dataset = reader(real)
    tree.build(dataset, tmp_path / "tree")
    rows = tree.load(tmp_path / "tree").rows
    for row in rows.itertuples():
        photo = tmp_path / "tree/images" / row.split / row.image
        data = photo.read_bytes()
        assert hashlib.sha256(data).hexdigest() == row.sha256
        assert not photo.is_symlink() and os.stat(photo).st_nlink == 1
    assert {path: path.stat().st_mtime_ns for path in real.rglob("*")} == source
