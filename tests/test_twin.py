"""Tests the synthetic twins: published layout and proportions, labels that say what is painted,
the same bytes for the same seed, and that a twin is whole or not there."""

import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from saistudy.data import footage, scenes, twin
from saistudy.paths import ROOT, Refusal

FASDD_N, PYRO_N = 120, 120


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("twins")
    twin.write_fasdd(folder, FASDD_N, 5)
    twin.write_pyrosdis(folder, PYRO_N, 5, cameras_n=6)
    return folder


def labels(folder: Path) -> dict[str, np.ndarray]:
    texts = (folder / "FASDD_CV/annotations/YOLO_CV/labels").glob("*.txt")
    return {t.stem: np.array([line.split() for line in t.open()], float) for t in texts}


def table(folder: Path) -> pd.DataFrame:
    files = sorted((folder / "pyro-sdis/data").glob("*.parquet"))
    tables = [pq.read_table(f).to_pandas().assign(split=f.name.split("-")[0]) for f in files]
    return pd.concat(tables, ignore_index=True)


def digest(folder: Path) -> str:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    whole = hashlib.sha256()
    for path in files:
        whole.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return whole.hexdigest()


def test_fasdd_counts_are_the_published_proportions(made):
    names = Counter(p.stem[:-6] for p in (made / "FASDD_CV/images").iterdir())
    # 120 x 12550:23414:20151:39199 / 95314 = 15.80 29.48 25.37 49.35, by largest remainders
    assert names == {
        "fire_CV": 16,
        "smoke_CV": 30,
        "bothFireAndSmoke_CV": 25,
        "neitherFireNorSmoke_CV": 49,
    }
    lists = {s: made / f"FASDD_CV/annotations/YOLO_CV/{s}.txt" for s in ("train", "val", "test")}
    # val = test = 16 // 6 + 30 // 6 + 25 // 6 + 49 // 6, train the rest
    sizes = {split: len(path.read_bytes().split(b"\r\n")) - 1 for split, path in lists.items()}
    assert sizes == {"train": 82, "val": 19, "test": 19}
    lines = b"".join(path.read_bytes() for path in lists.values()).split(b"\r\n")[:-1]
    stems = {line.decode().removeprefix("./images/").removesuffix(".jpg") for line in lines}
    # every image stands in one list, and every line has the published prefix and ending
    assert stems == {p.stem for p in (made / "FASDD_CV/images").iterdir()}


def test_fasdd_folders_are_those_of_the_real_format(made, real):
    def folders(root):
        return {(p.parent.relative_to(root).as_posix(), p.suffix) for p in root.rglob("*.*")}

    assert folders(made / "FASDD_CV") == folders(real / "FASDD_CV")


def test_fasdd_classes_follow_the_stem(made):
    expected = {"fire": {0}, "smoke": {1}, "bothFireAndSmoke": {0, 1}, "neitherFireNorSmoke": set()}
    for stem, rows in labels(made).items():
        assert set(rows.reshape(-1, 5)[:, 0]) == expected[stem.split("_")[0]], stem


def test_coco_and_yolo_say_the_same_and_sizes_are_those_of_the_pixels(made):
    yolo = labels(made)
    for split in ("train", "val", "test"):
        path = made / f"FASDD_CV/annotations/COCO_CV/Annotations/{split}.json"
        coco = json.loads(path.read_text())
        for image in coco["images"]:
            with Image.open(made / "FASDD_CV/images" / image["file_name"]) as picture:
                assert picture.size == (image["width"], image["height"])
            boxes = [a for a in coco["annotations"] if a["image_id"] == image["id"]]
            rows = yolo[image["file_name"][:-4]].reshape(-1, 5)
            scale = np.tile([image["width"], image["height"]], 2)
            corner = rows[:, 1:] * scale - np.pad(rows[:, 3:] * scale[:2] / 2, ((0, 0), (0, 2)))
            # six decimals of at most 320 px: less than a thousandth of a pixel
            np.testing.assert_allclose(np.array([a["bbox"] for a in boxes]).reshape(-1, 4), corner, atol=1e-3)
            assert [a["category_id"] for a in boxes] == rows[:, 0].tolist()


def test_boxes_are_large_and_as_many_as_published(made):
    rows = np.concatenate([r for r in labels(made).values() if len(r)])
    positives = sum(len(r) > 0 for r in labels(made).values())
    assert 0.02 < np.median(rows[:, 3] * rows[:, 4]) < 0.045
    # 126,377 boxes on 56,115 images; the standard error of 71 images is about 0.15
    assert len(rows) / positives == pytest.approx(2.25, abs=0.45)
    assert (rows[:, 1:3] - rows[:, 3:] / 2 > -1e-6).all()
    assert (rows[:, 1:3] + rows[:, 3:] / 2 < 1 + 1e-6).all()


