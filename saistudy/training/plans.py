"""What a worker decides about an image without touching a pixel: the plan, packed in about 1.3 KB.

Random draws, mosaic layout, matrices and all labels come from unmodified Ultralytics code, which sees a
`Stub` in place of each image; only what would move pixels is replaced by writing down what it would do.
"""

import random

import numpy as np
import torch
from ultralytics.data.augment import Format, MixUp, Mosaic, RandomFlip, RandomHSV, RandomPerspective

from saistudy.training.lean import Boxes, inverse, tables

LAYERS_N, PATCHES_N = 2, 4  # mixup blends two mosaics of four
PATCH_N = 6  # base, width, x1, y1, x2, y2
FLAGS = ("layers_n", "flip_up_down", "flip_left_right", "reverse", "hsv")
INTS_N = LAYERS_N * PATCHES_N * PATCH_N + len(FLAGS)
FLOATS_N = LAYERS_N * 6 + 2  # inverse matrices, weights of the two layers
LUT_N = 3 * 256
BYTES_N = 8 * (INTS_N + FLOATS_N) + LUT_N


class Stub:
    """Stands for an image of `shape` (height, width, 3): the patches of a canvas, or what was done to it.

    A patch is (base, width, x1, y1, x2, y2): canvas pixel (x, y) of [x1, x2) x [y1, y2) is the store's bytes
    from base + 3 (y width + x). `layers` are canvases seen through an inverse matrix, (patches, six floats).
    """

    ndim = 3

    def __init__(self, shape: tuple, patches: list = (), layers: list = ()):
        self.shape, self.patches, self.layers = shape, list(patches), list(layers)
        self.weights, self.lut, self.flips = (1.0, 0.0), None, [False, False]

    @classmethod
    def of(cls, row: np.void) -> "Stub":
        """An image of a store by its index row."""
        height, width = int(row["h"]), int(row["w"])
        return cls((height, width, 3), [(int(row["at"]), width, 0, 0, width, height)])


class PlanMosaic(Mosaic):
    """Stock's layout as patches of a canvas."""

    def apply_image(self, labels, params=None):
        """The canvas of twice the size; a patch's base is moved to where the canvas begins."""
        patches = []
        for item in params["layout"]:
            base, width, *_ = item["labels_patch"]["img"].patches[0]
            shift = 3 * (item["padh"] * width + item["padw"])
            corners = item["x1a"], item["y1a"], item["x2a"], item["y2a"]
            patches.append((base - shift, width, *corners))
        side = 2 * self.imgsz
        labels["img"] = Stub((side, side, 3), patches)
        return labels


class PlanPerspective(RandomPerspective):
    """Stock's matrix, inverted."""

    def apply_image(self, labels, params=None):
        """An image of the asked size: one layer, the canvas seen through the inverse matrix."""
        width, height = params["size"]
        layer = labels["img"].patches, inverse(params["M"])
        labels["img"] = Stub((height, width, 3), layers=[layer])
        labels["resized_shape"] = (height, width)
        return labels


class PlanMixUp(MixUp):
    """Stock's ratio."""

    def apply_image(self, labels, params=None):
        """Both layers and their weights."""
        image, other = labels["img"], labels["mix_labels"][0]["img"]
        image.layers = image.layers + other.layers
        image.weights = params["r"], 1 - params["r"]
        return labels


class PlanHSV(RandomHSV):
    """Stock's look-up tables."""

    def apply_image(self, labels, params=None):
        """Kept with the image."""
        labels["img"].lut = tables(self)
        return labels


class PlanFlip(RandomFlip):
    """Stock's decision."""

    def apply_image(self, labels, params):
        """Kept with the image."""
        if params["flip"]:
            labels["img"].flips[params["direction"] == "horizontal"] ^= True
        return labels


class PlanFormat(Boxes):
    """Packs the plan where stock makes a tensor of the pixels."""

    def _format_img(self, img):
        """The plan, (BYTES_N,) uint8; stock's collate stacks plans as it would images."""
        reverse = random.uniform(0, 1) > self.bgr
        return torch.from_numpy(packed(img, reverse))


def packed(image: Stub, reverse: bool) -> np.ndarray:
    """A plan as (BYTES_N,) uint8: INTS_N int64, FLOATS_N float64, the tables of hue, saturation, value."""
    plan = np.zeros(BYTES_N, np.uint8)
    ints = plan[: 8 * INTS_N].view(np.int64)
    floats = plan[8 * INTS_N : -LUT_N].view(np.float64)
    patches = ints[: -len(FLAGS)].reshape(LAYERS_N, PATCHES_N, PATCH_N)
    for k, (found, matrix) in enumerate(image.layers):
        patches[k, : len(found)] = found
        floats[6 * k : 6 * k + 6] = matrix
    floats[-2:] = image.weights
    ints[-len(FLAGS) :] = len(image.layers), *image.flips, reverse, image.lut is not None
    if image.lut is not None:
        plan[-LUT_N:] = image.lut.T.ravel()
    return plan


def unpacked(plans: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Plans (N, BYTES_N) as int64 (N, INTS_N), float64 (N, FLOATS_N) and tables (N, 3, 256) uint8."""
    ints = plans[:, : 8 * INTS_N].contiguous().view(torch.int64)
    floats = plans[:, 8 * INTS_N : -LUT_N].contiguous().view(torch.float64)
    return ints, floats, plans[:, -LUT_N:].contiguous().view(-1, 3, 256)


PLAN = {
    Mosaic: PlanMosaic,
    RandomPerspective: PlanPerspective,
    MixUp: PlanMixUp,
    RandomHSV: PlanHSV,
    RandomFlip: PlanFlip,
    Format: PlanFormat,
}
