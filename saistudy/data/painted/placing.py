"""Where smoke and fire stand in a landscape, how large they are, and what of them is seen."""

import math
from typing import NamedTuple

import numpy as np

from saistudy.data.painted import plumes
from saistudy.data.painted.scenes import Landscape

LARGEST_FRAC = 0.4  # of the frame: no box is larger
LEAST_PX = 6  # no side of a box is shorter
BRIGHT = 140  # of 0-255: behind smoke that is dark, because light smoke would not show
FAINT_FRAC = 0.13  # plumes of which little more than a veil is seen


class Thing(NamedTuple):
    """Smoke or fire to be painted: the seed of its shape, its rectangle x, y, width, height in px."""

    kind: str
    seed: tuple[int, ...]
    x: int
    y: int
    wide: int
    high: int


def _sides(rng, kind: str, size: tuple[int, int], area_frac: float) -> tuple[float, float]:
    """Width and height in px of a new box: area log-normal about its median, aspect 0.4-3.

    The spread of the logarithm is 1.2, as published, and less where `area_frac` is so large that
    the largest box would be less than 3.7 of it away.
    """
    spread = min(1.2, math.log(LARGEST_FRAC / area_frac) / 3.7)
    area = min(LARGEST_FRAC, area_frac * math.exp(rng.normal(0, spread))) * size[0] * size[1]
    aspect = min(3, max(0.4, math.exp(rng.normal(0.1 if kind == "smoke" else -0.15, 0.4))))
    wide = min(0.95 * size[0], max(LEAST_PX, math.sqrt(area * aspect)))
    return wide, min(0.85 * size[1], max(LEAST_PX, area / wide))


def place(land: Landscape, seed: tuple[int, ...], kinds: list[str], area_frac: float) -> list[Thing]:
    """Things that stand on the ground and do not hide each other, the first of each kind in any case."""
    height, width = land.picture.shape[:2]
    found: list[Thing] = []
    for i, kind in enumerate(sorted(kinds, key=lambda k: kinds.index(k))):
        own = (*seed, i if kind == "fire" else 100 + i - kinds.count("fire"))
        rng = np.random.default_rng(own)
        sides = _sides(rng, kind, (width, height), area_frac)
        for attempt in range(80):
            wide, high = (max(LEAST_PX, round(side * 0.97**attempt)) for side in sides)
            x = int(rng.random() * (width - wide))
            foot = max(int(land.ground_px[x + wide // 2]) + 1, high + 1)
            y = foot + max(0, int(height * 0.97) - foot) * rng.random() ** 1.6 - high
            thing = Thing(kind, own, x, int(y), wide, high)
            if attempt == 0 and kind == "smoke" and found and i == kinds.count("fire"):
                thing = _above(found[0], thing, width)
            if all(_apart(thing, other) for other in found):
                found.append(thing)
                break
        else:
            found += [thing] if kind not in [one.kind for one in found] else []
    return found


def _above(fire: Thing, smoke: Thing, width: int) -> Thing:
    """The smoke moved so that it rises from the upper half of the fire."""
    x = min(max(0, fire.x + fire.wide // 2 - smoke.wide // 2), width - smoke.wide)
    return smoke._replace(x=x, y=max(1, fire.y + fire.high // 3 - smoke.high))


def _apart(one: Thing, two: Thing) -> bool:
    """Whether neither of two things covers more than a quarter of the other's rectangle."""
    across = min(one.x + one.wide, two.x + two.wide) - max(one.x, two.x)
    down = min(one.y + one.high, two.y + two.high) - max(one.y, two.y)
    smaller = min(one.wide * one.high, two.wide * two.high)
    return max(0, across) * max(0, down) <= (0.02 if one.kind == two.kind else 0.25) * smaller


def paint(picture: np.ndarray, land: Landscape, things, wind: float, growth: float, drift: float):
    """Boxes (kind, x1, y1, x2, y2) of what was painted on the picture in place, smoke first."""
    boxes = []
    for thing in sorted(things, key=lambda one: one.kind == "fire"):
        rng = np.random.default_rng([*thing.seed, 1])
        wide, high = (max(LEAST_PX, round(side * growth)) for side in (thing.wide, thing.high))
        x = thing.x + round((thing.wide - wide) * (0.5 - 0.3 * wind * (thing.kind == "smoke")))
        y = thing.y + thing.high - high
        if thing.kind == "smoke":
            peak, grey = _look(rng, land, thing)
            plume = plumes.smoke(rng, (wide, high), wind, drift, peak, grey)
        else:
            reach, glow = rng.uniform(0.5, 1.0), rng.uniform(0.1, 0.65) + 0.15 * land.dark
            radii = (wide * reach + 2, high * reach + 2)
            plumes.shine(picture, x + wide / 2, y + high * 0.6, radii, glow, (236, 120, 40))
            plume = plumes.fire(rng, (wide, high), drift)
        left, top = x - plume.corner[0], y - plume.corner[1]
        plumes.lay(picture, left, top, plume.opacity, plume.colour)
        boxes.append((thing.kind, *_clipped(plume.box, left, top, picture)))
    return boxes


def _clipped(box, left: int, top: int, picture: np.ndarray) -> tuple[int, int, int, int]:
    height, width = picture.shape[:2]
    x1, y1, x2, y2 = box
    return max(0, left + x1), max(0, top + y1), min(width, left + x2), min(height, top + y2)


def _look(rng, land: Landscape, thing: Thing):
    """Opacity of the densest part and colour (3,) of a smoke that shows against what is behind it."""
    behind = land.picture[thing.y : thing.y + thing.high, thing.x : thing.x + thing.wide]
    faint = rng.random() < FAINT_FRAC
    peak = rng.uniform(0.16, 0.28) if faint else rng.uniform(0.62, 0.95)
    bright = int(behind.sum(dtype=np.int64)) > BRIGHT * behind.size
    grey = rng.uniform(*((70, 110) if bright else (80, 130) if land.dark else (196, 232)))
    own = np.float32(grey) * np.array([1.0, 0.99, 0.97], np.float32)
    return peak, own * np.float32(0.75) + land.haze * np.float32(0.25)
