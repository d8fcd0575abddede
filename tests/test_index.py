"""The index: image descriptions, perceptual hash and clusters, fingerprint, parquet round trip."""

import hashlib
import io
import os
import shutil
import zipfile
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from saistudy.data import index, photographs
from saistudy.paths import Refusal


def _picture(seed=0, size=(64, 48)):
    pixels = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def _coded(picture, kind="JPEG", **how):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **how)
    return buffer.getvalue()


def _jpeg(seed=0, size=(64, 48), **how):
    return _coded(_picture(seed, size), **how)


def _decoded(data):
    """Width and height as OpenCV, which Ultralytics trains with, decodes the bytes."""
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape[1::-1]


def _rows(n=6):
    rng = np.random.default_rng(1)
    made = []
    for i in range(n):
        photo = photographs.describe(_jpeg(i), "a.jpg")
        split = index.SPLITS[i % 3]
        array = np.column_stack([np.zeros(i % 3), rng.random((i % 3, 4))])
        row = (f"a{i}.jpg", split, f"g{i}", "", photo.width, photo.height, photo.sha256, photo.phash, array)
        made.append(({**dict(zip(index.COLUMNS, row, strict=True))}, []))
    return index.assemble(made)[0]


def test_describe_gives_size_and_hash_of_the_bytes():
    data = _jpeg()
    photo = photographs.describe(data, "a.jpg")
    assert (photo.width, photo.height, photo.oddities) == (64, 48, ())
    assert photo.sha256 == hashlib.sha256(data).hexdigest()
    assert 0 <= photo.phash < 2**64


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "MPO"])
def test_sizes_are_those_of_the_decoder_of_ultralytics(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = _jpeg() if kind == "JPEG" and orientation == 1 else _coded(_picture(), kind, exif=exif)
    photo = photographs.describe(data, {"TIFF": "a.tif", "MPO": "a.jpg"}.get(kind, f"a.{kind.lower()}"))
    assert (photo.width, photo.height) == _decoded(data)
    # A TIFF is turned by Pillow as it loads, and says no more about it.
    assert photo.oddities == (() if orientation == 1 or kind == "TIFF" else ("exif-rotated",))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_exif_that_cannot_be_read_turns_nothing():
    data = _jpeg(exif=b"Exif\0\0MM\0*\0\0\0\x08 no directory of entries")
    assert photographs.describe(data, "a.jpg")[:2] == _decoded(data) == (64, 48)


DEEP = Image.fromarray((np.arange(64 * 48, dtype=np.uint16) * 20).reshape(48, 64))


@pytest.mark.parametrize(
    ("data", "name", "oddities"),
    [
        (_coded(_picture().convert("L")), "a.jpg", ("grey",)),
        (_coded(_picture().convert("CMYK")), "a.jpeg", ("cmyk",)),
        (_coded(DEEP, "PNG"), "a.png", ("16-bit",)),
        (_coded(_picture(), "PNG"), "a.jpg", ("misnamed",)),
        (_jpeg(), "a.PNG", ("misnamed",)),
        (_jpeg()[:-2], "a.jpg", ("no-end-marker",)),
        (_jpeg() + b"\0\0", "a.jpg", ("no-end-marker",)),
        (_jpeg(progressive=True), "a.JPG", ()),
        (_coded(_picture(), "BMP"), "a.bmp", ()),
        (_coded(_picture(), "WEBP"), "a.webp", ()),
        (_coded(_picture(), "TIFF"), "a.TIFF", ()),
        (_coded(_picture().convert("RGBA"), "PNG"), "a.png", ()),
        (_coded(_picture().quantize(16), "PNG"), "a.png", ()),
    ],
)
def test_oddities_do_not_refuse(data, name, oddities):
    photo = photographs.describe(data, name)
    assert photo.oddities == oddities
    # OpenCV decodes no JPEG without its end marker; Ultralytics and our trees add it.
    complete = data + photographs.END if "no-end-marker" in oddities else data
    assert (photo.width, photo.height) == _decoded(complete) == (64, 48)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "zero-bytes"),
        (b"not an image", "undecodable"),
        (_jpeg()[:1], "undecodable"),
        (_jpeg()[:20], "undecodable"),
        (_coded(_picture(), "PNG")[:-200], "truncated"),
        (_coded(_picture(), "GIF"), "format"),
        (_jpeg(size=(64, 9)), "tiny"),
    ],
)
def test_what_cannot_be_trained_on(data, reason):
    with pytest.raises(photographs.Damaged) as damage:
        photographs.describe(data, "a.jpg")
    assert damage.value.reason == reason and "\n" not in str(damage.value)


