"""One's own pictures and videos with the boxes of a model drawn in, and a csv of them: `predict`."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from saistudy.data import index
from saistudy.evaluation import pictures, shots
from saistudy.paths import Refusal
from saistudy.study import model_card

CSV, FOLDER = "detections.csv", "drawn"
COLUMNS = {"path": "path", "frame": "frame", "class": "class", "score": "conf"}
COLOURS = [(167, 121, 204), (178, 114, 0), (115, 158, 0), (0, 94, 213)]  # Okabe and Ito's, blue green red
FRAMES_PER_S, RATE_MAX = 25.0, 1000  # of a video that does not say, or says more than a camera takes


@dataclass
class Result:
    """What was done: pictures and frames, the csv's rows, files not read, in part, or not drawn."""

    threshold: float
    said_by: str
    shots_n: int = 0
    rows: list[pd.DataFrame] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)
    partial: dict[str, str] = field(default_factory=dict)
    undrawn: dict[str, str] = field(default_factory=dict)

    @property
    def detections_n(self) -> int:
        return sum(map(len, self.rows))


def write(model: Path, paths: list[Path], output: Path, conf: float | None = None) -> Result:
    """Predict, draw and write `output` whole or not at all: CSV, and below FOLDER a file a picture or video.

    Args:
        model: a detector's `.pt` file.
        paths: pictures, videos, and folders that are searched for them.
        output: a folder that does not exist yet.
        conf: score from which a detection counts; without it the model's own (`model_card.threshold`).

    Raises:
        Refusal: nothing can be read, the output exists, the model is none, or has no threshold.
    """
    if conf is not None and not 0 <= conf <= 1:
        raise Refusal(f"--conf {conf} was given, a score from 0 to 1 was expected.")
    if not shots.utf8(output.absolute()):
        raise Refusal(f"{output} is not UTF-8, which OpenCV needs to write: name another --output.")
    if output.exists():
        raise Refusal(f"{output} exists already, and nothing is overwritten: name another --output.")
    names = named(paths)
    classes, _ = pictures.detector(model)
    result = Result(*((conf, "--conf") if conf is not None else model_card.threshold(model)))
    part = output.with_name(f".{output.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        (part / FOLDER).mkdir(parents=True)
        _fill(model, names, [*classes.values()], part, result)
        _csv(result).to_csv(part / CSV, index=False, float_format="%.9g", errors="backslashreplace")
        part.rename(output)
    except OSError as error:
        raise Refusal(f"{output} cannot be written ({error.strerror}): name another --output.") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return result


def named(paths: list[Path]) -> dict[Path, str]:
    """Every picture and video by name and folder order, and the name of what is drawn, without its suffix.

    Raises:
        Refusal: a path does not exist or is of another kind, or there is no picture at all.
    """
    found, taken = {}, set()
    for path in paths:
        if not path.exists():
            raise Refusal(f"{path} does not exist: name pictures, videos or folders of them.")
        if path.is_file() and not _known(path):
            raise Refusal(f"{path} is neither a picture nor a video that can be read, by its suffix.")
        files = sorted(filter(_known, path.rglob("*"))) if path.is_dir() else [path]
        for file in files:
            below = file.relative_to(path) if path.is_dir() else Path(file.name)
            if file not in found:
                plain = os.fsencode(below.with_suffix("")).decode(errors="replace")  # OpenCV takes UTF-8 only
                found[file] = index.free(plain + ".x", taken)[:-2]
    if not found:
        raise Refusal(f"no picture or video was found in {', '.join(map(str, paths))}: name others.")
    return found


def _known(path: Path) -> bool:
    suffix = path.suffix[1:].lower()
    return path.is_file() and suffix in shots.PICTURES | shots.VIDEOS and not path.name.startswith(".")


def _fill(model: Path, names: dict[Path, str], classes: list[str], part: Path, result: Result) -> None:
    """Draw everything into the folder and fill `result`."""
    looks = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(classes)}
    with tempfile.TemporaryDirectory() as folder, _Drawn(part / FOLDER, names, result.undrawn) as drawn:
        scratch = Path(folder)

        def take(seen: list[shots.Shot], found: pd.DataFrame) -> None:
            result.rows.append(found)
            for shot, boxes in _by_shot(seen, found):
                drawn.add(shot, pictured(shots.pixels(shot.file), boxes, looks))
                if shot.file.parent == scratch:
                    shot.file.unlink()
            result.shots_n += len(seen)

        taken = shots.read([*names], scratch, result.broken, result.partial)
        taken = index.progress(taken, sum(_length(path) for path in names), "pictures or frames")
        pictures.find(model, taken, result.threshold, scratch, take)
    if not result.shots_n:
        first, why = next(iter(result.broken.items()))
        raise Refusal(f"none of {len(names)} files can be read, the first is {first} ({why}): name others.")


def _by_shot(seen: list, found: pd.DataFrame) -> Iterator[tuple]:
    """Each shot with its detections."""
    frames = found["frame"].astype(object).where(found["frame"].notna(), None)
    for shot in seen:
        yield (
            shot,
            found[(found["path"] == shot.path) & (frames == shot.frame if shot.frame is not None else True)],
        )


