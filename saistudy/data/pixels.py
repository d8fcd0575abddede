"""An image as a training sees it before augmentation: decoded, and resized to fit the tensor."""

import math
import os

import cv2
import numpy as np
from PIL import Image

from saistudy.data.photographs import ORIENTATION
from saistudy.paths import Refusal

ROTATED = (5, 6, 7, 8)  # EXIF orientations that exchange width and height; OpenCV heeds them


def fitted(height: int, width: int, hw: tuple[int, int]) -> list[tuple[int, int]]:
    """Sizes (height, width) in pixels that an image is resized to, in turn, for a tensor `hw`.

    Ultralytics scales the long side to the tensor's longest, rounding up (data/base.py, 8.4.190);
    `training.dataset.RectDataset` then shrinks what is still higher or wider than the rectangle.
    """
    side, steps = max(hw), []
    ratio = side / max(height, width)
    if ratio != 1:
        height, width = (min(math.ceil(n * ratio), side) for n in (height, width))
        steps.append((height, width))
    shrink = min(hw[0] / height, hw[1] / width)
    if shrink < 1:
        pairs = zip((height, width), hw, strict=True)
        steps.append(tuple(max(1, min(round(n * shrink), most)) for n, most in pairs))
    return steps


def original(file: str) -> tuple[int, int]:
    """Height and width in pixels of an image as OpenCV decodes it, from its header alone.

    Raises:
        Refusal: it cannot be read as an image.
    """
    try:
        with Image.open(file) as image:
            width, height = image.size
            turned = image.format in ("JPEG", "MPO") and image.getexif().get(ORIENTATION) in ROTATED
    except (OSError, ValueError, SyntaxError, ImportError) as error:  # Ultralytics looks for a HEIF reader
        why = " ".join(str(error).split())
        raise Refusal(f"{file} cannot be read as an image ({why}): take it out of the data set.") from None
    return (width, height) if turned else (height, width)


def load(file: str, hw: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int]]:
    """Pixels (height, width, 3), BGR uint8, resized for a tensor `hw`, and the original (height, width).

    Decoded from its bytes and resized bilinearly, as Ultralytics does both (utils/patches.py, 8.4.190).

    Raises:
        Refusal: OpenCV cannot decode it.
    """
    image = cv2.imdecode(np.fromfile(file, np.uint8), cv2.IMREAD_COLOR) if os.path.getsize(file) else None
    if image is None:
        raise Refusal(f"{file} cannot be decoded: take it out of the data set.")
    size = image.shape[:2]
    for height, width in fitted(*size, hw):
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return image, size
