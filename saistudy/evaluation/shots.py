"""Pictures and videos of one's own as a model is shown them: sound files, one a picture or frame."""

import errno
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from ultralytics.data.utils import IMG_FORMATS, VID_FORMATS
from ultralytics.utils.patches import imread

from saistudy.data import photographs

PICTURES, VIDEOS = frozenset(IMG_FORMATS), frozenset(VID_FORMATS)  # suffixes that Ultralytics reads
WHOLE = 0.9  # share of the frames that its header tells, from which a video counts as read to its end


class Unfit(OSError):
    """No file of the wanted format can hold a picture."""


@dataclass(frozen=True)
class Shot:
    """A picture, or a frame of a video: where it came from, and the file that holds it as one picture."""

    path: str
    frame: int | None
    file: Path


def read(paths: list[Path], scratch: Path, broken: dict[str, str], partial: dict[str, str]) -> Iterator[Shot]:
    """Every sound picture and every frame, in order; what cannot be read goes to `broken` with its reason.

    A video that breaks off goes to `partial`, too. A frame is written to `scratch` as BMP, without
    loss, and there go copies of a JPEG that lacks its end marker, with it, and of a picture whose name is not
    UTF-8; whoever is done with a file in `scratch` removes it.
    """
    for number, path in enumerate(paths):
        if path.suffix[1:].lower() in VIDEOS:
            yield from _frames(path, number, scratch, broken, partial)
            continue
        try:
            yield Shot(str(path), None, _sound(path, scratch / f"{number:08d}{path.suffix}"))
        except (photographs.Damaged, OSError) as error:
            broken[str(path)] = getattr(error, "strerror", None) or str(error)


def _sound(path: Path, copy: Path) -> Path:
    """The file that stock decodes to the whole picture: the given one, or a copy (end marker, safe name).

    The copy keeps the suffix, by which stock chooses how to decode.

    Raises:
        Damaged: the bytes hold no sound picture, or stock cannot decode them.
    """
    data = path.read_bytes()
    unended = "no-end-marker" in photographs.describe(data, path.name).oddities
    file = copy if unended or not utf8(path) else path
    if file == copy:
        copy.write_bytes(data + photographs.END * unended)
    try:
        pixels(file)
    except photographs.Damaged:
        copy.unlink(missing_ok=True)
        raise
    return file


def utf8(path: Path) -> bool:
    """Whether OpenCV can be given the name: it ends the process on one that is not UTF-8."""
    try:
        return bool(str(path).encode())
    except UnicodeEncodeError:
        return False


def pixels(file: Path) -> np.ndarray:
    """A picture as stock decodes it to predict on: uint8 (height, width, 3) in BGR.

    Raises:
        Damaged: stock cannot decode it, or to something else.
    """
    try:
        found = imread(file)
    except cv2.error:  # OpenCV's own limits
        found = None
    if found is None or found.dtype != np.uint8 or found.shape[2] != 3:
        raise photographs.Damaged("undecodable", "OpenCV cannot read this kind: save it as 8-bit JPEG or PNG")
    return np.ascontiguousarray(found)


def save(file: Path, picture: np.ndarray, how: tuple[int, ...] = ()) -> None:
    """Write a picture in the format of the suffix.

    Raises:
        Unfit: the format holds no picture of this size.
        OSError: it cannot be written.
    """
    try:
        done, data = cv2.imencode(file.suffix, picture, how)
    except cv2.error:
        done = False
    if not done:
        height, width = picture.shape[:2]
        raise Unfit(errno.EFBIG, f"{width}x{height} px are too many for {file.suffix}")
    file.write_bytes(data)


def film(path: Path) -> cv2.VideoCapture:
    """An opened video; one whose name is not UTF-8 is opened by a link, which lasts no longer than that."""
    if utf8(path):
        return cv2.VideoCapture(str(path))
    with TemporaryDirectory() as folder:
        link = Path(folder) / f"film{path.suffix}"
        link.symlink_to(path.absolute())
        return cv2.VideoCapture(str(link))


def _frames(
    path: Path, number: int, scratch: Path, broken: dict[str, str], partial: dict[str, str]
) -> Iterator[Shot]:
    """The frames of the video with this number, numbered from 0."""
    seen, frame = film(path), 0
    try:
        told = seen.get(cv2.CAP_PROP_FRAME_COUNT)
        while (read := seen.read())[0]:
            file = scratch / f"{number:08d}-{frame:08d}.bmp"
            save(file, read[1])
            yield Shot(str(path), frame, file)
            frame += 1
    finally:
        seen.release()
    if not frame:
        broken[str(path)] = "no frame of this video can be decoded"
    elif frame < WHOLE * told:
        partial[str(path)] = f"{frame} of {told:.0f} frames that its header tells"
