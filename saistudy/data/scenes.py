"""Painted landscapes with smoke, fire, lamps and clouds: the imagery of the synthetic twins.

Pictures are float32 arrays (height, width, 3), red-green-blue, 0-1. All is a function of the random
generator passed in, and no product is left to a threaded library: same seed, same bytes.
"""

import io
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

SMOKE_EDGE = 0.22  # opacity at which a plume is taken to begin: its box is the bounds of that
FIRE_EDGE = 0.35  # the same for flames, whose edge is sharp

# sky at the top, sky at the horizon, haze, near ground, brightness of the light
SKIES = np.array(
    [
        [[0.29, 0.50, 0.80], [0.74, 0.84, 0.92], [0.66, 0.74, 0.82], [0.20, 0.30, 0.14], [1.0] * 3],
        [[0.48, 0.60, 0.74], [0.83, 0.86, 0.87], [0.74, 0.77, 0.79], [0.27, 0.31, 0.19], [1.0] * 3],
        [[0.55, 0.58, 0.62], [0.70, 0.72, 0.74], [0.62, 0.64, 0.66], [0.18, 0.23, 0.15], [0.8] * 3],
        [[0.36, 0.42, 0.62], [0.90, 0.72, 0.56], [0.62, 0.55, 0.56], [0.22, 0.22, 0.15], [0.8] * 3],
        [[0.07, 0.10, 0.20], [0.26, 0.28, 0.38], [0.17, 0.19, 0.27], [0.06, 0.08, 0.07], [0.5] * 3],
    ],
    dtype=np.float32,
)
SKY_SHARES = (0.35, 0.25, 0.2, 0.1, 0.1)  # day, haze, overcast, evening, dusk
FLAME = np.array([[0.75, 0.12, 0.02], [1.0, 0.42, 0.04], [1.0, 0.72, 0.12], [1.0, 0.95, 0.66]])


class Landscape(NamedTuple):
    """A picture (height, width, 3) and where its ground begins and how bright its light is."""

    picture: np.ndarray
    horizon_px: int
    light: float


def noise(rng, width: int, height: int, cells: float, octaves: int = 3) -> np.ndarray:
    """Smooth random field, float32 (height, width), 0-1: random grids of growing fineness, summed.

    `cells` is how many cells of the coarsest grid span the width.
    """
    field = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        nx = max(2, round(cells * 2**octave))
        ny = max(2, round(nx * height / width))
        grid = Image.fromarray(rng.random((ny, nx), dtype=np.float32))
        field += np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC)) / 2**octave
    low, high = field.min(), field.max()
    return (field - low) / max(high - low, 1e-6)


def blend(picture: np.ndarray, colour: np.ndarray, opacity: np.ndarray) -> None:
    """Lay a colour (3,) or (height, width, 3) over a picture in place; opacity (height, width)."""
    picture += opacity[..., None] * (np.asarray(colour, np.float32) - picture)


def ridge(rng, width: int, base_px: float, swing_px: float) -> np.ndarray:
    """Sky line of a hill range: float32 (width,) row numbers around `base_px`."""
    line = noise(rng, width, 2, rng.uniform(1.5, 4), octaves=5)[0]
    return base_px + swing_px * (0.5 - line)


def landscape(rng, width: int, height: int, cloudy_frac: float = 0.5) -> Landscape:
    """A new landscape: sky, clouds with the given chance, three to five hill ranges in haze."""
    sky, low, haze, ground, light = SKIES[rng.choice(len(SKIES), p=SKY_SHARES)]
    ground = ground * rng.uniform(0.75, 1.25, 3).astype(np.float32)
    horizon = height * rng.uniform(0.3, 0.55)
    rows = np.arange(height, dtype=np.float32)[:, None]
    fall = np.clip(rows / horizon, 0, 1)[..., None] ** 1.4
    picture = np.repeat(sky + fall * (low - sky), width, axis=1)
    picture *= 1 + 0.16 * rng.uniform(-1, 1) * np.linspace(-1, 1, width)[:, None].astype("f4")
    if rng.random() < cloudy_frac:
        add_clouds(picture, rng, int(horizon), float(light[0]))
    ranges = int(rng.integers(3, 6))
    for i in range(ranges):
        near = i / (ranges - 1)
        base = horizon + (height * 0.9 - horizon) * near**1.5
        line = ridge(rng, width, base, height * rng.uniform(0.08, 0.25))
        texture = 1 + (0.12 + 0.45 * near) * (noise(rng, width, height, 6 + 18 * near, 3) - 0.5)
        colour = (haze + (ground - haze) * (0.25 + 0.75 * near)) * texture[..., None]
        blend(picture, colour, np.clip(rows - line + 0.5, 0, 1))
    return Landscape(picture.astype(np.float32), int(horizon), float(light[0]))


