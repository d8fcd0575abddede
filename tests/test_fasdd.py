"""FASDD_CV as published: folder and zip, lists, every fault as a real file, what is known, the archive."""

import hashlib
import io
import json
import os
import random
import shutil
import zipfile
from dataclasses import replace

import downloads
import pandas as pd
import pyarrow.parquet as pq
import pytest
from downloads import balance, encode, label, picture
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from saistudy.data import archives, fasdd, index
from saistudy.data.known import Known
from saistudy.data.photographs import END
from saistudy.paths import Refusal

FIRE, SMOKE, EMPTY = (f"{kind}_CV000000" for kind in ("fire", "smoke", "neitherFireNorSmoke"))
LINE = "0 0.5 0.5 0.2 0.2\n"


@pytest.fixture
def small(tmp_path):
    """Twelve images: 8 train, 2 val, 2 test, in the published layout."""
    return downloads.fasdd(tmp_path / "download" / "FASDD_CV")


def _noted(dataset):
    return set(dataset.quarantine[["reason", "image", "split", "line"]].itertuples(index=False, name=None))


def test_small_set_is_read_as_laid_out(small):
    dataset = fasdd.read(small)
    rows = dataset.rows.set_index("image")
    assert dataset.rows["split"].value_counts().to_dict() == {"train": 8, "val": 2, "test": 2}
    assert rows["boxes"]["fire_CV000001.jpg"].tolist() == [[0, 0.5, 0.5, 0.2, 0.2]]
    assert rows["boxes"]["smoke_CV000001.jpg"].tolist() == [[1, 0.5, 0.5, 0.4, 0.2]]
    assert rows["boxes"]["neitherFireNorSmoke_CV000001.jpg"].shape == (0, 5)
    assert dataset.names == {0: "fire", 1: "smoke"} and dataset.provenance == "published-format"
    assert dataset.read("fire_CV000001.jpg") == (small / "images/fire_CV000001.jpg").read_bytes()
    assert dataset.quarantine.empty
    balance(dataset, 12)


def test_folder_parent_and_zip_are_the_same_data_set(small):
    prints = set()
    for source in (small, small.parent, downloads.zipped(small), downloads.zipped(small, "")):
        dataset = fasdd.read(source)
        image = dataset.rows["image"][0]
        assert dataset.read(image) == (small / "images" / image).read_bytes()
        prints.add(index.fingerprint(dataset.rows))
        assert len(fasdd.coco(source)) == 12
    assert len(prints) == 1


def test_reading_leaves_the_source_as_it_was(small):
    path = downloads.zipped(small)
    before = downloads.seen(small.parent)
    for source in (small, path):
        fasdd.read(source)
        fasdd.coco(source)
    assert downloads.seen(small.parent) == before


def test_provenance_is_synthetic_where_the_folder_says_so(small):
    (small.parent / "provenance.json").write_text("{}")
    for source in (small, small.parent, downloads.zipped(small)):
        assert fasdd.read(source).provenance == "synthetic"


def test_byte_identical_images_share_a_group(small):
    (small / "images/neitherFireNorSmoke_CV000003.jpg").write_bytes(
        (small / f"images/{FIRE}.jpg").read_bytes()
    )
    rows = fasdd.read(small).rows.set_index("image")
    assert rows["group"][f"{FIRE}.jpg"] == rows["group"]["neitherFireNorSmoke_CV000003.jpg"]
    # The eleven different pictures are independent noise: no other two may meet.
    assert rows["group"].nunique() == 11


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("prefix", ["./images/", "images/", ""])
def test_lists_in_every_spelling(small, prefix, end):
    lines = [f"{prefix}{kind}_CV{n:06d}.jpg" for kind in ("fire", "smoke") for n in range(4)]
    downloads.write_list(small, "train", ["", *lines], end)
    dataset = fasdd.read(small)
    assert dataset.quarantine.empty and (dataset.rows["split"] == "train").sum() == 8


# --- labels: reason, line, and whether the image stays

