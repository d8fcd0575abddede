"""Objects cut out of annotated images, and backgrounds: the two folders that `paste` draws on.

Read only: Ultralytics' own scan would leave label caches there and rewrite JPEGs without an end marker.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ultralytics.data.utils import img2label_paths
from ultralytics.utils.patches import imread

from saistudy.data import boxes, yolo
from saistudy.paths import Refusal

ANY = range(1_000_000)  # classes where `single_cls` makes every one 0


class Cutout(NamedTuple):
    """An object: pixels with its surroundings, uint8 (H, W, channels); its box in them, x1, y1, x2, y2 px;
    its class; the long side in px of the image that it was cut from."""

    pixels: np.ndarray
    box: np.ndarray
    label: int
    long_px: int


def backgrounds(folder: Path, flag: int) -> list[Path]:
    """Images of the folder and those below it, each read once with OpenCV's flag.

    Raises:
        Refusal: there is none, one cannot be read, or one has boxes: its objects would pass for background.
    """
    files = _images(folder, "backgrounds_dir")
    for file in files:
        if (label := _label_file(file)) and label.read_text(encoding="utf-8").strip():
            raise Refusal(f"backgrounds_dir: {label} names objects, none were expected: take that image out.")
    with ThreadPoolExecutor() as pool:
        for file, broken in zip(files, pool.map(lambda one: imread(one, flag) is None, files), strict=True):
            if broken:
                raise Refusal(f"backgrounds_dir: {file} cannot be read as an image: mend it or take it out.")
    return files


def cutouts(folder: Path, names: dict[int, str], flag: int, margin_share: float) -> list[Cutout]:
    """The objects of an annotated folder and those below it.

    Args:
        names: classes that may occur; empty allows any.
        flag: how OpenCV reads an image.
        margin_share: how much around a box is cut out with it, as a fraction of the image's long side.

    Raises:
        Refusal: no image, no label, no box, or a label that is none.
    """
    found, labels_n = [], 0
    files = _images(folder, "annotated_dir")
    for file in files:
        if label := _label_file(file):
            labels_n += 1
            found += _cut(file, label, names, flag, margin_share)
    if not found:
        raise Refusal(
            f"annotated_dir {folder} holds {len(files)} images, {labels_n} of them with a label file and none"
            " with a box: put labels/ beside images/, or each .txt beside its image."
        )
    return found


def _cut(file: Path, label: Path, names: dict[int, str], flag: int, margin_share: float) -> list[Cutout]:
    image = imread(file, flags=flag)
    if image is None:
        raise Refusal(f"annotated_dir: {file} cannot be read as an image: mend it or take it out.")
    height, width = image.shape[:2]
    array, findings = boxes.parse(label.read_text(encoding="utf-8"), names or ANY, (width, height))
    if wrong := [one for one in findings if one.reason not in boxes.KEPT]:
        raise Refusal(
            f"annotated_dir: {label}, line {wrong[0].line} ({wrong[0].reason}) reads '{wrong[0].text}', class"
            f" xc yc w h as fractions was expected, a class of {dict(names) or 'any number'}: mend it."
        )
    margin = int(np.ceil(margin_share * max(height, width)))
    corners = boxes.to_xyxy_px(array, width, height)
    return [_crop(image, box, int(row[0]), margin) for row, box in zip(array, corners, strict=True)]


def _crop(image: np.ndarray, box: np.ndarray, label: int, margin: int) -> Cutout:
    """The object with a margin in px around it; beyond the image its edge is repeated."""
    height, width = image.shape[:2]
    low, high = np.floor(box[:2]).astype(int) - margin, np.ceil(box[2:]).astype(int) + margin
    rows = np.arange(low[1], high[1]).clip(0, height - 1)
    columns = np.arange(low[0], high[0]).clip(0, width - 1)
    return Cutout(image[np.ix_(rows, columns)], box - [*low, *low], label, max(height, width))


def _images(folder: Path, role: str) -> list[Path]:
    """Image files of a folder and those below, sorted."""
    files = (file for file in Path(folder).rglob("*") if file.suffix.lower().lstrip(".") in yolo.SUFFIXES)
    if not (found := sorted(file.absolute() for file in files)):
        what = "holds no image" if Path(folder).is_dir() else "is no folder"
        raise Refusal(f"{role} {folder} {what}, images were expected: name a folder with images.")
    return found


def _label_file(image: Path) -> Path | None:
    """Where stock looks for an image's labels, or else the .txt beside it; None where there is neither."""
    places = Path(img2label_paths([str(image)])[0]), image.with_suffix(".txt")
    return next((place for place in places if place.is_file()), None)
