"""Rectangles: the tensors that reach the network, stock samples at a square, labels on their objects."""

import random
from collections import Counter

import cv2
import numpy as np
import painted
import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook
from ultralytics.cfg import get_cfg
from ultralytics.data.build import build_yolo_dataset
from ultralytics.data.dataset import YOLODataset
from ultralytics.data.utils import check_det_dataset
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils.ops import xywh2xyxy

from saistudy.training import rect

HEAVY = {"mosaic": 1.0, "mixup": 0.5, "copy_paste": 0.5, "fliplr": 0.5, "flipud": 0.3}
WARPED = HEAVY | {"degrees": 20.0, "shear": 5.0, "perspective": 0.0005, "scale": 0.5}


def shapes_seen(trainer_class, tree, folder, imgsz, **train) -> set[tuple]:
    """(training?, height, width) of every tensor that entered the first convolution of a training."""
    seen, handles = set(), []

    def look(module, inputs):
        if not (isinstance(module, nn.Conv2d) and module.in_channels == 3):
            return
        images_n, _, *hw = inputs[0].shape
        if (images_n, *hw) != (1, 32, 32):  # Ultralytics' own count of operations before the last validation
            seen.add((module.training, *hw))

    overrides = painted.BARE | {"model": "yolov8n.yaml", "data": str(tree.yaml), "imgsz": imgsz, "batch": 8}
    trainer = trainer_class(
        overrides=overrides | {"project": str(folder), "name": "run", "plots": False, **train}
    )
    trainer.add_callback("on_train_start", lambda _: handles.append(register_module_forward_pre_hook(look)))
    try:
        trainer.train()
    finally:
        for handle in handles:
            handle.remove()
    return seen


@pytest.mark.parametrize("hw", [[64, 96], [96, 64]])
def test_every_tensor_has_the_shape_asked_for(tiny, tmp_path, hw):
    train = WARPED | {"cutmix": 0.3, "epochs": 2, "close_mosaic": 1}
    seen = shapes_seen(rect.RectTrainer, tiny, tmp_path, hw, **train)
    # training with mosaic and without, validation in between and at the end
    assert seen == {(True, *hw), (False, *hw)}


def test_stock_trains_a_square_instead(tiny, tmp_path):
    seen = shapes_seen(DetectionTrainer, tiny, tmp_path, [64, 96], epochs=1)
    assert {tuple(hw) for training, *hw in seen if training} == {(96, 96)}