LABEL_FAULTS = {
    "class": (f"{LINE}7 0.5 0.5 0.2 0.2\n", 2, False),
    "range": ("0 1.02 0.5 0.2 0.2\n", 1, False),
    "columns": ("0 0.5 0.5 0.2\n", 1, False),
    "not-a-number": ("0 nan 0.5 0.2 0.2\n", 1, False),
    "zero-area": (f"{LINE}0 0.5 0.5 0.000000 0.2\n", 2, True),
    "duplicate": (f"{LINE}{LINE}", 2, True),
    # the left border at -0.5 px of 64
    "clipped": (f"0 {0.1 - 0.5 / 64:.6f} 0.5 0.2 0.2\n", 1, True),
    "bom": ("\ufeff" + LINE, 1, True),
    "crlf": (LINE.replace("\n", "\r\n"), 1, True),
}


@pytest.mark.parametrize("reason", LABEL_FAULTS)
def test_a_fault_of_a_label_is_found_once_and_exactly(small, reason):
    text, line, stays = LABEL_FAULTS[reason]
    label(small, FIRE, text)
    dataset = fasdd.read(small)
    assert _noted(dataset) == {(reason, f"{FIRE}.jpg", "train", line)} and len(dataset.quarantine) == 1
    rows = dataset.rows.set_index("image")
    assert (f"{FIRE}.jpg" in rows.index) == stays
    # What stays is one box: odd lines were dropped, cut or read all the same.
    assert not stays or len(rows["boxes"][f"{FIRE}.jpg"]) == 1
    balance(dataset, 12)


def _rotated():
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(picture(90).transpose(Image.Transpose.ROTATE_90), exif=exif)


def _deep():
    grey = picture(91).convert("L")
    return encode(grey.convert("I").point(lambda v: v * 257).convert("I;16"), "PNG")


# bytes, file suffix, whether the image stays
PICTURE_FAULTS = {
    "zero-bytes": (lambda: b"", "jpg", False),
    "undecodable": (lambda: random.Random(0).randbytes(900), "jpg", False),
    "truncated": (lambda: encode(picture(92, (320, 240)))[:-1500], "jpg", False),
    "format": (lambda: encode(picture(93), "GIF"), "jpg", False),
    "tiny": (lambda: encode(picture(94, (64, 9))), "jpg", False),
    "exif-rotated": (_rotated, "jpg", True),
    "16-bit": (_deep, "png", True),
    "cmyk": (lambda: encode(picture(95).convert("CMYK")), "jpg", True),
    "grey": (lambda: encode(picture(96).convert("L")), "jpg", True),
    "misnamed": (lambda: encode(picture(97), "PNG"), "jpg", True),
    "no-end-marker": (lambda: encode(picture(98))[:-2], "jpg", True),
}


def _spoil(root, stem, data, suffix):
    (root / f"images/{stem}.jpg").unlink()
    (root / f"images/{stem}.{suffix}").write_bytes(data)
    path = root / f"{archives.YOLO}/train.txt"
    path.write_bytes(path.read_bytes().replace(f"{stem}.jpg".encode(), f"{stem}.{suffix}".encode()))


@pytest.mark.parametrize("reason", PICTURE_FAULTS)
def test_a_fault_of_a_picture_is_found_once_and_exactly(small, reason):
    make, suffix, stays = PICTURE_FAULTS[reason]
    _spoil(small, FIRE, make(), suffix)
    dataset = fasdd.read(small)
    assert _noted(dataset) == {(reason, f"{FIRE}.{suffix}", "train", 0)}
    kept = dataset.rows.set_index("image")
    assert (f"{FIRE}.{suffix}" in kept.index) == stays
    assert not stays or tuple(kept.loc[f"{FIRE}.{suffix}", ["width", "height"]]) == (64, 48)
    balance(dataset, 12)


def test_a_scan_that_breaks_off_is_found_although_an_end_marker_was_put_after_it(small, tmp_path):
    data = encode(picture(92, (320, 240)))[:-1500] + END
    _spoil(small, FIRE, data, "jpg")
    assert _noted(fasdd.read(small)) == {("truncated", f"{FIRE}.jpg", "train", 0)}
    # Ultralytics asks for the marker only and would train on what is left.
    assert not _judged(small, FIRE, "jpg", tmp_path)[0]