def _textured(**how):
    noise = np.random.default_rng(5).integers(0, 255, (240, 320, 3), dtype=np.uint8)
    return _coded(Image.fromarray(noise), quality=80, **how)


@pytest.mark.parametrize("end", [b"", photographs.END])
@pytest.mark.parametrize("lost_frac", [0.01, 0.1, 0.5, 0.9])
@pytest.mark.parametrize(
    "how", [{}, {"progressive": True}, {"restart_marker_rows": 1}, {"subsampling": 0}], ids=str
)
def test_a_scan_cut_short_is_truncated_whatever_stands_at_its_end(how, lost_frac, end):
    data = _textured(**how)
    assert photographs.describe(data, "a.jpg").oddities == ()
    with pytest.raises(photographs.Damaged) as damage:
        photographs.describe(data[: -int(lost_frac * len(data))] + end, "a.jpg")
    assert damage.value.reason == "truncated"


@pytest.mark.parametrize("grey", [0, 127, 128, 129, 255])
@pytest.mark.parametrize("bar_px", [1, 30, 240])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("lost_bytes", [0, 2])
def test_an_even_last_row_is_no_damage(grey, bar_px, progressive, lost_bytes):
    """Black bars, caption bars and blank images, of the very grey too that libjpeg fills with."""
    pixels = np.random.default_rng(5).integers(0, 255, (240, 320, 3), dtype=np.uint8)
    pixels[-bar_px:] = grey
    data = _coded(Image.fromarray(pixels), progressive=progressive)
    photo = photographs.describe(data[: len(data) - lost_bytes], "a.jpg")
    assert photo.oddities == (("no-end-marker",) if lost_bytes else ())


def _brightness(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("L"))


def test_perceptual_hash_is_the_published_phash():
    # The same definition through another implementation of the cosine transform (OpenCV).
    bright = _brightness(_jpeg(3, (320, 240)))
    grey = np.asarray(Image.fromarray(bright).resize((32, 32), Image.Resampling.BOX), np.float64)
    terms = cv2.dct(grey)[:8, :8].ravel()[1:]
    bits = "".join("1" if term > np.median(terms) else "0" for term in terms) + "0"
    assert photographs.perceptual_hash(bright) == int(bits, 2)


def test_perceptual_hash_survives_scaling_and_compression_and_tells_scenes_apart():
    one, again, other = (
        photographs.perceptual_hash(_brightness(data))
        for data in (_jpeg(1, (640, 480)), _jpeg(1, (320, 240), quality=60), _jpeg(2, (640, 480)))
    )
    assert (one ^ again).bit_count() <= 4
    assert (one ^ other).bit_count() > 16


def test_cluster_is_the_transitive_closure_of_near_pairs():
    # 0 - 4 bits - 1 - 4 bits - 2 form a chain; 3 is far; 4 repeats 3.
    hashes = np.array([0b0, 0b1111, 0b11111111, 2**63 - 1, 2**63 - 1], dtype=np.uint64)
    assert photographs.cluster(hashes, distance=4).tolist() == [0, 0, 0, 1, 1]
    assert photographs.cluster(hashes, distance=3).tolist() == [0, 1, 2, 3, 3]
    assert photographs.cluster(np.array([], dtype=np.uint64)).tolist() == []


