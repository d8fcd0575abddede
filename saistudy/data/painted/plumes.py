"""Noise, soft edges, smoke and flames, by arithmetic that gives the same bits on every processor.

NumPy's SIMD variants of exp, sin, sums and products of matrices round differently; + - * / min, max
and look-ups do not. So curves are tables made with `math`, noise is cut from tiles drawn once, and
Pillow (plain C) enlarges it. Fields are float32 (height, width); colours are 0-255, red-green-blue.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image

TILE_PX = 512
DARKEST, BRIGHTEST = 16, 239  # a picture keeps this range, so that grain of +-16 never wraps in uint8
GRID_PX = 112  # a plume is modelled on a grid of this longer side, then brought to its size
PUFFS_N = 70
SMOKE_EDGE = 0.2  # share of its densest part at which a plume begins: its box is the bounds of that
FIRE_EDGE = 0.35  # the same for flames, whose edge is sharp
BELL = np.array([math.exp(-((i / 256) ** 2)) for i in range(1024)], dtype=np.float32)
FADE = np.array([1 - math.exp(-i / 128) for i in range(1024)], dtype=np.float32)  # Beer-Lambert
FLAME = ((0, (150, 28, 8)), (60, (228, 84, 14)), (120, (239, 140, 30)), (200, (239, 205, 96)))
HEAT = np.array(
    [
        [np.interp(i, [k for k, _ in FLAME], [colour[c] for _, colour in FLAME]) for c in range(3)]
        for i in range(256)
    ],
    dtype=np.float32,
)


class Plume(NamedTuple):
    """Smoke or flames to be laid: opacity (h, w), colour (h, w, 3), what of them is visible (box).

    `corner` is where in these arrays the rectangle begins that the visible part was made to fill.
    """

    opacity: np.ndarray
    colour: np.ndarray
    corner: tuple[int, int]
    box: tuple[int, int, int, int]


def bell(x: np.ndarray) -> np.ndarray:
    """exp(-x^2) of an array, from a table."""
    return BELL[np.minimum(np.abs(x) * 256, 1023).astype(np.intp)]


def fade(depth: np.ndarray) -> np.ndarray:
    """1 - exp(-depth) of an array of depths >= 0, from a table."""
    return FADE[np.minimum(depth * 128, 1023).astype(np.intp)]


@lru_cache(maxsize=4)
def tile(kind: str) -> np.ndarray:
    """Seamless noise, float32 (512, 512), read-only: every value of 0-1 equally often.

    "cloud" has cells from 128 px down to 2 px, each finer octave half as strong; "leaf" has 8 px to
    1 px, equally strong.
    """
    first, last, fall = {"cloud": (128, 2, 0.5), "leaf": (8, 1, 0.9)}[kind]
    rng = np.random.default_rng(1 if kind == "cloud" else 2)
    total, weight, cell = np.zeros((TILE_PX, TILE_PX), np.float32), 1.0, first
    while cell >= last:
        n = TILE_PX // cell
        grid = np.pad(rng.random((n, n), dtype=np.float32), 4, mode="wrap")
        box = (4, 4, 4 + n, 4 + n)
        smooth = Image.fromarray(grid).resize(total.shape, Image.Resampling.BICUBIC, box=box)
        total, weight, cell = total + np.asarray(smooth) * weight, weight * fall, cell // 2
    rank = np.empty(total.size, np.float32)
    rank[np.argsort(total.ravel(), kind="stable")] = np.arange(total.size) / np.float32(total.size)
    rank.flags.writeable = False
    return rank.reshape(total.shape)


def noise(kind: str, at, size: tuple[int, int], zoom_x: float, zoom_y: float | None = None):
    """Field float32 (height, width), 0-1, cut from a tile at `at` (x, y; any numbers) and enlarged.

    `size` is width and height; `zoom_x` and `zoom_y` are pixels of the result per pixel of the tile.
    """
    wide, high = size[0] / zoom_x, size[1] / (zoom_y or zoom_x)
    cols = (int(at[0]) + np.arange(int(wide) + 2)) % TILE_PX
    rows = (int(at[1]) + np.arange(int(high) + 2)) % TILE_PX
    patch = tile(kind)[rows][:, cols]
    if zoom_x == 1 and zoom_y is None:
        return patch[: size[1], : size[0]]
    image = Image.fromarray(patch).resize(size, Image.Resampling.BICUBIC, box=(0, 0, wide, high))
    return np.asarray(image)


def lay(picture: np.ndarray, x: int, y: int, opacity: np.ndarray, colour) -> None:
    """Blend a colour, (3,) or (h, w, 3), into a uint8 picture in place, its corner at x, y."""
    height, width = picture.shape[:2]
    top, left = max(0, -y), max(0, -x)
    bottom, right = min(opacity.shape[0], height - y), min(opacity.shape[1], width - x)
    if bottom <= top or right <= left:
        return
    colour = np.asarray(colour, np.float32)
    colour = colour[top:bottom, left:right] if colour.ndim == 3 else colour
    window = picture[y + top : y + bottom, x + left : x + right]
    under = window.astype(np.float32)
    mixed = under + opacity[top:bottom, left:right, None] * (colour - under) + 0.5
    window[...] = np.clip(mixed, DARKEST, BRIGHTEST).astype(np.uint8)


def shine(picture: np.ndarray, x: float, y: float, radii, strength: float, colour) -> None:
    """Lay a soft round light of radii (across, down; px) about x, y over a picture in place."""
    left, top = int(x - 2 * radii[0]), int(y - 2 * radii[1])
    across = bell((np.arange(left, int(x + 2 * radii[0]) + 2, dtype=np.float32) - np.float32(x)) / radii[0])
    down = bell((np.arange(top, int(y + 2 * radii[1]) + 2, dtype=np.float32) - np.float32(y)) / radii[1])
    lay(picture, left, top, (down * strength)[:, None] * across, colour)


def bounds(seen: np.ndarray) -> tuple[int, int, int, int]:
    """x1, y1, x2, y2 around the true cells of a mask with at least one."""
    y, x = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    return int(x[0]), int(y[0]), int(x[-1]) + 1, int(y[-1]) + 1


def _pile(x, y, radius, weight, shape: tuple[int, int]) -> np.ndarray:
    """Sum of soft blobs on a grid of `shape`; the arguments are (n,) in cells."""
    across = bell((np.arange(shape[1], dtype=np.float32) - x[:, None]) / radius[:, None])
    down = bell((np.arange(shape[0], dtype=np.float32) - y[:, None]) / radius[:, None])
    total = np.zeros(shape, np.float32)
    for i in range(len(x)):
        total += (down[i] * weight[i])[:, None] * across[i]
    return total


def _stir(field: np.ndarray, at, reach: float, zoom: float) -> np.ndarray:
    """The field with every cell fetched from up to `reach` cells away, as turbulence does."""
    high, wide = field.shape
    aside, along = (noise("cloud", (at[0] + k, at[1]), (wide, high), zoom) for k in (0, 211))
    rows = np.arange(high)[:, None] + ((along - 0.5) * (2 * reach)).astype(np.intp)
    cols = np.arange(wide)[None] + ((aside - 0.5) * (2 * reach)).astype(np.intp)
    return field[np.clip(rows, 0, high - 1), np.clip(cols, 0, wide - 1)]


def _fitted(fields: list[np.ndarray], edge: float, size: tuple[int, int], skirt: float):
    """Fields brought to the size at which the first one's part above `edge` fills `size`.

    What lies around that part by up to `skirt` of its sides is kept.
    """
    x1, y1, x2, y2 = bounds(fields[0] > edge)
    scale_x, scale_y = size[0] / (x2 - x1), size[1] / (y2 - y1)
    left, top = min(x1, skirt * (x2 - x1)), min(y1, skirt * (y2 - y1))
    high, wide = fields[0].shape
    right, bottom = min(wide - x2, skirt * (x2 - x1)), min(high - y2, skirt * (y2 - y1))
    box = (x1 - left, y1 - top, x2 + right, y2 + bottom)
    shape = (max(2, round((box[2] - box[0]) * scale_x)), max(2, round((box[3] - box[1]) * scale_y)))
    corner = (round(left * scale_x), round(top * scale_y))
    images = (Image.fromarray(f).resize(shape, Image.Resampling.BICUBIC, box=box) for f in fields)
    return [np.asarray(image) for image in images], corner


def _margin(shape: tuple[int, int]) -> np.ndarray:
    """1 inside a grid, falling to 0 at its border: no plume is cut off straight."""
    down, across = (np.minimum(np.arange(n), np.arange(n)[::-1]) / np.float32(0.12 * n) for n in shape)
    return (np.minimum(down, 1)[:, None] * np.minimum(across, 1)).astype(np.float32)


def _grid(size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of the grid for a plume of `size` (width, height)."""
    scale = GRID_PX / max(size)
    return max(40, round(size[1] * scale)), max(40, round(size[0] * scale))


