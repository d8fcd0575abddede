"""A small task for a classifier, painted on the spot: how fine are the stripes of a noisy image?

The class survives what augmentation does to an image (flips, turns, shifts, other colours), so that a switch
that augments is judged by what it does to learning, not by labels that it made wrong.
"""

from pathlib import Path

import cv2
import numpy as np

STRIPES_N = (3.0, 4.0, 5.3, 7.0)  # of each class, across the side of an image
JITTER_FRAC = 0.08  # of them, at most, up or down: two classes never meet
NOISE = 25.0  # standard deviation of the noise in levels of 255: no short training is perfect
QUALITY = 90  # of the stored JPEGs


def draw(images_n: int, side_px: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (N, side, side, 3) and labels int64 (N,), an index into STRIPES_N, as even as N allows.

    Stripes of random direction, phase, colour and contrast, with noise over them.
    """
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(images_n) % len(STRIPES_N))
    images = np.stack([_one(STRIPES_N[label], side_px, rng) for label in labels])
    return images, labels


def _one(stripes_n: float, side_px: int, rng: np.random.Generator) -> np.ndarray:
    many = stripes_n * rng.uniform(1 - JITTER_FRAC, 1 + JITTER_FRAC)
    turn, phase = rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi)
    rows, columns = np.mgrid[:side_px, :side_px] / side_px
    along = columns * np.cos(turn) + rows * np.sin(turn)
    wave = np.sin(2 * np.pi * many * along + phase)[..., None]
    ground, swing = rng.uniform(90, 165, size=3), rng.uniform(15, 60, size=3)
    noisy = ground + swing * wave + rng.normal(0, NOISE, size=(side_px, side_px, 3))
    return np.clip(noisy, 0, 255).round().astype(np.uint8)


def store(folder: Path, images_n: int, side_px: int, seed: int) -> tuple[list[Path], np.ndarray]:
    """Paths of the drawn images as JPEG files in a folder, in order, and their labels int64 (N,)."""
    folder.mkdir(parents=True, exist_ok=True)
    images, labels = draw(images_n, side_px, seed)
    paths = [folder / f"{i:06d}.jpg" for i in range(images_n)]
    for path, image in zip(paths, images, strict=True):
        path.write_bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes())
    return paths, labels