def _plain_search(hashes, distance):
    """Labels of the transitive closure, from every pair."""
    label = list(range(len(hashes)))
    for i in range(len(hashes)):
        for j in range(i):
            if (int(hashes[i]) ^ int(hashes[j])).bit_count() <= distance and label[i] != label[j]:
                label = [label[j] if k == label[i] else k for k in label]
    return label


@pytest.mark.parametrize("pairs_n", [photographs.PAIRS_N, 3])
@pytest.mark.parametrize(("distance", "flips_n"), [(0, 0), (1, 1), (3, 2), (8, 5), (12, 7)])
def test_cluster_equals_a_plain_search_of_all_pairs(monkeypatch, distance, flips_n, pairs_n):
    monkeypatch.setattr(photographs, "PAIRS_N", pairs_n)
    rng = np.random.default_rng(distance)
    hashes = rng.integers(0, 2**63, 40, dtype=np.uint64)[rng.integers(0, 40, 400)]
    for bits in np.uint64(1) << rng.integers(0, 64, (flips_n, 400), dtype=np.uint64):
        hashes ^= bits
    label = _plain_search(hashes, distance)
    found = photographs.cluster(hashes, distance)
    # The same partition: equal pairs of labels map one to one.
    assert len(set(zip(found.tolist(), label, strict=True))) == len(set(label)) == len(set(found))
    assert 1 < len(set(label)) < 400
    # Labels count in order of first appearance.
    assert pd.factorize(found)[0].tolist() == found.tolist()


def test_cluster_of_many_near_hashes_across_blocks():
    """2,000 hashes within 8 bits of a centre, more than a block holds, and as many strangers."""
    rng = np.random.default_rng(0)
    near = np.full(2000, 2**62 + 12345, dtype=np.uint64)
    for bits in np.uint64(1) << rng.integers(0, 63, (4, 2000), dtype=np.uint64):
        near ^= bits
    far = rng.integers(0, 2**63, 2000, dtype=np.uint64)
    found = photographs.cluster(np.concatenate([near, far]))
    assert set(found[:2000]) == {0} and 0 not in found[2000:]


def test_clusters_of_real_photographs_join_no_scenes(real):
    """Correlation of 32x32 grey pictures, which the hash does not compute, of every joined pair."""
    paths = sorted((real / "FASDD_CV/images").glob("*.jpg"))
    grey = [
        np.asarray(Image.open(p).convert("L").resize((32, 32), Image.Resampling.BOX), float).ravel()
        for p in paths
    ]
    hashes = np.array([photographs.describe(p.read_bytes(), p.name).phash for p in paths], dtype=np.uint64)
    far = np.bitwise_count(hashes[:, None] ^ hashes[None])
    near = np.argwhere(np.triu(far <= photographs.DISTANCE, 1))
    corr = np.corrcoef(grey)[near[:, 0], near[:, 1]]
    assert len(near) > 300
    # Measured minimum 0.78; strangers have a median near 0.
    assert corr.min() > 0.7
    labels = photographs.cluster(hashes)
    assert 100 < len(set(labels)) < 250


def _changed(rows, what, number):
    """The rows with one thing changed that training sees."""
    rows = rows.copy()
    image = rows["boxes"].map(len).idxmax()
    array = rows.at[image, "boxes"].copy()
    if what == "order of boxes":
        array = array[::-1]
    elif what == "box":
        array[number % 2, 1 + number % 4] += 2e-6
    elif what == "class":
        array[number % 2, 0] += 1
    elif what == "fewer boxes":
        array = array[1:]
    else:
        told = {"image bytes": ("sha256", "0" * 64), "name": ("image", "b.jpg"), "split": ("split", "other")}
        column, value = told[what]
        rows.loc[rows.index[number % len(rows)], column] = value
    rows.at[image, "boxes"] = array
    return rows