def _csv(result: Result) -> pd.DataFrame:
    """The csv: path, frame (from 0, empty for a picture), class, conf, x1, y1, x2, y2 in pixels."""
    return pd.concat(result.rows, ignore_index=True).rename(columns=COLUMNS)


def pictured(picture: np.ndarray, found: pd.DataFrame, looks: dict[str, tuple]) -> np.ndarray:
    """The picture, uint8 (height, width, 3) in BGR, with a box and `class score` for each detection."""
    thick = max(1, round(max(picture.shape) / 500))
    font, size = cv2.FONT_HERSHEY_SIMPLEX, max(0.35, thick * 0.3)
    for row in found[::-1].to_dict("records"):  # the highest score on top
        x1, y1, x2, y2 = (round(row[key]) for key in ("x1", "y1", "x2", "y2"))
        colour, words = looks[row["class"]], f"{row['class']} {row['score']:.2f}"
        cv2.rectangle(picture, (x1, y1), (x2, y2), colour, thick, cv2.LINE_AA)
        (width, height), _ = cv2.getTextSize(words, font, size, thick)
        left, base = max(0, min(x1, picture.shape[1] - width)), max(height + 4, y1 - 2)
        cv2.rectangle(picture, (left, base - height - 3), (left + width, base + 3), colour, -1)
        cv2.putText(picture, words, (left, base), font, size, (255, 255, 255), thick, cv2.LINE_AA)
    return picture


class _Drawn:
    """Where drawn pictures go: a JPEG each, an MP4 for a video; to `undrawn` what neither holds."""

    def __init__(self, folder: Path, names: dict[Path, str], undrawn: dict[str, str]):
        self.folder, self.names, self.undrawn = folder, names, undrawn
        self.film, self.path, self.target, self.frames_n = None, None, None, 0

    def __enter__(self):
        return self

    def __exit__(self, kind, *_) -> None:
        if kind and self.film:
            self.film.release()
        elif self.film:
            self._close()

    def add(self, shot: shots.Shot, picture: np.ndarray) -> None:
        """Write a picture, or append a frame.

        Raises:
            OSError: it cannot be written.
        """
        suffix = "jpg" if shot.frame is None else "mp4"
        target = self.folder / f"{self.names[Path(shot.path)]}.{suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            if shot.frame is None:
                shots.save(target, picture, (cv2.IMWRITE_JPEG_QUALITY, 92))
            elif shot.path not in self.undrawn:
                self._append(shot.path, target, picture)
        except shots.Unfit as error:
            self.undrawn[shot.path] = error.strerror

    def _append(self, path: str, target: Path, picture: np.ndarray) -> None:
        if self.path != path:
            if self.film:
                self._close()
            self.film, self.path, self.target, self.frames_n = None, path, target, 0
            self.film = self._opened(picture)
        self.film.write(picture)
        self.frames_n += 1

    def _opened(self, picture: np.ndarray) -> cv2.VideoWriter:
        rate, (height, width) = _rate(Path(self.path)), picture.shape[:2]
        film = cv2.VideoWriter(str(self.target), cv2.VideoWriter.fourcc(*"mp4v"), rate, (width, height))
        if not film.isOpened():
            told = f"no MP4 of {width}x{height} px at {rate:g} frames/s can be made"
            raise shots.Unfit(errno.EFBIG, told)
        return film

    def _close(self) -> None:
        """The writer tells nobody when the disk is full: the closed film is asked for its frames."""
        self.film.release()
        kept_n = shots.film(self.target).get(cv2.CAP_PROP_FRAME_COUNT)
        if kept_n != self.frames_n:
            told = f"{kept_n:.0f} of {self.frames_n} frames of {self.path} were kept: is the disk full?"
            raise OSError(errno.EIO, told)


def _rate(path: Path) -> float:
    """Frames a second of a video, rounded to what MPEG-4 can tell: a fraction of 16-bit integers."""
    rate = shots.film(path).get(cv2.CAP_PROP_FPS)
    if not 0 < rate <= RATE_MAX:  # some headers tell a clock's ticks
        return FRAMES_PER_S
    return round(rate, 3 if rate <= 65 else 2 if rate <= 655 else 0)


def _length(path: Path) -> int:
    """Frames of a video by its header, 1 for a picture."""
    if path.suffix[1:].lower() in shots.PICTURES:
        return 1
    return max(1, int(shots.film(path).get(cv2.CAP_PROP_FRAME_COUNT)))


def sentences(result: Result, output: Path) -> str:
    """What was done, in words; a line for each file that could not be read, not to its end, or not drawn."""
    lines = [f"skipped {path}: {why}" for path, why in result.broken.items()]
    lines += [f"read only in part {path}: {why}" for path, why in result.partial.items()]
    lines += [f"not drawn {path}: {why}; its boxes stand in {CSV}" for path, why in result.undrawn.items()]
    lines.append(
        f"{output}: {result.detections_n} boxes of at least {result.threshold:.4g} ({result.said_by})"
        f" in {result.shots_n} pictures or frames; {CSV} and {FOLDER}/"
    )
    return "\n".join(lines).encode(errors="backslashreplace").decode()
