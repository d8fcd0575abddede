"""The check: every single finding and its summary, against faults planted by hand, one kind at a time."""

import io
import json
import shutil
from dataclasses import replace

import downloads
import numpy as np
import pandas as pd
import pytest
from downloads import LABELS, encode, label, picture
from PIL import Image

from saistudy.data import archives, check, crosscheck, fasdd, index, kinds
from saistudy.data.known import Known

FIRE, SMOKE, EMPTY = (f"{kind}000000" for kind in LABELS)


@pytest.fixture
def small(tmp_path):
    """Twelve images: fire and smoke train, of neither 0 and 1 val, 2 and 3 test."""
    return downloads.fasdd(tmp_path / "download" / "FASDD_CV")


def _listing(root, known=None):
    return check.listing(fasdd.read(root, known), fasdd.coco(root))


def _set(found):
    assert list(found.columns) == ["what", "image", "split", "line", "text"]
    rows = found[["what", "image", "split", "line"]]
    assert not rows.duplicated().any()
    return set(rows.itertuples(index=False, name=None))


def _n(found, what, where):
    return found.set_index(["what", "where"])["n"].to_dict()[(what, where)]


def _mend(root, split, change):
    """Change the content of a COCO file."""
    path = root / f"{archives.COCO}/{split}.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_a_clean_set_has_no_finding_but_every_search_is_told(small):
    dataset, coco = fasdd.read(small), fasdd.coco(small)
    assert check.listing(dataset, coco).empty
    found = check.findings(dataset, coco)
    assert list(found.columns) == ["about", "what", "where", "n", "effect"]
    quiet = found[~found["about"].isin(["negatives", "published"])]
    assert (quiet["n"] == 0).all() and set(kinds.ABOUT) <= set(quiet["what"])
    assert set(quiet["about"]) == {"boxes", "images", "lists", "coco", "duplicates", "groups"}
    # Three splits and three pairs, each kind.
    assert (found["about"] == "duplicates").sum() == 12 and (found["about"] == "groups").sum() == 3
    assert [_n(found, "images without boxes", split) for split in index.SPLITS] == [0, 2, 2]


def test_the_summary_counts_what_the_listing_lists(small):
    label(small, FIRE, f"{LABELS['fire_CV']}0 0.5 0.5 0 0\n0 0.3 0.3 0 0\n")
    label(small, "fire_CV000001", "9 0.5 0.5 0.2 0.2\n")
    (small / "images/smoke_CV000002.jpg").write_bytes(encode(picture(50).convert("L")))
    (small / "images/stray.jpg").write_bytes(encode(picture(51)))
    dataset = fasdd.read(small)
    found = check.findings(dataset, fasdd.coco(small)).set_index(["about", "what", "where"])
    planted = {
        ("boxes", "zero-area", "train"): (2, "1 of 8 images: line dropped"),
        ("boxes", "class", "train"): (1, "1 of 8 images: left out"),
        ("images", "grey", "train"): (1, "1 of 8 images: kept"),
        ("lists", "unlisted", "no split"): (1, "1 of 13 images: left out"),
    }
    for place, (n, effect) in planted.items():
        assert found["n"][place] == n and found["effect"][place].startswith(effect)
    searched = ["boxes", "images", "lists", "coco", "duplicates", "groups"]
    others = found[~found.index.isin(planted)].loc[searched]
    assert (others["n"] == 0).all()


# --- duplicates


def _again(seed):
    """The same picture, larger and compressed anew."""
    return encode(picture(seed, (128, 96)), quality=70)