SEEN = ["image bytes", "name", "split", "box", "class", "order of boxes", "fewer boxes"]


@pytest.fixture(scope="module")
def rows():
    return _rows()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(what=st.sampled_from(SEEN), number=st.integers(0, 50), seed=st.integers(0, 1000))
def test_fingerprint_sees_what_training_sees_and_nothing_else(rows, what, number, seed):
    base = index.fingerprint(rows)
    shuffled = rows.sample(frac=1, random_state=seed)
    assert index.fingerprint(shuffled) == base
    assert index.fingerprint(shuffled.assign(group=f"g{seed}", event="other", phash=np.uint64(seed))) == base
    assert index.fingerprint(_changed(rows, what, number)) != base
    assert index.fingerprint(_changed(shuffled, what, number)) != base


def test_fingerprint_does_not_see_the_clock_or_whether_a_zip_holds_the_files(tmp_path):
    from saistudy.data import fasdd, twin

    source = twin.write_fasdd(tmp_path / "twin", 36, seed=1)
    base = index.fingerprint(fasdd.read(source).rows)
    with zipfile.ZipFile(tmp_path / "FASDD_CV.zip", "w") as archive:
        for file in sorted(source.rglob("*")):
            archive.write(file, f"FASDD_CV/{file.relative_to(_top(source))}")
            os.utime(file, ns=(1, 1))
    assert index.fingerprint(fasdd.read(source).rows) == base
    assert index.fingerprint(fasdd.read(tmp_path / "FASDD_CV.zip").rows) == base


def _top(source):
    """The folder FASDD_CV itself."""
    return source if (source / "images").is_dir() else source / "FASDD_CV"


def test_images_in_are_images_out_and_refused():
    sound = photographs.describe(_jpeg(), "a.jpg")
    damage = photographs.Damaged("truncated", "breaks off")
    examined = [
        index.examine(f"a{i}.jpg", "train", sound, "0 0.5 0.5 0.2 0.2\n0 9 9 9 9" * i, {0}) for i in (0, 1)
    ]
    examined += [
        index.examine(f"b{i}.jpg", "train", sound, "0 0.5 0.5 0.2 0.2\n0 0.5 0.5 0 0.2", {0}) for i in (0, 1)
    ]
    examined += [
        index.examine("c.jpg", "train", damage, "", {0}),
        index.examine("d.jpg", "train", sound, "", {0}),
    ]
    rows, quarantine, images_n = index.assemble(
        examined, [index.note("e.jpg", "", "orphan-label")], ["train"]
    )
    assert (images_n, len(rows), len(index.refused(quarantine))) == (6, 4, 2)
    reasons = ["orphan-label", "range", "zero-area", "zero-area", "truncated"]
    assert quarantine["reason"].tolist() == reasons
    # Two images under one name would hide one of them.
    with pytest.raises(RuntimeError, match="a reader lost some"):
        index.assemble([*examined, examined[-2]], splits=["train"])


def test_saved_index_comes_back_bit_for_bit(tmp_path):
    rows = _rows()
    index.save(rows, tmp_path / "index.parquet")
    back = index.load(tmp_path / "index.parquet")
    pd.testing.assert_frame_equal(back.drop(columns="boxes"), rows.drop(columns="boxes"))
    for one, other in zip(back["boxes"], rows["boxes"], strict=True):
        assert one.dtype == np.float64
        np.testing.assert_array_equal(one, other)
    assert [path.name for path in tmp_path.iterdir()] == ["index.parquet"]


def test_load_refuses_what_is_no_index(tmp_path):
    (tmp_path / "index.parquet").write_bytes(b"PAR1 not really")
    for name in ("index.parquet", "absent.parquet"):
        with pytest.raises(Refusal, match="not a readable index"):
            index.load(tmp_path / name)