def smoke(rng, size: tuple[int, int], wind: float, drift: float, peak: float, colour) -> Plume:
    """A plume whose visible part has `size` (width, height, px), leaning with the wind (-1 to 1).

    `drift` moves the billows upwards and downwind, `peak` is the opacity of the densest part. The
    generator gives the plume its shape: the same state gives the same plume at another drift.
    """
    high, wide = shape = _grid(size)
    t = (np.arange(PUFFS_N) / (PUFFS_N - 1)).astype(np.float32)
    spread = min(high, wide) * rng.uniform(0.13, 0.2) * (0.15 + t)
    aside, along, thick = rng.random((3, PUFFS_N), dtype=np.float32)
    x = wide * (0.5 + wind * (0.3 * t + 0.25 * t * t - 0.27)) + (aside - 0.5) * 1.7 * spread
    y = high * (0.8 - 0.55 * t) + (along - 0.5) * spread
    at = rng.uniform(0, TILE_PX, 2) + np.array([-wind, 1.0]) * drift
    pile = _pile(x, y, spread * (0.3 + 0.5 * thick), 0.8 - 0.5 * t, shape)
    pile = _stir(pile, at, 0.2 * min(high, wide), 0.5) * _margin(shape)
    billow = noise("cloud", at + 97, (wide, high), 0.4)
    depth = fade(rng.uniform(1.2, 2.4) * np.maximum(pile - 0.08, 0) * (0.15 + 1.7 * billow))
    lit = 0.8 + 0.3 * billow + 0.5 * np.clip(billow - np.roll(billow, (3, 2), (0, 1)), -0.25, 0.25)
    (depth, lit), corner = _fitted([depth, lit], SMOKE_EDGE * depth.max(), size, 0.25)
    if max(size) > GRID_PX:
        depth = depth * (0.6 + 0.8 * noise("cloud", at + 31, depth.shape[::-1], 1.0))
    opacity = np.clip(depth, 0, None) * (peak / depth.max())
    tint = lit[..., None] * np.asarray(colour, np.float32)
    return Plume(opacity, tint, corner, bounds(opacity > SMOKE_EDGE * peak))