def test_byte_identical_images_within_and_across_splits(small):
    data = (small / f"images/{FIRE}.jpg").read_bytes()
    for stem in ("fire_CV000001", "neitherFireNorSmoke_CV000003"):
        (small / f"images/{stem}.jpg").write_bytes(data)
    found = _listing(small)
    images = {
        f"{FIRE}.jpg": "train",
        "fire_CV000001.jpg": "train",
        "neitherFireNorSmoke_CV000003.jpg": "test",
    }
    assert _set(found) == {("byte-identical", image, split, 0) for image, split in images.items()}
    assert found["text"].str.endswith(": 2 in train, 1 in test").all()
    told = check.findings(fasdd.read(small))
    assert [_n(told, "byte-identical", where) for where in ("train", "test", "train and test")] == [2, 0, 1]
    # The same bytes are no different file of the same scene.
    assert told.loc[told["what"] == "near-identical", "n"].sum() == 0
    assert _n(told, "groups", "train and test") == 1 and _n(told, "groups", "train and val") == 0


@pytest.mark.parametrize(
    ("stem", "split", "wheres"),
    [
        ("fire_CV000003", "train", {"train"}),
        ("neitherFireNorSmoke_CV000001", "val", {"train and val"}),
        ("neitherFireNorSmoke_CV000002", "test", {"train and test"}),
    ],
)
def test_another_file_of_the_same_picture_is_found(small, stem, split, wheres):
    (small / f"images/{stem}.jpg").write_bytes(_again(0))  # picture 0 is fire 0
    _mend_size(small, split, f"{stem}.jpg", (128, 96))
    label(small, stem, LABELS[stem[:-6]])
    found = _listing(small)
    assert _set(found[found["what"] != "coco-box"]) == {
        ("near-identical", f"{FIRE}.jpg", "train", 0),
        ("near-identical", f"{stem}.jpg", split, 0),
    }
    told = check.findings(fasdd.read(small))
    told = told[(told["what"] == "near-identical") & (told["n"] > 0)]
    assert set(told["where"]) == wheres
    assert told["n"].tolist() == [2 if wheres == {"train"} else 1]


def _mend_size(root, split, image, size):
    def change(content):
        for entry in content["images"]:
            if entry["file_name"] == image:
                entry["width"], entry["height"] = size

    _mend(root, split, change)


def _filmed(sources):
    """A data set of cameras: (image, split, camera, event, hash), each image its own bytes."""
    rows = pd.DataFrame(sources, columns=["image", "split", "group", "event", "phash"])
    rows = rows.assign(sha256=rows["image"], boxes=[np.ones((1, 5))] * len(rows), width=64, height=48)
    rows = rows.astype({"phash": "uint64"})[index.COLUMNS]
    empty = pd.DataFrame(columns=index.NOTES)
    return index.Dataset("pyro-sdis", rows, empty, len(rows), {0: "smoke"}, "published-format", bytes)


def test_frames_of_a_camera_are_no_duplicates_but_two_cameras_with_one_view_are():
    far = 2**62 - 1
    dataset = _filmed(
        [
            ("a0.jpg", "train", "a", "a-e0", 0),
            ("a1.jpg", "test", "a", "a-e0", 0b11),
            ("b0.jpg", "val", "b", "b-e0", far),
            ("c0.jpg", "train", "c", "c-e0", far - 1),
            ("c1.jpg", "train", "c", "c-e1", far),
        ]
    )
    assert _set(check.listing(dataset)) == {
        ("near-identical", "b0.jpg", "val", 0),
        ("near-identical", "c0.jpg", "train", 0),
        ("near-identical", "c1.jpg", "train", 0),
    }
    found = check.findings(dataset)
    near = found[found["what"] == "near-identical"].set_index("where")["n"]
    assert near[near > 0].to_dict() == {"train and val": 1}
    groups = found[found["what"] == "groups"].set_index("where")["n"]
    assert groups.to_dict() == {"train and val": 0, "train and test": 1, "val and test": 0}
    assert {"undated", "repeated-name"} <= set(found["what"]) and "unlisted" not in set(found["what"])


