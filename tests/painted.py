"""Pictures with painted rectangles, whose true boxes are known to the pixel, as a tree for Ultralytics."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import yaml

from saistudy.data.tree import Tree

COLOURS = ((0, 60, 240), (200, 200, 200))  # BGR of fire and smoke
GROUND = 30

BARE = {"workers": 0, "device": "cpu", "amp": False, "optimizer": "AdamW", "warmup_epochs": 0.0}
# a YOLOv8n learns the rectangles within these epochs
LEARNABLE = BARE | {"imgsz": 64, "batch": 4, "nbs": 4, "lr0": 0.004, "epochs": 11}
LEARNABLE |= {"mosaic": 0.0, "scale": 0.1, "translate": 0.05}


def picture(size: tuple[int, int], corners: np.ndarray, colour: tuple) -> np.ndarray:
    """An image (height, width, 3) uint8 with one filled rectangle; corners x1, y1, x2, y2 in whole pixels."""
    image = np.full((size[1], size[0], 3), GROUND, np.uint8)
    x1, y1, x2, y2 = corners
    image[y1:y2, x1:x2] = colour
    return image


def corners(size: tuple[int, int], sides: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """A random rectangle in whole pixels whose sides are a share within `sides` of the image's."""
    extent = np.array(size)
    side = np.round(rng.uniform(*sides, 2) * extent).astype(int)
    start = rng.integers(0, extent - side + 1)
    return np.concatenate([start, start + side])


def tree(
    folder: Path,
    counts: dict[str, int],
    names: dict[int, str],
    sizes: list[tuple[int, int]],
    classes: list[int] | None = None,
    colours=COLOURS,
    sides: tuple[float, float] = (0.8, 0.95),
    seed: int = 1,
) -> Tree:
    """A tree of painted images, one box each; image i has size i and class i of the (repeated) lists."""
    rng = np.random.default_rng(seed)
    rows = []
    for split, images_n in counts.items():
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        for i in range(images_n):
            size = sizes[i % len(sizes)]
            label = int(rng.integers(len(names))) if classes is None else classes[i % len(classes)]
            box = corners(size, sides, rng)
            cv2.imwrite(
                str(folder / "images" / split / f"{split}{i}.png"), picture(size, box, colours[label])
            )
            rows.append(_row(folder, split, i, size, label, box))
    text = {"path": str(folder), **{s: f"images/{s}" for s in counts}, "names": names}
    (folder / "data.yaml").write_text(yaml.safe_dump(text))
    return Tree(folder, folder / "data.yaml", pd.DataFrame(rows), "painted", "synthetic", "", names)


def _row(folder: Path, split: str, i: int, size: tuple[int, int], label: int, box: np.ndarray) -> dict:
    centre, side = (box[:2] + box[2:]) / 2 / size, (box[2:] - box[:2]) / size
    boxes = np.array([[label, *centre, *side]])
    line = " ".join(f"{value:.6f}" for value in boxes[0, 1:])
    (folder / "labels" / split / f"{split}{i}.txt").write_text(f"{label} {line}\n")
    width, height = size
    return {
        "image": f"{split}{i}.png",
        "split": split,
        "group": f"{split}{i % 2}",
        "event": "",
        "width": width,
        "height": height,
        "boxes": boxes,
    }


def truth_px(row) -> np.ndarray:
    """The painted corners of a row, (1, 4) px."""
    _, x, y, w, h = row.boxes[0]
    scale = np.array([row.width, row.height, row.width, row.height])
    return np.array([[x - w / 2, y - h / 2, x + w / 2, y + h / 2]]) * scale


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes x1, y1, x2, y2."""
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = sides.clip(0).prod()
    return float(shared / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - shared))