def seeded(dataset: YOLODataset, seed: int) -> list[dict]:
    """Two passes over a data set from fixed seeds, the second with a full mosaic buffer."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    return [dataset[i % len(dataset)] for i in range(2 * len(dataset))]


@pytest.mark.parametrize("closed", [False, True])
def test_a_square_is_stock_bit_for_bit(tiny, closed):
    data = check_det_dataset(str(tiny.yaml))
    args = get_cfg(overrides=WARPED | {"imgsz": 96, "cutmix": 0.3})
    stock = build_yolo_dataset(args, data["train"], 8, data, mode="train", stride=32)
    ours = rect.build_dataset(args, data["train"], (96, 96), 8, data, "train", 32)
    if closed:
        stock.close_mosaic(args)
        ours.close_mosaic(args)
    for mine, theirs in zip(seeded(ours, 7), seeded(stock, 7), strict=True):
        assert mine.keys() == theirs.keys()
        for key, value in theirs.items():
            same = torch.equal(mine[key], value) if isinstance(value, torch.Tensor) else mine[key] == value
            assert same, (theirs["im_file"], key)


# colours apart by 100 or more in some channel, from each other and from the grey of the padding (114)
PALETTE = [(b, g, r) for b in (0, 235) for g in (0, 235) for r in (0, 235) if b + g + r > 0]
SIZES = [(640, 360), (360, 640), (500, 500), (333, 251), (251, 333), (640, 200), (301, 447)]


@pytest.fixture(scope="module")
def colourful(tmp_path_factory):
    """Seven images of seven aspect ratios, each with a rectangle in a colour of its own, its class."""
    names = {i: f"colour{i}" for i in range(len(PALETTE))}
    folder = tmp_path_factory.mktemp("colourful") / "tree"
    return painted.tree(
        folder, {"train": 7, "val": 7}, names, SIZES, list(range(7)), PALETTE, sides=(0.3, 0.6)
    )


def bounds(image: np.ndarray, colour: tuple) -> np.ndarray | None:
    """x1, y1, x2, y2 of the largest patch of a colour in an RGB image (3, height, width)."""
    near = (np.abs(image.transpose(1, 2, 0).astype(int) - colour[::-1]).max(-1) <= 60).astype(np.uint8)
    _, _, stats, _ = cv2.connectedComponentsWithStats(near)
    if len(stats) < 2:
        return None
    x, y, w, h, _ = stats[1:][stats[1:, cv2.CC_STAT_AREA].argmax()]
    return np.array([x, y, x + w, y + h])


def overlaps(dataset: YOLODataset, passes_n: int, seed: int) -> list[float]:
    """IoU of each label with the object found in the pixels; 0 where there is none of its colour."""
    random.seed(seed)
    np.random.seed(seed)
    found = []
    for i in range(passes_n * len(dataset)):
        sample = dataset[i % len(dataset)]
        _, height, width = sample["img"].shape
        boxes = xywh2xyxy(sample["bboxes"]).numpy() * [width, height, width, height]
        classes = sample["cls"].flatten().int().tolist()
        once = {label for label, n in Counter(classes).items() if n == 1}  # mosaic may repeat an image
        for label, box in zip(classes, boxes, strict=True):
            if label in once:
                seen = bounds(sample["img"].numpy(), PALETTE[label])
                found.append(0.0 if seen is None else painted.iou(seen, box))
    return found


def geometry(tree, hw: tuple[int, int], passes_n: int, seed: int = 0, **change) -> tuple[float, float]:
    """Mean IoU of label and object: ours at hw, stock at the square of its long side."""
    data = check_det_dataset(str(tree.yaml))
    plain = {"hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0, "mosaic": 1.0, "task": "detect"}
    args = get_cfg(overrides=plain | {"imgsz": max(hw)} | change)
    ours = rect.build_dataset(args, data["train"], hw, 8, data, "train", 32)
    stock = build_yolo_dataset(args, data["train"], 8, data, mode="train", stride=32)
    mine, theirs = overlaps(ours, passes_n, seed), overlaps(stock, passes_n, seed)
    # enough objects were found for the mean to say something
    assert min(len(mine), len(theirs)) >= 4 * passes_n
    return float(np.mean(mine)), float(np.mean(theirs))


@pytest.mark.parametrize("hw", [(256, 448), (448, 256)])
@pytest.mark.parametrize(
    "change", [{}, {"perspective": 0.0003, "fliplr": 0.5, "flipud": 0.5}, {"mosaic": 0.0}]
)
def test_labels_lie_on_their_objects(colourful, hw, change):
    ours, stock = geometry(colourful, hw, 5, **change)
    assert ours >= 0.9
    assert ours >= stock - 0.01


@pytest.mark.full
@pytest.mark.parametrize("hw", [(256, 448), (448, 256), (416, 736), (832, 1440), (672, 1184)])
@pytest.mark.parametrize("scale", [0.2, 0.5])
@pytest.mark.parametrize("perspective", [0.0, 0.0003])
@pytest.mark.parametrize("mosaic", [0.0, 1.0])
def test_labels_lie_on_their_objects_in_forty_settings(colourful, hw, scale, perspective, mosaic):
    change = {"scale": scale, "perspective": perspective, "mosaic": mosaic, "flipud": 0.5}
    ours, stock = geometry(colourful, hw, 15, seed=1, **change)
    assert ours >= 0.9
    assert ours >= stock - 0.01


@pytest.mark.parametrize("hw", [(64, 96), (96, 64), (224, 384)])
def test_boxes_return_to_the_pixels_of_the_original(colourful, hw):
    data = check_det_dataset(str(colourful.yaml))
    dataset = rect.build_dataset(get_cfg(), data["val"], hw, 8, data, "val", 32)
    batch = dataset.collate_fn([dataset[i] for i in range(len(dataset))])
    original = {row.image: painted.truth_px(row) for row in colourful.rows.itertuples()}
    for i, file in enumerate(batch["im_file"]):
        mine = batch["batch_idx"] == i
        boxes = xywh2xyxy(batch["bboxes"][mine]) * torch.tensor([hw[1], hw[0], hw[1], hw[0]])
        pred = {"bboxes": boxes, "cls": batch["cls"][mine].flatten(), "conf": torch.ones(len(boxes))}
        (row,) = rect._rows(pred, batch, i)
        # labels of the batch taken for predictions come back to where they were painted
        assert np.abs(np.array(row[3:]) - original[file.rpartition("/")[2]]).max() < 1
        # and the picture in the tensor is the one that they lie on
        seen = bounds(batch["img"][i].numpy(), PALETTE[int(row[1])])
        assert np.abs(seen - boxes[0].numpy()).max() <= 1.5


def test_the_pair_is_rounded_up_to_the_stride():
    assert rect.tensor_hw([101, 160]) == (128, 160)
    assert rect.tensor_hw([1440, 808]) == (1440, 832)
    assert rect.tensor_hw(90) == (96, 96)


def test_other_transforms_are_noticed(tiny):
    data = check_det_dataset(str(tiny.yaml))
    dataset = rect.build_dataset(get_cfg(), data["val"], (64, 96), 8, data, "val", 32)
    # validation has no mosaic: asking for one must not pass in silence
    with pytest.raises(RuntimeError, match="Mosaic"):
        rect.set_rectangle(dataset.transforms, (64, 96), {rect.Mosaic})


def test_another_tensor_is_refused():
    with pytest.raises(RuntimeError, match="96, 64"):
        rect.refuse_other_shape({"img": torch.zeros(2, 3, 96, 64)}, (64, 96))


def test_the_joint_of_a_mosaic_lies_in_the_rectangle(tiny):
    data = check_det_dataset(str(tiny.yaml))
    dataset = rect.build_dataset(get_cfg(), data["train"], (64, 96), 8, data, "train", 32)
    mosaics = [t for t in rect.walk(dataset.transforms) if isinstance(t, rect.Mosaic)]
    # stock draws the joint from -border to 2 * 96 + border; the crop is 64 x 96 about the centre (96, 96)
    ranges = [[(-side, 2 * t.imgsz + side) for side in t.border] for t in mosaics]
    assert ranges == [[(64, 128), (48, 144)]] * len(mosaics) and mosaics
