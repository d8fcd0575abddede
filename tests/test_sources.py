"""Where data come from: every form of a source, what is missing said in one sentence, trees built once."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import coco_layout
import copied
import numpy as np
import pytest
import yaml
from PIL import Image

from saistudy.data import index, keys, shm, sources, tree, twin
from saistudy.paths import PARAMS, ROOT, Refusal, work


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A small twin of both sets, in one parent folder, and the zip of FASDD_CV."""
    folder = tmp_path_factory.mktemp("published")
    twin.write_fasdd(folder, 36, seed=3, area_frac=0.03, long_px=320)
    twin.write_pyrosdis(folder, 40, seed=3, cameras_n=4, size=(320, 180), area_frac=0.03)
    shutil.make_archive(str(folder / "FASDD_CV"), "zip", folder, "FASDD_CV")
    return folder


@pytest.fixture
def workplace(published, tmp_path, monkeypatch):
    monkeypatch.setenv("SAISTUDY_WORK", str(tmp_path / "work"))
    monkeypatch.setenv("SAISTUDY_SHM", str(tmp_path / "shm"))
    monkeypatch.setenv("SAISTUDY_FASDD", str(published / "FASDD_CV"))
    monkeypatch.setenv("SAISTUDY_PYROSDIS", str(published / "pyro-sdis"))
    return published


@pytest.mark.parametrize(
    ("dataset", "form"),
    [("fasdd_cv", form) for form in ("FASDD_CV", "", "FASDD_CV.zip")]
    + [("pyro-sdis", form) for form in ("pyro-sdis", "pyro-sdis/data", "")],
)
def test_every_form_of_a_source_is_read_and_has_one_key(workplace, monkeypatch, dataset, form):
    first = sources.read("mini", dataset), sources.key("mini", dataset)
    monkeypatch.setenv(sources.VARIABLES[dataset], str(workplace / form))
    again = sources.read("mini", dataset), sources.key("mini", dataset)
    columns = ["image", "split", "sha256"]
    assert first[0].rows[columns].equals(again[0].rows[columns]) and first[1] == again[1]


def test_a_key_changes_with_the_data_and_not_with_the_clock(workplace, tmp_path):
    copy = shutil.copytree(workplace / "FASDD_CV", tmp_path / "FASDD_CV")
    assert keys.of(copy, "fasdd_cv") == sources.key("mini", "fasdd_cv")
    label = next(p for p in (copy / "annotations/YOLO_CV/labels").iterdir() if p.read_text())
    text = label.read_text()
    # one digit, the size as before
    label.write_text("1" + text[1:] if text[:1] == "0" else "0" + text[1:])
    assert label.stat().st_size == len(text) > 0
    assert keys.of(copy, "fasdd_cv") != sources.key("mini", "fasdd_cv")
    label.write_text(text)
    next((copy / "images").iterdir()).unlink()
    assert keys.of(copy, "fasdd_cv") != sources.key("mini", "fasdd_cv")


@pytest.mark.parametrize(
    ("dataset", "name", "wanted"),
    [
        ("fasdd_cv", "FASDD_CV.zip", r"FASDD_CV\.zip is no whole zip .*download it again"),
        ("pyro-sdis", "train-0.parquet", r"train-0\.parquet is .*name the folder that holds the shards"),
    ],
)
def test_a_file_that_is_no_whole_zip_has_no_key(tmp_path, monkeypatch, dataset, name, wanted):
    (tmp_path / name).write_bytes(b"PK\x03\x04 half of it")
    monkeypatch.setenv(sources.VARIABLES[dataset], str(tmp_path / name))
    with pytest.raises(Refusal, match=wanted):
        sources.key("mini", dataset)


TO_DOWNLOAD = {  # as typed from the record of version V9 and from the card
    "fasdd_cv": r"FASDD_CV\.zip \(12_326_081_298 bytes, MD5 da5e1410e13113fc9d605567aea54508\) .*10\.57760",
    "pyro-sdis": "a1e553ec4d806f71fc6db744cc22bc3469487382 .* 7 parquet shards, SHA-256 of the first 7ceba",
}


