"""FASDD_CV as published: folder, parent, zip; counts; every kind of bad input; the findings."""

import io
import json
import shutil
import zipfile

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from saistudy.data import check, fasdd, index
from saistudy.paths import Refusal

LABELS = {"fire": "0 0.5 0.5 0.2 0.2\n", "smoke": "1 0.5 0.5 0.4 0.2\r\n", "neither": ""}


def _jpeg(seed, size=(64, 48)):
    pixels = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def small(tmp_path):
    """Twelve images: 8 train, 2 val, 2 test, in the published layout."""
    root = tmp_path / "download" / "FASDD_CV"
    for folder in ("images", f"{fasdd.YOLO}/labels", fasdd.COCO):
        (root / folder).mkdir(parents=True)
    stems = [f"{kind}_CV{n:06d}" for kind in LABELS for n in range(4)]
    splits = dict(zip(stems, ["train"] * 8 + ["val"] * 2 + ["test"] * 2, strict=True))
    for seed, stem in enumerate(stems):
        (root / f"images/{stem}.jpg").write_bytes(_jpeg(seed))
        text = LABELS[stem.split("_")[0]]
        (root / f"{fasdd.YOLO}/labels/{stem}.txt").write_bytes(text.encode())
    for split in index.SPLITS:
        mine = [stem for stem in stems if splits[stem] == split]
        lines = "".join(f"./images/{stem}.jpg\r\n" for stem in mine)
        (root / f"{fasdd.YOLO}/{split}.txt").write_bytes(lines.encode())
        sized = [{"id": i, "file_name": f"{s}.jpg", "width": 64, "height": 48} for i, s in enumerate(mine)]
        boxed = [{"image_id": i} for i, s in enumerate(mine) if LABELS[s.split("_")[0]]]
        (root / f"{fasdd.COCO}/{split}.json").write_text(json.dumps({"images": sized, "annotations": boxed}))
    return root


def _label(root, stem, text):
    (root / f"{fasdd.YOLO}/labels/{stem}.txt").write_text(text)


def _balance(dataset, in_n):
    """Counts in = counts out + quarantined."""
    bad = index.refused(dataset.quarantine)
    assert len(dataset.rows) + len(bad) == in_n
    assert not set(dataset.rows["image"]) & set(bad["image"])


def _zipped(root, top="FASDD_CV/"):
    path = root.parent / "FASDD_CV.zip"
    with zipfile.ZipFile(path, "w") as content:
        for file in sorted(root.rglob("*")):
            content.write(file, f"{top}{file.relative_to(root)}")
    return path


def test_small_set_is_read_as_laid_out(small):
    dataset = fasdd.read(small)
    rows = dataset.rows.set_index("image")
    assert dataset.rows["split"].value_counts().to_dict() == {"train": 8, "val": 2, "test": 2}
    assert rows["boxes"]["fire_CV000001.jpg"].tolist() == [[0, 0.5, 0.5, 0.2, 0.2]]
    assert rows["boxes"]["smoke_CV000001.jpg"].tolist() == [[1, 0.5, 0.5, 0.4, 0.2]]
    assert rows["boxes"]["neither_CV000001.jpg"].shape == (0, 5)
    assert dataset.names == {0: "fire", 1: "smoke"} and dataset.provenance == "published-format"
    assert dataset.read("fire_CV000001.jpg") == (small / "images/fire_CV000001.jpg").read_bytes()
    assert dataset.quarantine.empty
    _balance(dataset, 12)


def test_folder_parent_and_zip_are_the_same_data_set(small):
    prints = set()
    for source in (small, small.parent, _zipped(small), _zipped(small, "")):
        dataset = fasdd.read(source)
        image = dataset.rows["image"][0]
        assert dataset.read(image) == (small / "images" / image).read_bytes()
        prints.add(index.fingerprint(dataset.rows))
        assert len(fasdd.coco(source)) == 12
    assert len(prints) == 1


def test_reading_leaves_the_source_as_it_was(small):
    before = {path: path.stat().st_mtime_ns for path in small.rglob("*")}
    fasdd.read(small)
    assert {path: path.stat().st_mtime_ns for path in small.rglob("*")} == before


def test_provenance_is_synthetic_where_the_folder_says_so(small):
    (small.parent / "provenance.json").write_text("{}")
    for source in (small, small.parent, _zipped(small)):
        assert fasdd.read(source).provenance == "synthetic"