def test_duplicates_equal_a_plain_search_over_pairs():
    """Two hundred images of a few scenes and cameras, every pair looked at."""
    rng = np.random.default_rng(3)
    scenes = [0, 2**40 - 1, 2**62 - 2**20, 0x5555555555555554]
    cells = zip(rng.integers(0, 4, 200), rng.choice(index.SPLITS, 200), rng.integers(0, 40, 200), strict=True)
    rows = [
        (f"i{n:03d}.jpg", str(split), f"v{scene}", "", scenes[scene], f"bytes{content}-{scene}")
        for n, (scene, split, content) in enumerate(cells)
    ]
    frame = pd.DataFrame(rows, columns=["image", "split", "group", "event", "phash", "sha256"])
    frame = frame.assign(boxes=[np.ones((1, 5))] * 200, width=64, height=48).astype({"phash": "uint64"})
    empty = pd.DataFrame(columns=index.NOTES)
    dataset = index.Dataset("any", frame[index.COLUMNS], empty, 200, {}, "published-format", bytes)
    found = check.findings(dataset).set_index(["what", "where"])["n"]
    for one, other in (
        ("train", "train"),
        ("val", "val"),
        ("train", "val"),
        ("train", "test"),
        ("val", "test"),
    ):
        where = one if one == other else f"{one} and {other}"
        same, near = set(), set()
        for a in rows:
            for b in rows:
                if a[1] == one and b[1] == other and a[0] != b[0]:
                    same |= {b[0]} if a[5] == b[5] else set()
                    near |= {b[0]} if a[2] == b[2] and a[5] != b[5] else set()
        assert (found["byte-identical", where], found["near-identical", where]) == (len(same), len(near))


# --- COCO against lists, labels and pixels


def _drop(content):
    del content["images"][0]
    content["annotations"] = [box for box in content["annotations"] if box["image_id"] != 0]


def _first(content, **change):
    content["annotations"][0].update(change)


STRAY = {"id": 99, "file_name": "stray.jpg", "width": 64, "height": 48}
DANGLING = {"image_id": 77, "category_id": 0, "bbox": [1, 2, 3, 4]}
COCO_FAULTS = {
    "missing": (_drop, ("coco-missing", f"{FIRE}.jpg")),
    "unlisted": (lambda c: c["images"].append(STRAY), ("coco-unlisted", "stray.jpg")),
    "dangling": (lambda c: c["annotations"].append(DANGLING), ("coco-unlisted", "image_id 77")),
    "size": (lambda c: c["images"][0].update(width=65), ("coco-size", f"{FIRE}.jpg")),
    "one box less": (lambda c: c["annotations"].pop(0), ("coco-boxes", f"{FIRE}.jpg")),
    "one box more": (
        lambda c: c["annotations"].append(DANGLING | {"image_id": 0}),
        ("coco-boxes", f"{FIRE}.jpg"),
    ),
    "class": (lambda c: _first(c, category_id=1), ("coco-class", f"{FIRE}.jpg")),
    "moved": (lambda c: _first(c, bbox=[27.0, 19.2, 12.8, 9.6]), ("coco-box", f"{FIRE}.jpg")),
    "grown": (lambda c: _first(c, bbox=[25.6, 19.2, 14.0, 9.6]), ("coco-box", f"{FIRE}.jpg")),
    "elsewhere": (lambda c: _first(c, bbox=[1, 1, 2, 2], category_id=1), ("coco-box", f"{FIRE}.jpg")),
    "negative side": (lambda c: _first(c, bbox=[38.4, 28.8, -12.8, -9.6]), ("coco-box", f"{FIRE}.jpg")),
}


@pytest.mark.parametrize("fault", COCO_FAULTS)
def test_a_disagreement_of_coco_is_found_once_and_exactly(small, fault):
    change, (what, image) = COCO_FAULTS[fault]
    _mend(small, "train", change)
    assert _set(_listing(small)) == {(what, image, "train", 0)}
    told = check.findings(fasdd.read(small), fasdd.coco(small))
    assert _n(told, what, "train") == 1 and told.loc[told["about"] == "coco", "n"].sum() == 1


def test_an_image_in_the_file_of_another_split_is_found(small):
    _mend(small, "val", lambda c: c["images"].pop(0))
    _mend(small, "test", lambda c: c["images"].append(STRAY | {"file_name": f"{EMPTY}.jpg"}))
    found = _listing(small)
    assert _set(found) == {("coco-split", f"{EMPTY}.jpg", "val", 0)}
    assert found["text"][0] == "test in COCO"


