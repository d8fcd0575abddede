"""Landscapes as a fixed camera sees them: sky, sun, clouds, ranges of hills in haze and mist.

A landscape is rendered in planes, float32 (3, height, width), 0-255, and given out as uint8
(height, width, 3); see `plumes` for why there is no exp, sin or sum here.
"""

from typing import NamedTuple

import numpy as np

from saistudy.data.painted.plumes import BRIGHTEST, DARKEST, TILE_PX, bell, noise

# what a picture has of what is mistaken for smoke and fire: see also `lookalikes`
MOODS = ("clear", "cloud", "fog", "dust", "glare", "lamps", "sunset")
# sky at the top, sky at the horizon, haze, forest, meadow, cloud
SKIES = {
    "day": ((74, 124, 190), (186, 208, 226), (160, 182, 204), (38, 58, 32), (104, 116, 66), (236, 238, 240)),
    "haze": (
        (128, 156, 184),
        (206, 213, 216),
        (182, 192, 198),
        (50, 62, 44),
        (112, 114, 78),
        (228, 228, 226),
    ),
    "grey": ((150, 156, 162), (190, 194, 198), (164, 170, 174), (40, 50, 36), (86, 92, 62), (206, 208, 210)),
    "dawn": ((110, 122, 160), (226, 196, 170), (170, 160, 168), (44, 48, 38), (96, 88, 62), (222, 204, 196)),
    "gold": ((86, 84, 120), (238, 150, 74), (176, 116, 92), (34, 30, 28), (66, 54, 42), (206, 132, 92)),
    "dusk": ((30, 38, 66), (84, 86, 108), (56, 60, 80), (22, 26, 26), (34, 36, 34), (70, 72, 90)),
    "night": ((18, 20, 30), (34, 36, 48), (26, 28, 38), (17, 18, 18), (22, 23, 22), (36, 38, 46)),
}
LIGHTS = {  # three skies of a mood, equally likely
    "clear": ("day", "haze", "day"),
    "cloud": ("day", "grey", "haze"),
    "fog": ("haze", "grey", "dawn"),
    "dust": ("haze", "day", "dawn"),
    "glare": ("haze", "dawn", "day"),
    "lamps": ("night", "dusk", "dusk"),
    "sunset": ("gold", "dawn", "gold"),
}


class Landscape(NamedTuple):
    """A picture uint8 (height, width, 3), and what has to be known to put something into it.

    `ground_px` is the row where the ground begins, intp (width,); `haze` the colour (3,) of what is
    far, 0-255; `dark` says that it is dusk or night.
    """

    picture: np.ndarray
    ground_px: np.ndarray
    haze: np.ndarray
    dark: bool


def landscape(rng, size: tuple[int, int], mood: str) -> Landscape:
    """A new landscape of `size` (width, height) under one of the `MOODS`."""
    name = LIGHTS[mood][rng.integers(3)]
    tint = rng.uniform(0.9, 1.08, (6, 1)) * rng.uniform(0.97, 1.03, (6, 3))
    tints = np.array(SKIES[name], np.float32) * tint.astype(np.float32)
    horizon = int(size[1] * rng.uniform(0.22, 0.6))
    planes = _sky(rng, size, horizon, tints, mood)
    ground = _ridges(rng, planes, horizon, tints, mood)
    zoom = size[0] / rng.uniform(110, 300)
    planes *= np.float32(0.8) + np.float32(0.36) * noise("cloud", rng.uniform(0, TILE_PX, 2), size, zoom)
    planes += noise("leaf", (0, 0), size, 1)
    picture = np.ascontiguousarray(np.clip(planes, DARKEST, BRIGHTEST).astype(np.uint8).transpose(1, 2, 0))
    return Landscape(picture, ground, tints[2], name in ("dusk", "night"))


def _mix(planes: np.ndarray, colour, share: np.ndarray) -> None:
    """Lay a colour (3,) over planes in place with the given share (height, width) of it."""
    for plane, value in zip(planes, colour, strict=True):
        plane += share * (value - plane)


