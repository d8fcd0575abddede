"""PyroSDIS as published: shards, class id, cameras, events, val by cameras, bad rows, unchanged shards."""

import hashlib
import io
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from saistudy.data import index, pyrosdis, shards
from saistudy.data.known import Known
from saistudy.paths import ROOT, Refusal

CAMERAS = ["mast-10", "mast-20", "ridge-5", "ridge-95"]


def _jpeg(seed):
    pixels = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((64, 36), Image.Resampling.BICUBIC).save(buffer, "JPEG")
    return buffer.getvalue()


def _row(seed, camera, date, annotations="1 0.5 0.5 0.1 0.1"):
    name = f"sdis-07_{camera}_{date}.jpg"
    image = {"bytes": _jpeg(seed), "path": name}
    return dict(zip(shards.COLUMNS, (image, annotations, name, "sdis-07", camera, date), strict=True))


def _shard(folder, name, rows):
    pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet", row_group_size=3)


@pytest.fixture
def small(tmp_path):
    """Two train shards of ten frames of four cameras, a val shard of four; row groups of three."""
    data = tmp_path / "download" / "pyro-sdis" / "data"
    data.mkdir(parents=True)
    rows = [_row(i, CAMERAS[i % 4], f"2024-01-25T14-{i:02d}-00") for i in range(20)]
    rows[3]["annotations"] = ""
    _shard(data, "train-00000-of-00002", rows[:10])
    _shard(data, "train-00001-of-00002", rows[10:])
    val = [_row(50 + i, CAMERAS[i], f"2024-02-25T14-{i:02d}-00") for i in range(4)]
    _shard(data, "val-00000-of-00001", val)
    return data


def _rewrite(path, change):
    rows = pq.read_table(path).to_pylist()
    change(rows)
    _shard(path.parent, path.stem, rows)


def _balance(dataset, in_n):
    """Counts in = counts out + quarantined."""
    assert len(dataset.rows) + len(index.refused(dataset.quarantine)) == in_n


def test_small_set_is_read_as_laid_out(small):
    dataset = pyrosdis.read(small)
    rows = dataset.rows.set_index("image")
    _balance(dataset, 24)
    assert dataset.quarantine.empty and dataset.names == {0: "smoke"}
    # Class id 1 of the publication has become 0.
    assert np.concatenate(list(rows["boxes"])).tolist() == [[0, 0.5, 0.5, 0.1, 0.1]] * 23
    assert len(rows["boxes"]["sdis-07_ridge-95_2024-01-25T14-03-00.jpg"]) == 0
    assert set(rows["group"]) == {f"sdis-07_{camera}" for camera in CAMERAS}
    assert (rows["width"] == 64).all() and (rows["height"] == 36).all()


def test_repository_data_folder_and_parent_are_the_same(small):
    prints = {
        index.fingerprint(pyrosdis.read(source).rows) for source in (small, small.parent, small.parent.parent)
    }
    assert len(prints) == 1


def test_read_finds_the_bytes_again_in_any_order(small):
    dataset = pyrosdis.read(small)
    assert sorted(dataset.storage) == list(dataset.rows["image"])
    for image in [*dataset.rows["image"], *reversed(dataset.storage)]:
        minute, month = int(image[-9:-7]), image.split("_2024-")[1][:2]
        assert dataset.read(image) == _jpeg(minute + (50 if month == "02" else 0))


def test_published_val_is_test_and_val_is_cut_from_train_by_whole_cameras(small):
    rows = pyrosdis.read(small).rows
    assert (rows["split"] == "test").sum() == 4
    assert rows[rows["split"] == "test"]["image"].str.contains("_2024-02-").all()
    val = set(rows.loc[rows["split"] == "val", "group"])
    train = set(rows.loc[rows["split"] == "train", "group"])
    # One camera of four holds 5 of 20 images, more than 10 %.
    assert len(val) == 1 and len(train) == 3 and not val & train
    assert (rows["split"] == "val").sum() == 5


