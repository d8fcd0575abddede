"""Any YOLO data.yaml: the layouts that Ultralytics takes, with its own data set as the judge; bad files."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from saistudy.data import index, split, yolo
from saistudy.data.known import Known
from saistudy.paths import Refusal


def _image(seed, kind="JPEG"):
    pixels = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((64, 48), Image.Resampling.BICUBIC).save(buffer, kind)
    return buffer.getvalue()


def _put(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _add(root, place, seed, label="0 0.5 0.5 0.2 0.2\n", kind="JPEG"):
    """An image below images/, and its label below labels/ unless that is None."""
    _put(root / "images" / place, _image(seed, kind))
    if label is not None:
        stem = place.rpartition(".")[0]
        _put(root / "labels" / f"{stem}.txt", label.encode())


def _write(root, **told):
    told = {"train": "images/train", "val": "images/val", "names": ["smoke"]} | told
    path = root / "data.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in told.items() if value is not None}))
    return path


@pytest.fixture
def plain(tmp_path):
    """Four images to train on, two for val."""
    root = tmp_path / "my set"
    for number in range(6):
        _add(root, f"{'train' if number < 4 else 'val'}/a{number}.jpg", number)
    return root


def _mixed(root):
    """Nested folders, several formats, equal names, missing and empty labels, three kinds of list."""
    _add(root, "train/a.jpg", 0, "1 0.5 0.5 0.2 0.2\r\n0 0.25 0.25 0.1 0.1\r\n")
    _add(root, "train/deep/er/b.JPG", 1)
    _add(root, "train/deep/a.jpg", 2, "")
    _add(root, "train/c.png", 3, None, "PNG")
    _add(root, "train/d.bmp", 4, kind="BMP")
    _add(root, "train/images/e.webp", 5, kind="WEBP")
    _add(root, "train/.hidden.jpg", 6)
    _put(root / "images/train/readme.txt", b"no image")
    _add(root, "more/f.tif", 7, kind="TIFF")
    _add(root, "more/a.jpg", 8)
    # The last /images/ counts: labels of e.webp lie below images/train/labels.
    _put(root / "images/train/labels/e.txt", b"1 0.5 0.5 0.4 0.4\n")
    _add(root, "val/a.jpg", 9)
    _add(root, "val/g.jpg", 10, "\ufeff0 0.5 0.5 0.2 0.2")
    _add(root, "test/h.jpg", 11)
    _put(root.parent / "beside/images/i.jpg", _image(12))
    _put(root.parent / "beside/labels/i.txt", b"0 0.5 0.5 0.3 0.3")
    lines = ["./../images/val/a.jpg", "", f"{root}/images/val/g.jpg", f"{root.parent}/beside/images/i.jpg"]
    _put(root / "lists/val.txt", "\r\n".join(lines).encode())
    _put(root / "test.txt", b"\xef\xbb\xbf./images/test/h.jpg")


def _ultralytics(places, names):
    """Path -> label array, as Ultralytics' own data set reads it."""
    from ultralytics.cfg import get_cfg
    from ultralytics.data import YOLODataset

    data = {"names": names, "nc": len(names), "channels": 3}
    made = YOLODataset(
        img_path=places, data=data, task="detect", imgsz=64, augment=False, hyp=get_cfg(), prefix="judge: "
    )
    return {one["im_file"]: np.hstack([one["cls"], one["bboxes"]]) for one in made.labels}


@pytest.mark.parametrize("path", [None, ".", "absolute", "below"])
def test_every_layout_is_read_as_ultralytics_reads_it(tmp_path, path):
    root = tmp_path / "mixed"
    _mixed(root)
    splits = {"train": ["images/train", "images/more"], "val": "lists/val.txt", "test": "test.txt"}
    names = {0: "fire", 1: "smoke"}
    told = {"absolute": str(root), "below": "mixed"}.get(path, path)
    dataset = yolo.read(_write(root.parent if path == "below" else root, path=told, names=names, **splits))
    rows = dataset.rows
    assert dataset.names == names and dataset.images_n == len(rows) == 12
    for name, places in splits.items():
        entries = places if isinstance(places, list) else [places]
        judge = _ultralytics([str((root / place).resolve()) for place in entries], names)
        ours = rows[rows["split"] == name]
        assert len(ours) == len(judge)
        by_bytes = {Path(file).read_bytes(): labels for file, labels in judge.items()}
        for row in ours.itertuples():
            expected = by_bytes.pop(dataset.read(row.image))
            np.testing.assert_allclose(row.boxes, expected, atol=1e-6)
        assert not by_bytes


def test_equal_names_get_numbers_and_images_without_label_file_are_kept(tmp_path):
    root = tmp_path / "mixed"
    _mixed(root)
    dataset = yolo.read(
        _write(root, train=["images/train", "images/more"], val="lists/val.txt", nc=2, names=None)
    )
    notes = dataset.quarantine[["image", "split", "reason"]].values.tolist()
    assert ["c.png", "train", "no-label-file"] in notes
    renamed = [image for image, _, reason in notes if reason == "repeated-name"]
    assert sorted(renamed) == ["a_2.jpg", "a_3.jpg", "a_4.jpg"]
    assert index.refused(dataset.quarantine).empty and len(dataset.rows) == 11
    # Sorted by path, images/more/a.jpg comes first; the val image is the last.
    assert dataset.read("a.jpg") == _image(8) and dataset.read("a_4.jpg") == _image(9)
    assert dataset.names == {0: "class_0", 1: "class_1"}


