"""Objects pasted onto backgrounds while training: seed document 004, "Dynamic Copy-Paste" (L113-121).

Edges are blended so that no detector learns the seam (Dwibedi et al., "Cut, Paste and Learn", ICCV 2017).
Box-only: what surrounds an object in its box comes along. Stock `copy_paste` does nothing on boxes (8.4.190).
"""

import hashlib
import math
import os
import random
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from saistudy.paths import Refusal
from saistudy.training.cutouts import Cutout, backgrounds, cutouts
from saistudy.training.rect import RectDataset

OBJECTS_N = (1, 3)  # objects on one background
SCALES = (0.5, 1.5)  # times the object's share of its own image: the range of `scale` 0.5 (seed 004, L182)
FEATHER_PX = 3  # the edge fades over these pixels outside the box: within it all is the object's
SMALLEST_PX = 4  # of a pasted side where it fits: stock's scaling may halve it and drops boxes below 2 px
DROPPED_PX = 2  # an object that would be thinner is left out: stock would drop its box and keep its pixels
TRIES_N = 10  # places tried; an object that would cover another's box is left out
NOWHERE = Path(os.devnull) / "none"  # can be neither read nor written


@dataclass(frozen=True)
class Paste:
    """What is pasted on what, and how many synthetic images a real one brings; nothing is written there.

    `annotated_dir` holds images/ and labels/, or each image beside its .txt: lines of class, xc, yc, w, h as
    fractions, numbered as in the data's names. `backgrounds_dir` holds images without objects.
    """

    backgrounds_dir: Path
    annotated_dir: Path
    synthetic_ratio: float = 2.0

    def __post_init__(self):
        if not 0 < self.synthetic_ratio < math.inf:
            seen = f"synthetic_ratio is {self.synthetic_ratio}"
            raise Refusal(f"{seen}, a number above 0 was expected: change it or paste nothing.")

    def digest(self) -> str:
        """Hex sha256 over ratio, path and size of each file in the two folders, and the labels' contents."""
        hasher = hashlib.sha256(str(self.synthetic_ratio).encode())
        for folder in (self.backgrounds_dir, self.annotated_dir):
            for file in sorted(file for file in Path(folder).rglob("*") if file.is_file()):
                hasher.update(f"{file.relative_to(folder)} {file.stat().st_size}\n".encode())
                if file.suffix == ".txt":
                    hasher.update(file.read_bytes())
        return hasher.hexdigest()


class PasteDataset(RectDataset):
    """Real images, then round(ratio * real) backgrounds with 1 to 3 objects each, drawn anew at each load.

    Mosaic and mixup draw on both. Real images are never pasted on, and a data set that does not augment
    (validation) gets no synthetic ones. What goes where comes from Python's `random`, which Ultralytics seeds
    in each worker. Cut-outs stay in memory at full size; `cache` keeps each repetition of a background.

    Raises:
        Refusal: a folder holds nothing of use, backgrounds have labels, or a label is no box of the classes.
    """

    def __init__(self, *args, paste: Paste, **kwargs):
        self.paste, self.cutouts = paste, []
        super().__init__(*args, **kwargs)

    def get_labels(self) -> list[dict]:
        """Stock's labels, then one without boxes for each synthetic image."""
        labels = super().get_labels()
        if not self.augment:
            return labels
        classes = {} if self.single_cls else self.data["names"]
        margin_share = FEATHER_PX / (SCALES[0] * min(self.hw))  # enough at the smallest size that is drawn
        self.cutouts = cutouts(self.paste.annotated_dir, classes, self.cv2_flag, margin_share)
        files = backgrounds(self.paste.backgrounds_dir, self.cv2_flag)
        added = [files[i % len(files)] for i in range(round(self.paste.synthetic_ratio * len(labels)))]
        self.im_files = self.im_files + [str(file) for file in added]
        return labels + [_empty(file) for file in added]

    def update_labels(self, include_class: list[int] | None) -> None:
        """Stock, and so for the cut-outs: classes left out are not pasted, `single_cls` makes all 0."""
        super().update_labels(include_class)
        kept = [one for one in self.cutouts if include_class is None or one.label in include_class]
        if self.augment and not kept:
            seen = f"annotated_dir {self.paste.annotated_dir} holds no object of classes {include_class}"
            raise Refusal(f"{seen}, which are trained on: name another folder or paste nothing.")
        self.cutouts = [one._replace(label=0) for one in kept] if self.single_cls else kept

    def cache_images_to_disk(self, i: int) -> None:
        """Stock for real images; nothing is written beside backgrounds."""
        if "synthetic" not in self.labels[i]:
            super().cache_images_to_disk(i)

    def load_image(self, i, *args, **kwargs):
        """Stock; a background is read from its own file only, as stock repairs the .npy beside an image."""
        if "synthetic" in self.labels[i]:
            self.npy_files[i] = NOWHERE
        return super().load_image(i, *args, **kwargs)

    def update_labels_info(self, label: dict) -> dict:
        """Stock, after a synthetic image got its objects, on a copy: the array that was loaded is cached."""
        if label.pop("synthetic", False):
            label["img"], label["cls"], label["bboxes"] = pasted(label["img"], self.cutouts)
        return super().update_labels_info(label)