@pytest.mark.parametrize(("dataset", "must_say"), TO_DOWNLOAD.items())
def test_missing_data_are_named_with_what_to_download(monkeypatch, dataset, must_say):
    monkeypatch.delenv(sources.VARIABLES[dataset], raising=False)
    with pytest.raises(Refusal, match=must_say) as refusal:
        sources.locate("h200", dataset)
    assert sources.VARIABLES[dataset] in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_named_source_that_does_not_exist_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("SAISTUDY_FASDD", str(tmp_path / "nowhere"))
    with pytest.raises(Refusal, match="does not exist"):
        sources.locate("mini", "fasdd_cv")


def test_the_study_itself_refuses_any_other_number_of_images(workplace):
    with pytest.raises(Refusal, match="63_546"):
        sources.read("h200", "fasdd_cv")


def _md5_told():
    """The checksum that the study says of the archive it refuses."""
    with pytest.raises(Refusal, match="checksum") as refusal:
        sources.read("h200", "fasdd_cv")
    return re.search(r"[0-9a-f]{32}(?= differs)", str(refusal.value))[0]


def test_an_archive_is_hashed_once_and_again_when_it_changes(workplace, monkeypatch, tmp_path):
    path = Path(shutil.copy(workplace / "FASDD_CV.zip", tmp_path))
    monkeypatch.setenv("SAISTUDY_FASDD", str(path))
    before, seen = hashlib.md5(path.read_bytes()).hexdigest(), path.stat()
    assert _md5_told() == before
    with open(path, "r+b") as file:  # the first member's clock, of which no reader of zips asks
        file.seek(10)
        file.write(b"\1\2")
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    after = hashlib.md5(path.read_bytes()).hexdigest()
    assert _md5_told() == before != after  # as it was remembered
    os.utime(path)
    assert _md5_told() == after


def test_what_the_loaders_need_is_that_of_the_profile_or_of_a_notebook_with_other_values():
    values = yaml.safe_load((PARAMS / "demo" / "setup-shm.yaml").read_text())
    assert sources.beside("demo", values) == sources.beside("demo")
    other = values | {"batch": 128, "imgsz": 896, "workers": 12, "prefetch": 4, "reserve_gib": 1.5}
    assert sources.beside("demo", other) == (15_105_785_856 * 3, 1_610_612_736)


def test_a_tree_is_built_once_and_again_when_its_source_changes(workplace, monkeypatch, tmp_path):
    copy = shutil.copytree(workplace / "FASDD_CV", tmp_path / "FASDD_CV")
    monkeypatch.setenv("SAISTUDY_FASDD", str(copy))
    first = sources.build("mini", "fasdd_cv")
    before = (first.folder / "tree.json").stat().st_mtime_ns
    assert (sources.build("mini", "fasdd_cv").folder / "tree.json").stat().st_mtime_ns == before
    label = next(p for p in (copy / "annotations/YOLO_CV/labels").iterdir() if p.read_text())
    label.write_text("")
    assert sources.build("mini", "fasdd_cv").fingerprint != first.fingerprint


def test_the_joint_pool_has_the_val_and_test_of_pyrosdis_and_notices_either_source(
    workplace, monkeypatch, tmp_path
):
    alone, fasdd = sources.build("mini", "pyro-sdis"), sources.build("mini", "fasdd_cv")
    pooled = sources.prepare("mini", "joint")
    assert pooled.name == "joint" and pooled.names == fasdd.names
    seen = pooled.rows.set_index("image")
    for row in alone.rows.itertuples():
        mine = seen.loc[row.image]
        assert (mine["split"], mine["sha256"], mine["group"]) == (row.split, row.sha256, row.group)
        assert np.array_equal(mine["boxes"][:, 1:], row.boxes[:, 1:]) and set(mine["boxes"][:, 0]) <= {1}
    added = seen.drop(alone.rows["image"])
    train = fasdd.rows[fasdd.rows["split"] == "train"]
    assert set(added["split"]) == {"train"} and sorted(added["sha256"]) == sorted(train["sha256"])
    # built again only when one of the sources changes
    stamp = (pooled.folder / "tree.json").stat().st_mtime_ns
    assert (sources.build("mini", "joint").folder / "tree.json").stat().st_mtime_ns == stamp
    keys = [sources.key("mini", "joint")]
    for dataset, name, change in (("fasdd_cv", "FASDD_CV", "*.jpg"), ("pyro-sdis", "pyro-sdis", "train*")):
        copy = shutil.copytree(workplace / name, tmp_path / name)
        next(path for path in copy.rglob(change)).unlink()
        monkeypatch.setenv(sources.VARIABLES[dataset], str(copy))
        keys.append(sources.key("mini", "joint"))
    assert len(set(keys)) == 3


