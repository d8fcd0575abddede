"""What the twins' pictures show: single photographs, and the events of fixed cameras."""

import io
from datetime import datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from saistudy.data.painted import lookalikes, placing, plumes, scenes
from saistudy.data.painted.scenes import MOODS

POSITIVE_FRAC = 28_103 / 33_636  # pyro-sdis: images with smoke, from the data set card
EXTRA_PLUMES = 32_109 / 28_103 - 1  # its boxes of an image with smoke beyond the first
PLACES = ("col", "tower", "mast", "crest", "saddle", "bluff", "mesa", "knoll")
GROWN = 2.0  # area of a plume at growth 1 for a median of 1 over an event (measured)
MISTY_FRAC = 0.25  # events in which fog or dust drifts by, unlabelled (assumed)
PROVENANCE = b"provenance: synthetic"


class Shot(NamedTuple):
    """A photograph to be made; all takes of one scene share its landscape and its plumes' places.

    `mood` is one of `MOODS`, `size` is width and height in px, `area_frac` the median box area as a
    share of the picture.
    """

    scene_n: int
    take_n: int
    size: tuple[int, int]
    fires_n: int
    plumes_n: int
    mood: str
    area_frac: float


class Frame(NamedTuple):
    """One picture of a fixed camera: `growth` 0 shows no smoke yet, 1 the whole plume."""

    partner: str
    camera: str
    camera_n: int
    event_n: int
    date: datetime
    growth: float
    plumes_n: int


def photograph(seed: int, shot: Shot):
    """JPEG bytes and boxes (kind, x1, y1, x2, y2; whole px) of one photograph.

    Every take has exactly the fires and plumes asked for while they fit without hiding each other,
    and at least one of each kind. Takes of one (seed, scene_n) differ in light, grain and drift.
    """
    land = _scene(seed, shot.scene_n, shot.size, shot.mood, shot.area_frac)
    kinds = ["fire"] * shot.fires_n + ["smoke"] * shot.plumes_n
    things = placing.place(land, (seed, 6, shot.scene_n), kinds, shot.area_frac)
    rng = np.random.default_rng([seed, 7, shot.scene_n, shot.take_n])
    picture = _lit(land.picture, 1 + 0.04 * (rng.random() - 0.5))
    wind = np.random.default_rng([seed, 8, shot.scene_n]).uniform(-1, 1)
    boxes = placing.paint(picture, land, things, wind, 0.97 + 0.06 * rng.random(), float(shot.take_n))
    return develop(picture, rng), boxes


@lru_cache(maxsize=4)
def _scene(seed: int, scene_n: int, size: tuple[int, int], mood: str, area_frac: float) -> scenes.Landscape:
    return _furnished(np.random.default_rng([seed, 5, scene_n]), size, mood, area_frac)


def _furnished(rng, size: tuple[int, int], mood: str, area_frac: float) -> scenes.Landscape:
    """A landscape with its look-alikes, read-only: threads share it."""
    land = scenes.landscape(rng, size, mood)
    lookalikes.furnish(rng, land, mood, area_frac)
    for array in (land.picture, land.ground_px, land.haze):
        array.flags.writeable = False
    return land


def _lit(picture: np.ndarray, light: float) -> np.ndarray:
    """The picture under another light: 1 leaves it as it is."""
    curve = np.clip(np.arange(256) * light + 0.5, plumes.DARKEST, plumes.BRIGHTEST).astype(np.uint8)
    return curve[picture]


