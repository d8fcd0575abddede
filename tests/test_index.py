"""The index: image descriptions, perceptual hash and clusters, fingerprint, parquet round trip."""

import hashlib
import io

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from saistudy.data import index, photographs
from saistudy.paths import Refusal


def _jpeg(seed=0, size=(64, 48), **how):
    pixels = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", **how)
    return buffer.getvalue()


def _rows(n=6):
    rng = np.random.default_rng(1)
    made = []
    for i in range(n):
        data = _jpeg(i)
        width, height, sha256, phash = index.describe(data)
        split = index.SPLITS[i % 3]
        array = rng.random((i % 3, 5))
        row = (f"a{i}.jpg", split, f"g{i}", "", width, height, sha256, phash, array)
        made.append(({**dict(zip(index.COLUMNS, row, strict=True))}, []))
    return index.assemble(made)[0]


def test_describe_gives_size_and_hash_of_the_bytes():
    data = _jpeg()
    width, height, sha256, phash = index.describe(data)
    assert (width, height) == (64, 48)
    assert sha256 == hashlib.sha256(data).hexdigest()
    assert 0 <= phash < 2**64


def test_describe_turns_the_size_as_the_decoder_of_ultralytics_does():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = _jpeg(exif=exif)
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert index.describe(data)[:2] == decoded.shape[1::-1] == (48, 64)


@pytest.mark.parametrize("cut", [0, 1, 200])
def test_describe_refuses_what_is_no_whole_image(cut):
    data = _jpeg()
    with pytest.raises(Refusal):
        index.describe(data[: len(data) // 2] if cut == 0 else data[:cut])


def test_describe_refuses_empty_text_and_tiny_images():
    for data in (b"", b"not an image", _jpeg(size=(64, 9))):
        with pytest.raises(Refusal):
            index.describe(data)


def test_missing_end_marker_is_sound_but_a_scan_cut_short_is_not():
    data = _jpeg(size=(320, 240))
    assert data.endswith(photographs.END)
    # Only the marker is gone: all pixels are there.
    assert index.describe(data[:-2])[:2] == (320, 240)
    # A tenth of the scan is gone too.
    with pytest.raises(Refusal, match="breaks off"):
        index.describe(data[: -len(data) // 10])


def test_perceptual_hash_is_the_published_phash():
    # The same definition through another implementation of the cosine transform (OpenCV).
    photo = Image.open(io.BytesIO(_jpeg(3, (320, 240))))
    grey = np.asarray(photo.convert("L").resize((32, 32), Image.Resampling.BOX), np.float64)
    terms = cv2.dct(grey)[:8, :8].ravel()[1:]
    bits = "".join("1" if term > np.median(terms) else "0" for term in terms) + "0"
    assert photographs.perceptual_hash(photo) == int(bits, 2)


def test_perceptual_hash_survives_scaling_and_compression_and_tells_scenes_apart():
    one, again, other = (
        photographs.perceptual_hash(Image.open(io.BytesIO(data)))
        for data in (_jpeg(1, (640, 480)), _jpeg(1, (320, 240), quality=60), _jpeg(2, (640, 480)))
    )
    assert (one ^ again).bit_count() <= 4
    assert (one ^ other).bit_count() > 16


def test_cluster_is_the_transitive_closure_of_near_pairs():
    # 0 - 4 bits - 1 - 4 bits - 2 form a chain; 3 is far; 4 repeats 3.
    hashes = np.array([0b0, 0b1111, 0b11111111, 2**63 - 1, 2**63 - 1], dtype=np.uint64)
    assert index.cluster(hashes, distance=4).tolist() == [0, 0, 0, 1, 1]
    assert index.cluster(hashes, distance=3).tolist() == [0, 1, 2, 3, 3]
    assert index.cluster(np.array([], dtype=np.uint64)).tolist() == []


def test_cluster_equals_a_plain_search_across_chunk_borders():
    rng = np.random.default_rng(0)
    seeds = rng.integers(0, 2**63, 40, dtype=np.uint64)
    flips = np.uint64(1) << rng.integers(0, 63, (400, 2), dtype=np.uint64)
    hashes = seeds[rng.integers(0, 40, 400)] ^ flips[:, 0] ^ flips[:, 1]
    label = list(range(400))
    for i in range(400):
        for j in range(i):
            if (int(hashes[i]) ^ int(hashes[j])).bit_count() <= 3 and label[i] != label[j]:
                label = [label[j] if k == label[i] else k for k in label]
    # The same partition: equal pairs of labels map one to one.
    found = index.cluster(hashes, distance=3)
    assert len(set(zip(found.tolist(), label, strict=True))) == len(set(label)) == len(set(found))
    assert 1 < len(set(label)) < 400


def test_clusters_of_real_photographs_join_no_scenes(real):
    """Correlation of 32x32 grey pictures, which the hash does not compute, of every joined pair."""
    paths = sorted((real / "FASDD_CV/images").glob("*.jpg"))
    grey = [
        np.asarray(Image.open(p).convert("L").resize((32, 32), Image.Resampling.BOX), float).ravel()
        for p in paths
    ]
    hashes = np.array([index.describe(p.read_bytes())[3] for p in paths], dtype=np.uint64)
    far = np.bitwise_count(hashes[:, None] ^ hashes[None])
    near = np.argwhere(np.triu(far <= photographs.DISTANCE, 1))
    corr = np.corrcoef(grey)[near[:, 0], near[:, 1]]
    assert len(near) > 300
    # Measured minimum 0.78; strangers have a median near 0.
    assert corr.min() > 0.7
    labels = index.cluster(hashes)
    assert 100 < len(set(labels)) < 250


def test_fingerprint_sees_what_training_sees_and_nothing_else():
    rows = _rows()
    base = index.fingerprint(rows)
    assert index.fingerprint(rows.sample(frac=1, random_state=1).assign(group="other")) == base
    moved = rows.copy()
    moved.loc[0, "split"] = "test"
    other_bytes = rows.copy()
    other_bytes.loc[0, "sha256"] = "0" * 64
    fewer = rows.assign(boxes=[a[:-1] if len(a) else a for a in rows["boxes"]])
    renamed = rows.assign(image="b" + rows["image"])
    prints = [index.fingerprint(frame) for frame in (moved, other_bytes, fewer, renamed)]
    assert len({base, *prints}) == 5


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
    assert index.safe("fire_CV000001.jpg") and index.safe("été (2).JPG")


def test_free_counts_up():
    assert index.free("a.jpg", set()) == "a.jpg"
    assert index.free("a.jpg", {"a.jpg", "a_2.jpg"}) == "a_3.jpg"
