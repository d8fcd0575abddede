"""Rectangles: the tensors that reach the network, stock's batches at a square, predict and export."""

import math
import shutil

import numpy as np
import onnxruntime
import painted
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook
from ultralytics import YOLO
from ultralytics.cfg import get_cfg
from ultralytics.data.augment import Mosaic
from ultralytics.data.build import build_yolo_dataset
from ultralytics.data.utils import check_det_dataset
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils import ASSETS

from saistudy.paths import Refusal
from saistudy.training import rect
from saistudy.training.dataset import build_dataset, refuse_other_shape, set_rectangle, walk

HEAVY = {"mosaic": 1.0, "mixup": 0.5, "cutmix": 0.3, "copy_paste": 0.5, "fliplr": 0.5, "flipud": 0.3}
WARPED = HEAVY | {"degrees": 20.0, "shear": 5.0, "perspective": 0.0005, "scale": 0.5}
NAMES = {0: "fire", 1: "smoke"}
# 8:1, 1:8, 4000 px wide, tiny; stock leaves out images below 10 px as corrupt, the 3 x 5 px one here
SHAPES = [(640, 80), (80, 640), (4000, 500), (5, 3), (12, 10), (500, 500), (301, 447), (640, 360), (37, 23)]


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """Nine images of unusual shapes for training, with polygon labels, and eight for validation."""
    folder = tmp_path_factory.mktemp("odd") / "tree"
    tree = painted.tree(folder, {"train": 9, "val": 8}, NAMES, SHAPES)
    for row in tree.rows.itertuples():
        label, x, y, w, h = row.boxes[0]
        corners = [x - w / 2, y - h / 2, x + w / 2, y - h / 2, x + w / 2, y + h / 2, x - w / 2, y + h / 2]
        line = " ".join(f"{value:.6f}" for value in corners)
        name = f"{row.image.removesuffix('.png')}.txt"
        (folder / "labels" / row.split / name).write_text(f"{label:.0f} {line}\n")
    return tree


class Noting:
    """A trainer that keeps every training batch as it comes from the loader and as it is trained."""

    def preprocess_batch(self, batch):
        self.loaded = getattr(self, "loaded", [])
        self.loaded.append({k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in batch.items()})
        ready = super().preprocess_batch(batch)
        self.scaled = [*getattr(self, "scaled", []), ready["img"].clone()]
        return ready


class Rectangle(Noting, rect.RectTrainer):
    pass


class Stock(Noting, DetectionTrainer):
    """Stock, whose validation is a square as well: stock's own cuts it to the images of each batch."""

    def build_dataset(self, img_path, mode="train", batch=None):
        return build_yolo_dataset(self.args, img_path, batch, self.data, mode=mode, rect=False, stride=32)


def shapes_seen(work) -> set[tuple]:
    """(training?, height, width) of every tensor that entered a first convolution while `work` ran."""
    seen = set()

    def look(module, inputs):
        if not (isinstance(module, nn.Conv2d) and module.in_channels == 3):
            return
        images_n, _, *hw = inputs[0].shape
        # Ultralytics' own: finding a new model's stride, counting operations before the last validation
        if (images_n, *hw) not in {(1, 256, 256), (1, 32, 32)}:
            seen.add((module.training, *hw))

    handle = register_module_forward_pre_hook(look)
    try:
        work()
    finally:
        handle.remove()
    return seen


def build(trainer_class, tree, folder, imgsz, workers=0, **train):
    """A trainer with `workers` loader processes; Ultralytics itself allows none on a CPU."""
    overrides = painted.BARE | {"model": "yolov8n.yaml", "data": str(tree.yaml), "imgsz": imgsz, "batch": 4}
    place = {"project": str(folder), "name": trainer_class.__name__, "plots": False}
    trainer = trainer_class(overrides=overrides | place | {"epochs": 2, "close_mosaic": 1} | train)
    trainer.args.workers = workers
    return trainer


MANY = [
    ([64, 96], {}),
    ([96, 64], {"copy_paste_mode": "mixup", "cache": "disk", "single_cls": True, "freeze": 5}),
    ([64, 96], {"workers": 2, "cache": "ram", "fraction": 0.8, "close_mosaic": 0}),
    ([32, 160], {"workers": 2, "mosaic": 0.0, "copy_paste_mode": "mixup"}),
]