def test_a_pause_of_more_than_600_s_starts_an_event():
    clock = ["00:00:00", "00:10:00", "00:20:01", "00:00:00"]
    frames = pd.DataFrame({"group": ["a", "a", "a", "b"], "time": pd.to_datetime(clock, format="%H:%M:%S")})
    frames.loc[4] = ["b", pd.NaT]
    # 600 s is no pause, 601 s is; cameras do not share events; no date, no order.
    expected = ["a-e0000", "a-e0000", "a-e0001", "b-e0000", "b-undated"]
    assert pyrosdis.events(frames).tolist() == expected
    assert pyrosdis.events(frames[::-1]).tolist() == expected[::-1]


def test_repeated_names_are_renamed_and_kept(small):
    def repeat(rows):
        rows[1]["image_name"] = rows[2]["image_name"] = rows[0]["image_name"]
        rows[2]["image_name"] = rows[0]["image_name"].replace(".jpg", ".png")

    _rewrite(small / "train-00000-of-00002.parquet", repeat)
    dataset = pyrosdis.read(small)
    _balance(dataset, 24)
    stem = "sdis-07_mast-10_2024-01-25T14-00-00"
    # The third has another suffix, but its label file would be that of the first.
    notes = dataset.quarantine[["image", "reason", "text"]].values.tolist()
    assert notes[:2] == [
        [f"{stem}_2.jpg", "repeated-name", f"{stem}.jpg"],
        [f"{stem}_3.png", "repeated-name", f"{stem}.png"],
    ]
    assert dataset.read(f"{stem}_2.jpg") == _jpeg(1) and dataset.read(f"{stem}_3.png") == _jpeg(2)


def test_bad_rows_are_quarantined_or_noted_and_never_stop_the_set(small):
    def spoil(rows):
        rows[0]["image"]["bytes"] = b"nothing"
        rows[1]["annotations"] = "0 0.5 0.5 0.1 0.1"
        rows[2]["annotations"] = None
        rows[3]["date"] = "yesterday"
        rows[4]["annotations"] = "1 0.5 0.5 0.1 0.1\n1 0.5 0.5 0 0.1"
        rows[5]["image"] = None
        rows[6]["image"]["bytes"] = None
        rows[7]["image_name"] = rows[8]["image_name"] = "../../escape.jpg"
        rows[9]["partner"] = rows[9]["camera"] = rows[9]["date"] = None

    _rewrite(small / "train-00000-of-00002.parquet", spoil)
    dataset = pyrosdis.read(small)
    reasons = ["undecodable", "class", "missing-label", "undated", "zero-area", "zero-bytes", "zero-bytes"]
    assert dataset.quarantine["reason"].tolist() == [*reasons, "unsafe-name", "unsafe-name", "no-camera"]
    unsafe = dataset.quarantine.query("reason == 'unsafe-name'")["image"]
    assert unsafe.nunique() == 2 and not unsafe.map(index.safe).any() and not unsafe.str.contains("/").any()
    assert len(dataset.rows) == 16
    _balance(dataset, 24)


def test_texts_that_are_no_utf8_are_read_with_a_mark(small):
    path = small / "val-00000-of-00001.parquet"
    table = pq.read_table(path)
    cells = table["date"].to_pylist()
    raw = pa.array([b"\xff\xfe", *(cell.encode() for cell in cells[1:])])
    place = table.schema.get_field_index("date")
    pq.write_table(
        table.set_column(place, "date", pa.Array.from_buffers(pa.string(), 4, raw.buffers())), path
    )
    dataset = pyrosdis.read(small)
    assert dataset.quarantine[["reason", "text"]].values.tolist() == [["undated", "\ufffd\ufffd"]]


def test_more_than_half_refused(small):
    def spoil(rows):
        for row in rows[:3]:
            row["annotations"] = "7 0.5 0.5 0.1 0.1"

    _rewrite(small / "val-00000-of-00001.parquet", spoil)
    with pytest.raises(Refusal, match="test: 3 of 4 images were refused, most for 'class'"):
        pyrosdis.read(small)