def _empty(file: Path) -> dict:
    """The label of a background as stock's scan makes one, marked as synthetic."""
    boxless = {"cls": np.zeros((0, 1), np.float32), "bboxes": np.zeros((0, 4), np.float32), "segments": []}
    plain = {"keypoints": None, "normalized": True, "bbox_format": "xywh", "synthetic": True}
    return {"im_file": str(file), **boxless, **plain}


def pasted(image: np.ndarray, objects: list[Cutout]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A copy of the image with objects; their classes (N, 1) and boxes xywh (N, 4, fractions), float32."""
    image, extent = image.copy(), np.array(image.shape[1::-1])
    labels, taken = [], np.zeros((0, 4))
    for one in random.choices(objects, k=random.randint(*OBJECTS_N)):
        pixels, box = _sized(one, extent)
        if (corner := _place(box, taken, extent)) is not None:
            _blend(image, pixels, box, corner)
            taken = np.vstack([taken, (box + [*corner, *corner]).clip(0, [*extent, *extent])])
            labels.append([one.label])
    xywh = np.hstack([(taken[:, :2] + taken[:, 2:]) / 2, taken[:, 2:] - taken[:, :2]]) / [*extent, *extent]
    return image, np.array(labels, np.float32).reshape(-1, 1), xywh.astype(np.float32)


def _sized(one: Cutout, extent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and box of an object at a random size, its box within an image of extent (width, height) px."""
    sides, full = one.box[2:] - one.box[:2], np.array(one.pixels.shape[1::-1])
    ratio = random.uniform(*SCALES) * extent.max() / one.long_px
    ratio = min(max(ratio, SMALLEST_PX / sides.min()), *(extent / sides))
    size = (full * ratio).astype(int).clip(1)
    how = cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR
    pixels = cv2.resize(one.pixels, size.tolist(), interpolation=how).reshape(size[1], size[0], -1)
    return pixels, one.box * [*size / full, *size / full]


def _place(box: np.ndarray, taken: np.ndarray, extent: np.ndarray) -> np.ndarray | None:
    """Where the pixels' corner (x, y) goes: box inside the image, clear of those taken; None if not found."""
    low = np.ceil(-box[:2]).astype(int)
    high = np.maximum(low, np.floor(extent - box[2:]).astype(int))
    for _ in range(TRIES_N if (box[2:] - box[:2]).min() >= DROPPED_PX else 0):
        corner = np.array([random.randint(*span) for span in zip(low.tolist(), high.tolist(), strict=True)])
        x1, y1, x2, y2 = box + [*corner - FEATHER_PX, *corner + FEATHER_PX]
        if not np.any((taken[:, 0] < x2) & (taken[:, 2] > x1) & (taken[:, 1] < y2) & (taken[:, 3] > y1)):
            return corner
    return None


def _blend(image: np.ndarray, pixels: np.ndarray, box: np.ndarray, corner: np.ndarray) -> None:
    """Lay pixels over the image at a corner (x, y): opaque in the box, fading over FEATHER_PX around it."""
    across, down = (_opacity(pixels.shape[1 - axis], box[axis], box[axis + 2]) for axis in (0, 1))
    start, end = corner.clip(0), np.minimum(corner + pixels.shape[1::-1], image.shape[1::-1])
    under = image[start[1] : end[1], start[0] : end[0]]
    (x1, y1), (x2, y2) = start - corner, end - corner
    weight = np.outer(down[y1:y2], across[x1:x2])[..., None]
    under[:] = np.rint(weight * pixels[y1:y2, x1:x2] + (1 - weight) * under)


def _opacity(n: int, low: float, high: float) -> np.ndarray:
    """1 at the centres of the pixels from low to high, falling to 0 at FEATHER_PX from there; float (n,)."""
    return np.interp(np.arange(n) + 0.5, [low - FEATHER_PX, low, high, high + FEATHER_PX], [0, 1, 1, 0])