def test_of_the_disjoint_pool_pyrosdis_alone_is_split_again(workplace):
    again, pooled = sources.read("mini", "pyro-sdis-disjoint"), sources.read("mini", "joint-disjoint")
    splits = pooled.rows.set_index("image")["split"]
    assert splits[again.rows["image"]].tolist() == again.rows["split"].tolist()
    fasdd = sources.read("mini", "fasdd_cv").rows
    assert len(pooled.rows) == len(again.rows) + (fasdd["split"] == "train").sum()
    assert pooled.name == "joint-disjoint"


def test_the_joint_tree_is_known_to_plan_and_release(workplace):
    built = sources.build("mini", "joint")
    target = sources.staging_target("mini", "joint")
    assert sources.to_stage("mini", "plan", None, None) == {built.folder: target}
    assert target in sources.to_stage("mini", "release", None, None).values()
    shm.stage(built.folder, target)
    assert sources.prepare("mini", "joint").folder == target


def test_without_negatives_the_tree_is_another_one_and_smaller(workplace):
    whole, positives = (sources.build("mini", "fasdd_cv", negatives) for negatives in (True, False))
    assert whole.folder != positives.folder
    assert len(positives.rows) == sum(len(boxes) > 0 for boxes in whole.rows["boxes"]) < len(whole.rows)


def test_a_staged_copy_is_used_only_while_it_is_the_same_tree(workplace):
    built = sources.build("mini", "fasdd_cv")
    target = sources.staging_target("mini", "fasdd_cv")
    shm.stage(built.folder, target)
    assert sources.prepare("mini", "fasdd_cv").folder == target
    stale = (target / "tree.json").read_text().replace(built.fingerprint, "0" * len(built.fingerprint))
    (target / "tree.json").write_text(stale)
    assert sources.prepare("mini", "fasdd_cv").folder == built.folder


@pytest.mark.parametrize("delay_s", [0.9, 1.4])
def test_killed_while_building_a_tree_and_run_again(workplace, delay_s):
    """kill -9 at two moments; afterwards the tree is whole and equals one built in peace."""
    code = "from saistudy.data import sources; sources.build('mini', 'fasdd_cv')"
    process = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)})
    time.sleep(delay_s)
    process.send_signal(signal.SIGKILL)
    process.wait()
    found = sources.build("mini", "fasdd_cv")
    assert tree.load(work("mini") / "trees" / "fasdd_cv").fingerprint == found.fingerprint
    files = {p.name for p in (found.folder / "images").rglob("*.jpg")}
    assert files == set(found.rows["image"]) and not list(found.folder.rglob("*.part"))