@pytest.mark.parametrize("bbox", [[26.5, 19.2, 12.8, 9.6], [25, 19, 13, 10], [25.6, 19.2, 13.7, 9.6]])
def test_boxes_in_whole_pixels_or_less_than_a_pixel_off_agree(small, bbox):
    _mend(small, "train", lambda c: _first(c, bbox=bbox))
    assert _listing(small).empty


DROPPED = {
    "zero-area": ("0 0.700000 0.700000 0.000000 0.200000", [44.8, 28.8, 0.0, 9.6]),
    "duplicate": ("0 0.5 0.5 0.2 0.2", [25.6, 19.2, 12.8, 9.6]),
}


@pytest.mark.parametrize("also_in_coco", [True, False])
@pytest.mark.parametrize("reason", DROPPED)
def test_a_line_that_the_parser_drops_is_no_disagreement(small, reason, also_in_coco):
    """The published archive has three boxes without area, in the labels and in the COCO files."""
    line, bbox = DROPPED[reason]
    label(small, FIRE, f"{LABELS['fire_CV']}{line}\n")
    if also_in_coco:
        box = {"id": 50, "image_id": 0, "category_id": 0, "bbox": bbox}
        _mend(small, "train", lambda c: c["annotations"].append(box))
    assert _set(_listing(small)) == {(reason, f"{FIRE}.jpg", "train", 2)}


def test_a_clipped_box_agrees_with_its_unclipped_coco_box(small):
    label(small, FIRE, f"0 {0.1 - 0.9 / 64:.6f} 0.5 0.2 0.2\n")
    _mend(small, "train", lambda c: _first(c, bbox=[-0.9, 19.2, 12.8, 9.6]))
    assert _set(_listing(small)) == {("clipped", f"{FIRE}.jpg", "train", 1)}


def _many(root, stem, boxes, order):
    """Boxes (class, x, y, w, h px) in the label file, and in `order` in COCO."""
    lines = [
        f"{c} {(x + w / 2) / 64:.6f} {(y + h / 2) / 48:.6f} {w / 64:.6f} {h / 48:.6f}\n"
        for c, x, y, w, h in boxes
    ]
    label(root, stem, "".join(lines))

    def change(content):
        entry = next(e for e in content["images"] if e["file_name"] == f"{stem}.jpg")
        others = [box for box in content["annotations"] if box["image_id"] != entry["id"]]
        new = [
            {"image_id": entry["id"], "category_id": c, "bbox": list(b)}
            for c, *b in (boxes[i] for i in order)
        ]
        content["annotations"] = others + new

    _mend(root, "train", change)


def test_the_order_of_boxes_does_not_matter(small):
    """Boxes on one left border, two of the same place and different classes, many that overlap."""
    rng = np.random.default_rng(0)
    boxes = [(1, 0, 5, 20, 10), (0, 0, 30, 20, 10), (0, 0, 5, 20, 10), (1, 0.4, 30, 19.6, 10)]
    boxes += [
        (int(c), float(x), float(y), 15.0, 12.0) for c, x, y in rng.integers((0, 0, 0), (2, 45, 35), (12, 3))
    ]
    for seed in range(4):
        _many(small, "fire_CV000002", boxes, np.random.default_rng(seed).permutation(len(boxes)))
        found = _listing(small)
        assert set(found["what"]) <= {"category"}  # of a fire image with smoke


def test_one_box_of_many_is_named(small):
    boxes = [(0, 2, 5, 20, 10), (0, 2, 25, 20, 10), (0, 30, 5, 20, 10)]
    _many(small, "fire_CV000002", boxes, [2, 0, 1])

    def swap(content):
        own = [box for box in content["annotations"] if box["image_id"] == 2]
        own[0]["category_id"], own[1]["bbox"][0] = 1, 7.0

    _mend(small, "train", swap)
    found = _listing(small).set_index("what")["text"].to_dict()
    assert found == {
        "coco-box": "1 of 3 boxes differ, by up to 5.0 px",
        "coco-class": "1 of 3 boxes, the first class 1 in COCO, 0 here",
    }