def _judged(small, stem, suffix, tmp_path, end=b""):
    """Ultralytics' own verdict on a copy of one image and its label: corrupt or not, and its boxes."""
    from ultralytics.data.utils import verify_image_label

    photo, text = tmp_path / f"judged.{suffix}", tmp_path / "judged.txt"
    photo.write_bytes((small / f"images/{stem}.{suffix}").read_bytes() + end)
    text.write_bytes((small / f"{archives.LABELS}/{stem}.txt").read_bytes())
    told = verify_image_label((str(photo), str(text), "", False, 2, 0, 0, False))
    return bool(told[8]), told[1]


@pytest.mark.parametrize("reason", [*LABEL_FAULTS, *PICTURE_FAULTS])
def test_ultralytics_ignores_what_is_refused_and_takes_what_stays(small, tmp_path, reason):
    suffix = "jpg"
    if reason in LABEL_FAULTS:
        label(small, FIRE, LABEL_FAULTS[reason][0])
    else:
        make, suffix, _ = PICTURE_FAULTS[reason]
        _spoil(small, FIRE, make(), suffix)
    end = END if reason == "no-end-marker" else b""  # the tree adds it before Ultralytics looks
    ignored, boxes = _judged(small, FIRE, suffix, tmp_path, end)
    dataset = fasdd.read(small)
    kept = f"{FIRE}.{suffix}" in set(dataset.rows["image"])
    assert kept != ignored
    if kept and reason != "zero-area":
        assert len(boxes) == len(dataset.rows.set_index("image")["boxes"][f"{FIRE}.{suffix}"])


# --- lists and files against each other


def test_a_bad_list_line_costs_its_image_and_not_the_data_set(small):
    (small / "images/fire_CV000002.jpg").unlink()
    (small / f"{archives.LABELS}/fire_CV000001.txt").unlink()
    (small / "images/fire_CV000099.jpg").write_bytes(encode(picture(99)))
    label(small, "smoke_CV000099", "")
    for split, line in (
        ("train", f"./images/{FIRE}.jpg"),
        ("test", f"{SMOKE}.jpg"),
        ("val", "../../secret.jpg"),
    ):
        downloads.add_line(small, split, line)
    dataset = fasdd.read(small)
    assert _noted(dataset) == {
        ("missing-image", "fire_CV000002.jpg", "train", 3),
        ("missing-label", "fire_CV000001.jpg", "train", 0),
        ("unlisted", "fire_CV000099.jpg", "", 0),
        ("orphan-label", "smoke_CV000099.jpg", "", 0),
        ("listed-twice", f"{FIRE}.jpg", "train", 9),
        ("listed-twice", f"{SMOKE}.jpg", "test", 3),
        ("unsafe-name", "..?..?secret.jpg", "val", 3),
    }
    assert dataset.rows.set_index("image")["split"][f"{SMOKE}.jpg"] == "train"
    balance(dataset, 14)


UNSAFE = ["../secret.jpg", "./images/a/b.jpg", "/etc/passwd", "images/.jpg", "images\\a.jpg", "a\tb.jpg"]


@pytest.mark.parametrize("line", [*UNSAFE, "images/" + "a" * 300 + ".jpg", "C:a.jpg", "a.txt"])
def test_unsafe_name_in_a_list(small, line):
    for _ in range(2):
        downloads.add_line(small, "val", line)
    dataset = fasdd.read(small)
    assert [(reason, split, n) for reason, _, split, n in sorted(_noted(dataset), key=lambda x: x[3])] == [
        ("unsafe-name", "val", 3),
        ("unsafe-name", "val", 4),
    ]
    shown = dataset.quarantine["image"]
    assert shown.map(str.isprintable).all() and not shown.str.contains(r"[/\\:]").any()
    assert not shown.map(index.safe).any()
    balance(dataset, 14)