def test_flames_are_orange_where_the_labels_say_and_nowhere_in_the_negatives(made):
    inside, negatives = [], []
    for stem, rows in labels(made).items():
        pixels = np.asarray(Image.open(made / f"FASDD_CV/images/{stem}.jpg")).astype(int)
        flame = (pixels[..., 0] > 215) & (pixels[..., 0] - pixels[..., 2] > 110)
        height, width = flame.shape
        if "neither" in stem:
            negatives.append(flame.mean())
        for _, x, y, w, h in rows.reshape(-1, 5)[rows.reshape(-1, 5)[:, 0] == 0]:
            top, left = round((y - h / 2) * height), round((x - w / 2) * width)
            box = flame[top : round((y + h / 2) * height), left : round((x + w / 2) * width)]
            inside.append(box.mean())
    assert np.median(inside) > 0.3
    assert max(negatives) < 0.002


@pytest.mark.parametrize("dark", [False, True])
def test_a_smoke_box_is_where_the_picture_changed(dark):
    rng = np.random.default_rng(3)
    for _ in range(20):
        picture = np.full((180, 320, 3), 0.9 if dark else 0.1, np.float32)
        land = scenes.Landscape(picture.copy(), 80, 1.0)
        x1, y1, x2, y2 = scenes.add_smoke(land, rng, (160, 150), 60, 80, 0.3, dark)
        rows, cols = np.nonzero(np.abs(land.picture - picture).max(axis=2) > 0.16)
        seen = (cols.min(), rows.min(), cols.max() + 1, rows.max() + 1)
        # 0.16 of a contrast of about 0.6 is an opacity near the edge that defines the box
        np.testing.assert_allclose((x1, y1, x2, y2), seen, atol=5)


def test_pyrosdis_tables_are_as_published(made):
    schema = pq.read_schema(made / "pyro-sdis/data/train-00000-of-00006.parquet")
    columns = ["image", "annotations", "image_name", "partner", "camera", "date"]
    assert schema.names == columns
    assert [f.name for f in schema.field("image").type] == ["bytes", "path"]
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert list(features) == columns
    assert features["image"] == {"_type": "Image"}
    files = sorted(p.name for p in (made / "pyro-sdis/data").iterdir())
    trains = [f"train-0000{k}-of-00006.parquet" for k in range(6)]
    assert files == [*trains, "val-00000-of-00001.parquet"]


def test_pyrosdis_proportions(made):
    rows = table(made)
    counts = rows.annotations.str.count("\n") + (rows.annotations != "")
    # 120 x 4099 / 33636 = 14.6; 120 x 28103 / 33636 = 100.3
    assert (rows.split == "val").sum() == 15
    assert (counts > 0).sum() == 100
    # events have one plume or two, all their frames alike: steps of up to 0.12
    assert counts.sum() / 100 == pytest.approx(1.14, abs=0.1)
    assert {line[:2] for text in rows.annotations for line in text.split("\n") if line} == {"1 "}
    cameras = rows.groupby("split").camera.unique()
    assert set(cameras["train"]) == set(cameras["val"]) and rows.camera.nunique() == 6


def test_pyrosdis_names_and_cadence(made):
    rows = table(made)
    pattern = re.compile(r"(twin-\d\d)_([a-z]+-\d{3})_(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d)\.jpg")
    found = [pattern.fullmatch(name).groups() for name in rows.image_name]
    assert found == list(zip(rows.partner, rows.camera, rows.date, strict=True))
    assert rows.image_name.is_unique
    assert [one["path"] for one in rows.image] == rows.image_name.tolist()
    dates = rows.assign(at=[datetime.strptime(d, "%Y-%m-%dT%H-%M-%S") for d in rows.date])
    gaps = dates.sort_values("at").groupby("camera")["at"].diff().dt.total_seconds().dropna()
    inside = gaps[gaps <= 600]
    assert (inside == 30).mean() > 0.8
    assert (gaps > 600).sum() >= 6 and gaps[gaps > 600].min() > 3600


def test_pyrosdis_pictures_and_card(made):
    rows = table(made)
    for one in rows.image[:12]:
        picture = Image.open(io.BytesIO(one["bytes"]))
        assert (picture.format, picture.size) == ("JPEG", (320, 180))
    card = yaml.safe_load((made / "pyro-sdis/README.md").read_text().split("---")[1])
    assert card["license"] == "apache-2.0"
    told = {s["name"]: s["num_examples"] for s in card["dataset_info"]["splits"]}
    assert told == rows.split.value_counts().to_dict()


def test_data_yaml_is_the_published_one(made):
    data = (made / "pyro-sdis/data.yaml").read_bytes()
    assert len(data) == 187
    known = yaml.safe_load(data)
    assert (known["nc"], known["names"]) == (1, ["smoke"])


def test_data_yaml_is_byte_for_byte_the_real_one(made, real):
    assert (made / "pyro-sdis/data.yaml").read_bytes() == (real / "pyro-sdis/data.yaml").read_bytes()