def _coco(folder: Path) -> Path:
    """Twelve images with a box each in a layout of their own."""
    random = np.random.default_rng(0)
    for split in index.SPLITS:
        (folder / split).mkdir(parents=True)
        images = [{"id": n, "file_name": f"{split}{n}.jpg", "width": 64, "height": 48} for n in range(4)]
        boxes = [{"image_id": n, "category_id": 1 + n % 2, "bbox": [8 * n, 12, 16, 24]} for n in range(4)]
        told = {"images": images, "annotations": boxes}
        (folder / split / "coco.json").write_text(json.dumps(told))
        for one in images:
            pixels = random.integers(0, 255, (6, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((64, 48)).save(folder / split / one["file_name"])
    return folder


@pytest.fixture
def coco(tmp_path, monkeypatch):
    """A further layout whose reader is named as CONTRIBUTING.md has it."""
    monkeypatch.setitem(sources.READERS, "coco", coco_layout)
    return _coco(tmp_path / "set")


@pytest.mark.parametrize("profile", ["demo", "mini", "h200"])
def test_a_further_layout_asks_for_its_own_variable_and_is_read(workplace, coco, profile, monkeypatch):
    with pytest.raises(Refusal, match="SAISTUDY_COCO is not set"):
        sources.locate(profile, "coco")
    monkeypatch.setenv("SAISTUDY_COCO", str(coco))
    built = sources.build(profile, "coco")
    assert [len(list(built.folder.rglob(f"images/{split}/*.jpg"))) for split in index.SPLITS] == [4, 4, 4]
    # by hand: a box from x 8 to 24 and y 12 to 36 of 64 x 48
    label = (built.folder / "labels/val/val1.txt").read_text()
    assert [float(number) for number in label.split()] == [1, 0.25, 0.5, 0.25, 0.5]
    assert len(sources.read(profile, "coco-disjoint").rows) == 12


def test_a_changed_list_of_a_further_layout_is_read_again(workplace, coco, monkeypatch):
    monkeypatch.setenv("SAISTUDY_COCO", str(coco))
    first, key = sources.build("demo", "coco"), sources.key("demo", "coco")
    listing = coco / "val/coco.json"
    listing.write_text(listing.read_text().replace("[8, 12, 16, 24]", "[0, 12, 16, 24]"))
    again = sources.build("demo", "coco")
    assert sources.key("demo", "coco") != key and again.fingerprint != first.fingerprint
    assert (again.folder / "labels/val/val1.txt").read_text().startswith("1 0.125")


def test_a_further_layout_changes_no_key_of_the_study(workplace, coco, monkeypatch):
    with_it = sources.key("mini", "joint"), sources.key("mini", "fasdd_cv-disjoint")
    monkeypatch.delitem(sources.READERS, "coco")
    assert with_it == (sources.key("mini", "joint"), sources.key("mini", "fasdd_cv"))
    with pytest.raises(Refusal, match="there is no data set 'coco': choose one of fasdd_cv, pyro-sdis"):
        sources.locate("mini", "coco")


@pytest.mark.full
def test_a_further_layout_is_trained_by_what_contributing_says(tmp_path):
    """In a copy of the project: a module, a line, a name, and the command as it is printed, for one epoch."""
    copied.project(tmp_path)
    shutil.copy(coco_layout.__file__, tmp_path / "saistudy/data/coco.py")
    source, schema = (tmp_path / "saistudy" / name for name in ("data/sources.py", "schema.py"))
    _edit(source, "READERS = {", 'READERS = {"coco": coco, ')
    _edit(source, "import fasdd,", "import coco, fasdd,")
    _edit(schema, 'dataset: Literal["fasdd_cv",', 'dataset: Literal["coco", "fasdd_cv",')
    told = (ROOT / "CONTRIBUTING.md").read_text()
    (command,) = re.findall(r"^ +(SAISTUDY_COCO=(?:.*\\\n)*.*)", told, re.MULTILINE)
    command = command.replace("/data/my-set", str(_coco(tmp_path / "set"))).replace("epochs: 40", "epochs: 1")
    command = command.replace("[10, 30]", "[1]")
    environ = os.environ | {"SAISTUDY_WORK": str(tmp_path / "work"), "SAISTUDY_SHM": str(tmp_path / "shm")}
    environ["PATH"] = f"{Path(sys.executable).parent}:{environ['PATH']}"
    done = subprocess.run(
        command, shell=True, cwd=tmp_path, env=environ | {"PYTHONPATH": ""}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads((tmp_path / "results/lab/demo/coco-s0/record.json").read_text())
    assert (record["data"]["name"], record["data"]["images_n"]["train"]) == ("coco", 4)


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, old
    path.write_text(text.replace(old, new))
