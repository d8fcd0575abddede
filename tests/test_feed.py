"""Each input gives the bits of stock Ultralytics: batches, labels, and the weights after two epochs."""

import copy
import hashlib
import pickle
import random
from functools import partial
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from ultralytics.cfg import get_cfg
from ultralytics.data.build import build_dataloader, build_yolo_dataset

from saistudy.data import store
from saistudy.paths import Refusal
from saistudy.training import batching, feed, fit, lean, rates
from saistudy.training.dataset import RectDataset, build_dataset

LABELS = ("cls", "bboxes", "batch_idx")
NAMES = ("im_file", "ori_shape", "resized_shape", "ratio_pad")
STAGE1 = {"mosaic": 1.0, "mixup": 0.15, "copy_paste": 0.05, "hsv_h": 0.015, "hsv_s": 0.7, "hsv_v": 0.4}
SETTINGS = {
    "stage 1": STAGE1 | {"translate": 0.1, "scale": 0.5, "fliplr": 0.5},
    "mosaic closed": {"mosaic": 0.0, "mixup": 0.0, "fliplr": 0.5, "flipud": 0.5},
    "all at once": {"mosaic": 0.6, "mixup": 0.5, "degrees": 25.0, "shear": 6.0, "bgr": 0.4, "flipud": 0.4},
    "perspective": {"mosaic": 0.5, "mixup": 0.3, "perspective": 0.0005, "cutmix": 0.4},
}


def batches(tree, way, hw, workers, n, places, kept=None, **train):
    """`n` batches of 8, epoch after epoch, copied; seeded as a training is."""
    loader = rates.loader(tree / "data.yaml", way, hw, 8, workers, places, **train)
    if kept is not None:
        kept.append(loader.dataset)
    seen = []
    while len(seen) < n:
        for batch in loader:
            seen.append(batch | {"img": batch["img"].clone()})
            if len(seen) == n:
                break
    loader.close()
    return seen


def same(one, other, render=None) -> None:
    """Two lists of batches are equal bit for bit, labels and names included."""
    assert len(one) == len(other) > 0
    for a, b in zip(one, other, strict=True):
        images = render(b["img"]) if render else b["img"]
        assert torch.equal(a["img"], images)
        assert all(torch.equal(a[key], b[key]) and a[key].dtype == b[key].dtype for key in LABELS)
        assert all(a[key] == b[key] for key in NAMES)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("hw", [(128, 128), (96, 160)])
@pytest.mark.parametrize("settings", SETTINGS)
def test_batches_are_those_of_stock(tiny, tmp_path, hw, workers, settings):
    """Over epochs whose order is drawn, with and without workers, at a square and at a rectangle."""
    train, kept = SETTINGS[settings], []
    stock = batches(tiny.folder, "stock", hw, workers, 8, [], **train)
    stored = batches(tiny.folder, "store", hw, workers, 8, [tmp_path], kept, **train)
    planned = batches(tiny.folder, "deferred", hw, workers, 8, [tmp_path], kept, **train)
    assert kept[0].input == "store"
    same(stock, stored)
    if settings == "perspective":
        assert kept[1].input == "store" and "not planned" in kept[1].why
        return same(stock, planned)
    assert kept[1].input == "deferred" and planned[0]["img"].ndim == 2
    same(stock, planned, kept[1].renderer(torch.device("cpu")))


@pytest.mark.full
@pytest.mark.parametrize("hw", [(128, 128), (96, 160)])
def test_thousands_of_samples_are_those_of_stock(tiny, tmp_path, hw):
    """4,000 samples each, workers 2, so that rings are used again and mosaic buffers turn over."""
    stock = batches(tiny.folder, "stock", hw, 2, 500, [], **SETTINGS["stage 1"])
    same(stock, batches(tiny.folder, "store", hw, 2, 500, [tmp_path], **SETTINGS["stage 1"]))


@pytest.mark.parametrize("hw", [(128, 128), (96, 160)])
def test_validation_is_stock_with_its_original_shapes(tiny, tmp_path, hw):
    """Letterboxed images and what scales boxes back."""
    cfg, data = get_cfg(overrides={"imgsz": max(hw), "rect": False}), {"names": tiny.names, "channels": 3}
    images, seen = f"{tiny.folder}/images/val", []
    asked = feed.asked("store", [tmp_path], {"batch": 8, "imgsz": list(hw)})
    for kind in (RectDataset, partial(feed.FedDataset, feed=asked)):
        built = build_dataset(cfg, images, hw, 4, data, "val", 32, kind)
        seen.append(list(build_dataloader(built, 4, 0, shuffle=False)))
    same(*seen)
    if hw[0] == hw[1]:
        data |= {"path": str(tiny.folder), "val": images}
        stock = build_yolo_dataset(cfg, images, 4, data, mode="val", rect=False)
        same(list(build_dataloader(stock, 4, 0, shuffle=False)), seen[1])


