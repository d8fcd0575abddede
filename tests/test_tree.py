"""The tree: what Ultralytics will read, continued after a kill, complete or not loaded at all."""

import hashlib
import io
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace

import mounted
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from saistudy.data import fasdd, index, photographs, pyrosdis, tree, twin
from saistudy.paths import Refusal

TWO = "0 0.5 0.5 0.2 0.2\n1 0.25 0.25 0.1 0.123456\n"


def _jpeg(seed):
    pixels = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((64, 48), Image.Resampling.BICUBIC).save(buffer, "JPEG")
    return buffer.getvalue()


def _described(data, image):
    try:
        return photographs.describe(data, image)
    except photographs.Damaged as damage:
        return damage


def _indexed(content, splits, texts, **how):
    """A data set of bytes by image name, split and label text of each."""
    told = zip(content.items(), splits, texts, strict=True)
    examined = [
        index.examine(image, split, _described(data, image), text, {0, 1})
        for (image, data), split, text in told
    ]
    parts = index.assemble(examined, splits=how.pop("needed", index.SPLITS))
    return index.Dataset("toy", *parts, {0: "fire", 1: "smoke"}, "synthetic", content.__getitem__, **how)


@pytest.fixture
def dataset():
    """Nine images, three a split, every third a negative, image 4 without end marker; a tenth refused."""
    content = {f"a{i}.jpg": _jpeg(i) for i in range(9)} | {"bad.jpg": b"no image"}
    content["a4.jpg"] = content["a4.jpg"][:-2]
    splits = [*(index.SPLITS[i // 3] for i in range(9)), "train"]
    return _indexed(content, splits, ["" if i % 3 == 0 else TWO for i in range(10)])


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


def _lying(folder):
    """How many images and labels lie in each split's folder."""
    return Counter(path.parts[-3:-1] for path in folder.glob("*/*/*"))


def test_counts_in_are_counts_out_refused_and_left_out(dataset, tmp_path):
    for negatives, left_out, each in ((True, 0, 3), (False, 3, 2)):
        folder = tmp_path / str(negatives)
        tree.build(dataset, folder, negatives)
        stamp = json.loads((folder / "tree.json").read_text())
        assert (stamp["images_in_n"], stamp["refused_n"], stamp["left_out_n"]) == (10, 1, left_out)
        assert stamp["images_n"] == dict.fromkeys(index.SPLITS, each)
        assert _lying(folder) == {(kind, s): each for kind in ("images", "labels") for s in index.SPLITS}


def test_a_reader_that_lost_an_image_is_told(dataset, tmp_path):
    with pytest.raises(Refusal, match="11 images came in of which 1 were refused"):
        tree.build(replace(dataset, images_n=11), tmp_path / "tree")
    with pytest.raises(Refusal, match="no finished tree"):
        tree.load(tmp_path / "tree")


# What may come in: an image (sound, without end marker, cut, empty) and a label text.
DRAWN = st.tuples(
    st.sampled_from(index.SPLITS),
    st.sampled_from(["sound", "markerless", "cut", "empty"]),
    st.sampled_from(["", TWO, "0 0.5 0.5 0 0.2\n", "5 0.5 0.5 0.1 0.1\n", "words\n", None]),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=st.lists(DRAWN, min_size=1, max_size=8), negatives=st.booleans())
def test_no_image_is_lost_whatever_comes_in(tmp_path_factory, drawn, negatives):
    # Sound images with a box in each split, twice as many as were drawn: refusals stay below half.
    drawn = drawn + [(split, "sound", TWO) for split in index.SPLITS for _ in range(2 * len(drawn))]
    cut = {"sound": slice(None), "markerless": slice(-2), "cut": slice(300), "empty": slice(0)}
    content = {f"i{n}.jpg": _jpeg(n % 5)[cut[photo]] for n, (_, photo, _) in enumerate(drawn)}
    splits, photos, texts = zip(*drawn, strict=True)
    folder = tmp_path_factory.mktemp("drawn") / "tree"
    tree.build(_indexed(content, splits, texts), folder, negatives)
    # Counted from what was drawn: an image stays if its pixels and each line of its label are sound.
    told = list(zip(splits, photos, texts, strict=True))
    stays = [d for d in told if d[1] in ("sound", "markerless") and d[2] in ("", TWO, "0 0.5 0.5 0 0.2\n")]
    wanted = [split for split, _, text in stays if negatives or text == TWO]
    assert _lying(folder) == Counter((kind, s) for kind in ("images", "labels") for s in wanted)
    stamp = json.loads((folder / "tree.json").read_text())
    assert stamp["refused_n"] == len(drawn) - len(stays)
    assert stamp["left_out_n"] == len(stays) - len(wanted)


def test_a_data_set_without_test(tmp_path):
    content = {f"a{i}.jpg": _jpeg(i) for i in range(4)}
    dataset = _indexed(content, ["train", "train", "val", "val"], [TWO] * 4, needed=("train", "val"))
    described = yaml.safe_load(tree.build(dataset, tmp_path / "tree").read_text())
    assert [key for key in described if key in index.SPLITS] == ["train", "val"]
    assert sorted(path.name for path in (tmp_path / "tree/images").iterdir()) == ["train", "val"]
    assert len(tree.load(tmp_path / "tree").rows) == 4


def test_a_data_set_without_val_is_refused(tmp_path):
    content = {f"a{i}.jpg": _jpeg(i) for i in range(4)}
    dataset = _indexed(content, ["train"] * 4, [TWO] * 4, needed=("train",))
    with pytest.raises(Refusal, match="val would hold no image"):
        tree.build(dataset, tmp_path / "tree")
    assert not (tmp_path / "tree").exists()


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


def test_interrupted_and_built_again_it_continues(tmp_path):
    content = {f"a{i:02d}.jpg": _jpeg(i) for i in range(60)}
    dataset = _indexed(content, [index.SPLITS[i % 3] for i in range(60)], [TWO] * 60)
    folder, seen = tmp_path / "tree", []

    def dies(image):
        if len(seen) == 50:
            raise KeyboardInterrupt
        seen.append(image)
        return dataset.read(image)

    with pytest.raises(KeyboardInterrupt):
        tree.build(replace(dataset, read=dies), folder)
    with pytest.raises(Refusal, match="no finished tree"):
        tree.load(folder)
    kept = sorted(folder.glob("images/*/a*"))
    assert 0 < len(kept) <= 50
    # One that was there was damaged afterwards and a temporary file was left behind.
    kept[0].write_bytes(kept[0].read_bytes()[:-1])
    (folder / "images/train/.a9.jpg.part").write_bytes(b"half")
    again = []
    tree.build(replace(dataset, read=lambda i: again.append(i) or dataset.read(i)), folder)
    assert set(again) == content.keys() - {path.name for path in kept[1:]} and len(again) == len(set(again))
    tree.build(dataset, tmp_path / "straight")
    after, straight = _content(folder), _content(tmp_path / "straight")
    for one in (after, straight):
        one.pop("data.yaml")
    assert after == straight


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


@pytest.mark.parametrize("name", ["images/test/a7.jpg", "labels/test/a7.txt", "index.parquet"])
def test_a_file_of_another_size_is_mended(dataset, tmp_path, name):
    folder = tmp_path / "tree"
    tree.build(dataset, folder)
    before = _content(folder)
    damaged = folder / name
    damaged.write_bytes(damaged.read_bytes()[:-1])
    tree.build(dataset, folder)
    assert _content(folder) == before


def test_rows_that_are_not_those_of_the_fingerprint_are_refused(dataset, tmp_path):
    tree.build(dataset, tmp_path / "tree")
    path = tmp_path / "tree/index.parquet"
    table = pq.read_table(path)
    assert table.schema.metadata[b"fingerprint"].decode() == index.fingerprint(dataset.rows)
    pq.write_table(table.slice(0, 8), path)
    with pytest.raises(Refusal, match="changed or cut"):
        tree.load(tmp_path / "tree")


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


def test_a_full_file_system_is_told_and_continued_when_it_has_room(dataset, tmp_path):
    with mounted.tmpfs(tmp_path / "small", "size=40k") as place:
        with pytest.raises(Refusal, match="cannot be filled \\(No space left on device\\)"):
            tree.build(dataset, place / "tree")
        with pytest.raises(Refusal, match="no finished tree"):
            tree.load(place / "tree")
        kept = list((place / "tree").glob("images/*/[!.]*"))
        # Something was written, not all of it, and what has its name is whole.
        assert 0 < len(kept) < 9
        sha256 = dataset.rows.set_index("image")["sha256"]
        for path in kept:
            data = (
                path.read_bytes().removesuffix(photographs.END)
                if path.name == "a4.jpg"
                else path.read_bytes()
            )
            assert hashlib.sha256(data).hexdigest() == sha256[path.name]
        subprocess.run(["mount", "-o", "remount,size=4m", place], check=True)
        tree.build(dataset, place / "tree")
        assert len(tree.load(place / "tree").rows) == 9


def test_a_read_only_target_is_told(dataset, tmp_path):
    with mounted.tmpfs(tmp_path / "fixed", "size=1m") as place:
        subprocess.run(["mount", "-o", "remount,ro", place], check=True)
        with pytest.raises(Refusal, match="cannot be filled \\(Read-only file system\\)") as told:
            tree.build(dataset, place / "tree")
        assert "\n" not in str(told.value) and not list(place.iterdir())


def test_a_vanished_source_is_told_in_a_sentence(dataset, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for image in dataset.rows["image"]:
        (source / image).write_bytes(dataset.read(image))
    (source / "a5.jpg").unlink()
    with pytest.raises(Refusal, match="a5.jpg was indexed but cannot be read any more") as told:
        tree.build(replace(dataset, read=lambda image: (source / image).read_bytes()), tmp_path / "tree")
    assert "\n" not in str(told.value)


def test_vanished_shards_are_told_in_a_sentence(shards, tmp_path):
    dataset = pyrosdis.read(shards)
    for path in shards.glob("**/*.parquet"):
        path.rename(path.with_suffix(".gone"))
    try:
        with pytest.raises(Refusal, match="was indexed but cannot be read any more") as told:
            tree.build(dataset, tmp_path / "tree")
    finally:
        for path in shards.glob("**/*.gone"):
            path.rename(path.with_suffix(".parquet"))
    assert "\n" not in str(told.value)


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


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """240 images of five cameras in two shards as PyroSDIS has them, every fourth a negative."""
    folder = tmp_path_factory.mktemp("shards") / "pyro-sdis"
    folder.mkdir()
    cells = [
        {
            "image": {"bytes": _jpeg(i), "path": f"f{i:03d}.jpg"},
            "annotations": "" if i % 4 == 0 else "1 0.5 0.5 0.2 0.2\n",
            "image_name": f"f{i:03d}.jpg",
            "partner": "toy",
            "camera": f"camera-{i % 5}",
            "date": f"2024-01-01T{i // 60:02d}-{i % 60:02d}-00",
        }
        for i in range(240)
    ]
    for name, part in (("train", cells[:200]), ("val", cells[200:])):
        path = folder / f"{name}-00000-of-00001.parquet"
        pq.write_table(pa.Table.from_pylist(part), path, row_group_size=50)
    return folder


BUILD = """
import sys
from pathlib import Path
from saistudy.data import pyrosdis, tree
dataset = pyrosdis.read(Path(sys.argv[1]))
sys.stderr.write("read")
sys.stderr.flush()
tree.build(dataset, Path(sys.argv[2]))
"""


def _killed(shards, folder, after_s):
    """Whether a conversion was killed (SIGKILL) so long after it had read the shards."""
    command = [sys.executable, "-c", BUILD, shards, folder]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, bufsize=0) as process:
        assert process.stderr.read(4) == b"read"
        time.sleep(after_s)
        process.kill()
    return process.returncode == -9 and (folder / "tree.begun").exists()


def _assert_whole(folder, straight):
    """Every file under its name has the bytes that an undisturbed build gave it."""
    for name, data in _content(folder).items():
        if name != "data.yaml" and not name.rpartition("/")[2].startswith("."):
            assert data == straight.get(name, b""), name


@pytest.mark.parametrize("kills_n", [2, pytest.param(20, marks=pytest.mark.full)])
def test_killed_at_random_moments(shards, tmp_path, kills_n):
    """Twice into one folder, then built to the end: the same files as an undisturbed build."""
    dataset, landed, seed = pyrosdis.read(shards), 0, random.Random(kills_n)
    started = time.monotonic()
    tree.build(dataset, tmp_path / "straight")
    usual_s = time.monotonic() - started
    straight = _content(tmp_path / "straight")
    for number in range(10 * kills_n):
        folder = tmp_path / str(number // 2)
        landed += _killed(shards, folder, seed.uniform(0, usual_s))
        _assert_whole(folder, straight)
        if number % 2:
            tree.build(dataset, folder)
            assert _content(folder).keys() == straight.keys()
            _assert_whole(folder, straight)
            if landed >= kills_n:
                break
    assert landed >= kills_n


@pytest.mark.parametrize("left", [".data.yaml.4711.part", ".index.parquet.4711.part", "tree.begun"])
def test_what_a_kill_leaves_beside_the_images_goes(dataset, tmp_path, left):
    """Killed while a table was written (no tree.json yet), or after it with tree.begun still there."""
    tree.build(dataset, tmp_path)
    straight = _content(tmp_path)
    (tmp_path / "tree.begun").touch()
    (tmp_path / left).touch()
    if left != "tree.begun":
        (tmp_path / "tree.json").unlink()
    tree.build(dataset, tmp_path)
    assert _content(tmp_path) == straight


def _seen(folder):
    """Hash, time of change and mode of everything below a folder."""
    return {
        path: (
            path.stat().st_mtime_ns,
            path.stat().st_mode,
            path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in [folder, *folder.rglob("*")]
    }


def test_the_source_is_untouched_after_a_whole_training(tmp_path):
    """With a JPEG that Ultralytics would rewrite in place (no end marker), a BOM, files of both modes."""
    from saistudy.training.fit import fit

    source = twin.write_fasdd(tmp_path / "source", 36, seed=1)
    images = sorted((source / "images").iterdir())
    images[0].write_bytes(images[0].read_bytes().removesuffix(photographs.END))
    label = source / "annotations/YOLO_CV/labels" / f"{images[1].stem}.txt"
    label.write_bytes(b"\xef\xbb\xbf" + label.read_bytes())
    for number, path in enumerate(images):
        path.chmod(0o444 if number % 2 else 0o644)
    before = _seen(tmp_path / "source")
    dataset = fasdd.read(source)
    noted = dataset.quarantine.set_index("image")["reason"]
    assert "no-end-marker" in [*noted[[images[0].name]]] and "bom" in [*noted[[images[1].name]]]
    path = tree.build(dataset, tmp_path / "tree")
    settings = {"workers": 0, "device": "cpu", "amp": False, "optimizer": "AdamW", "warmup_epochs": 0.0}
    fit("yolov8n.yaml", path, tmp_path / "run", imgsz=64, batch=8, nbs=8, epochs=1, **settings)
    assert (tmp_path / "run/results.csv").is_file()
    assert _seen(tmp_path / "source") == before