def test_byte_identical_images_share_a_group(small):
    shutil.copy(small / "images/fire_CV000000.jpg", small / "images/neither_CV000003.jpg")
    rows = fasdd.read(small).rows.set_index("image")
    assert rows["group"]["fire_CV000000.jpg"] == rows["group"]["neither_CV000003.jpg"]
    # The eleven different pictures are independent noise: no other two may meet.
    assert rows["group"].nunique() == 11


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("0 0.5 0.5 0.2 0.2\n7 0.5 0.5 0.2 0.2\n", "class"),
        ("0 1.02 0.5 0.2 0.2\n", "range"),
        ("0 0.5 0.5 0.2\n", "columns"),
        ("0 nan 0.5 0.2 0.2\n", "not-a-number"),
    ],
)
def test_a_refused_line_refuses_the_image(small, text, reason):
    _label(small, "fire_CV000000", text)
    dataset = fasdd.read(small)
    assert "fire_CV000000.jpg" not in set(dataset.rows["image"])
    noted = dataset.quarantine.iloc[0]
    assert (noted["image"], noted["split"], noted["reason"]) == (
        "fire_CV000000.jpg",
        "train",
        reason,
    )
    _balance(dataset, 12)


def test_zero_area_and_duplicate_lines_are_dropped_and_the_image_kept(small):
    _label(small, "fire_CV000000", "0 0.5 0.5 0.2 0.2\n0 0.5 0.5 0 0.2\n0 0.5 0.5 0.2 0.2\n")
    dataset = fasdd.read(small)
    assert len(dataset.rows.set_index("image")["boxes"]["fire_CV000000.jpg"]) == 1
    assert dataset.quarantine[["reason", "line"]].values.tolist() == [
        ["zero-area", 2],
        ["duplicate", 3],
    ]
    _balance(dataset, 12)


def test_unreadable_image_missing_label_and_unlisted_image_are_quarantined(small):
    photo = small / "images/fire_CV000000.jpg"
    photo.write_bytes(photo.read_bytes()[:300])
    (small / f"{fasdd.YOLO}/labels/fire_CV000001.txt").unlink()
    (small / "images/fire_CV000099.jpg").write_bytes(_jpeg(99))
    dataset = fasdd.read(small)
    reasons = dataset.quarantine.set_index("image")["reason"].to_dict()
    assert reasons == {
        "fire_CV000000.jpg": "unreadable",
        "fire_CV000001.jpg": "missing-label",
        "fire_CV000099.jpg": "unlisted",
    }
    _balance(dataset, 13)


def test_wrong_folder_says_what_was_looked_for(tmp_path):
    for source in (tmp_path, tmp_path / "absent"):
        with pytest.raises(Refusal, match="annotations/YOLO_CV/"):
            fasdd.read(source)


def test_zip_of_something_else(tmp_path):
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as content:
        content.writestr("readme.txt", "hello")
    with pytest.raises(Refusal, match="holds no FASDD_CV"):
        fasdd.read(tmp_path / "other.zip")


def test_damaged_members_of_a_zip_are_quarantined(small):
    path = _zipped(small)
    data = path.read_bytes()
    photo = (small / "images/fire_CV000000.jpg").read_bytes()
    label = b"CV000001.txt0 0.5 0.5"
    assert data.count(photo) == 1 and data.count(label) == 1
    data = data.replace(photo, photo[:300] + bytes([photo[300] ^ 255]) + photo[301:])
    path.write_bytes(data.replace(label, b"CV000001.txt0 0.5 0.6", 1))
    dataset = fasdd.read(path)
    assert dataset.quarantine["reason"].tolist() == ["unreadable", "unreadable"]
    assert dataset.quarantine["text"].str.contains("CRC").all()
    _balance(dataset, 12)


def test_missing_list(small):
    (small / f"{fasdd.YOLO}/val.txt").unlink()
    with pytest.raises(Refusal, match=r"val\.txt is missing"):
        fasdd.read(small)


def test_empty_list(small):
    (small / f"{fasdd.YOLO}/val.txt").write_bytes(b"\r\n")
    with pytest.raises(Refusal, match=r"val\.txt: it names no image"):
        fasdd.read(small)


def test_listed_image_that_is_not_there(small):
    (small / "images/fire_CV000002.jpg").unlink()
    with pytest.raises(Refusal, match=r"1 of 8 images are not there.*fire_CV000002\.jpg"):
        fasdd.read(small)


@pytest.mark.parametrize("split", ["train", "test"])
def test_image_listed_twice(small, split):
    with open(small / f"{fasdd.YOLO}/{split}.txt", "ab") as lines:
        lines.write(b"./images/fire_CV000002.jpg\r\n")
    with pytest.raises(Refusal, match=r"fire_CV000002\.jpg of .* listed a second time"):
        fasdd.read(small)


@pytest.mark.parametrize("line", ["../secret.jpg", "./images/a/b.jpg", "/etc/passwd", "images/.jpg"])
def test_unsafe_name_in_a_list(small, line):
    with open(small / f"{fasdd.YOLO}/val.txt", "a") as lines:
        lines.write(line + "\r\n")
    with pytest.raises(Refusal, match="was expected"):
        fasdd.read(small)


def test_more_than_half_of_a_split_refused(small):
    for n in (0, 1):
        _label(small, f"neither_CV00000{n}", "9 0.5 0.5 0.1 0.1\n")
    with pytest.raises(Refusal, match="val: 2 of 2 images were refused, most for 'class'"):
        fasdd.read(small)


