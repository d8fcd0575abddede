"""What the twins' pictures show: single photographs, and the events of fixed cameras."""

from datetime import datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from saistudy.data import scenes

POSITIVE_FRAC = 28_103 / 33_636  # pyro-sdis: images with smoke, from the data set card
EXTRA_PLUMES = 32_109 / 28_103 - 1  # its boxes of an image with smoke beyond the first
PLACES = ("col", "tower", "mast", "crest", "saddle", "bluff", "mesa", "knoll")
SPREAD = 0.7  # standard deviation of the logarithm of the box area (assumed)
GROWN = 1.4  # area of a whole plume for a frame of median growth to show area 1
DRAWN = {"smoke": 1.25, "fire": 1.0}  # area drawn for a box of area 1 (measured on the pictures)


class Frame(NamedTuple):
    """One picture of a fixed camera: `growth` 0 shows no smoke yet, 1 the whole plume."""

    partner: str
    camera: str
    camera_n: int
    event_n: int
    date: datetime
    growth: float
    plumes_n: int


class Thing(NamedTuple):
    """Smoke or fire to be painted: where it rises (x, y) and how large, in pixels."""

    kind: str
    foot: tuple[float, float]
    width_px: float
    height_px: float


def photograph(rng, size: tuple[int, int], fires_n: int, plumes_n: int, area_frac: float):
    """JPEG bytes and boxes (kind, x1, y1, x2, y2 in pixels) of one painted photograph.

    Without fire and smoke it shows more often what is mistaken for them: clouds and lamps.
    """
    empty = fires_n + plumes_n == 0
    land = scenes.landscape(rng, *size, cloudy_frac=0.8 if empty else 0.4)
    if rng.random() < (0.5 if empty else 0.15):
        scenes.add_lamps(land.picture, rng, land.horizon_px, int(rng.integers(1, 6)))
    kinds = ["fire"] * fires_n
    kinds[1:1] = ["smoke"] * plumes_n
    boxes = _paint(land, rng, _place(rng, land, kinds, area_frac), rng.uniform(-1, 1))
    return scenes.jpeg(land.picture, rng), boxes


def _paint(land: scenes.Landscape, rng, things: list[Thing], wind: float, growth: float = 1.0):
    """Boxes (kind, x1, y1, x2, y2) of what was painted: smoke first, flames before it."""
    dark = [scenes.is_bright(land, *thing[1:]) for thing in things]
    boxes = []
    for thing, is_dark in sorted(zip(things, dark, strict=True), key=lambda one: one[0].kind == "fire"):
        sides = (thing.width_px * growth, thing.height_px * growth)
        if thing.kind == "smoke":
            box = scenes.add_smoke(land, rng, thing.foot, *sides, wind, is_dark)
        else:
            box = scenes.add_fire(land, rng, thing.foot, *sides)
        boxes += [(thing.kind, *box)] if box else []
    return boxes


def _place(rng, land: scenes.Landscape, kinds: list[str], area_frac: float) -> list[Thing]:
    """Things on the ground that do not hide each other; smoke after a fire rises from it."""
    height, width = land.picture.shape[:2]
    found: list[Thing] = []
    for kind in kinds:
        for attempt in range(40):
            area = area_frac * np.exp(rng.normal(0, SPREAD)) * DRAWN[kind] * 0.95**attempt
            tall = np.exp(rng.normal(0.2, 0.25))
            high = min(np.sqrt(np.clip(area, 0.006, 0.4) * width * height * tall), height * 0.9)
            deep = height * 0.97
            low = min(max(land.horizon_px * 1.15, high * 0.7), deep - 2)
            foot = (rng.uniform(0.08, 0.92) * width, rng.uniform(low, deep))
            thing = Thing(kind, foot, high / tall, high)
            if [one.kind for one in found] == ["fire"] and kind == "smoke":
                found.append(_above(found[0], thing))
                break
            if all(_apart(thing, other) for other in found):
                found.append(thing)
                break
    return found


def _above(fire: Thing, smoke: Thing) -> Thing:
    foot = (fire.foot[0], fire.foot[1] - 0.55 * fire.height_px)
    wide, high = max(smoke.width_px, fire.width_px), max(smoke.height_px, 1.2 * fire.height_px)
    return Thing("smoke", foot, wide, high)


def _apart(one: Thing, two: Thing) -> bool:
    aside = abs(one.foot[0] - two.foot[0]) > 0.6 * (one.width_px + two.width_px)
    above = one.foot[1] - one.height_px > two.foot[1]
    return aside or above or two.foot[1] - two.height_px > one.foot[1]


def watch(rng, images_n: int, cameras_n: int) -> list[Frame]:
    """Frames of fixed cameras: events of 5 to 12 frames, mostly 30 s apart, the first ones empty.

    Positives and boxes come in the published proportions. Frames of an event are at most 240 s
    apart, events of a camera at least five hours.
    """
    frames: list[Frame] = []
    per_camera = np.diff(np.linspace(0, images_n, cameras_n + 1).round().astype(int))
    seen_n = empty_n = smoky_n = extra_n = event_n = 0
    for camera_n, left in enumerate(per_camera):
        name = f"{PLACES[camera_n % len(PLACES)]}-{(47 * camera_n + 13) % 360:03d}"
        partner = f"twin-{camera_n % 3:02d}"
        day = datetime(2024, 1, 8) + timedelta(days=int(rng.integers(300)))
        while left > 0:
            length = int(left) if left < 12 else int(min(rng.integers(5, 13), left - 5))
            seen_n, left = seen_n + length, left - length
            onset = max(0, round(seen_n * (1 - POSITIVE_FRAC)) - empty_n)
            empty_n, smoky_n = empty_n + onset, smoky_n + length - onset
            second = extra_n < smoky_n * EXTRA_PLUMES - (length - onset) / 2
            extra_n += second * (length - onset)
            day += timedelta(days=1)
            date = day + timedelta(hours=8, seconds=int(rng.integers(0, 36_000)))
            for i in range(length):
                growth = min(1.0, 0.5 + 0.1 * (i - onset)) if i >= onset else 0.0
                frames.append(Frame(partner, name, camera_n, event_n, date, growth, 1 + bool(second)))
                date += timedelta(seconds=int(rng.choice([30, 2, 240], p=[0.9, 0.06, 0.04])))
            event_n += 1
    return frames


@lru_cache(maxsize=2)
def _view(seed: int, camera_n: int, size: tuple[int, int]) -> scenes.Landscape:
    return scenes.landscape(np.random.default_rng([seed, 2, camera_n]), *size, cloudy_frac=0)


def shoot(frame: Frame, seed: int, frame_n: int, size: tuple[int, int], area_frac: float):
    """JPEG bytes and boxes of one frame: the camera's landscape, the event's clouds and plumes."""
    view = _view(seed, frame.camera_n, size)
    event = np.random.default_rng([seed, 3, frame.event_n])
    land = view._replace(picture=view.picture * np.float32(event.uniform(0.85, 1.1)))
    if event.random() < 0.5:
        scenes.add_clouds(land.picture, event, land.horizon_px, land.light)
    plumes = _place(event, land, ["smoke"] * frame.plumes_n, area_frac * GROWN)
    wind, rng = event.uniform(-1, 1), np.random.default_rng([seed, 4, frame_n])
    boxes = _paint(land, rng, plumes if frame.growth else [], wind, frame.growth)
    caption = f"{frame.camera} {frame.date:%Y-%m-%d %H:%M:%S}"
    return scenes.jpeg(land.picture, rng, caption), boxes