MISSPELT = {"FIRE_CV000000.JPG": "missing-image", "/data/fire_CV000000.jpg": "unsafe-name"}
MISSPELT |= {"./images/sub/fire_CV000000.jpg": "unsafe-name", "C:\\d\\Fire_CV000000.jpg": "unsafe-name"}


@pytest.mark.parametrize("line", MISSPELT)
def test_a_line_that_names_an_image_wrongly_and_that_image_are_one_row(small, line):
    path = small / f"{archives.YOLO}/train.txt"
    path.write_bytes(path.read_bytes().replace(f"./images/{FIRE}.jpg".encode(), line.encode()))
    dataset = fasdd.read(small)
    assert _noted(dataset) == {(MISSPELT[line], f"{FIRE}.jpg", "train", 1)}
    assert dataset.quarantine["text"].tolist() == [f"unlisted, the line says {line}"]
    balance(dataset, 12)
    downloads.add_line(small, "val", f"{FIRE}.jpg")  # named right, too: now the line is one of its own
    assert f"{FIRE}.jpg" in set(fasdd.read(small).rows["image"])
    balance(fasdd.read(small), 13)


SPELLINGS = ["./images/{}.jpg", "/data/images/{}.jpg", "..\\{}.jpg", "images/{}.JPG", None]


@given(st.lists(st.sets(st.sampled_from(SPELLINGS)), min_size=4, max_size=4), st.randoms())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_image_and_no_line_is_lost_however_images_are_spelt(tmp_path_factory, spelt, order):
    """Of smoke: each image is one whether a line means it or not, and so is each further wrong line."""
    root = downloads.fasdd(tmp_path_factory.mktemp("spelt") / "FASDD_CV", 8)
    stems = [f"smoke_CV{n:06d}" for n in range(len(spelt))]
    lines = [f"{kind}_CV{n:06d}.jpg" for kind in ("fire", "smoke") for n in range(8)]
    lines = [line for line in lines if line[:-4] not in stems]
    lines += [how.format(stem) for stem, hows in zip(stems, spelt, strict=True) for how in hows if how]
    order.shuffle(lines)
    downloads.write_list(root, "train", lines + [f"neitherFireNorSmoke_CV{n:06d}.jpg" for n in range(4)])
    wrong_n = [len(hows - {SPELLINGS[0], None}) for hows in spelt]
    further_n = sum(max(0, n - (SPELLINGS[0] not in hows)) for n, hows in zip(wrong_n, spelt, strict=True))
    dataset = fasdd.read(root)
    balance(dataset, 24 + further_n)
    gone = set(dataset.quarantine["image"])
    right = {stem for stem, hows in zip(stems, spelt, strict=True) if SPELLINGS[0] in hows}
    assert {stem for stem in stems if f"{stem}.jpg" in gone} == set(stems) - right


def test_two_images_cannot_share_a_label_file(small):
    (small / "images/fire_CV000000.png").write_bytes(encode(picture(77), "PNG"))
    downloads.add_line(small, "val", "./images/fire_CV000000.png")
    dataset = fasdd.read(small)
    assert _noted(dataset) == {("shared-label", "fire_CV000000.png", "val", 3)}
    balance(dataset, 13)


def test_names_that_no_text_can_hold_are_shown_in_their_place(small):
    (small / "images" / os.fsdecode(b"bad\xff\n.jpg")).write_bytes(encode(picture(88)))
    dataset = fasdd.read(small)
    assert _noted(dataset) == {("unlisted", "bad??.jpg", "", 0)}
    assert dataset.quarantine.to_csv().encode()
    balance(dataset, 13)


def test_other_files_beside_the_images_are_no_images(small):
    for name in ("Thumbs.db", "fire_CV000000.npy", "notes.txt"):
        (small / "images" / name).write_bytes(b"")
    (small / "images/more.jpg").mkdir()
    assert fasdd.read(small).quarantine.empty