@pytest.mark.parametrize(
    "name", ["../a.jpg", "a/b.jpg", "a\\b.jpg", ".a.jpg", "a", "a.txt", ".jpg", "a\n.jpg", ""]
)
def test_unsafe_names(name):
    assert not index.safe(name)


def test_safe_names():
    assert index.safe("fire_CV000001.jpg") and index.safe("été (2).JPG") and index.safe("a.webp")


@pytest.mark.parametrize("name", ["../a.jpg", "a?.jpg", ".a.jpg", "a", "", "\udcff.jpg", "a" * 300 + ".jpg"])
def test_an_unsafe_name_is_shown_as_no_safe_one(name):
    shown = index.shown(name)
    assert not index.safe(shown) and "/" not in shown and len(shown.encode()) < 200


def test_a_safe_name_is_shown_as_it_is():
    assert index.shown("été (2).JPG") == "été (2).JPG"


@given(st.lists(st.text("a_2?.J/j\n", max_size=6), max_size=12))
def test_names_that_are_shown_stay_apart_and_unsafe(names):
    taken = set()
    unsafe = [name for name in names if not index.safe(name)]
    told = [index.free(index.shown(name), taken) for name in unsafe]
    assert len({name.casefold() for name in told}) == len(told)
    assert not any(index.safe(name) or set(name) & {"/", "\n"} for name in told)


def _rewritten(path, data, **how):
    """Other bytes in the same file: size, clock and inode as before."""
    seen = path.stat()
    with open(path, "r+b") as file:
        file.write(data)
    os.utime(path, ns=(seen.st_atime_ns, how.get("mtime_ns", seen.st_mtime_ns)))


def test_a_digest_is_remembered_until_path_size_clock_or_inode_change(tmp_path):
    path, kept = tmp_path / "a.bin", tmp_path / "known" / "digests.json"
    path.write_bytes(b"first")
    first, second = (hashlib.md5(data).hexdigest() for data in (b"first", b"other"))
    assert index.digest(path, "md5", kept) == first
    _rewritten(path, b"other")
    assert index.digest(path, "md5", kept) == first  # so it was not read
    assert index.digest(path, "md5") == second
    assert index.digest(path, "sha256", kept) == hashlib.sha256(b"other").hexdigest()
    _rewritten(path, b"other", mtime_ns=1)
    assert index.digest(path, "md5", kept) == second
    os.replace(shutil.copy2(path, tmp_path / "b.bin"), path)  # another inode
    _rewritten(path, b"third")
    assert index.digest(path, "md5", kept) == hashlib.md5(b"third").hexdigest()
    path.write_bytes(b"longer")
    os.utime(path, ns=(1, 1))
    assert index.digest(path, "md5", kept) == hashlib.md5(b"longer").hexdigest()
    kept.write_text("no JSON")
    assert index.digest(path, "md5", kept) == hashlib.md5(b"longer").hexdigest()
    assert os.listdir(kept.parent) == ["digests.json"]


def test_free_counts_up_by_stems():
    taken = set()
    names = ["a.jpg", "a.jpg", "A.png", "a_2.jpg", "b.jpg"]
    assert [index.free(name, taken) for name in names] == [
        "a.jpg",
        "a_2.jpg",
        "A_3.png",
        "a_2_2.jpg",
        "b.jpg",
    ]


def test_progress_says_the_rate_of_slow_work_and_hands_on_every_item(monkeypatch, capsys):
    """By hand, the clock moved: 3 of 4 items after 31 s are 3 / 31 a second, and 31 / 3 s are left."""
    clock = iter([0.0, 0.5, 1.0, 31.0, 41.0])
    monkeypatch.setattr(index, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    assert list(index.progress("abcd", 4, "images read")) == list("abcd")
    assert capsys.readouterr().out == "images read: 3 of 4, 0.0968 a second, 10 s left\n"