@pytest.fixture(scope="module")
def trainings(rectangles, tmp_path_factory):
    """Two epochs from the same seed each way, mosaic closed in the second; with workers, in one process."""
    folder, found = tmp_path_factory.mktemp("ways"), {}
    for way in feed.WAYS:
        train = {"imgsz": [64, 96], "batch": 8, "nbs": 8, "workers": 2, "device": "cpu", "amp": False}
        train |= {
            "epochs": 2,
            "close_mosaic": 1,
            "mosaic": 1.0,
            "mixup": 0.4,
            "warmup_epochs": 0.0,
            "optimizer": "AdamW",
            "lr0": 0.002,
        }
        train |= {"momentum": 0.9}
        places = {"input": way, "stores": [folder / "stores"]}
        run = fit.fit("yolov8n.yaml", rectangles.yaml, folder / way, seed=5, **places, **train)
        found[way] = run
    return found


@pytest.mark.parametrize("way", ["store", "deferred"])
def test_two_epochs_give_the_same_weights(trainings, way):
    """Bit for bit, and the same csv but its seconds; the conditions say which way ran."""
    stock, ours = trainings["stock"], trainings[way]
    assert [stock.conditions["input"], ours.conditions["input"]] == ["stock", way]
    weights = [_weights(run.folder / "weights" / "last.pt") for run in (stock, ours)]
    assert weights[0] == weights[1]
    assert _table(stock.folder) == _table(ours.folder)
    assert stock.telemetry["first_batch"] == ours.telemetry["first_batch"]


def _weights(file: Path) -> str:
    model = torch.load(file, map_location="cpu", weights_only=False)["model"]
    return hashlib.sha256(b"".join(v.numpy().tobytes() for v in model.state_dict().values())).hexdigest()


def _table(folder: Path) -> list[list[str]]:
    rows = [line.split(",") for line in (folder / "results.csv").read_text().splitlines()]
    clock = rows[0].index("time")
    return [row[:clock] + row[clock + 1 :] for row in rows]


def fed(tiny, way, places, hw=(96, 160), **train):
    cfg = get_cfg(overrides={"imgsz": max(hw), "cache": False} | train)
    asked = feed.asked(way, places, {"batch": 8, "imgsz": list(hw), "workers": 0})
    known = {"names": tiny.names, "channels": 3}
    kind = partial(feed.FedDataset, feed=asked)
    return build_dataset(cfg, f"{tiny.folder}/images/train", hw, 8, known, "train", 32, kind)


def test_what_cannot_be_had_falls_back_and_says_so(tiny, tmp_path, capsys):
    """A cache of Ultralytics' own, and no place with room: stock runs; the reason is printed once."""
    built = fed(tiny, "store", [tmp_path], cache="ram")
    assert built.input == "stock" and built.why == "cache=ram keeps images its own way"
    huge = feed.Feed("store", (Path("/dev/shm/saistudy-test"),), 2**60)
    cfg = get_cfg(overrides={"imgsz": 160})
    known = {"names": tiny.names, "channels": 3}
    built = build_dataset(
        cfg,
        f"{tiny.folder}/images/train",
        (96, 160),
        8,
        known,
        "train",
        32,
        partial(feed.FedDataset, feed=huge),
    )
    assert built.input == "stock" and "no place for the decoded images" in built.why
    assert capsys.readouterr().out.count("was asked for, stock runs:") == 2


def test_a_renderer_of_another_opencv_is_found_out(tiny, tmp_path, monkeypatch, capsys):
    """Fractions of a pixel rounded to 1/32 as OpenCV 4 does: the sample differs, the CPU path runs."""
    from saistudy.training import rendering

    warped = rendering._fma

    def rounded(a, b, c):
        value = warped(a, b, c)
        return (value * 32).round() / 32 if b.dtype == torch.int64 else value

    monkeypatch.setattr(rendering, "_fma", rounded)
    built, after = _seeded(fed, tiny, "deferred", [tmp_path], scale=0.4)
    assert built.input == "store" and "rendered values differ from OpenCV" in built.why
    assert "deferred was asked for, store runs: " in capsys.readouterr().out
    assert after == _seeded(fed, tiny, "store", [tmp_path], scale=0.4)[1]  # the sample drew nothing
    monkeypatch.undo()
    assert fed(tiny, "deferred", [tmp_path], scale=0.4).input == "deferred"