@pytest.mark.parametrize(
    ("stem", "text", "noted"),
    [
        (FIRE, "1 0.5 0.5 0.2 0.2\n", True),
        (SMOKE, LINE, True),
        (EMPTY, LINE, True),
        (FIRE, "", True),
        (FIRE, f"{LINE}1 0.5 0.5 0.2 0.2\n", True),
        # A dropped line counts as labelled: the third smoke box without area is no contradiction.
        (SMOKE, "1 0.5 0.5 0.2 0.0\n", False),
        (FIRE, LINE, False),
    ],
)
def test_labels_that_contradict_the_category_are_noted_and_kept(small, stem, text, noted):
    label(small, stem, text)
    dataset = fasdd.read(small)
    found = {(reason, image) for reason, image, *_ in _noted(dataset) if reason == "category"}
    assert found == ({("category", f"{stem}.jpg")} if noted else set())
    assert len(dataset.rows) == 12


def test_names_of_other_shapes_have_no_category():
    assert fasdd.category("bothFireAndSmoke_CV000123.jpg") == "bothFireAndSmoke_CV"
    for image in (
        "fire_CV12.jpg",
        "fire_CV00000x.jpg",
        "holiday.jpg",
        "fireCV000001.jpg",
        "xfire_CV000001.jpg",
    ):
        assert fasdd.category(image) == ""


@pytest.mark.parametrize("data", [None, b"\r\n"])
def test_missing_or_empty_list(small, data):
    path = small / f"{archives.YOLO}/val.txt"
    path.unlink() if data is None else path.write_bytes(data)
    with pytest.raises(Refusal, match=r"val\.txt is missing" if data is None else r"val\.txt: it names no"):
        fasdd.read(small)


def test_wrong_folder_says_what_was_looked_for(tmp_path):
    for source in (tmp_path, tmp_path / "absent"):
        with pytest.raises(Refusal, match="annotations/YOLO_CV/"):
            fasdd.read(source)


def test_more_than_half_of_a_split_refused(small):
    for n in (0, 1):
        label(small, f"neitherFireNorSmoke_CV00000{n}", "9 0.5 0.5 0.1 0.1\n")
    with pytest.raises(Refusal, match="val: 2 of 2 images were refused, most for 'class'"):
        fasdd.read(small)
    label(small, EMPTY, "")
    balance(fasdd.read(small), 12)


# --- zip


def test_zip_of_something_else_and_a_zip_that_breaks_off(small, tmp_path):
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as content:
        content.writestr("readme.txt", "hello")
    with pytest.raises(Refusal, match="holds no FASDD_CV"):
        fasdd.read(tmp_path / "other.zip")
    path = downloads.zipped(small)
    path.write_bytes(path.read_bytes()[:-4000])
    with pytest.raises(Refusal, match="no whole zip"):
        fasdd.read(path)


def test_damaged_members_of_a_zip_are_quarantined(small):
    path = downloads.zipped(small)
    data = path.read_bytes()
    photo = (small / f"images/{FIRE}.jpg").read_bytes()
    text = b"CV000001.txt0 0.5 0.5"
    assert data.count(photo) == 1 and data.count(text) == 1
    data = data.replace(photo, photo[:300] + bytes([photo[300] ^ 255]) + photo[301:])
    path.write_bytes(data.replace(text, b"CV000001.txt0 0.5 0.6", 1))
    dataset = fasdd.read(path)
    assert dataset.quarantine["reason"].tolist() == ["unreadable", "unreadable"]
    assert dataset.quarantine["text"].str.contains("CRC").all()
    balance(dataset, 12)


