"""Feeding without a model: the trainer's own images, counted and clocked, with nothing left behind."""

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import painted
import psutil
import pytest
import torch
import yaml
from ultralytics.models.yolo.detect import DetectionTrainer

from saistudy.data import shm
from saistudy.data.staging import pace
from saistudy.paths import PARAMS, Refusal
from saistudy.study import bench
from saistudy.training import footprint, loading

IMAGES_N, CORES_N = 40, len(os.sched_getaffinity(0))
TRAIN = {"mosaic": 0.5, "mixup": 0.5, "device": "cpu"}
SIZES = {"cache": False, "workers": 0, "batch": 4, "imgsz": 64, "batches_n": 4, "images_n": IMAGES_N} | TRAIN


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A tree of painted images of 64 x 48 px, of which 40 are in train."""
    folder = tmp_path_factory.mktemp("source") / "tree"
    return painted.tree(folder, {"train": IMAGES_N, "val": 4}, {0: "fire", 1: "smoke"}, [(64, 48)])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def seed_all() -> None:
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(7)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_images_are_those_of_the_stock_trainer(source, tmp_path, workers):
    if workers > CORES_N:
        pytest.skip("fewer cores than workers")
    words = {"data": str(source.yaml), "imgsz": 64, "seed": 3, "project": str(tmp_path), "name": "stock"}
    trainer = DetectionTrainer(overrides=words | {"model": "yolov8n.yaml", "batch": 4} | TRAIN)
    trainer.args.workers = workers  # on a CPU the trainer sets 0
    trainer.model = trainer.get_model(cfg="yolov8n.yaml", verbose=False)
    stock = trainer.get_dataloader(trainer.data["train"], batch_size=4, rank=-1, mode="train")
    mine = loading.loader(source.yaml, False, workers, 4, 64, seed=3, **TRAIN)
    try:
        for served in (stock, mine):  # without workers both draw from this process, used by then
            seed_all()
            served.drawn = [batch for batch, _ in zip(served, range(3), strict=False)]
    finally:
        stock.close()
        mine.close()
    for one, other in zip(mine.drawn, stock.drawn, strict=True):
        assert one["im_file"] == other["im_file"]
        assert all(torch.equal(one[key], other[key]) for key in ("img", "cls", "bboxes", "batch_idx"))


@pytest.mark.parametrize(("workers", "images_n"), [(0, 12), (2, 16)])
def test_what_is_counted_and_clocked(source, tmp_path, workers, images_n):
    if workers > CORES_N:
        pytest.skip("fewer cores than workers")
    started = time.monotonic()
    seen = loading.feed(source.yaml, scratch=tmp_path, **SIZES | {"workers": workers, "batches_n": 3})
    wall_s = time.monotonic() - started
    # three batches of four; with two workers whole rounds, so four
    assert seen.images_n == images_n and seen.workers == workers
    # what was clocked lies within what another clock saw from outside
    assert min(seen.seconds, seen.build_s) > 0 and seen.seconds + seen.build_s < wall_s
    assert seen.images_per_s == pytest.approx(images_n / seen.seconds)
    assert seen.batch_s == pytest.approx(4 / seen.images_per_s)


def test_batches_in_shared_memory_are_what_the_plan_reckons_with(source, tmp_path):
    if CORES_N < 2:
        pytest.skip("fewer cores than workers")
    batch_bytes = 4 * 3 * 64 * 64
    seen = loading.feed(source.yaml, scratch=tmp_path, **SIZES | {"workers": 2})
    # training's third of the plan: (2 x 4 + 1) batches; boxes take some pages more
    most = shm.loader_bytes(4, 64, 2) / 3 + 9 * 8 * 4096
    assert batch_bytes <= seen.shared_bytes <= most
    assert loading.feed(source.yaml, scratch=tmp_path, **SIZES).shared_bytes == 0


@pytest.mark.parametrize("cache", [False, "ram", "disk"])
def test_nothing_is_left_behind(source, tmp_path, cache):
    before, children = contents(source.folder), psutil.Process().children(recursive=True)
    workers = min(2, CORES_N)
    loading.feed(source.yaml, scratch=tmp_path, **SIZES | {"cache": cache, "workers": workers})
    assert contents(source.folder) == before and list(tmp_path.iterdir()) == []
    assert psutil.Process().children(recursive=True) == children and footprint.shared_bytes() == 0
    large = SIZES | {"cache": cache, "imgsz": 640, "workers": workers}
    loading.feed(source.yaml, scratch=tmp_path, **large)  # the allocator keeps some of its arenas, once
    held = footprint.resident_bytes()
    loading.feed(source.yaml, scratch=tmp_path, **large)
    # the 47 MB that the decoded images take at 640 px are not kept
    assert footprint.resident_bytes() - held < IMAGES_N * 3 * 640 * 480


def test_a_cache_on_disk_lies_in_the_throw_away_tree(source, tmp_path):
    with loading.borrowed(source.yaml, 10, tmp_path) as tree:
        loading.loader(tree / "data.yaml", "disk", 0, 4, 64, **TRAIN)
        arrays = sorted((tree / "images/train").glob("*.npy"))
        assert len(arrays) == 10 and np.load(arrays[0]).shape == (48, 64, 3)
    assert not list(source.folder.rglob("*.npy"))


def test_images_are_spread_over_the_split(source, tmp_path):
    names = sorted(path.name for path in (source.folder / "images/train").iterdir())
    with loading.borrowed(source.yaml, 10, tmp_path) as tree:
        assert sorted(path.name for path in (tree / "images/train").iterdir()) == names[::4]
    with loading.borrowed(source.yaml, 1000, tmp_path) as tree:
        assert len(list((tree / "labels/train").iterdir())) == IMAGES_N


def cat(file: Path) -> None:
    subprocess.run(["cat", file], stdout=subprocess.DEVNULL, check=True)


@pytest.mark.parametrize("read", [Path.read_bytes, cat], ids=["here", "in-a-child"])
def test_dropped_files_come_from_the_disk_again_and_the_kernel_counts_their_bytes(tmp_path, read):
    """Linux keeps some of what was just written for a moment, whatever it is told: so it is told again."""

    def fetched() -> int:
        before = pace.fetched_bytes()
        read(file)
        return pace.fetched_bytes() - before

    def fetched_anew() -> int:
        time.sleep(0.05)
        pace.drop([file])
        return fetched()

    file = tmp_path / "image.jpg"
    file.write_bytes(b"\1" * 1_000_000)  # its pages are dirty: they must be written before they can go
    read(file)  # what else a reader needs is in memory from then on
    assert any(fetched_anew() >= 1_000_000 for _ in range(400)), "it stays, or this folder is on no disk"
    assert fetched() < 500_000


def test_a_pass_says_what_came_from_the_disk(source, tmp_path):
    """Workers are counted; what was read just before needs no disk."""
    sizes = SIZES | {"workers": min(2, CORES_N)}
    loading.feed(source.yaml, scratch=tmp_path, **sizes)  # libraries are in memory from then on
    assert loading.feed(source.yaml, scratch=tmp_path, **sizes).disk_bytes < 100_000


def test_decoded_bytes_by_hand(source):
    files = sorted((source.folder / "images/train").iterdir())
    assert loading.decoded_bytes(files) == 40 * 64 * 48 * 3
    assert loading.decoded_bytes(files, 128) == 40 * 128 * 96 * 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"workers": CORES_N + 1}, f"{CORES_N + 1} workers were asked for, it has {CORES_N} cores"),
        ({"cache": "ram", "imgsz": 3_200_000}, "cache=ram does not fit: .* GiB are needed for 40 images"),
        ({"images_n": 4}, "an epoch has 1 batches, 2 were expected"),
    ],
)
def test_what_cannot_be_measured_is_said_before_it_is_tried(source, tmp_path, change, said):
    with pytest.raises(Refusal, match=said):
        loading.feed(source.yaml, scratch=tmp_path, **SIZES | change)
    assert list(tmp_path.iterdir()) == []


def test_conditions_alternate_and_a_refused_one_has_its_reason(source, tmp_path):
    sizes = SIZES | {"batch": 1, "imgsz": 1280, "mosaic": 0.0, "mixup": 0.0}
    conditions = {"none": {}, "ram": {"cache": "ram"}, "too many": {"workers": CORES_N + 1}}
    scratch = tmp_path / "loader"
    (scratch / "tree-of-a-killed-pass").mkdir(parents=True)
    passes = bench.alternate(conditions, 2, data_yaml=source.yaml, scratch=scratch, **sizes)
    assert not scratch.exists()
    assert passes["condition"].tolist() == ["none", "ram", "too many"] * 2
    assert passes["pass"].tolist() == [0, 0, 0, 1, 1, 1]
    none, ram, refused = bench.per_condition(passes)
    assert none["images_n"] == ram["images_n"] == [4, 4] and none["note"] == ram["note"] == ""
    # the cache holds every decoded image, in the second pass as in the first; without it only the latest
    decoded = IMAGES_N * 3 * 1280 * 960
    assert max(none["resident_bytes"]) < decoded / 2 and min(ram["resident_bytes"]) >= decoded
    assert refused["images_n"] == [] and refused["note"].startswith("not on this machine")
    json.dumps([none, ram, refused], allow_nan=False)  # a record takes it
    assert bench.table([none, refused]).loc["too many", "images/s"] == "-"


def killed():
    """A generator whose process ends as the kernel ends one when memory runs out."""
    yield 1
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_pass_is_told_and_not_waited_for():
    answers = bench.apart("fork", killed)
    assert next(answers) == 1
    with pytest.raises(Refusal, match="exit code -9"):
        next(answers)


def test_medians_by_hand():
    assert bench.spread([3.0, 1.0, 2.0]) == "2 (1 to 3)" and bench.spread([]) == "-"
    assert bench.most_mib([2**20, 3 * 2**20]) == "3.0" and bench.most_mib([]) == "-"


@pytest.mark.parametrize("profile", ["demo", "mini", "h200"])
def test_the_loader_is_fed_as_stage_1_trains(profile):
    mine, stage1 = (
        yaml.safe_load((PARAMS / profile / f"{name}.yaml").read_text()) for name in ("setup-shm", "stage1")
    )
    assert mine["train"].items() <= stage1["train"].items()