def add_clouds(picture: np.ndarray, rng, horizon_px: int, light: float) -> None:
    """Lay flat clouds over the sky in place: what a smoke detector must not call smoke."""
    height, width = picture.shape[:2]
    field = noise(rng, width, height * 2, rng.uniform(2, 4), 4)[::2]
    cover = np.clip((field - rng.uniform(0.45, 0.6)) * 4, 0, 1) * rng.uniform(0.4, 0.85)
    fade = np.clip(1.2 - np.arange(height) / max(horizon_px, 1), 0, 1)[:, None]
    shade = light * (0.78 + 0.2 * field)
    blend(picture, shade[..., None].repeat(3, axis=2), (cover * fade).astype(np.float32))


def add_lamps(picture: np.ndarray, rng, horizon_px: int, lamps_n: int) -> None:
    """Put small round warm-white lights on the ground in place: what is no fire."""
    height, width = picture.shape[:2]
    for _ in range(lamps_n):
        x, y = rng.uniform(0.03, 0.97) * width, rng.uniform(horizon_px * 1.05, height * 0.9)
        radius = height * rng.uniform(0.006, 0.014)
        for scale, strength in ((5, 0.25), (1, 1.0)):
            rows, cols, glow = puffs([[x, y, radius * scale, radius * scale, strength]], picture)
            blend(picture[rows, cols], (1.0, 0.93, 0.76), np.clip(glow, 0, 1))


def puffs(blobs, picture: np.ndarray) -> tuple[slice, slice, np.ndarray]:
    """Sum of soft blobs on the smallest window that holds them: row slice, column slice, density.

    `blobs` is (n, 5): centre x, centre y, radius x, radius y (pixels), weight.
    """
    x, y, rx, ry, weight = np.asarray(blobs, np.float32).T
    height, width = picture.shape[:2]
    left, right = max(0, int((x - 2.6 * rx).min())), min(width, int((x + 2.6 * rx).max()) + 2)
    top, bottom = max(0, int((y - 2.6 * ry).min())), min(height, int((y + 2.6 * ry).max()) + 2)
    across = np.exp(-(((np.arange(left, right) - x[:, None]) / rx[:, None]) ** 2))
    down = np.exp(-(((np.arange(top, bottom) - y[:, None]) / ry[:, None]) ** 2))
    density = np.einsum("nh,nw->hw", down * weight[:, None], across, optimize=False)
    return slice(top, bottom), slice(left, right), density.astype(np.float32)


def bounds(opacity: np.ndarray, rows: slice, cols: slice, edge: float):
    """Box x1, y1, x2, y2 (pixels) around what is more opaque than `edge`; None when nothing is."""
    seen = opacity > edge
    if not seen.any():
        return None
    y, x = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    x, y = x + cols.start, y + rows.start
    return (int(x[0]), int(y[0]), int(x[-1]) + 1, int(y[-1]) + 1)


def is_bright(land: Landscape, foot, width_px: float, height_px: float) -> bool:
    """Whether what lies behind a plume is so bright that only dark smoke shows on it."""
    x, y = round(foot[0]), round(foot[1])
    rows = slice(max(0, y - round(height_px)), max(1, y))
    cols = slice(max(0, x - round(width_px / 2)), x + max(1, round(width_px / 2)))
    return bool(land.picture[rows, cols].mean() > 0.58)