def test_a_camera_keeps_its_landscape_and_cameras_differ(made):
    rows = table(made)
    rows = rows[rows.annotations == ""].drop_duplicates("image_name")
    grey = [Image.open(io.BytesIO(i["bytes"])).convert("L").crop((0, 90, 320, 180)) for i in rows.image]
    small = np.array([np.asarray(g.resize((32, 9))).ravel() for g in grey], float)
    alike = np.corrcoef(small)
    same = np.equal.outer(rows.camera.to_numpy(), rows.camera.to_numpy())
    other = ~same
    np.fill_diagonal(same, False)
    assert np.median(alike[same]) > 0.95 > np.median(alike[other])


def test_copies_stand_across_the_splits_with_equal_labels(made):
    splits = {}
    for split in ("train", "val", "test"):
        for line in (made / f"FASDD_CV/annotations/YOLO_CV/{split}.txt").read_text().splitlines():
            splits[Path(line).stem] = split
    groups: dict[str, list[str]] = {}
    for path in (made / "FASDD_CV/images").iterdir():
        groups.setdefault(hashlib.sha256(path.read_bytes()).hexdigest(), []).append(path.stem)
    copies = [stems for stems in groups.values() if len(stems) > 1]
    # one per category at this size: 1 % of 16, 30, 25, 49, at least one each
    assert len(copies) == 4
    for stems in copies:
        assert {splits[s] for s in stems} == {"train", "test"}
        np.testing.assert_array_equal(*(labels(made)[s] for s in stems))
    rows = table(made)
    rows["digest"] = [hashlib.sha256(i["bytes"]).hexdigest() for i in rows.image]
    assert (rows.groupby("digest").split.nunique() == 2).sum() >= 1


def test_same_seed_same_bytes_in_two_processes(tmp_path):
    code = (
        "import sys; from pathlib import Path; from saistudy.data import twin;"
        "p = Path(sys.argv[1]); twin.write_fasdd(p, 24, 9); twin.write_pyrosdis(p, 27, 9, 3)"
    )
    env = os.environ | {"OMP_NUM_THREADS": "2", "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "0")], cwd=ROOT, env=env, check=True)
    twin.write_fasdd(tmp_path / "1", 24, 9)
    twin.write_pyrosdis(tmp_path / "1", 27, 9, 3)
    assert digest(tmp_path / "0") == digest(tmp_path / "1")
    twin.write_fasdd(tmp_path / "2", 24, 10)
    assert digest(tmp_path / "2/FASDD_CV") != digest(tmp_path / "0/FASDD_CV")


def test_a_complete_twin_is_reused_and_another_one_replaced(tmp_path):
    folder = twin.write_fasdd(tmp_path, 24, 1)
    before = {p: p.stat().st_ino for p in folder.rglob("*.jpg")}
    twin.write_fasdd(tmp_path, 24, 1)
    assert {p: p.stat().st_ino for p in folder.rglob("*.jpg")} == before
    twin.write_fasdd(tmp_path, 26, 1)
    assert len(list(folder.rglob("*.jpg"))) == 26
    mark = json.loads((tmp_path / "provenance.json").read_text())
    assert (mark["provenance"], mark["FASDD_CV"]["images_n"]) == ("synthetic", 26)
    assert "not the published sizes" in mark["boxes"]


def test_what_is_no_twin_is_never_replaced(tmp_path):
    precious = tmp_path / "FASDD_CV/images/fire_CV000000.jpg"
    precious.parent.mkdir(parents=True)
    precious.write_bytes(b"a download")
    with pytest.raises(Refusal, match="no synthetic twin"):
        twin.write_fasdd(tmp_path, 24, 1)
    assert precious.read_bytes() == b"a download"


def test_killed_in_the_middle_nothing_counts_as_a_twin(tmp_path):
    code = (
        "import sys; from pathlib import Path; from saistudy.data import twin;"
        "twin.write_fasdd(Path(sys.argv[1]), 2000, 1)"
    )
    run = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT)
    part = tmp_path / ".FASDD_CV.part/images"
    for _ in range(2000):
        if part.is_dir() and len(os.listdir(part)) > 5:
            break
        time.sleep(0.005)
    run.send_signal(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    assert len(os.listdir(part)) > 5 and not (tmp_path / "FASDD_CV").exists()
    folder = twin.write_fasdd(tmp_path, 24, 1)
    # the leftovers are gone, and the result is that of an undisturbed run
    assert not part.parent.exists()
    assert digest(folder) == digest(twin.write_fasdd(tmp_path / "other", 24, 1))


@pytest.mark.parametrize("images_n, cameras_n", [(17, 2), (40, 1)])
def test_too_small_a_twin_is_refused(tmp_path, images_n, cameras_n):
    with pytest.raises(Refusal, match="at least"):
        twin.write_pyrosdis(tmp_path, images_n, 1, cameras_n)
    with pytest.raises(Refusal, match="at least 24"):
        twin.write_fasdd(tmp_path, 23, 1)
    assert list(tmp_path.iterdir()) == []


def test_a_photograph_without_fire_and_smoke_has_no_box():
    data, boxes = footage.photograph(np.random.default_rng(0), (256, 192), 0, 0, 0.03)
    assert boxes == [] and Image.open(io.BytesIO(data)).size == (256, 192)