def test_plain_set(plain):
    dataset = yolo.read(_write(plain))
    assert dataset.name == "my-set" and dataset.provenance == "published-format"
    assert dataset.rows["split"].value_counts().to_dict() == {"train": 4, "val": 2}
    # Six strangers are six groups, which a re-split can use.
    assert dataset.rows["group"].nunique() == 6 and (dataset.rows["event"] == "").all()
    assert split.disjoint(dataset).rows["split"].value_counts().to_dict() == {"train": 4, "val": 1, "test": 1}
    (plain / "provenance.json").write_text("{}")
    assert yolo.read(plain / "data.yaml").provenance == "synthetic"


def test_a_relative_yaml_and_the_other_word_for_val(plain, monkeypatch):
    _write(plain, val=None, validation="../images/val")
    monkeypatch.chdir(plain)
    dataset = yolo.read("data.yaml")
    assert dataset.name == "my-set" and len(dataset.rows) == 6


def test_unchanged_images_are_not_read_again(plain, tmp_path):
    path, kept = _write(plain), tmp_path / "known.parquet"
    first = yolo.read(path, Known(kept))
    os.utime(plain / "images/train/a1.jpg", ns=(1, 1))
    known = Known(kept)
    second = yolo.read(path, known)
    assert known.read_n == 1
    assert index.fingerprint(first.rows) == index.fingerprint(second.rows)


def test_bad_images_are_refused_one_by_one(plain):
    for number in range(20):
        _add(plain, f"train/b{number}.jpg", 100 + number)
    _put(plain / "images/train/b0.jpg", b"")
    _put(plain / "images/train/b1.jpg", _image(1)[:-300])
    _add(plain, "train/a:b.jpg", 50)
    _add(plain, "train/c.heic", 51)
    _add(plain, "train/d.jpg", 52, "0 0.5 0.5 0.2 0.2 0.1")
    _add(plain, "train/e.jpg", 53, "1 0.5 0.5 0.2 0.2")
    (plain / "images/train/f.jpg").mkdir()
    os.symlink(plain / "gone.jpg", plain / "images/train/g.jpg")
    _put(plain / "images/train" / os.fsdecode(b"h\xff.jpg"), _image(54))
    dataset = yolo.read(_write(plain))
    found = dict(index.refused(dataset.quarantine)[["image", "reason"]].values)
    expected = {"b0.jpg": "zero-bytes", "b1.jpg": "truncated", "a?b.jpg": "unsafe-name", "c.heic": "format"}
    expected |= {"d.jpg": "columns", "e.jpg": "class", "f.jpg": "unreadable", "h?.jpg": "unsafe-name"}
    assert found == expected | {"g.jpg": "missing-image"}
    assert dataset.images_n == len(dataset.rows) + len(found) == 33
    dataset.quarantine.to_csv().encode()


def test_an_image_listed_twice_counts_once(plain):
    _put(plain / "train.txt", b"./images/train/a0.jpg\n./images/train/a1.jpg\n./images/train/a0.jpg\n")
    dataset = yolo.read(_write(plain, train="train.txt"))
    assert dataset.quarantine[["image", "reason"]].values.tolist() == [["a0.jpg", "listed-twice"]]
    assert dataset.images_n == len(dataset.rows) == 4


@pytest.mark.parametrize(
    ("told", "match"),
    [
        ({"val": None}, "has no val: name the images"),
        ({"val": None, "train": []}, "has no train and no val"),
        ({"names": None}, "names None and nc None"),
        ({"nc": 2}, r"names \['smoke'\] and nc 2"),
        ({"names": {1: "smoke"}}, "a mapping from 0 on"),
        ({"names": "smoke"}, "names 'smoke'"),
        ({"names": 3}, "names 3 and nc None"),
        ({"names": None, "nc": "many"}, "nc 'many'"),
        ({"names": []}, r"names \[\] and nc None"),
        ({"test": "images/test"}, "test names images/test, and nothing is at"),
        ({"path": "elsewhere"}, "train names images/train, and nothing is at .*elsewhere"),
        ({"val": "labels"}, "val .* holds no image"),
        ({"train": 5}, "train names 5, and nothing"),
    ],
)
def test_wrong_keys_are_told_in_one_sentence(plain, told, match):
    with pytest.raises(Refusal, match=match) as refusal:
        yolo.read(_write(plain, **told))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("text", [b"train: [", b"- a\n- b", b"", b"\xff\xfe\x00", b"train: a: b"])
def test_what_is_no_yaml(tmp_path, text):
    (tmp_path / "data.yaml").write_bytes(text)
    with pytest.raises(Refusal, match="data.yaml") as refusal:
        yolo.read(tmp_path / "data.yaml")
    assert "\n" not in str(refusal.value)


def test_no_such_file(tmp_path):
    with pytest.raises(Refusal, match="cannot be read as YAML"):
        yolo.read(tmp_path / "data.yaml")