def watch(rng, images_n: int, cameras_n: int) -> list[Frame]:
    """Frames of fixed cameras: events of 5 to 40 frames, mostly 30 s apart, the first ones empty.

    Positives and boxes come in the published proportions. Frames of an event are at most 600 s
    apart, events of a camera at least five hours. A camera with few images has shorter events.
    """
    frames: list[Frame] = []
    per_camera = np.diff(np.linspace(0, images_n, cameras_n + 1).round().astype(int))
    seen_n = empty_n = smoky_n = extra_n = event_n = 0
    for camera_n, left in enumerate(per_camera.tolist()):
        name = f"{PLACES[camera_n % len(PLACES)]}-{(47 * camera_n + 13) % 360:03d}"
        longest = min(40, max(5, left // 2))
        day = datetime(2024, 1, 8) + timedelta(days=int(rng.integers(300)))
        while left > 0:
            length = left if left < 10 else int(rng.integers(5, min(longest, left - 5) + 1))
            seen_n, left = seen_n + length, left - length
            onset = max(0, round(seen_n * (1 - POSITIVE_FRAC)) - empty_n)
            empty_n, smoky_n = empty_n + onset, smoky_n + length - onset
            second = extra_n < smoky_n * EXTRA_PLUMES - (length - onset) / 2
            extra_n += second * (length - onset)
            day += timedelta(days=1)
            date = day + timedelta(hours=8, seconds=int(rng.integers(0, 36_000)))
            for i in range(length):
                growth = 0.4 + 0.6 * (i - onset) / max(1, length - onset - 1) if i >= onset else 0.0
                partner = f"twin-{camera_n % 3:02d}"
                frames.append(Frame(partner, name, camera_n, event_n, date, growth, 1 + bool(second)))
                date += timedelta(seconds=_gap_s(rng))
            event_n += 1
    return frames


def _gap_s(rng) -> int:
    """Seconds to the next frame: 30, seldom 1-3, rarely a pause of up to 600."""
    chance = rng.random()
    return 30 if chance < 0.92 else int(rng.integers(1, 4) if chance < 0.975 else rng.integers(31, 601))


@lru_cache(maxsize=2)
def _view(seed: int, camera_n: int, size: tuple[int, int], area_frac: float) -> scenes.Landscape:
    rng = np.random.default_rng([seed, 2, camera_n])
    return _furnished(rng, size, MOODS[int(rng.integers(len(MOODS)))], area_frac)


def shoot(frame: Frame, seed: int, frame_n: int, size: tuple[int, int], area_frac: float):
    """JPEG bytes and boxes (kind, x1, y1, x2, y2; whole px) of one frame of a fixed camera.

    It shows the camera's landscape in the event's light, fog or dust that drifts by in some events, and
    the event's plumes, which grow from the same foot and drift with the event's wind.
    """
    view = _view(seed, frame.camera_n, size, area_frac)
    event = np.random.default_rng([seed, 3, frame.event_n])
    picture = _lit(view.picture, event.uniform(0.88, 1.08))
    since_midnight_s = (frame.date.hour * 60 + frame.date.minute) * 60 + frame.date.second
    wind, drift = event.uniform(-1, 1), since_midnight_s / 15
    if event.random() < MISTY_FRAC:
        lookalikes.bank(event, picture, view, event.random() < 0.5, drift)
    kinds = ["smoke"] * frame.plumes_n if frame.growth else []
    things = placing.place(view, (seed, 9, frame.event_n), kinds, area_frac * GROWN)
    boxes = placing.paint(picture, view, things, wind, frame.growth, drift)
    caption = f"{frame.camera} {frame.date:%Y-%m-%d %H:%M:%S}"
    return develop(picture, np.random.default_rng([seed, 4, frame_n]), caption), boxes


@lru_cache(maxsize=4)
def _grain(swing: int) -> np.ndarray:
    """Grain of a sensor within +-swing, uint8 (256, 3 x 2560), modulo 256: to be added to a picture."""
    rng = np.random.default_rng(swing)
    shape = (256, 2560, 1)
    grey = rng.integers(0, swing + 1, shape) + rng.integers(0, swing + 1, shape) - swing
    grain = grey + rng.integers(-1, 2, (256, 2560, 3))
    tile = grain.astype(np.uint8).reshape(256, -1)
    tile.flags.writeable = False
    return tile


def develop(picture: np.ndarray, rng, caption: str = "") -> bytes:
    """JPEG bytes of a picture, which is changed: grain, quality 75-95, a caption at the top if given."""
    rows = picture.reshape(picture.shape[0], -1)
    quality = int(rng.integers(75, 96))
    grain = _grain(int(rng.integers(2, (105 - quality) // 5 + 1)))
    for top in range(0, len(rows), 256):
        band, shift = rows[top : top + 256], 3 * int(rng.integers(0, 2560 - picture.shape[1] + 1))
        band += grain[: len(band), shift : shift + rows.shape[1]]
    image = Image.fromarray(picture)
    if caption:
        draw = ImageDraw.Draw(image)
        draw.text((6, 4), caption, fill=(235, 235, 235), font=ImageFont.load_default_imagefont())
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, comment=PROVENANCE)
    return buffer.getvalue()