def _sky(rng, size: tuple[int, int], horizon: int, tints: np.ndarray, mood: str) -> np.ndarray:
    width, height = size
    down = np.clip(np.arange(height, dtype=np.float32) / np.float32(horizon), 0, 1)[:, None]
    across = np.arange(width, dtype=np.float32) / np.float32(width) - np.float32(0.5)
    side = (1 + across * rng.uniform(-0.25, 0.25)).astype(np.float32)
    down = down * down * (1 + across * rng.uniform(-0.5, 0.5)).astype(np.float32)
    planes = np.stack([(top + down * (low - top)) * side for top, low in zip(*tints[:2], strict=True)])
    if mood in ("glare", "sunset") or (mood != "lamps" and rng.random() < 0.1):
        x, y = rng.uniform(-0.1, 1.1) * width, horizon * rng.uniform(0.2, 0.95)
        wide = rng.uniform(0.25, 0.5) * width
        for radius, strength in ((wide, 0.75), (wide * 0.12, 0.95)):
            rows = bell((np.arange(height, dtype=np.float32) - np.float32(y)) / radius)
            glow = rows[:, None] * bell((np.arange(width, dtype=np.float32) - np.float32(x)) / radius)
            _mix(planes, (244, 226, 190) if mood != "sunset" else (244, 178, 96), glow * strength)
    if mood == "cloud" or rng.random() < 0.35:
        _clouds(rng, planes[:, : horizon + height // 8], horizon, tints, mood == "cloud")
    return planes


def _clouds(rng, planes: np.ndarray, horizon: int, tints: np.ndarray, many: bool) -> None:
    """Lay clouds over planes in place, flatter towards the horizon, bright above and grey below."""
    _, high, wide = planes.shape
    near = 1 - np.minimum(np.arange(high) / np.float32(horizon), 0.98)
    rows = (near * (high - 1)).astype(np.intp)
    zoom = wide / rng.uniform(180, 420)
    at = rng.uniform(0, TILE_PX, 2)
    field = noise("cloud", at, (wide, high), zoom, zoom * rng.uniform(0.25, 0.6))[rows]
    cover = rng.uniform(0.3, 0.75) if many else rng.uniform(0.1, 0.35)
    share = np.clip((field - (1 - cover)) * rng.uniform(2.5, 7), 0, 1) * rng.uniform(0.5, 0.95)
    deep = np.clip((field - (1 - cover)) * 3, 0, 1)
    for plane, white, grey in zip(planes, tints[5], tints[2], strict=True):
        plane += share * (white + deep * (0.55 * (grey - white)) - plane)


def _ridges(rng, planes: np.ndarray, horizon: int, tints: np.ndarray, mood: str):
    """Row of the highest ground (width,) of three to five ranges laid over planes in place.

    They are hazier with distance, with mist at their feet.
    """
    _, height, width = planes.shape
    ranges = int(rng.integers(3, 6))
    clear = rng.uniform(0.12, 0.4) if mood != "dust" else 0.1
    across = np.arange(width, dtype=np.float32) / np.float32(width) - np.float32(0.5)
    lines = []
    for i in range(ranges):
        near = i / (ranges - 1)
        base = horizon + (0.92 * height - horizon) * near * (0.35 + 0.65 * near)
        at, zoom = rng.uniform(0, TILE_PX, 2), width / rng.uniform(90, 260)
        swing = height * rng.uniform(0.08, 0.26) * (1 - 0.4 * near)
        edge = noise("cloud", at, (width, 1), zoom)[0] - np.float32(0.5)
        leaf = noise("leaf", at, (width, 1), 1 + 3 * near)[0] * (height * (0.002 + 0.018 * near))
        tilt = across * (rng.uniform(-0.35, 0.35) * height * (1 - 0.5 * near))
        lines.append((base + tilt - swing * edge - leaf).astype(np.float32))
    for i, line in enumerate(lines):
        top = int(np.clip(line.min() - 1, 0, height - 1))
        bottom = height if i == ranges - 1 else int(np.clip(lines[i + 1].max() + 2, top + 1, height))
        depth = clear + (1 - clear) * i / (ranges - 1)
        _range(rng, planes[:, top:bottom], line - top, depth, tints, 0.9 if mood == "fog" else 0.35)
    return np.clip(np.minimum.reduce(lines), 0, 0.8 * height).astype(np.intp)


def _range(rng, planes: np.ndarray, line: np.ndarray, near: float, tints: np.ndarray, mist: float) -> None:
    """Lay one range over planes in place: forest and meadow in relief, greyed by haze and mist."""
    _, high, wide = planes.shape
    at, zoom = rng.uniform(0, TILE_PX, 2), wide / rng.uniform(160, 330)
    soil = noise("cloud", at, (wide, high), zoom, zoom * (0.3 + 0.4 * near))
    leaf = noise("leaf", at, (wide, high), 1.0 if near < 0.5 else 0.5 + 1.5 * near, 0.4 + 0.9 * near)
    below = np.arange(high, dtype=np.float32)[:, None] - line
    cover = np.clip(below + 0.5, 0, 1)
    meadow = np.clip((soil - rng.uniform(0.35, 0.8)) * 7, 0, 1) * rng.uniform(0.5, 1)
    step = max(1, int(zoom * 2))
    relief = soil - np.roll(soil, (step, int(rng.integers(-step, step + 1))), (0, 1))
    light = (0.72 + (0.25 + 0.45 * near) * leaf) * (1 + 1.6 * np.clip(relief, -0.3, 0.3))
    haze = (1 - near) * 0.9 + (0.03 + 0.05 * rng.random())
    foot = np.clip(below / np.float32(max(24, high * 0.6)), 0, 1)
    haze = haze + (0.98 - haze) * mist * (1 - 0.8 * near) * foot * (0.5 + soil)
    haze = np.clip(haze, 0, 0.98)
    for plane, veil, trees, grass in zip(planes, *tints[2:5], strict=True):
        own = (trees + meadow * (grass - trees)) * light
        plane += cover * (own + haze * (veil - own) - plane)