def test_hostile_members_are_counted_and_never_touched(small, tmp_path):
    link = zipfile.ZipInfo("FASDD_CV/images/link.jpg")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    bait = tmp_path / "bait.jpg"
    bait.write_bytes(encode(picture(66)))
    hostile = ["../escaped.jpg", f"{tmp_path}/absolute.jpg", "FASDD_CV/images/../../up.jpg", "..\\back.jpg"]
    hostile += ["C:/drive.jpg", "../annotations/YOLO_CV/train.txt"]
    path = downloads.zipped(small, extra=[*((name, b"boo") for name in hostile), (link, str(bait).encode())])
    before = downloads.seen(tmp_path)
    dataset = fasdd.read(path)
    # The link is its target's path, nine words of text: listed nowhere, and never followed.
    assert (dataset.quarantine["reason"] == "unlisted").all() and len(dataset.quarantine) == len(hostile) + 1
    assert len(dataset.rows) == 12
    for name in ("../bait.jpg", str(bait), "../../bait.jpg"):
        with pytest.raises(FileNotFoundError):
            dataset.read(name)
    assert downloads.seen(tmp_path) == before
    balance(dataset, 12 + len(hostile) + 1)


def test_a_link_in_a_list_is_bytes_that_do_not_decode(small, tmp_path):
    link = zipfile.ZipInfo("FASDD_CV/images/link.jpg")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    bait = tmp_path / "bait.jpg"
    bait.write_bytes(encode(picture(66)))
    downloads.add_line(small, "train", "link.jpg")
    dataset = fasdd.read(downloads.zipped(small, extra=[(link, str(bait).encode())]))
    assert _noted(dataset) == {("undecodable", "link.jpg", "train", 0)}


# --- what is known is not read again


@pytest.mark.parametrize("packed", [False, True])
def test_a_second_read_reads_nothing_and_a_changed_file_is_read_again(small, tmp_path, packed):
    (small / f"images/{SMOKE}.jpg").write_bytes(b"")
    source = downloads.zipped(small) if packed else small
    path = tmp_path / "known.parquet"
    first = Known(path)
    dataset = fasdd.read(source, first)
    assert first.read_n == 12
    again = Known(path)
    second = fasdd.read(source, again)
    assert again.read_n == 0
    assert index.fingerprint(second.rows) == index.fingerprint(dataset.rows)
    pd.testing.assert_frame_equal(second.quarantine, dataset.quarantine)
    (small / f"images/{FIRE}.jpg").write_bytes(encode(picture(55)))
    third = Known(path)
    changed = fasdd.read(downloads.zipped(small) if packed else small, third)
    assert third.read_n == 1
    assert index.fingerprint(changed.rows) != index.fingerprint(dataset.rows)


def test_a_touched_file_is_read_again_and_labels_always_are(small, tmp_path):
    fasdd.read(small, Known(tmp_path / "known.parquet"))
    os.utime(small / f"images/{FIRE}.jpg", ns=(1, 1))
    label(small, SMOKE, "1 0.5 0.5 0.1 0.1\n")
    known = Known(tmp_path / "known.parquet")
    rows = fasdd.read(small, known).rows.set_index("image")
    assert known.read_n == 1 and rows["boxes"][f"{SMOKE}.jpg"].tolist() == [[1, 0.5, 0.5, 0.1, 0.1]]


def test_a_known_file_of_other_code_or_of_garbage_counts_as_empty(small, tmp_path):
    path = tmp_path / "known.parquet"
    fasdd.read(small, Known(path))
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({"code": "of another version"}), path)
    for _ in range(2):
        known = Known(path)
        assert len(fasdd.read(small, known).rows) == 12 and known.read_n == 12
        path.write_bytes(b"PAR1 but not really")


# --- counts in = counts out + quarantined

FAULTS = st.sampled_from([*LABEL_FAULTS, *PICTURE_FAULTS, "gone", "no-label", "unlisted", "twice", "unsafe"])


@given(st.lists(st.tuples(st.integers(0, 11), FAULTS), max_size=12), st.booleans())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_image_is_lost_in_any_mixture_of_faults(tmp_path_factory, faults, packed):
    root = downloads.fasdd(tmp_path_factory.mktemp("mixed") / "FASDD_CV")
    stems = sorted(path.stem for path in (root / "images").iterdir())
    extra_n = sum(_planted(root, stems[at], what, n) for n, (at, what) in enumerate(faults))
    try:
        dataset = fasdd.read(downloads.zipped(root) if packed else root)
    except Refusal as refusal:
        assert "at least half should be sound" in str(refusal) or "no image at all" in str(refusal)
        return
    balance(dataset, 12 + extra_n)


