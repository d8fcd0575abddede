"""What is mistaken for smoke and fire and is neither, and what stands close to the camera.

Fog and dust look like smoke; lamps, red roofs, vehicles and autumn trees look like fire.
"""

import math
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from saistudy.data.painted.plumes import TILE_PX, bell, lay, noise, shine, smoke
from saistudy.data.painted.scenes import Landscape

DECOYS_N = 5  # one less at most, of the size and colour of a fire
AUTUMN = np.array([(226, 112, 28), (204, 68, 24), (255, 170, 40), (170, 88, 34), (255, 130, 24)], np.float32)
ROOFS = np.array([(168, 66, 44), (190, 88, 52), (140, 60, 46), (120, 112, 108)], np.float32)
VEHICLES = np.array(
    [(255, 110, 24), (222, 48, 30), (255, 196, 40), (255, 140, 40), (220, 220, 222)], np.float32
)


class Spot(NamedTuple):
    """A place on the ground: x, y and the scale of things there in px, what haze leaves of colours."""

    x: int
    y: int
    unit_px: float
    haze: np.ndarray


def _spot(rng, land: Landscape, near: Spot | None = None, least: float = 0.03) -> Spot:
    """A place anywhere, or close to another one; things are larger and clearer the lower they stand."""
    height, width = land.picture.shape[:2]
    x, deep = int(rng.uniform(0.02, 0.98) * width), least + (0.93 - least) * rng.random() ** 1.5
    if near:
        x = int(min(max(0, near.x + rng.uniform(-7, 7) * near.unit_px), width - 1))
        top = land.ground_px[x]
        deep = (near.y + rng.uniform(-1.5, 1.5) * near.unit_px - top) / (height - top)
        deep = min(0.95, max(0.03, deep))
    y = int(land.ground_px[x] + (height - land.ground_px[x]) * deep)
    return Spot(x, y, height * (0.004 + 0.03 * deep), land.haze * np.float32(0.5 * (1 - deep)))


def _coloured(land: Landscape, spot: Spot, colour) -> np.ndarray:
    """A colour of daylight as it looks from afar and, at night, in the dark."""
    own = np.asarray(colour, np.float32) * np.float32(0.35 if land.dark else 0.85)
    return own * (1 - np.float32(0.5) * spot.haze / np.maximum(land.haze, 1)) + spot.haze * np.float32(0.5)


def furnish(rng, land: Landscape, mood: str, area_frac: float) -> None:
    """Put what is no smoke and no fire on the ground of a landscape in place; then the near things.

    Some have about the colour and the size of a fire, for which `area_frac` is the median area as a
    share of the picture: colour and size alone must not tell a fire (tested).
    """
    for _ in range(int(rng.integers(1, 6)) * (rng.random() < 0.45)):
        grove = _spot(rng, land)
        for _ in range(int(rng.integers(1, 9))):
            _tree(rng, land, _spot(rng, land, grove))
    for _ in range(int(rng.integers(1, 4)) * (rng.random() < 0.55)):
        village = _spot(rng, land)
        for _ in range(int(rng.integers(1, 5))):
            _house(rng, land, _spot(rng, land, village))
    for _ in range(int(rng.integers(1, 5)) * (rng.random() < 0.4)):
        _vehicle(rng, land, _spot(rng, land))
    lamps_n = rng.integers(4, 22) if mood == "lamps" else rng.integers(0, 9) * land.dark
    for _ in range(int(lamps_n)):
        _lamp(rng, land, _spot(rng, land))
    for _ in range(int(rng.integers(1, 4)) * (mood in ("fog", "dust"))):
        bank(rng, land.picture, land, dusty=mood == "dust")
    side = math.sqrt(area_frac * land.picture.shape[0] * land.picture.shape[1])
    for _ in range(int(rng.integers(DECOYS_N))):
        spot = _spot(rng, land, least=0.35 if area_frac > 0.01 else 0.05)
        spot = spot._replace(unit_px=max(3, side * math.exp(rng.normal(-0.3, 0.5))), haze=spot.haze * 0.3)
        put = (_tree, _tree, _tree, _vehicle, _lamp if land.dark else _tree)[rng.integers(5)]
        put(rng, land, spot)
    _frame(rng, land)