def add_smoke(land: Landscape, rng, foot, width_px: float, height_px: float, wind: float, dark):
    """Raise a plume over a landscape in place; its box x1, y1, x2, y2 in pixels, or None.

    Growing blobs sheared by the wind (-1 to 1), broken up by noise; Beer-Lambert opacity.
    """
    t = np.linspace(0, 1, 30) ** 0.8
    sway = np.interp(t, np.linspace(0, 1, 5), rng.normal(0, 0.06, 5)) * t
    x = foot[0] + width_px * (wind * 0.6 * t**1.5 + sway) + rng.normal(0, 0.04, 30) * width_px * t
    radius = (0.07 + 0.22 * t) * width_px
    y = foot[1] - np.maximum(height_px - radius * 1.2, 0.3 * height_px) * t
    blobs = np.stack([x, y, radius, radius * 0.9, 0.55 - 0.2 * t], axis=1)
    rows, cols, density = puffs(blobs, land.picture)
    if min(density.shape) < 4:
        return None
    field = noise(rng, density.shape[1], density.shape[0], 5, 3)
    depth = 2.2 * np.clip(density - 0.15, 0, None) * (0.35 + 1.3 * field)
    opacity = 0.95 * (1 - np.exp(-depth))
    grey = rng.uniform(0.3, 0.42) if dark else land.light * rng.uniform(0.82, 0.95)
    tint = grey * (0.72 + 0.42 * field[..., None]) * np.array([1.0, 0.99, 0.97])
    blend(land.picture[rows, cols], np.clip(tint, 0, 1), opacity)
    return bounds(opacity, rows, cols, SMOKE_EDGE)


def add_fire(land: Landscape, rng, foot, width_px: float, height_px: float):
    """Light flames on a landscape in place; their box x1, y1, x2, y2 in pixels, or None."""
    picture, tongues = land.picture, int(rng.integers(3, 7))
    glow = [[foot[0], foot[1] - height_px / 2, width_px * 1.1, height_px, 0.2]]
    rows, cols, halo = puffs(glow, picture)
    blend(picture[rows, cols], (1.0, 0.5, 0.1), halo)
    t = np.linspace(0, 1, 7)
    blobs = []
    for i in range(tongues):
        at = (i + rng.uniform(0.2, 0.8)) / tongues - 0.5
        reach = height_px * rng.uniform(0.55, 0.95) * (1 - abs(at) * 0.9)
        x = foot[0] + width_px * (at * 0.8 + rng.normal(0, 0.05) * t)
        radius = width_px * (0.24 - 0.14 * t) * rng.uniform(0.6, 0.9)
        blobs.append(np.stack([x, foot[1] - reach * t, radius, radius * 1.3, 0.7 - 0.3 * t], axis=1))
    rows, cols, heat = puffs(np.concatenate(blobs), picture)
    if min(heat.shape) < 4:
        return None
    heat = heat * (0.65 + 0.7 * noise(rng, heat.shape[1], heat.shape[0], 5, 2))
    opacity = np.clip((heat - 0.3) * 4, 0, 1)
    at = np.clip((heat - 0.3) / 1.5, 0, 1)
    colour = np.stack([np.interp(at, [0, 0.3, 0.6, 1], FLAME[:, c]) for c in range(3)], axis=2)
    blend(picture[rows, cols], colour, opacity)
    return bounds(opacity, rows, cols, FIRE_EDGE)


def jpeg(picture: np.ndarray, rng, caption: str = "") -> bytes:
    """JPEG bytes of a picture: grain of a sensor, quality 75-95, a caption at the top if given."""
    grain = rng.standard_normal(picture.shape[:2], dtype=np.float32) * rng.uniform(0.004, 0.014)
    pixels = np.clip((picture + grain[..., None]) * 255 + 0.5, 0, 255).astype(np.uint8)
    image = Image.fromarray(pixels)
    if caption:
        ImageDraw.Draw(image).text((4, 2), caption, fill=(235, 235, 235))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=int(rng.integers(75, 96)))
    return buffer.getvalue()
