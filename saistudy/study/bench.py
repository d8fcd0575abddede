"""Measured rates of the machine at hand: every place in turn, several passes, all in one run."""

import os
import time
from pathlib import Path

import cv2


def reading_rates(
    places: dict[str, Path], split: str, passes_n: int, cold: tuple[str, ...] = ()
) -> dict[str, list[float]]:
    """Images read and decoded a second, one thread: a list of passes per place, in the order A B A B.

    Args:
        places: name to tree folder.
        cold: places whose files are dropped from the page cache before each pass (posix_fadvise;
            a file system in memory has nothing to drop).
    """
    files = {name: sorted((folder / "images" / split).iterdir()) for name, folder in places.items()}
    rates: dict[str, list[float]] = {name: [] for name in places}
    for _ in range(passes_n):
        for name in places:
            if name in cold:
                _drop(files[name])
            rates[name].append(_rate(files[name]))
    return rates


def _rate(files: list[Path]) -> float:
    """Images a second of one pass."""
    started = time.perf_counter()
    for file in files:
        cv2.imread(str(file))
    return len(files) / (time.perf_counter() - started)


def _drop(files: list[Path]) -> None:
    """Take files out of the page cache; dirty pages are written first, for only clean ones can go."""
    for file in files:
        with open(file, "rb") as handle:
            os.fsync(handle.fileno())
            os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
