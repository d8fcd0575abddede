"""Tests the synthetic twins: published layout and proportions, labels of what is painted, the same bytes
for the same seed, and that a twin is whole or not there."""

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

from saistudy.data import twin
from saistudy.data.painted import casting
from saistudy.paths import ROOT, Refusal

FASDD_N, PYRO_N = 120, 120
SMALL = {"area_frac": 0.03, "long_px": 320}
SMALL_PYRO = {"area_frac": 0.03, "size": (320, 180)}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Both twins without a planted fault."""
    folder = tmp_path_factory.mktemp("twins")
    twin.write_fasdd(folder, FASDD_N, 5, faults="none", **SMALL)
    twin.write_pyrosdis(folder, PYRO_N, 5, cameras_n=6, faults="none", **SMALL_PYRO)
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


def test_same_seed_same_bytes_in_two_processes_and_on_one_core(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from saistudy.data import twin;"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); p = Path(sys.argv[1]);"
        "twin.write_fasdd(p, 60, 9, .03, 200, 'all');"
        "twin.write_pyrosdis(p, 36, 9, 3, (160, 90), .03, 'all')"
    )
    env = os.environ | {"PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "0")], cwd=ROOT, env=env, check=True)
    twin.write_fasdd(tmp_path / "1", 60, 9, 0.03, 200, "all")
    twin.write_pyrosdis(tmp_path / "1", 36, 9, 3, (160, 90), 0.03, "all")
    assert digest(tmp_path / "0") == digest(tmp_path / "1")
    twin.write_fasdd(tmp_path / "2", 60, 10, 0.03, 200, "all")
    assert digest(tmp_path / "2/FASDD_CV") != digest(tmp_path / "0/FASDD_CV")


def test_a_complete_twin_is_reused_and_another_one_replaced(tmp_path):
    folder = twin.write_fasdd(tmp_path, 24, 1, **SMALL)
    before = {p: p.stat().st_ino for p in folder.rglob("*.jpg")}
    twin.write_fasdd(tmp_path, 24, 1, **SMALL)
    assert {p: p.stat().st_ino for p in folder.rglob("*.jpg")} == before
    twin.write_fasdd(tmp_path, 26, 1, **SMALL)
    assert len(list(folder.rglob("*.jpg"))) == 26
    mark = json.loads((tmp_path / "provenance.json").read_text())
    assert (mark["provenance"], mark["FASDD_CV"]["images_n"]) == ("synthetic", 26)
    assert (mark["FASDD_CV"]["area_frac"], mark["FASDD_CV"]["long_px"]) == (0.03, 320)


def test_what_is_no_twin_is_never_replaced(tmp_path):
    precious = tmp_path / "FASDD_CV/images/fire_CV000000.jpg"
    precious.parent.mkdir(parents=True)
    precious.write_bytes(b"a download")
    with pytest.raises(Refusal, match="no synthetic twin"):
        twin.write_fasdd(tmp_path, 24, 1, **SMALL)
    assert precious.read_bytes() == b"a download"


def test_killed_in_the_middle_nothing_counts_as_a_twin(tmp_path):
    code = (
        "import sys; from pathlib import Path; from saistudy.data import twin;"
        "twin.write_fasdd(Path(sys.argv[1]), 2000, 1, .03, 320)"
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
    folder = twin.write_fasdd(tmp_path, 24, 1, **SMALL)
    # the leftovers are gone, and the result is that of an undisturbed run
    assert not part.parent.exists()
    assert digest(folder) == digest(twin.write_fasdd(tmp_path / "other", 24, 1, **SMALL))


def test_every_artefact_says_that_it_is_synthetic(made):
    for path in (made / "FASDD_CV/annotations/COCO_CV/Annotations").iterdir():
        assert json.loads(path.read_text())["info"] == {"provenance": "synthetic"}
    for path in (made / "pyro-sdis/data").iterdir():
        assert pq.read_schema(path).metadata[b"provenance"] == b"synthetic"
    card = yaml.safe_load((made / "pyro-sdis/README.md").read_text().split("---")[1])
    assert card["provenance"] == "synthetic"
    faults = json.loads((made / "faults.json").read_text())
    assert faults == {"provenance": "synthetic", "faults": []}
    picture = Image.open(next((made / "FASDD_CV/images").iterdir()))
    assert picture.info["comment"] == b"provenance: synthetic"


@pytest.fixture(scope="module")
def cast() -> list[casting.Role]:
    """The plan of a large FASDD twin; nothing is painted."""
    return casting.fasdd(20_000, 4, 0.02, None, "published")


def scenes(cast) -> dict:
    """Every scene of the plan that is no copy, with its roles."""
    found: dict = {}
    for role in cast:
        if not role.copied:
            found.setdefault(role.scene.scene_n, []).append(role)
    return found


def test_sizes_of_images_are_the_published_ones(cast):
    long = np.array([max(roles[0].scene.size) for roles in scenes(cast).values()])
    seen = np.histogram(long, [1, 481, 721, 1081, 1441, 1921, 9999])[0] / len(long)
    # the published shares; 12,000 scenes leave a standard error of at most 0.0045
    np.testing.assert_allclose(seen, [0.147, 0.453, 0.27, 0.069, 0.03, 0.03], atol=0.015)
    shapes = np.array([role.scene.size[0] / role.scene.size[1] for role in cast])
    off = np.abs(shapes[:, None] / np.array([4 / 3, 16 / 9, 3 / 2, 3 / 4]) - 1)
    # sides are whole pixels: half of one is 0.3 % of the shortest, 180
    assert off.min(axis=1).max() < 0.005 and set(off.argmin(axis=1)) == {0, 1, 2, 3}
    small = casting.fasdd(200, 4, 0.02, 320, "none")
    assert {max(role.scene.size) for role in small} == {320}


def test_four_images_in_ten_stand_in_runs_that_cross_the_splits(cast):
    runs = [roles for roles in scenes(cast).values() if len(roles) > 1]
    lengths = [len(roles) for roles in runs]
    assert sum(lengths) / 20_000 == pytest.approx(0.4, abs=0.002)
    assert (max(lengths), min(lengths) >= 2) == (40, True)
    assert all(role.run for roles in runs for role in roles)
    # 5 or more images at 2/3 : 1/6 : 1/6 stand in one split only by (2/3)^5 = 13 %, longer ones hardly ever
    assert np.mean([len({role.split for role in roles}) > 1 for roles in runs]) > 0.95
    # a run stays within its category, and its numbers are shuffled
    assert all(len({role.cell[1] for role in roles}) == 1 for roles in runs)
    numbers = [sorted(int(role.image[-10:-4]) for role in roles) for roles in runs]
    assert np.mean([max(np.diff(run)) == 1 for run in numbers]) < 0.01


def test_a_small_twin_keeps_many_groups_in_its_test_split():
    for seed in range(5):
        cast = casting.fasdd(168, seed, 0.03, 320, "all")
        held = {role.scene.scene_n for role in cast if role.split == "test"}
        # 168 images hold 22, 41, 36, 69 of the categories: 3 + 6 + 6 + 11 in test
        assert sum(role.split == "test" for role in cast) == 26 and len(held) >= 20


def test_box_numbers_and_kinds_of_negatives_are_as_published(cast):
    shots = [role.scene for role in cast]
    fires, plumes = (np.array([shot[i] for shot in shots]) for i in (3, 4))
    # 73,297 fire boxes and 53,080 smoke boxes on 95,314 images; runs of one scene count as one draw
    assert fires.mean() == pytest.approx(73_297 / 95_314, rel=0.05)
    assert plumes.mean() == pytest.approx(53_080 / 95_314, rel=0.05)
    moods = Counter(shot.mood for shot in shots if shot.fires_n + shot.plumes_n == 0)
    assert min(moods.values()) > 0.08 * sum(moods.values()) and len(moods) == 7


def test_pyrosdis_copies_are_as_many_as_published():
    cast = casting.pyrosdis(8_000, 2, 30, "published")
    shown = Counter(role.scene[1] for role in cast)
    # 1,042 surplus copies in 33,636 images
    assert sum(shown.values()) - len(shown) == round(8_000 * 1_042 / 33_636)
    copies = [role for role in cast if role.own is not role.scene[0]]
    assert {role.split for role in copies} == {"train", "val"}
    assert all(role.own.camera == role.scene[0].camera for role in copies)


@pytest.mark.parametrize("images_n, cameras_n", [(17, 2), (40, 1)])
def test_too_small_a_twin_is_refused(tmp_path, images_n, cameras_n):
    with pytest.raises(Refusal, match="at least"):
        twin.write_pyrosdis(tmp_path, images_n, 1, cameras_n)
    with pytest.raises(Refusal, match="at least 24"):
        twin.write_fasdd(tmp_path, 23, 1)
    with pytest.raises(Refusal, match="none, published, all"):
        twin.write_fasdd(tmp_path, 24, 1, faults="some")
    assert list(tmp_path.iterdir()) == []