def _planted(root, stem, what, n) -> int:
    """Plant one fault; how many images more come in by it."""
    photo = root / f"images/{stem}.jpg"
    if what in LABEL_FAULTS:
        label(root, stem, LABEL_FAULTS[what][0])
    elif what in PICTURE_FAULTS:
        if photo.exists():
            photo.write_bytes(PICTURE_FAULTS[what][0]())
    elif what == "gone":
        photo.unlink(missing_ok=True)
    elif what == "no-label":
        (root / f"{archives.LABELS}/{stem}.txt").unlink(missing_ok=True)
    elif what == "unlisted":
        (root / f"images/stray{n}.jpg").write_bytes(encode(picture(200 + n)))
        return 1
    elif what == "twice":
        downloads.add_line(root, "val", f"./images/{stem}.jpg")
    else:
        downloads.add_line(root, "test", f"../{stem}.jpg")
        return 1
    return 0


# --- the real archive


def _real_names():
    """Names and splits as published: floor(n / 6) of each category for val and for test."""
    totals = {"fire": 12_550, "smoke": 23_414, "bothFireAndSmoke": 20_151, "neitherFireNorSmoke": 39_199}
    for kind, n in totals.items():
        held = n // 6
        splits = ["train"] * (n - 2 * held) + ["val"] * held + ["test"] * held
        for number, split in enumerate(splits):
            yield f"{kind}_CV{number:06d}.jpg", split


@pytest.fixture(scope="module")
def whole():
    rows = pd.DataFrame(_real_names(), columns=["image", "split"])
    rows = rows.assign(boxes=[()] * len(rows))
    empty = pd.DataFrame(columns=index.NOTES)
    return index.Dataset(fasdd.NAME, rows, empty, len(rows), fasdd.NAMES, "published-format", bytes)


def test_the_published_names_and_counts_agree(whole):
    assert fasdd.PUBLISHED == {"train": 63_546, "val": 15_884, "test": 15_884}
    assert fasdd.claims(whole)
    told = fasdd.published(whole)
    # Three splits, four categories of three splits, the names of four categories and of no category.
    assert len(told) == 3 + 12 + 4 + 1 and all(effect.startswith("agrees") for *_, effect in told)


def test_what_differs_from_the_published_archive_is_named(whole, small):
    rows = whole.rows.copy()
    rows.loc[0, ["image", "split"]] = ["fire_CV012550.jpg", "val"]
    moved = replace(whole, rows=rows)
    told = [
        (what, where) for what, where, _, effect in fasdd.published(moved) if effect.startswith("differs")
    ]
    expected = [("published count", where) for where in ("train", "val", "train fire_CV", "val fire_CV")]
    assert told == [*expected, ("published names", "fire_CV")]
    with pytest.raises(Refusal, match=r"published names fire_CV: 1 differs.*first 000000"):
        fasdd.assert_published(small, moved)
    renamed = replace(whole, rows=whole.rows.replace("smoke_CV023413.jpg", "smoke.jpg"))
    with pytest.raises(Refusal, match=r"published names others: 1 differs"):
        fasdd.assert_published(small, renamed)
    fasdd.assert_published(small, whole)


def test_an_image_that_was_refused_counts_for_the_archive(whole, small):
    gone = pd.DataFrame([index.note(whole.rows["image"][0], "train", "truncated")])
    fasdd.assert_published(small, replace(whole, rows=whole.rows[1:], quarantine=gone))
    stray = pd.DataFrame([index.note("stray.jpg", "", "unlisted")])
    fasdd.assert_published(small, replace(whole, quarantine=stray))


def test_any_other_tree_is_not_held_to_the_archive(whole, small, real):
    assert not fasdd.claims(fasdd.read(small), small)
    assert not fasdd.claims(fasdd.read(real), real)
    assert not fasdd.claims(replace(whole, rows=whole.rows[1:]))
    assert not fasdd.claims(replace(whole, name="fasdd_cv-disjoint"))