def test_wrong_folder(tmp_path):
    with pytest.raises(Refusal, match=r"looked for train-\*\.parquet"):
        pyrosdis.read(tmp_path)


@pytest.mark.parametrize("name", ["train-00001-of-00002", "val-00000-of-00001"])
def test_missing_shard(small, name):
    (small / f"{name}.parquet").unlink()
    with pytest.raises(Refusal, match="train shards|val shards"):
        pyrosdis.read(small)


def test_broken_shard_and_missing_column(small):
    path = small / "train-00001-of-00002.parquet"
    whole = pq.read_table(path)
    pq.write_table(whole.drop_columns(["camera"]), path)
    with pytest.raises(Refusal, match="cannot be read"):
        pyrosdis.read(small)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(Refusal, match="cannot be read"):
        pyrosdis.read(small)


def test_one_camera_cannot_be_split(small):
    def one(rows):
        for row in rows:
            row["camera"] = "mast-10"

    for name in ("train-00000-of-00002", "train-00001-of-00002"):
        _rewrite(small / f"{name}.parquet", one)
    with pytest.raises(Refusal, match=r"1 group\(s\) \(sdis-07_mast-10\)"):
        pyrosdis.read(small)


def test_empty_published_val(small):
    path = small / "val-00000-of-00001.parquet"
    pq.write_table(pq.read_table(path)[:0], path)
    with pytest.raises(Refusal, match="holds no row"):
        pyrosdis.read(small)


def test_provenance(small):
    (small.parent.parent / "provenance.json").write_text("{}")
    for source in (small, small.parent, small.parent.parent):
        assert pyrosdis.read(source).provenance == "synthetic"


def _overwrite_pixels(path):
    """Spoil the stored JPEGs in place: same size, same clock, so that only a reader of pixels could tell."""
    data, seen = path.read_bytes(), path.stat()
    for number in range(10, 20):
        assert _jpeg(number) in data
        data = data.replace(_jpeg(number), bytes(len(_jpeg(number))))
    path.write_bytes(data)
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))


def test_pixels_of_unchanged_shards_are_not_read_again(small, tmp_path):
    path = small / "train-00001-of-00002.parquet"
    pq.write_table(pq.read_table(path), path, row_group_size=3, compression="none", use_dictionary=False)
    kept = tmp_path / "known.parquet"
    known = Known(kept)
    first = pyrosdis.read(small, known)
    assert known.read_n == 24
    _overwrite_pixels(path)
    # A reader without that knowledge does see the damage.
    with pytest.raises(Refusal, match="10 of 18 images were refused, most for 'undecodable'"):
        pyrosdis.read(small)
    again = Known(kept)
    second = pyrosdis.read(small, again)
    assert again.read_n == 0
    assert index.fingerprint(second.rows) == index.fingerprint(first.rows)


def test_a_changed_shard_is_read_again(small, tmp_path):
    kept = tmp_path / "known.parquet"
    pyrosdis.read(small, Known(kept))
    path = small / "train-00001-of-00002.parquet"
    os.utime(path, ns=(1, 1))
    again = Known(kept)
    pyrosdis.read(small, again)
    assert again.read_n == 10


MEMORY = """
import re, sys
from pathlib import Path
from saistudy.data import pyrosdis
def peak():  # of this program alone: ru_maxrss would begin with that of the test's own process
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
pyrosdis.read(sys.argv[1])
before = peak()
dataset = pyrosdis.read(sys.argv[2])
print(peak() - before, len(dataset.rows))
"""


