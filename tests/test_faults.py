"""Tests that `faults.json` lists every planted fault and nothing else: against Pillow and plain reading of
the files, which know nothing of the generator, and against the data check."""

import hashlib
import io
import json
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageOps, UnidentifiedImageError

from saistudy.data import check, fasdd, pyrosdis, twin
from saistudy.data.painted import casting, faults, footage

SPLITS = ("train", "val", "test")
# Pillow's own, and that of Ultralytics, which wraps Image.open for the whole process once it is imported.
UNKNOWN = (UnidentifiedImageError, ModuleNotFoundError)
SMALL = {"area_frac": 0.03, "long_px": 320, "faults": "all"}
SMALL_PYRO = {"area_frac": 0.03, "size": (320, 180), "faults": "all"}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Both twins with all faults, as many images as the demo has."""
    folder = tmp_path_factory.mktemp("faulty")
    twin.write_fasdd(folder, 168, 0, **SMALL)
    twin.write_pyrosdis(folder, 100, 0, cameras_n=8, **SMALL_PYRO)
    return folder


def planted(folder: Path, name: str) -> set[tuple]:
    listed = json.loads((folder / "faults.json").read_text())["faults"]
    own = [tuple(f[k] for k in ("what", "image", "split", "line")) for f in listed if f["twin"] == name]
    assert own == sorted(own) and len(own) == len(set(own))
    return set(own)


def odd_picture(data: bytes, suffix: str) -> set[str]:
    """What Pillow finds odd about an image."""
    if not data:
        return {"zero-bytes"}
    try:
        picture = Image.open(io.BytesIO(data))
    except UNKNOWN:
        return {"undecodable"}
    found = {"L": {"grey"}, "CMYK": {"cmyk"}, "I;16": {"16-bit"}}.get(picture.mode, set())
    found = found | ({"misnamed"} if {"JPEG": "jpg", "PNG": "png"}[picture.format] != suffix else set())
    found |= {"exif-rotated"} if picture.getexif().get(0x0112) == 6 else set()
    if picture.format == "JPEG" and not data.endswith(b"\xff\xd9"):
        try:  # whole but for its marker, it decodes once that is there, to the last row of its grain
            pixels = np.asarray(Image.open(io.BytesIO(data + b"\xff\xd9")).convert("L"))
            found |= {"no-end-marker"} if np.ptp(pixels[-1]) else {"truncated"}
        except OSError:
            found |= {"truncated"}
    return found


def odd_lines(data: bytes, size: tuple[int, int], classes: set[str]) -> set[tuple[str, int]]:
    """What is odd about the lines of a label, read field by field."""
    found = {("bom", 1)} if data.startswith(b"\xef\xbb\xbf") else set()
    found |= {("crlf", 1)} if b"\r" in data else set()
    lines = [line.split() for line in data.decode("utf-8-sig").splitlines()]
    for number, fields in enumerate(lines, start=1):
        what = "duplicate" if fields in lines[: number - 1] else _odd(fields, size, classes)
        found |= {(what, number)} if what else set()
    return found


def _odd(fields: list[str], size: tuple[int, int], classes: set[str]) -> str:
    if len(fields) != 5:
        return "columns"
    if "nan" in fields or not all(field.strip("-").replace(".", "").isdigit() for field in fields):
        return "not-a-number"
    if fields[0] not in classes:
        return "class"
    x, y, w, h = map(float, fields[1:])
    over_px = max((w / 2 - x) * size[0], (x + w / 2 - 1) * size[0], (h / 2 - y) * size[1])
    over_px = max(over_px, (y + h / 2 - 1) * size[1])
    if min(w, h) < 0 or over_px > 1:
        return "range"
    return "zero-area" if min(w, h) == 0 else "clipped" if over_px > 0.01 else ""


def repeated(digests: dict) -> set:
    counts = Counter(digests.values())
    return {key for key, digest in digests.items() if counts[digest] > 1}


def shown_size(data: bytes) -> tuple[int, int] | None:
    try:
        picture = Image.open(io.BytesIO(data))
    except UNKNOWN:
        return None
    return picture.size[::-1] if picture.getexif().get(0x0112) == 6 else picture.size


def lists(root: Path) -> dict[str, list[str]]:
    paths = {split: root / f"annotations/YOLO_CV/{split}.txt" for split in SPLITS}
    return {s: [line.removeprefix("./images/") for line in p.read_text().split()] for s, p in paths.items()}


def found_in_lists(root: Path) -> set[tuple]:
    """What does not fit between lists, images and labels."""
    found, seen = set(), set()
    there = {p.name for p in (root / "images").iterdir()}
    labels = {p.stem for p in (root / "annotations/YOLO_CV/labels").iterdir()}
    for split, names in lists(root).items():
        for line, image in enumerate(names, start=1):
            whats = ["listed-twice"] * (image in seen) + ["missing-image"] * (image not in there)
            found |= {(what, image, split, line) for what in whats}
            if image[:-4] not in labels:
                found.add(("missing-label", image, split, 0))
            seen.add(image)
    found |= {("unlisted", image, "", 0) for image in there - seen}
    stems = {image[:-4] for image in there | seen}
    return found | {("orphan-label", f"{stem}.jpg", "", 0) for stem in labels - stems}


def found_in_images(root: Path) -> set[tuple]:
    """What is odd about the images and their labels, and byte-identical ones."""
    splits = {image: split for split, names in reversed(lists(root).items()) for image in names}
    found, digests = set(), {}
    for path in (root / "images").iterdir():
        image, data = path.name, path.read_bytes()
        split, size = splits.get(image, ""), shown_size(data) if data else None
        digests[image] = hashlib.sha256(data).hexdigest()
        found |= {(what, image, split, 0) for what in odd_picture(data, image[-3:])}
        label = root / f"annotations/YOLO_CV/labels/{path.stem}.txt"
        if size and label.exists():
            lines = odd_lines(label.read_bytes(), size, {"0", "1"})
            found |= {(what, image, split, line) for what, line in lines}
            classes = {text.split()[0] for text in label.read_text("utf-8-sig").splitlines()}
            if image.startswith("fire_CV") and classes == {"1"}:
                found.add(("category", image, split, 0))
    return found | {("byte-identical", image, splits[image], 0) for image in repeated(digests)}


def found_in_coco(root: Path) -> set[tuple]:
    """Where COCO differs from lists, labels and pixels; broken labels and images are not compared."""
    found, broken = set(), {f[1] for f in found_in_images(root) if f[0] in faults.REFUSED}
    broken |= {f[1] for f in found_in_lists(root) if f[0] in faults.REFUSED}
    for split, names in lists(root).items():
        coco = json.loads((root / f"annotations/COCO_CV/Annotations/{split}.json").read_text())
        own, images = defaultdict(list), {image["file_name"]: image for image in coco["images"]}
        for box in coco["annotations"]:
            own[box["image_id"]].append(str(box["category_id"]))
        everywhere = {image for listed in lists(root).values() for image in listed}
        found |= {("coco-unlisted", image, split, 0) for image in images.keys() - everywhere}
        for image in set(names) - broken:
            if image not in images:
                if image not in {n for s in SPLITS[: SPLITS.index(split)] for n in lists(root)[s]}:
                    found.add(("coco-missing", image, split, 0))
                continue
            said, data = images[image], (root / "images" / image).read_bytes()
            text = (root / f"annotations/YOLO_CV/labels/{image[:-4]}.txt").read_text("utf-8-sig")
            lines = dict.fromkeys(line for line in text.splitlines() if " 0.000000" not in line)
            classes = [line.split()[0] for line in lines]
            if shown_size(data) != (said["width"], said["height"]):
                found.add(("coco-size", image, split, 0))
            if len(own[said["id"]]) != len(classes):
                found.add(("coco-boxes", image, split, 0))
            elif own[said["id"]] != classes:
                found.add(("coco-class", image, split, 0))
    return found


def test_the_files_of_fasdd_hold_what_is_listed_and_nothing_else(made):
    root = made / "FASDD_CV"
    expected = {f for f in planted(made, "FASDD_CV") if f[0] != "near-identical"}
    seen = found_in_lists(root) | found_in_images(root) | found_in_coco(root)
    assert seen == expected
    # at the size of the demo every kind is there
    kinds = {*faults.FASDD, "zero-area", "clipped", "coco-size", "byte-identical"}
    assert {f[0] for f in expected} == kinds | {"orphan-label", "coco-unlisted"}


def test_the_shards_of_pyrosdis_hold_what_is_listed_and_nothing_else(made):
    found, digests, names = set(), {}, set()
    for path in sorted((made / "pyro-sdis/data").iterdir()):
        split = path.name.split("-")[0]
        for row in pq.read_table(path).to_pylist():
            image, data = row["image_name"], row["image"]["bytes"]
            if image in names:
                image = image.replace(".jpg", "_2.jpg")
                found.add(("repeated-name", image, split, 0))
            names.add(image)
            found |= {("undated", image, split, 0)} if row["date"] == "unknown" else set()
            found |= {(what, image, split, 0) for what in odd_picture(data, "jpg")}
            lines = odd_lines(row["annotations"].encode(), (320, 180), {"1"})
            found |= {(what, image, split, line) for what, line in lines}
            digests[image, split] = hashlib.sha256(data).hexdigest()
    found |= {("byte-identical", image, split, 0) for image, split in repeated(digests)}
    assert found == planted(made, "pyro-sdis")
    assert {f[0] for f in found} == {*faults.STRESS["pyro-sdis"], "byte-identical"}


def test_an_image_on_its_side_is_shown_as_its_boxes_say(made):
    (image,) = (f[1] for f in planted(made, "FASDD_CV") if f[0] == "exif-rotated")
    scene = next(r.scene for r in casting.fasdd(168, 0, 0.03, 320, "all") if r.image == image)
    with Image.open(made / "FASDD_CV/images" / image) as picture:
        assert picture.size == scene.size[::-1]
        upright = np.asarray(ImageOps.exif_transpose(picture)).astype(int)
    plain = np.asarray(Image.open(io.BytesIO(footage.photograph(0, scene)[0]))).astype(int)
    # a second JPEG of grain costs a few levels; another orientation of a landscape tens of them
    assert np.abs(upright - plain).mean() < 6 < np.abs(upright - plain[::-1]).mean()


def listing(dataset, coco=None) -> set[tuple]:
    found = check.listing(dataset, coco)
    return set(found[["what", "image", "split", "line"]].itertuples(index=False, name=None))


def test_the_check_finds_in_fasdd_exactly_what_was_planted(made):
    found = listing(fasdd.read(made / "FASDD_CV"), fasdd.coco(made / "FASDD_CV"))
    assert found == planted(made, "FASDD_CV")


def test_the_check_finds_in_pyrosdis_exactly_what_was_planted(made):
    published = {"train": "train", "val": "train", "test": "val"}  # our val is cut from the published train
    found = listing(pyrosdis.read(made / "pyro-sdis"))
    assert {(w, image, published[split], line) for w, image, split, line in found} == planted(
        made, "pyro-sdis"
    )


@pytest.mark.parametrize("planted_faults", ["none", "published"])
def test_the_check_finds_nothing_but_what_was_planted(tmp_path, planted_faults):
    twin.write_fasdd(tmp_path, 100, 8, 0.03, 200, planted_faults)
    found = listing(fasdd.read(tmp_path), fasdd.coco(tmp_path))
    assert found == planted(tmp_path, "FASDD_CV") and bool(found) == (planted_faults != "none")


@pytest.mark.full
def test_the_check_finds_exactly_the_faults_of_a_large_twin(tmp_path):
    twin.write_fasdd(tmp_path, 3_000, 1, 0.03, 320, "all")
    found = listing(fasdd.read(tmp_path), fasdd.coco(tmp_path))
    assert found == planted(tmp_path, "FASDD_CV")


def test_takes_of_a_run_look_alike_and_other_images_do_not(made):
    listed = {f[1] for f in planted(made, "FASDD_CV") if f[0] == "near-identical"}
    runs = defaultdict(list)
    for role in casting.fasdd(168, 0, 0.03, 320, "all"):
        if role.image in listed:
            runs[role.scene.scene_n].append(made / "FASDD_CV/images" / role.image)
    assert len(listed) == sum(map(len, runs.values())) and min(map(len, runs.values())) > 1
    small = [
        np.asarray(Image.open(p).convert("L").resize((32, 32))).ravel() for run in runs.values() for p in run
    ]
    scene = np.repeat(np.arange(len(runs)), [len(run) for run in runs.values()])
    alike, same = np.corrcoef(np.array(small, float)), np.equal.outer(scene, scene)
    assert alike[same].min() > 0.97
    assert np.median(alike[~same]) < 0.9


@pytest.mark.parametrize("images_n", [24, 36, 40, 168, 399, 400, 3_000])
def test_no_split_loses_a_category_and_few_images_are_lost(images_n):
    for seed in range(3):
        cast = casting.fasdd(images_n, seed, 0.03, 320, "all")
        lost = [role for role in cast if role.what in faults.REFUSED]
        assert len(lost) <= 0.08 * images_n
        before = {role.cell for role in cast}
        assert {role.cell for role in cast if role.what not in faults.REFUSED} == before
        assert not any(role.what and (role.copied or role.run) for role in cast)
        if images_n < 400:
            assert {role.split for role in lost} <= {"train"}


def test_published_faults_are_those_known_of_the_real_sets(tmp_path):
    twin.write_fasdd(tmp_path, 60, 3, 0.03, 200)
    twin.write_pyrosdis(tmp_path, 40, 3, 4, (160, 90), 0.03)
    kinds = {f[0] for f in planted(tmp_path, "FASDD_CV")}
    assert kinds == {"zero-area", "clipped", "coco-size", "byte-identical", "near-identical"}
    assert {f[0] for f in planted(tmp_path, "pyro-sdis")} == {"byte-identical"}
    # both twins stand in one folder: the list of one survives a new version of the other
    before = planted(tmp_path, "FASDD_CV")
    twin.write_pyrosdis(tmp_path, 40, 4, 4, (160, 90), 0.03, "none")
    assert planted(tmp_path, "FASDD_CV") == before and not planted(tmp_path, "pyro-sdis")