def fire(rng, size: tuple[int, int], drift: float) -> Plume:
    """Flames whose visible part has `size` (width, height, px); `drift` lets them flicker."""
    high, wide = shape = _grid(size)
    tongues = int(rng.integers(3, 8))
    piles = []
    for i in range(tongues):
        t = np.linspace(0, 1, round(8 * high / min(shape)), dtype=np.float32)
        off = (i + rng.uniform(0.2, 0.8)) / tongues - 0.5
        reach = high * rng.uniform(0.3, 0.7) * (1 - abs(off) * 0.8)
        x = wide * (0.5 + off * 0.8 + rng.uniform(-0.08, 0.08) * t)
        thick = min(shape) * rng.uniform(0.043, 0.075) * (1.1 - 0.7 * t)
        piles.append((x, high * 0.84 - reach * t, thick, (1.0 - 0.4 * t) * rng.uniform(0.65, 1.2)))
    pile = _pile(*(np.concatenate(part) for part in zip(*piles, strict=True)), shape)
    at = rng.uniform(0, TILE_PX, 2) + np.array([0.0, 3.0]) * drift
    pile = _stir(pile, at, 0.12 * min(shape), 0.35) * _margin(shape)
    pile = pile * (0.15 + 1.5 * noise("cloud", at + 60, (wide, high), 0.3, 0.6))
    (heat,), corner = _fitted([pile], min(FIRE_EDGE, 0.9 * pile.max()), size, 0.4)
    body = np.clip((heat - 0.25) * 5, 0, 1)
    colour = HEAT[np.clip(heat * rng.uniform(65, 105), 0, 255).astype(np.intp)]
    return Plume(body, colour, corner, bounds(heat > min(FIRE_EDGE, 0.9 * heat.max())))