@pytest.mark.parametrize(("hw", "change"), MANY)
def test_every_tensor_has_the_shape_asked_for(odd, tmp_path, hw, change):
    trainer = build(Rectangle, odd, tmp_path, hw, **WARPED | change)
    # training with mosaic and without, validation in between and at the end
    assert shapes_seen(trainer.train) == {(True, *hw), (False, *hw)}
    assert trainer.train_loader.num_workers == change.get("workers", 0)
    kept_n = 7 if "fraction" in change else 9
    assert len(trainer.train_loader.dataset) == kept_n - 1  # without the one of 3 x 5 px


@pytest.mark.full
@pytest.mark.parametrize("seed", range(30))
def test_every_tensor_has_the_shape_asked_for_in_drawn_settings(odd, tmp_path, seed):
    rng = np.random.default_rng(seed)
    hw = (32 * rng.integers(1, 9, 2)).tolist()
    change = {
        "workers": int(rng.choice([0, 2])),
        "cache": [False, "ram", "disk"][rng.integers(3)],
        "copy_paste_mode": str(rng.choice(["flip", "mixup"])),
        "batch": int(rng.choice([2, 4])),
        **{key: float(rng.uniform(0, high)) for key, high in WARPED.items()},
    }
    trainer = build(Rectangle, odd, tmp_path, hw, **change)
    assert shapes_seen(trainer.train) == {(True, *hw), (False, *hw)}, change


def test_multi_scale_keeps_the_proportion(odd, tmp_path):
    trainer = build(Rectangle, odd, tmp_path, [64, 128], multi_scale=0.5, epochs=4, **HEAVY)
    trainer.train()
    assert {tuple(batch["img"].shape[2:]) for batch in trainer.loaded} == {(64, 128)}
    seen = {tuple(image.shape[2:]) for image in trainer.scaled}
    # the long side is a multiple of 32 from 64 to 192, the short one half of it, rounded up to the next
    assert seen <= {(32 * math.ceil(long / 64), long) for long in range(64, 193, 32)}
    assert len(seen) > 2


def test_stock_trains_a_square_instead(tiny, tmp_path):
    trainer = build(DetectionTrainer, tiny, tmp_path, [64, 96], epochs=1)
    assert {tuple(hw) for training, *hw in shapes_seen(trainer.train) if training} == {(96, 96)}


def assert_same(mine: list[dict], theirs: list[dict]) -> None:
    """Equal bit for bit, key by key."""
    assert len(mine) == len(theirs) > 0
    for ours, stock in zip(mine, theirs, strict=True):
        assert ours.keys() == stock.keys()
        for key, value in stock.items():
            same = torch.equal(ours[key], value) if isinstance(value, torch.Tensor) else ours[key] == value
            assert same, (stock["im_file"], key)


SQUARES = [
    pytest.param({"workers": 2, "copy_paste_mode": "mixup"}, id="workers"),
    pytest.param({"cache": "ram", "multi_scale": 0.5}, id="ram"),
    pytest.param({"workers": 2, "cache": "disk", "multi_scale": 0.5}, marks=pytest.mark.full),
    pytest.param({"workers": 2, "cache": "ram", "fraction": [0.8, 0.7]}, marks=pytest.mark.full),
    pytest.param({"mosaic": 0.0, "single_cls": True, "classes": [1]}, marks=pytest.mark.full),
]


@pytest.mark.parametrize("change", SQUARES)
def test_a_square_is_stock_bit_for_bit(odd, tmp_path, change):
    asked = WARPED | {"epochs": 3} | change
    ours = build(Rectangle, odd, tmp_path, [96, 96], **asked)
    ours.train()
    stock = build(Stock, odd, tmp_path, 96, **asked)
    stock.train()
    # the last of three epochs has the mosaic closed
    assert_same(ours.loaded, stock.loaded)
    assert all(torch.equal(*pair) for pair in zip(ours.scaled, stock.scaled, strict=True))
    assert ours.train_loader.num_workers == stock.train_loader.num_workers == change.get("workers", 0)
    assert_same(list(ours.test_loader), list(stock.test_loader))
    # so losses, metrics and learning rates of every epoch are stock's too
    mine, theirs = (pd.read_csv(trainer.csv).drop(columns="time") for trainer in (ours, stock))
    pd.testing.assert_frame_equal(mine, theirs, check_exact=True)