@pytest.fixture(scope="module")
def noise():
    """240 rows of 240 KB of noise, all different."""
    pixels = np.random.default_rng(0).integers(0, 255, (256, 384, 3), dtype=np.uint8)
    rows = [_row(i, CAMERAS[i % 4], f"2024-01-{i // 24 + 1:02d}T{i % 24:02d}-00-00") for i in range(240)]
    for number, row in enumerate(rows):
        shifted, buffer = np.roll(pixels, 997 * number), io.BytesIO()
        Image.fromarray(shifted).save(buffer, "JPEG", quality=95, subsampling=0)
        row["image"]["bytes"] = buffer.getvalue()
    return pa.Table.from_pylist(rows)


@pytest.mark.parametrize("group_n", [30, 240])
def test_memory_stays_flat(small, noise, tmp_path, group_n):
    """A reader that holds a shard stands out, also where the shard is a single row group (of small pages)."""
    shard = tmp_path / "train-00000-of-00001.parquet"
    pq.write_table(noise, shard, row_group_size=group_n, write_batch_size=8)
    pq.write_table(noise[:4], tmp_path / "val-00000-of-00001.parquet")
    shard_bytes = shard.stat().st_size
    assert shard_bytes > 55e6
    told = subprocess.check_output([sys.executable, "-c", MEMORY, small, tmp_path], cwd=ROOT, text=True)
    grown_bytes, rows_n = map(int, told.split())
    assert rows_n == 244
    assert grown_bytes < shard_bytes * 0.75


def test_the_published_set_is_asserted(small, monkeypatch):
    """The small set declared as the published one, by hand and by another implementation of the hash."""
    dataset = pyrosdis.read(small)
    with pytest.raises(Refusal) as refusal:
        pyrosdis.assert_published(small, dataset)
    for told in ("train: 20 differs from the published 29_537", "val: 4 differs", "not there; and 8 more"):
        assert told in str(refusal.value)
    seen = {where: n for _, where, n, effect in pyrosdis.published(dataset, small) if "differs" in effect}
    assert seen["images with boxes"] == 23 and sum(name.endswith(".parquet") for name in seen) == 7
    assert not pyrosdis.claims(dataset)
    digests = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in small.iterdir()}
    monkeypatch.setattr(pyrosdis, "PUBLISHED", {"train": 20, "val": 4})
    monkeypatch.setattr(pyrosdis, "TOTALS", {"images with boxes": 23, "boxes": 23})
    monkeypatch.setattr(pyrosdis, "SHA256", digests)
    assert pyrosdis.claims(dataset)
    pyrosdis.assert_published(small.parent, dataset)
    path = small / "val-00000-of-00001.parquet"
    # The same rows, in other bytes.
    pq.write_table(pq.read_table(path), path, compression="zstd")
    with pytest.raises(Refusal, match="val-00000-of-00001.parquet: 1 differs from the published SHA-256"):
        pyrosdis.assert_published(small, dataset)


def test_constants_are_those_of_the_card():
    # 33,636 images, of which 83.6 % with boxes, 1.14 boxes each; seven hashes of 64 digits, all different.
    assert sum(pyrosdis.PUBLISHED.values()) == 33_636
    assert round(pyrosdis.TOTALS["images with boxes"] / 33_636, 3) == 0.836
    assert round(pyrosdis.TOTALS["boxes"] / pyrosdis.TOTALS["images with boxes"], 2) == 1.14
    assert len(set(pyrosdis.SHA256.values())) == 7 and {len(v) for v in pyrosdis.SHA256.values()} == {64}


def test_real_photographs_in_the_published_format(real):
    dataset = pyrosdis.read(real)
    shards = [pq.read_table(p).to_pandas() for p in sorted((real / "pyro-sdis/data").iterdir())]
    raw = pd.concat(shards, ignore_index=True)
    _balance(dataset, len(raw))
    boxes_n = raw["annotations"].str.split("\n").map(lambda lines: sum(map(bool, lines))).sum()
    assert dataset.rows["boxes"].map(len).sum() == boxes_n
    published = {bytes_["bytes"] for bytes_ in raw["image"]}
    assert {dataset.read(image) for image in dataset.rows["image"]} == published