def test_an_image_that_a_list_names_wrongly_is_one_finding(small):
    path = small / f"{archives.YOLO}/train.txt"
    path.write_bytes(path.read_bytes().replace(b"fire_CV000000", b"FIRE_CV000000"))
    assert _set(_listing(small)) == {("missing-image", f"{FIRE}.jpg", "train", 1)}


def test_a_summary_of_a_listing_at_hand_is_the_same(small):
    label(small, FIRE, "9 0.5 0.5 0.2 0.2\n")
    dataset, coco = fasdd.read(small), fasdd.coco(small)
    told = check.findings(dataset, coco, found=check.listing(dataset, coco))
    pd.testing.assert_frame_equal(told, check.findings(dataset, coco))


def test_refused_images_are_not_held_against_coco(small):
    label(small, FIRE, "9 0.5 0.5 0.2 0.2\n")
    (small / "images/fire_CV000001.jpg").unlink()
    assert _set(_listing(small)) == {
        ("class", f"{FIRE}.jpg", "train", 1),
        ("missing-image", "fire_CV000001.jpg", "train", 2),
    }


# --- negatives


def test_negatives_by_kind_and_what_deleting_them_would_change(small):
    # Neither 1 (val) shows the scene of fire 0; smoke 3 has lost its boxes.
    (small / "images/neitherFireNorSmoke_CV000001.jpg").write_bytes(_again(0))
    label(small, "smoke_CV000003", "")
    table = check.negatives(fasdd.read(small))
    rows = table.set_index(["split", "kind", "category"])
    assert rows["n"].to_dict() == {
        ("train", "all", ""): 1,
        ("train", "beside a positive", ""): 0,
        ("train", "alone", "smoke_CV"): 1,
        ("val", "all", ""): 2,
        ("val", "beside a positive", "neitherFireNorSmoke_CV"): 1,
        ("val", "alone", "neitherFireNorSmoke_CV"): 1,
        ("test", "all", ""): 2,
        ("test", "beside a positive", ""): 0,
        ("test", "alone", "neitherFireNorSmoke_CV"): 2,
    }
    assert rows["left_n"]["train", "all", ""] == 7 and rows["left_frac"]["train", "all", ""] == 7 / 8
    alone = rows["effect"]["test", "alone", "neitherFireNorSmoke_CV"]
    assert "would leave 0 of 2 images" in alone and "false-alarm rate could not be measured" in alone
    assert "false-alarm" not in rows["effect"]["val", "alone", "neitherFireNorSmoke_CV"]


def test_a_negative_is_beside_a_positive_of_its_event_not_of_its_camera():
    dataset = _filmed([(f"a{n}.jpg", "train", "a", f"a-e{n // 2}", n << 40) for n in range(4)])
    boxes = [np.ones((1, 5)), np.empty((0, 5)), np.empty((0, 5)), np.empty((0, 5))]
    table = check.negatives(replace(dataset, rows=dataset.rows.assign(boxes=boxes)))
    assert table.set_index("kind")["n"].to_dict() == {"all": 3, "beside a positive": 1, "alone": 2}


# --- examples


def test_examples_are_spread_over_kinds_and_can_be_decoded(small):
    label(small, FIRE, "9 0.5 0.5 0.2 0.2\n")
    label(small, "fire_CV000001", "0 0.5 0.5 0.2\n")
    label(small, "fire_CV000002", "0 0.5 0.5 0.2 0.2\n0 0.5 0.5 0 0\n")
    (small / f"images/{SMOKE}.jpg").write_bytes(b"")
    (small / "images/smoke_CV000001.jpg").write_bytes(encode(picture(60).convert("L")))
    dataset = fasdd.read(small)
    found = check.listing(dataset)
    assert set(check.examples(dataset, found, "boxes", 9)) == {f"fire_CV00000{n}.jpg" for n in range(3)}
    assert check.examples(dataset, found, "class", 9) == [f"{FIRE}.jpg"]
    assert check.examples(dataset, found, "images", 9) == ["smoke_CV000001.jpg"]
    assert check.examples(dataset, found, "lists", 9) == []
    assert len(check.examples(dataset, found, "negatives", 3)) == 3
    for image in check.examples(dataset, found, "boxes", 2):
        Image.open(io.BytesIO(dataset.read(image))).load()