def test_the_pair_is_rounded_up_to_the_stride():
    assert rect.tensor_hw([101, 160]) == (128, 160)
    assert rect.tensor_hw([1440, 808]) == (1440, 832)
    assert rect.tensor_hw(90) == (96, 96)


def test_rounding_is_said_aloud(tiny, tmp_path, capsys):
    build(rect.RectTrainer, tiny, tmp_path, [96, 64])
    assert "is trained as" not in capsys.readouterr().out
    build(rect.RectTrainer, tiny, tmp_path, [1440, 808])
    assert "imgsz [1440, 808] is trained as [1440, 832] (height, width)" in capsys.readouterr().out
    build(rect.RectTrainer, tiny, tmp_path, 90)
    assert "imgsz 90 is trained as [96, 96]" in capsys.readouterr().out


def test_a_model_of_a_coarser_stride_is_refused(tiny, tmp_path):
    trainer = build(rect.RectTrainer, tiny, tmp_path, [96, 128], model="yolov8n-p6.yaml")
    with pytest.raises(Refusal, match=r"stride is 64: ask for imgsz \[128, 128\]"):
        trainer.train()


def test_other_transforms_are_noticed(tiny):
    data = check_det_dataset(str(tiny.yaml))
    dataset = build_dataset(get_cfg(), data["val"], (64, 96), 8, data, "val", 32)
    # validation has no mosaic: asking for one must not pass in silence
    with pytest.raises(RuntimeError, match="Mosaic"):
        set_rectangle(dataset.transforms, (64, 96), {Mosaic})


def test_another_tensor_is_refused():
    with pytest.raises(RuntimeError, match="96, 64"):
        refuse_other_shape({"img": torch.zeros(2, 3, 96, 64)}, (64, 96))


def test_the_joint_of_a_mosaic_lies_in_the_rectangle(tiny):
    data = check_det_dataset(str(tiny.yaml))
    dataset = build_dataset(get_cfg(), data["train"], (64, 96), 8, data, "train", 32)
    mosaics = [t for t in walk(dataset.transforms) if isinstance(t, Mosaic)]
    # stock draws the joint from -border to 2 * 96 + border; the crop is 64 x 96 about the centre (96, 96)
    ranges = [[(-side, 2 * t.imgsz + side) for side in t.border] for t in mosaics]
    assert ranges == [[(64, 128), (48, 144)]] * len(mosaics) and mosaics


@pytest.fixture(scope="module")
def best(tiny, tmp_path_factory):
    """best.pt of one epoch at height 64, width 128."""
    trainer = build(rect.RectTrainer, tiny, tmp_path_factory.mktemp("best"), [64, 128], epochs=1)
    trainer.train()
    return trainer.best


def predicted(best, photograph: str, **how) -> set[tuple]:
    model = YOLO(best)
    return shapes_seen(lambda: model.predict(ASSETS / photograph, device="cpu", verbose=False, **how))


def test_stock_predict_takes_the_rectangle_from_the_checkpoint(best):
    # zidane is 720 x 1280: shrunk to 64 x 114, and 128 is the next multiple of 32
    assert predicted(best, "zidane.jpg") == {(False, 64, 128)}
    # bus is 1080 x 810: stock pads it no further than it must, to 64 x 64 ...
    assert predicted(best, "bus.jpg") >= {(False, 64, 64)}
    # ... and to the rectangle when told so
    assert predicted(best, "bus.jpg", rect=False) == {(False, 64, 128)}


def test_stock_export_takes_the_rectangle_from_the_checkpoint(best, tmp_path):
    weights = shutil.copy(best, tmp_path / "best.pt")
    exported = YOLO(weights).export(format="onnx", simplify=False, device="cpu", verbose=False)
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == [1, 3, 64, 128]
    assert session.get_modelmeta().custom_metadata_map["imgsz"] == "[64, 128]"


def test_stock_val_takes_the_longest_side_instead(best, tiny, tmp_path):
    model = YOLO(best)
    place = {"project": str(tmp_path), "name": "val", "plots": False, "device": "cpu", "workers": 0}
    seen = shapes_seen(lambda: model.val(data=str(tiny.yaml), verbose=False, **place))
    # the documented reason to evaluate with RectValidator: long side 128, padded by half a stride
    assert seen and all(height > 64 and max(height, width) == 160 for _, height, width in seen)