def _seeded(build, *args, **kwargs) -> tuple:
    """What is built from a fixed random state, and the state after it."""
    random.seed(0)
    np.random.seed(0)
    built = build(*args, **kwargs)
    return built, (random.getstate(), np.random.get_state()[1].tolist())


def test_bad_inputs_are_refused():
    """In a sentence that names what may be asked."""
    with pytest.raises(Refusal, match="input is 'ram', one of stock, store, deferred was expected"):
        feed.asked("ram", [Path("x")], {})
    with pytest.raises(Refusal, match="input store needs a place"):
        feed.asked("store", [], {})


def test_a_ring_uses_memory_again_and_stacks_like_torch():
    """Slot after slot; what does not fit a slot is stacked beside it."""
    ring, rng = batching.Ring(3), torch.Generator().manual_seed(0)
    seen = []
    for n in (4, 4, 4, 4, 2, 5):
        images = [torch.randint(0, 256, (3, 8, 6), dtype=torch.uint8, generator=rng) for _ in range(n)]
        stacked = ring.stacked(images)
        assert torch.equal(stacked, torch.stack(images))
        seen.append(stacked.data_ptr())
    assert seen[3] == seen[0] and seen[4] == seen[1] and len(set(seen[:3])) == 3
    assert seen[5] not in seen[:3]


def test_a_batch_leaves_its_worker_without_a_file_for_each_tensor():
    """What lies in shared memory goes as torch sends it, the rest as bytes; both arrive equal."""
    ring = torch.arange(12, dtype=torch.uint8).reshape(2, 6).share_memory_()
    batch = {"img": ring, "cls": torch.rand(3, 1), "batch_idx": torch.zeros(0), "im_file": ("a", "b")}
    _, (parts, keys) = batching.Sent(batch).__reduce__()
    assert keys == ["cls", "batch_idx"] and parts["img"] is ring
    arrived = pickle.loads(bytes(ForkingPickler.dumps(batching.Sent(batch | {"img": torch.empty(0)}))))
    assert type(arrived) is dict and arrived["im_file"] == ("a", "b")
    for key in keys:
        assert torch.equal(arrived[key], batch[key]) and arrived[key].dtype == batch[key].dtype


@pytest.mark.parametrize("way", ["store", "deferred"])
def test_only_a_ring_of_images_takes_shared_memory(tiny, tmp_path, way):
    """Of a real worker's batch: images of the store lie in it, labels and plans do not."""
    built = fed(tiny, way, [tmp_path])
    loader = DataLoader(built, batch_size=4, num_workers=1, collate_fn=built.collate_fn)
    shared = {key: value.is_shared() for key, value in next(iter(loader)).items() if torch.is_tensor(value)}
    assert shared == {"img": way == "store", "cls": False, "bboxes": False, "batch_idx": False}


def test_a_label_is_copied_as_deep_as_stock_copies_it():
    """Nothing that is changed in a copy reaches the original; nested lists of polygons too."""
    stock = {"im_file": "a", "shape": (4, 6), "cls": np.ones((2, 1)), "segments": [np.ones((3, 2))]}
    stock |= {"bboxes": np.ones((2, 4)), "keypoints": None, "normalized": True}
    made, wanted = copy.deepcopy(lean.Label(stock)), copy.deepcopy(stock)
    assert type(made) is dict and list(made) == list(wanted)
    made["cls"] += 1
    made["segments"][0] += 1
    made["segments"].append(None)
    assert stock["cls"].max() == 1 and len(stock["segments"]) == 1 and stock["segments"][0].max() == 1
    assert {k: v for k, v in made.items() if isinstance(v, str | bool | tuple | None)} == {
        k: v for k, v in wanted.items() if isinstance(v, str | bool | tuple | None)
    }


def test_replacing_keeps_what_stands_in_two_places(tiny, tmp_path):
    """Mosaic and affine before mixup are those of the pipeline, in the copy too; the original stays."""
    built = fed(tiny, "store", [tmp_path], mixup=0.5)
    plain = RectDataset.build_transforms(built, get_cfg(overrides={"imgsz": 160, "mixup": 0.5}))
    made = lean.replaced(plain, lean.LEAN)
    assert made.transforms[1].pre_transform is made.transforms[0]
    assert plain.transforms[1].pre_transform is plain.transforms[0] is not made.transforms[0]
    assert isinstance(made.transforms[1], lean.LeanMixUp) and type(plain.transforms[1]) is not lean.LeanMixUp


def test_a_store_in_use_survives_release(tiny, tmp_path):
    """As long as a data set holds it."""
    built = fed(tiny, "store", [tmp_path])
    store.release(tmp_path)
    assert built.store.folder.is_dir() and built[0]["img"].shape == (3, 96, 160)