def test_a_zip_of_the_published_size_claims_to_be_it(small):
    path = downloads.zipped(small)
    data = path.read_bytes()
    with open(path, "wb") as file:  # a hole before the archive: its members are found from the end
        file.seek(12_326_081_298 - len(data))
        file.write(data)
    dataset = fasdd.read(path)
    assert len(dataset.rows) == 12 and fasdd.claims(dataset, path)
    path.unlink()


def test_the_checksum_of_a_zip_is_held_to_the_published_one(whole, small):
    path = downloads.zipped(small)
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    told = fasdd.published(whole, path)[-1]
    assert told[:2] == ("published checksum", "FASDD_CV.zip") and md5 in told[3] and "differs" in told[3]
    with pytest.raises(Refusal, match=f"checksum.*{md5} differs from the published MD5 da5e1410e13113fc"):
        fasdd.assert_published(path, whole)


# --- real photographs


def test_real_photographs_in_the_published_format(real):
    dataset = fasdd.read(real)
    folder = real / "FASDD_CV"
    balance(dataset, len(list((folder / "images").iterdir())))
    assert dataset.quarantine.empty
    for split in index.SPLITS:
        lines = (folder / f"{archives.YOLO}/{split}.txt").read_text().split()
        assert (dataset.rows["split"] == split).sum() == len(lines)
    texts = [path.read_text() for path in (folder / f"{archives.LABELS}").iterdir()]
    assert dataset.rows["boxes"].map(len).sum() == sum(len(text.splitlines()) for text in texts)


def test_faults_planted_in_real_photographs_are_found_exactly(real, tmp_path):
    root = tmp_path / "FASDD_CV"
    shutil.copytree(real / "FASDD_CV", root, copy_function=shutil.copyfile)
    listed = (root / f"{archives.YOLO}/train.txt").read_text().split()
    stems = iter([line.removeprefix("./images/").removesuffix(".jpg") for line in listed][::7])
    planted = set()
    for reason in ("zero-bytes", "undecodable"):
        stem = next(stems)
        (root / f"images/{stem}.jpg").write_bytes(PICTURE_FAULTS[reason][0]())
        planted.add((reason, f"{stem}.jpg", "train", 0))
    for marker in (b"", END):  # the last fifth of a real scan is gone
        stem, photo = (found := next(stems)), root / f"images/{found}.jpg"
        photo.write_bytes(photo.read_bytes()[: photo.stat().st_size * 4 // 5] + marker)
        planted.add(("truncated", f"{stem}.jpg", "train", 0))
    for reason, change in (
        ("cmyk", lambda p: encode(p.convert("CMYK"))),
        ("grey", lambda p: encode(p.convert("L"))),
    ):
        stem = next(stems)
        photo = root / f"images/{stem}.jpg"
        photo.write_bytes(change(Image.open(io.BytesIO(photo.read_bytes()))))
        planted.add((reason, f"{stem}.jpg", "train", 0))
    stem = next(stems)
    label(root, stem, "0 0.5 0.5 0.2 0.2 0.9\n")
    planted.add(("columns", f"{stem}.jpg", "train", 1))
    assert _noted(fasdd.read(root)) == planted


def test_broken_coco_file(small):
    path = small / f"{archives.COCO}/val.json"
    whole = json.loads(path.read_text())
    for content in (
        '{"images": [{"id": 0}], "annotations": []}',
        json.dumps(whole | {"annotations": [{"image_id": 0, "category_id": 0, "bbox": [1, 2, 3]}]}),
        json.dumps(
            whole | {"annotations": [{"image_id": 0, "category_id": 0, "bbox": [1, 2, 3, float("nan")]}]}
        ),
        "[]",
        "no json",
    ):
        path.write_text(content)
        with pytest.raises(Refusal, match=r"val\.json cannot be read as COCO"):
            fasdd.coco(small)
    path.unlink()
    with pytest.raises(Refusal, match=r"val\.json cannot be read as COCO"):
        fasdd.coco(small)