def _lamp(rng, land: Landscape, spot: Spot) -> None:
    """A light, white to sodium orange, and its glow."""
    warm = rng.random()
    colour, radius = (236, 226 - 110 * warm, 200 - 150 * warm), 0.6 + 0.35 * spot.unit_px
    shine(land.picture, spot.x, spot.y, (5 * radius, 5 * radius), 0.3, colour)
    shine(land.picture, spot.x, spot.y, (radius, radius), 0.98, colour)


def bank(rng, picture: np.ndarray, land: Landscape, dusty: bool, drift: float = 0) -> None:
    """Lay a low drift of fog, or of dust behind a vehicle, over a picture of the landscape in place."""
    spot, (height, width) = _spot(rng, land), picture.shape[:2]
    size = (max(24, int(width * rng.uniform(0.1, 0.35))), max(8, int(height * rng.uniform(0.025, 0.08))))
    colour = land.haze * (np.array([1.08, 0.96, 0.78], np.float32) if dusty else np.float32(1.15))
    veil = smoke(rng, size, rng.uniform(-1, 1), drift, rng.uniform(0.3, 0.6), colour)
    lay(picture, spot.x - size[0] // 2, spot.y - size[1], veil.opacity, veil.colour)


def _tree(rng, land: Landscape, spot: Spot) -> None:
    """One tree in autumn: a trunk, and a crown of leaves that is lit from above."""
    wide, high = (int(spot.unit_px * rng.uniform(1, 2)) + 4 for _ in range(2))
    zoom = min(1.3, max(0.5, spot.unit_px / 9))
    leaf, mass = (noise("leaf", rng.uniform(0, TILE_PX, 2), (wide, high), k * zoom) for k in (1, 3))
    ball = [
        bell((np.arange(n, dtype=np.float32) - np.float32(n / 2)) * np.float32(2.1 / n)) for n in (high, wide)
    ]
    crown = np.clip((ball[0][:, None] * ball[1] + 0.18 * leaf + 0.22 * mass - 0.68) * 8, 0, 1)
    light = 1.08 - np.float32(0.4 / high) * np.arange(high, dtype=np.float32)[:, None]
    x, y = spot.x, spot.y - high
    trunk = [(x + wide * 0.47, y + 0.5 * high), (x + wide * 0.54, y + 0.5 * high)]
    _shape(land, [*trunk, (x + wide * 0.55, spot.y), (x + wide * 0.45, spot.y)], land.haze * np.float32(0.3))
    colour = _coloured(land, spot, AUTUMN[rng.integers(len(AUTUMN))])
    lay(land.picture, x, y, crown * np.float32(0.95), ((0.7 + 0.5 * leaf) * light)[..., None] * colour)


def _shape(land: Landscape, points: list[tuple[float, float]], colour, opacity: float = 1.0) -> None:
    """Fill a polygon (px) with smooth edges, drawn at four times its size and shrunk."""
    xs, ys = zip(*points, strict=True)
    left, top = int(min(xs)) - 1, int(min(ys)) - 1
    size = (int(max(xs)) + 2 - left, int(max(ys)) + 2 - top)
    mask = Image.new("L", (size[0] * 4, size[1] * 4))
    ImageDraw.Draw(mask).polygon([((x - left) * 4, (y - top) * 4) for x, y in points], fill=255)
    cover = np.asarray(mask.reduce(4), np.float32) * np.float32(opacity / 255)
    grain = noise("leaf", (left, top), size, 2)
    lay(land.picture, left, top, cover, (0.94 + 0.12 * grain)[..., None] * np.asarray(colour, np.float32))


def _box(land: Landscape, x: float, y: float, wide: float, high: float, colour) -> None:
    _shape(land, [(x, y), (x + wide, y), (x + wide, y - high), (x, y - high)], colour, 0.95)


def _vehicle(rng, land: Landscape, spot: Spot) -> None:
    """A lorry or a machine: body, cab with a window, wheels."""
    x, y, unit, _ = spot
    body = _coloured(land, spot, VEHICLES[rng.integers(len(VEHICLES))])
    wide, high = unit * rng.uniform(0.9, 1.7), unit * rng.uniform(0.5, 0.8)
    _box(land, x, y, wide, high, body)
    _box(land, x + wide, y, 0.3 * wide, 0.8 * high, body * np.float32(0.9))
    _box(land, x + 1.1 * wide, y - 0.4 * high, 0.15 * wide, 0.3 * high, land.haze * np.float32(0.4))
    for at in (0.1, 0.9):
        _box(land, x + at * wide, y + 0.1 * high, 0.18 * wide, 0.25 * high, land.haze * np.float32(0.2))


def _house(rng, land: Landscape, spot: Spot) -> None:
    """A wall under a pitched roof, mostly of red tiles."""
    x, y, unit, _ = spot
    wide, high = unit * rng.uniform(1.2, 2.6), unit * rng.uniform(0.5, 1)
    _box(land, x, y, wide, high, _coloured(land, spot, (200, 194, 182)))
    eaves, top = unit * 0.15, y - high - unit * rng.uniform(0.4, 0.8)
    roof = [(x - eaves, y - high), (x + wide + eaves, y - high), (x + wide * 0.8, top), (x + wide * 0.2, top)]
    _shape(land, roof, _coloured(land, spot, ROOFS[rng.integers(len(ROOFS))]), 0.95)


def _frame(rng, land: Landscape) -> None:
    """What stands near the camera: leaves at a side or from above, a mast, a parapet, or nothing."""
    height, width = land.picture.shape[:2]
    if rng.random() < 0.4:
        _boughs(rng, land)
    if rng.random() < 0.3:
        x, thick, lean = (
            rng.uniform(*ends) * width for ends in ((0.05, 0.95), (0.003, 0.012), (-0.02, 0.02))
        )
        top = rng.uniform(0, 0.5) * height
        ends = [(x + lean, top), (x + lean + thick, top), (x + 2 * thick, height), (x, height)]
        _shape(land, ends, land.haze * np.float32(rng.uniform(0.25, 0.6)))
    if rng.random() < 0.3:
        ends = [(0, height * rng.uniform(0.8, 1.05)), (width, height * rng.uniform(0.8, 1.05))]
        _shape(land, [*ends, (width, height), (0, height)], land.haze * np.float32(rng.uniform(0.3, 0.8)))


def _boughs(rng, land: Landscape) -> None:
    """Leaves close to the camera, from a lower or an upper corner."""
    height, width = land.picture.shape[:2]
    size = (int(width * rng.uniform(0.08, 0.3)), int(height * rng.uniform(0.2, 0.9)))
    at, zoom = rng.uniform(0, TILE_PX, 2), max(0.4, height / 500)
    mass, leaf = noise("cloud", at, size, zoom), noise("leaf", at, size, 2 * zoom)
    ramp = 1 - np.arange(size[0], dtype=np.float32) / np.float32(size[0])
    rise = np.minimum(np.arange(size[1], dtype=np.float32) / np.float32(size[1] * 0.4), 1)
    left, low = rng.random(2) < (0.5, 0.7)
    slope = (rise if low else rise[::-1])[:, None] * (ramp if left else ramp[::-1])
    crown = np.clip((slope + 0.55 * mass + 0.2 * leaf - 0.76) * 7, 0, 0.97)
    x, y = (0 if left else width - size[0]), (height - size[1] if low else 0)
    green = land.haze * np.array([0.26, 0.31, 0.2], np.float32) * np.float32(rng.uniform(0.8, 1.7))
    lay(land.picture, x, y, crown, (0.5 + 0.8 * leaf)[..., None] * green)
