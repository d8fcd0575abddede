"""Ultralytics' augmentations with the same pixels and random draws, and less work on the CPU.

Each class replaces a stock transform in a finished pipeline and keeps its attributes. What is saved
(2026-11-28, one core, 896 x 896, `bench loader`): no float64 images while mixup blends, no three-channel
look-up, no strided copy when channels are reversed, and no pages given back to the kernel between images.
"""

import copy
import ctypes
import random

import cv2
import numpy as np
import torch
from ultralytics.data.augment import Compose, Format, MixUp, Mosaic, RandomHSV, RandomPerspective

BLOCK_BYTES = 2**18  # of the image that is blended at a time: its float64 copies stay in the cache
MALLOC = {-3: 2**30, -1: 2**31 - 1, -2: 2**26}  # glibc mallopt: M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, M_TOP_PAD


def keep_pages() -> bool:
    """Have glibc keep freed memory: an image-sized buffer else costs fresh zeroed pages each time.

    Workers that are forked inherit it. Stock spends 2.5 to 3.5 ms of 23 ms an image on such page faults
    (measured by counting them, 596,000 against 107,000 per 550 images). False where there is no glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return all(mallopt(key, value) for key, value in MALLOC.items())


def replaced(transform, kinds: dict[type, type], known: dict | None = None):
    """A copy of a tree of transforms in which those of exactly these types are ours, attributes kept.

    A part that stands in two places (stock's mosaic and affine, in the pipeline and before mixup) is one
    part in the copy as well.
    """
    known = {} if known is None else known
    if id(transform) not in known:
        kind = kinds.get(type(transform), type(transform))
        known[id(transform)] = made = kind.__new__(kind)
        vars(made).update(copy.copy(vars(transform)))
        if isinstance(transform, Compose):
            made.transforms = [replaced(part, kinds, known) for part in transform.transforms]
        elif getattr(transform, "pre_transform", None) is not None:
            made.pre_transform = replaced(transform.pre_transform, kinds, known)
    return known[id(transform)]


def tables(hsv: RandomHSV) -> np.ndarray | None:
    """The look-up tables (256, 3) uint8 of hue, saturation, value that stock would draw; None if it is off.

    The draw and the arithmetic are those of `RandomHSV.apply_image` (8.4.190), which applies them at once.
    """
    gains = [hsv.hgain, hsv.sgain, hsv.vgain]
    if not any(gains):
        return None
    hue, saturation, value = np.random.uniform(-1, 1, 3) * gains
    level = np.arange(256, dtype=np.float64)
    drawn = np.empty((256, 3), np.uint8)
    drawn[:, 0] = ((level + hue * 180) % 180).astype(np.uint8)
    drawn[:, 1] = np.clip(level * (saturation + 1), 0, 255).astype(np.uint8)
    drawn[:, 2] = np.clip(level * (value + 1), 0, 255).astype(np.uint8)
    drawn[0, 1] = 0  # white stays white
    return drawn


def inverse(matrix: np.ndarray) -> list[float]:
    """The inverse of an affine 2 x 3 matrix in float64, operation by operation as OpenCV's warpAffine."""
    a, b, c, d, e, f = matrix[:2].astype(np.float64).ravel().tolist()
    determinant = a * e - b * d
    scale = 1.0 / determinant if determinant != 0 else 0.0
    a, b, d, e = e * scale, b * -scale, d * -scale, a * scale
    return [a, b, -a * c - b * f, d, e, -d * c - e * f]


class LeanMosaic(Mosaic):
    """Lays out, and leaves the pasting to LeanPerspective, which knows what part of the canvas is read."""

    def apply_image(self, labels, params=None):
        """An empty canvas of stock's size, and what belongs on it: [(corners on the canvas, pixels)]."""
        patches = []
        for item in params["layout"]:
            corners = item["x1a"], item["y1a"], item["x2a"], item["y2a"]
            source = item["labels_patch"]["img"][item["y1b"] : item["y2b"], item["x1b"] : item["x2b"]]
            patches.append((corners, source))
        side = 2 * self.imgsz
        labels["img"] = np.empty((side, side, labels["img"].shape[2]), np.uint8)
        labels["pending"] = patches
        return labels


class LeanPerspective(RandomPerspective):
    """Pastes what it will read of a mosaic, then warps as stock does."""

    def apply_image(self, labels, params=None):
        """Stock's pixels: the rest of the canvas is never read."""
        if (patches := labels.pop("pending", None)) is not None:
            whole = (0, 0, *labels["img"].shape[1::-1])
            seen = whole if self.perspective else read(params["M"], params["size"], labels["img"].shape)
            paste(labels["img"], patches, seen)
        return super().apply_image(labels, params)


def read(matrix: np.ndarray, size: tuple[int, int], shape: tuple) -> tuple[int, int, int, int]:
    """Corners (x1, y1, x2, y2) of the canvas that a warp to `size` (width, height) reads, 2 px to spare."""
    a, b, c, d, e, f = inverse(matrix)
    corners = [(x, y) for x in (0, size[0] - 1) for y in (0, size[1] - 1)]
    across = [a * x + b * y + c for x, y in corners]
    down = [d * x + e * y + f for x, y in corners]
    spans = []
    for values, most in ((across, shape[1]), (down, shape[0])):
        low, high = int(np.floor(min(values))) - 2, int(np.ceil(max(values))) + 4
        spans.append((min(max(low, 0), most), min(max(high, 0), most)))
    return spans[0][0], spans[1][0], spans[0][1], spans[1][1]


def paste(canvas: np.ndarray, patches: list, window: tuple[int, int, int, int]) -> None:
    """Fill a window of the canvas with stock's grey and the patches, in their order."""
    left, top, right, bottom = window
    canvas[top:bottom, left:right] = 114
    for (x1, y1, x2, y2), source in patches:
        u1, v1, u2, v2 = max(x1, left), max(y1, top), min(x2, right), min(y2, bottom)
        if u1 < u2 and v1 < v2:
            canvas[v1:v2, u1:u2] = source[v1 - y1 : v2 - y1, u1 - x1 : u2 - x1]


class LeanMixUp(MixUp):
    """Blends a few rows at a time, in float64 as stock does."""

    def apply_image(self, labels, params=None):
        """Stock's pixels: a r + b (1 - r) in float64, cut to whole numbers."""
        one, other, r = labels["img"], labels["mix_labels"][0]["img"], params["r"]
        blended = np.empty_like(one)
        rows = max(1, BLOCK_BYTES // one[0].nbytes)
        for start in range(0, len(one), rows):
            block = one[start : start + rows] * r
            block += other[start : start + rows] * (1 - r)
            blended[start : start + rows] = block
        labels["img"] = blended
        return labels


class LeanHSV(RandomHSV):
    """Looks up plane by plane."""

    def apply_image(self, labels, params=None):
        """Stock's pixels, written where the image stands."""
        image = labels["img"]
        if image.shape[-1] != 3 or (drawn := tables(self)) is None:
            return labels
        planes = cv2.split(cv2.cvtColor(image, cv2.COLOR_BGR2HSV))
        planes = [cv2.LUT(planes[k], np.ascontiguousarray(drawn[:, k])) for k in range(3)]
        cv2.cvtColor(cv2.merge(planes), cv2.COLOR_HSV2BGR, dst=image)
        return labels


class Boxes(Format):
    """Labels of boxes divided in NumPy: torch's indexing takes .3 ms an image, a third of a plan."""

    def apply_instances(self, labels, params=None):
        """Stock's tensors where there are boxes and nothing else: float32 by whole numbers either way."""
        others = self.return_mask or self.return_keypoint or self.return_obb
        if others or not params["nl"] or not self.normalize or not self.batch_idx:
            return super().apply_instances(labels, params)
        boxes = params["instances"].bboxes
        boxes[:, 0::2] /= params["w"]
        boxes[:, 1::2] /= params["h"]
        labels["cls"], labels["bboxes"] = torch.from_numpy(params["cls"]), torch.from_numpy(boxes)
        labels["batch_idx"] = torch.zeros(params["nl"])
        return labels


class LeanFormat(Boxes):
    """Takes planes apart instead of copying through strides."""

    def _format_img(self, img):
        """Stock's tensor (3, height, width) uint8: flips that stood as views are made, channels reversed."""
        reverse = random.uniform(0, 1) > self.bgr and img.shape[2] == 3
        if img.shape[2] != 3:
            return torch.from_numpy(np.ascontiguousarray(img.transpose(2, 0, 1)))
        for axis in (0, 1):
            if img.strides[axis] < 0:
                img = cv2.flip(np.flip(img, axis), axis)
        planes = np.empty((3, *img.shape[:2]), np.uint8)
        cv2.split(img, list(planes[::-1] if reverse else planes))
        return torch.from_numpy(planes)


class Label(dict):
    """The label of an image; what copies it deep gets a plain dictionary of stock's values.

    Stock copies four an image for mosaic through copy.deepcopy, .036 ms each (2026-11-28).
    """

    def __deepcopy__(self, memo):
        return {key: _copied(value, memo) for key, value in self.items()}


def _copied(value, memo: dict):
    """A deep copy: of arrays by their own copy, of what cannot change itself."""
    if isinstance(value, np.ndarray):
        return value.copy()
    return value if isinstance(value, str | bool | None) else copy.deepcopy(value, memo)


LEAN = {
    Mosaic: LeanMosaic,
    RandomPerspective: LeanPerspective,
    MixUp: LeanMixUp,
    RandomHSV: LeanHSV,
    Format: LeanFormat,
}