def test_half_of_a_split_refused_is_still_read(small):
    _label(small, "neither_CV000000", "9 0.5 0.5 0.1 0.1\n")
    _balance(fasdd.read(small), 12)


def test_broken_coco_file(small):
    (small / f"{fasdd.COCO}/val.json").write_text('{"images": [{"id": 0}], "annotations": []}')
    with pytest.raises(Refusal, match=r"val\.json cannot be read as COCO"):
        fasdd.coco(small)
    (small / f"{fasdd.COCO}/val.json").unlink()
    with pytest.raises(Refusal, match=r"val\.json cannot be read as COCO"):
        fasdd.coco(small)


def _n(found, what, where):
    return found.set_index(["what", "where"])["n"].to_dict()[(what, where)]


def test_findings_of_a_clean_set_are_zero(small):
    found = check.findings(fasdd.read(small), fasdd.coco(small))
    assert list(found.columns) == ["what", "where", "n", "effect"]
    quiet = found[found["what"] != "images without boxes"]
    assert (quiet["n"] == 0).all() and len(quiet) >= 12
    # neither_CV0..1 are val, 2..3 are test.
    assert [_n(found, "images without boxes", s) for s in index.SPLITS] == [0, 2, 2]
    assert not found["what"].str.startswith("published").any()


def test_findings_name_what_was_planted(small):
    shutil.copy(small / "images/fire_CV000000.jpg", small / "images/neither_CV000003.jpg")
    shutil.copy(small / "images/fire_CV000000.jpg", small / "images/fire_CV000001.jpg")
    _label(small, "fire_CV000002", "0 0.5 0.5 0.2 0.2\n0 0.1 0.1 0.1 0.1\n0 0.5 0.5 0 0\n")
    _label(small, "fire_CV000003", "9 0.5 0.5 0.2 0.2\n")
    train = small / f"{fasdd.COCO}/train.json"
    content = json.loads(train.read_text())
    content["images"][4]["width"] = 65
    train.write_text(json.dumps(content))
    found = check.findings(fasdd.read(small), fasdd.coco(small))
    assert _n(found, "byte-identical images", "train") == 1
    assert _n(found, "byte-identical images", "train and test") == 1
    assert _n(found, "byte-identical images", "train and val") == 0
    assert _n(found, "groups", "train and test") == 1
    assert _n(found, "noted: zero-area", "train") == 1
    assert _n(found, "refused: class", "train") == 1
    assert _n(found, "COCO: other size", "all") == 1
    assert _n(found, "COCO: other number of boxes", "all") == 1
    assert _n(found, "COCO: not in the lists", "all") == 0


def test_published_counts_are_held_against_the_real_total_only():
    """The published table by its rule: a sixth of each category, rounded down, is val and test."""
    totals = {"fire": 12_550, "smoke": 23_414, "both": 20_151, "neither": 39_199}
    held = sum(n // 6 for n in totals.values())
    expected = {"train": sum(totals.values()) - 2 * held, "val": held, "test": held}
    assert expected == fasdd.PUBLISHED
    splits = [split for split, n in expected.items() for _ in range(n)]
    rows = pd.DataFrame({"split": splits, "image": range(95_314), "sha256": range(95_314)})
    rows = rows.assign(group="g", boxes=[()] * 95_314)
    empty = pd.DataFrame(columns=index.NOTES)
    dataset = index.Dataset("fasdd_cv", rows, empty, fasdd.NAMES, "published", bytes)
    found = check.findings(dataset)
    told = found[found["what"] == "published count"]
    assert told["effect"].str.startswith("agrees").sum() == 3
    rows.loc[0, "split"] = "val"
    told = check.findings(dataset)
    told = told[told["what"] == "published count"]
    assert told["effect"].str.startswith("differs").sum() == 2
    fewer = index.Dataset("fasdd_cv", rows[1:], empty, fasdd.NAMES, "published", bytes)
    assert not check.findings(fewer)["what"].str.startswith("published").any()


def test_real_photographs_in_the_published_format(real):
    dataset = fasdd.read(real)
    folder = real / "FASDD_CV"
    _balance(dataset, len(list((folder / "images").iterdir())))
    for split in index.SPLITS:
        lines = (folder / f"{fasdd.YOLO}/{split}.txt").read_text().split()
        assert (dataset.rows["split"] == split).sum() == len(lines)
    texts = [path.read_text() for path in (folder / f"{fasdd.YOLO}/labels").iterdir()]
    assert dataset.rows["boxes"].map(len).sum() == sum(len(text.splitlines()) for text in texts)
    coco = fasdd.coco(real).set_index("image")
    rows = dataset.rows.set_index("image")
    # The COCO files were written independently of the YOLO labels.
    assert (coco["width"].reindex(rows.index) == rows["width"]).all()
    assert (coco["boxes_n"].reindex(rows.index) == rows["boxes"].map(len)).all()
    # Frames of a few videos, split at random: the leak must be seen.
    assert _n(check.findings(dataset), "groups", "train and test") >= 10
