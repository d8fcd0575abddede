"""How far the augmentations of the pinned Ultralytics really reach, from many draws on a few pixels."""

import random

import cv2
import numpy as np
from ultralytics.data.augment import CopyPaste, RandomHSV, RandomPerspective
from ultralytics.utils.instance import Instances

DRAWS_N = 2_000  # the largest of so many uniform draws is within .5 % of its bound, but once in 20,000 times
SIDE_PX = 64
HUE_STEPS = 180  # OpenCV's 8-bit hue counts half degrees


def hsv_reach(hgain: float, sgain: float, vgain: float) -> tuple[float, float, float]:
    """The largest change of hue (fraction of the circle), saturation and value (fractions of themselves).

    Hue is read from a pixel of full saturation in steps of 1/180, so that it is right to .006; saturation
    and value from a pixel at half of their scale, right to .01.
    """
    np.random.seed(0)
    augment, reach = RandomHSV(hgain, sgain, vgain), np.zeros(3)
    for _ in range(DRAWS_N):
        half, full = _hsv(augment, (90, 120, 120)), _hsv(augment, (90, 255, 255))
        turned = abs(full[0] - 90) / HUE_STEPS
        reach = np.maximum(reach, [turned, abs(half[1] - 120) / 120, abs(half[2] - 120) / 120])
    return tuple(float(round(one, 3)) for one in reach)


def _hsv(augment: RandomHSV, colour: tuple[int, int, int]) -> np.ndarray:
    """Hue, saturation and value of one pixel after an augmentation, float64 (3,)."""
    pixel = cv2.cvtColor(np.array([[colour]], np.uint8), cv2.COLOR_HSV2BGR)
    changed = augment({"img": pixel})["img"]
    return cv2.cvtColor(changed, cv2.COLOR_BGR2HSV)[0, 0].astype(np.float64)


def scale_reach(scale: float) -> tuple[float, float]:
    """The smallest and largest factor by which RandomPerspective scales an image."""
    random.seed(0)
    augment = RandomPerspective(degrees=0.0, translate=0.0, scale=scale, shear=0.0, perspective=0.0)
    labels = {"img": np.zeros((SIDE_PX, SIDE_PX, 3), np.uint8)}
    drawn = [augment.get_params(labels)["scale"] for _ in range(DRAWS_N)]
    return round(min(drawn), 2), round(max(drawn), 2)


def instances_after_copy_paste(p: float, boxes_n: int) -> int:
    """Instances of an image with so many boxes, no polygons, after copy-paste with probability p."""
    boxes = np.random.default_rng(0).uniform(0.1, 0.2, (boxes_n, 4)).astype(np.float32)
    instances = Instances(boxes, segments=[], bbox_format="xywh", normalized=True)
    image = np.zeros((SIDE_PX, SIDE_PX, 3), np.uint8)
    labels = {"img": image, "cls": np.zeros((boxes_n, 1)), "instances": instances}
    return len(CopyPaste(p=p)(labels)["instances"])
