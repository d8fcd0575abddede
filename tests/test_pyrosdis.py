"""PyroSDIS as published: shards, class id, cameras, events, splits by whole cameras, bad input."""

import io

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from saistudy.data import check, index, pyrosdis
from saistudy.paths import Refusal

CAMERAS = ["mast-10", "mast-20", "ridge-5", "ridge-95"]


def _jpeg(seed):
    pixels = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((64, 36), Image.Resampling.BICUBIC).save(buffer, "JPEG")
    return buffer.getvalue()


def _row(seed, camera, date, annotations="1 0.5 0.5 0.1 0.1"):
    name = f"sdis-07_{camera}_{date}.jpg"
    image = {"bytes": _jpeg(seed), "path": name}
    return dict(zip(pyrosdis.COLUMNS, (image, annotations, name, "sdis-07", camera, date), strict=True))


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


def test_cut_takes_cameras_in_hash_order_until_the_target():
    sizes = {"a": 1, "b": 1, "c": 1, "d": 97}
    # sha256 of a, b, c, d begins with ca, 3e, 2e, 18 (sha256sum), so the order is d, c, b, a.
    assert pyrosdis.cut(sizes, 10) == {"d"}
    assert pyrosdis.cut(sizes, 97.5) == {"d", "c"}
    assert pyrosdis.cut(sizes, 1000) == {"d", "c", "b"}
    assert pyrosdis.cut(sizes, 0) == {"d"}


def test_disjoint_shares_no_camera(small):
    dataset = pyrosdis.read(small)
    apart = pyrosdis.disjoint(dataset)
    assert apart.name == "pyro-sdis-disjoint" and len(apart.rows) == len(dataset.rows)
    owners = apart.rows.groupby("group")["split"].nunique()
    assert (owners == 1).all()
    # 6 images a camera, 24 in all: one camera reaches 10 %.
    assert apart.rows["split"].value_counts().to_dict() == {"train": 12, "val": 6, "test": 6}
    leak = check.findings(apart).set_index(["what", "where"])["n"]
    assert leak[("groups", "train and test")] == 0
    before = check.findings(dataset).set_index(["what", "where"])["n"]
    assert before[("groups", "train and test")] == 3


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
        rows[1]["image_name"] = rows[0]["image_name"]

    _rewrite(small / "train-00000-of-00002.parquet", repeat)
    dataset = pyrosdis.read(small)
    _balance(dataset, 24)
    renamed = "sdis-07_mast-10_2024-01-25T14-00-00_2.jpg"
    assert dataset.quarantine[["image", "reason"]].values.tolist() == [[renamed, "repeated-name"]]
    assert dataset.read(renamed) == _jpeg(1)


def test_bad_rows_are_quarantined_or_noted(small):
    def spoil(rows):
        rows[0]["image"]["bytes"] = b"nothing"
        rows[1]["annotations"] = "0 0.5 0.5 0.1 0.1"
        rows[2]["annotations"] = None
        rows[3]["date"] = "yesterday"
        rows[4]["annotations"] = "1 0.5 0.5 0.1 0.1\n1 0.5 0.5 0 0.1"

    _rewrite(small / "train-00000-of-00002.parquet", spoil)
    dataset = pyrosdis.read(small)
    reasons = ["unreadable", "class", "missing-label", "undated", "zero-area"]
    assert dataset.quarantine["reason"].tolist() == reasons
    assert len(dataset.rows) == 21
    _balance(dataset, 24)


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
    with pytest.raises(Refusal, match="shards where .* expected"):
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


def test_unsafe_name(small):
    def escape(rows):
        rows[0]["image_name"] = "../../escape.jpg"

    _rewrite(small / "val-00000-of-00001.parquet", escape)
    with pytest.raises(Refusal, match=r"names an image '\.\./\.\./escape\.jpg'"):
        pyrosdis.read(small)


def test_one_camera_cannot_be_split(small):
    def one(rows):
        for row in rows:
            row["camera"] = "mast-10"

    for name in ("train-00000-of-00002", "train-00001-of-00002"):
        _rewrite(small / f"{name}.parquet", one)
    with pytest.raises(Refusal, match="1 cameras"):
        pyrosdis.read(small)


def test_empty_published_val(small):
    path = small / "val-00000-of-00001.parquet"
    pq.write_table(pq.read_table(path)[:0], path)
    with pytest.raises(Refusal, match="test: no image at all"):
        pyrosdis.read(small)


def test_provenance(small):
    (small.parent.parent / "provenance.json").write_text("{}")
    for source in (small, small.parent, small.parent.parent):
        assert pyrosdis.read(source).provenance == "synthetic"


def test_real_photographs_in_the_published_format(real):
    dataset = pyrosdis.read(real)
    shards = [pq.read_table(p).to_pandas() for p in sorted((real / "pyro-sdis/data").iterdir())]
    raw = pd.concat(shards, ignore_index=True)
    _balance(dataset, len(raw))
    boxes_n = raw["annotations"].str.split("\n").map(lambda lines: sum(map(bool, lines))).sum()
    assert dataset.rows["boxes"].map(len).sum() == boxes_n
    published = {bytes_["bytes"] for bytes_ in raw["image"]}
    assert {dataset.read(image) for image in dataset.rows["image"]} == published