def test_examples_of_duplicates_stand_side_by_side(small):
    for of, stem in ((0, "neitherFireNorSmoke_CV000003"), (1, "neitherFireNorSmoke_CV000001")):
        (small / f"images/{stem}.jpg").write_bytes(_again(of))
    dataset = fasdd.read(small)
    shown = check.examples(dataset, check.listing(dataset), "near-identical", 4)
    assert sorted(map(sorted, (shown[:2], shown[2:]))) == [
        ["fire_CV000000.jpg", "neitherFireNorSmoke_CV000003.jpg"],
        ["fire_CV000001.jpg", "neitherFireNorSmoke_CV000001.jpg"],
    ]
    assert set(check.examples(dataset, check.listing(dataset), "groups", 4)) == set(shown)


# --- the real archive, real photographs


def test_the_summary_speaks_of_the_published_archive_only_where_it_is_claimed(small):
    dataset = fasdd.read(small)
    own = check.findings(dataset).query("about == 'published'")
    assert own["what"].tolist() == ["published"] and own["n"].tolist() == [dataset.images_n]
    rows = [
        (f"{kind}{n:06d}.jpg", "train")
        for kind, split_n in fasdd.CATEGORIES.items()
        for n in range(sum(split_n.values()))
    ]
    frame = pd.DataFrame(rows, columns=["image", "split"]).assign(event="", phash=0, width=9, height=9)
    frame = frame.assign(sha256=frame["image"], group=frame["image"], boxes=[np.ones((1, 5))] * len(rows))
    whole = replace(dataset, rows=frame[index.COLUMNS], images_n=len(rows))
    told = check.findings(whole, source=downloads.zipped(small)).set_index(["about", "what", "where"])[
        "effect"
    ]
    # All images stand in train: the counts by split differ, the names agree, and the zip is another.
    assert told["published", "published count", "val"].startswith("differs")
    assert told["published", "published names", "fire_CV"].startswith("agrees")
    assert "differs" in told["published", "published checksum", "FASDD_CV.zip"]


def test_real_photographs(real):
    dataset, coco = fasdd.read(real), fasdd.coco(real)
    # The COCO files were written independently of the YOLO labels.
    assert crosscheck.disagreements(dataset, coco).empty
    sizes = coco.set_index("image")[["width", "height"]].loc[dataset.rows["image"]].to_numpy()
    assert (sizes == dataset.rows[["width", "height"]].to_numpy()).all()
    found = check.listing(dataset, coco)
    assert set(found["what"]) == {"near-identical"}
    # Frames of a few videos, split at random: the leak must be seen.
    assert _n(check.findings(dataset), "groups", "train and test") >= 10
    assert check.examples(dataset, found, "near-identical", 6)[:2] != []


def test_a_real_photograph_compressed_anew_is_found_across_splits(real, tmp_path):
    root = tmp_path / "FASDD_CV"
    shutil.copytree(real / "FASDD_CV", root, copy_function=shutil.copyfile)
    known = Known()
    rows = fasdd.read(root, known).rows
    before = _set(_listing(root, known))
    used = {image for _, image, _, _ in before}
    lone = rows[~rows["image"].isin(used)].groupby("split")["image"].first()
    photo = Image.open(root / "images" / lone["train"])
    smaller = photo.resize((photo.width // 2, photo.height // 2), Image.Resampling.LANCZOS)
    (root / "images" / lone["test"]).write_bytes(encode(smaller, quality=80))
    found = {row for row in _set(_listing(root, known)) - before if row[0] == "near-identical"}
    assert found == {("near-identical", lone[split], split, 0) for split in ("train", "test")}
