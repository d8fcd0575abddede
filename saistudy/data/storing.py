"""How a store is filled: where each image lies, what an earlier attempt left, decoded in parallel."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import xxhash

from saistudy.data import pixels
from saistudy.data.staging import pace
from saistudy.paths import Refusal

PIXELS, INDEX = "pixels.bin", "index.npy"
ROW = np.dtype(
    [("at", "<i8"), ("h", "<i4"), ("w", "<i4"), ("h0", "<i4"), ("w0", "<i4"), ("hash", "<u8"), ("done", "?")]
)
CHANNELS_N = 3
LINE_EVERY_S = 5.0


def layout(files: list[str], hw: tuple[int, int]) -> np.ndarray:
    """An index (see ROW) with the place of each image in the file, from the headers alone; none is done yet.

    Raises:
        Refusal: a file is no image.
    """
    index = np.zeros(len(files), ROW)
    sizes = [pixels.original(file) for file in files]
    index["h0"], index["w0"] = zip(*sizes, strict=True)
    fits = [[size, *pixels.fitted(*size, hw)][-1] for size in sizes]
    index["h"], index["w"] = zip(*fits, strict=True)
    ends = np.cumsum(CHANNELS_N * index["h"].astype(np.int64) * index["w"])
    index["at"] = [0, *ends[:-1]]
    return index


def size_bytes(index: np.ndarray) -> int:
    """Bytes of all pixels of an index."""
    return int(CHANNELS_N * np.sum(index["h"].astype(np.int64) * index["w"]))


def begun(folder: Path, index: np.ndarray) -> np.memmap:
    """The index on disk, writable: an earlier one of the same layout, else this; its pixels' room reserved.

    posix_fallocate asks for the room now: a full tmpfs is an error here, where a write into a hole of a
    mapped file would kill the process with SIGBUS.
    """
    places = [key for key in ROW.names if key not in ("hash", "done")]
    with suppress(OSError, ValueError):
        earlier = np.load(folder / INDEX, mmap_mode="r+")
        if earlier.dtype == ROW and np.array_equal(earlier[places], index[places]):
            return earlier
    with open(folder / PIXELS, "wb") as handle:
        os.posix_fallocate(handle.fileno(), 0, max(1, size_bytes(index)))
    np.save(folder / INDEX, index)
    return np.load(folder / INDEX, mmap_mode="r+")


def view(mapped: np.ndarray, row: np.void) -> np.ndarray:
    """The image of an index's row in the mapped file, (height, width, 3) uint8."""
    at, height, width = (int(row[key]) for key in ("at", "h", "w"))
    return mapped[at : at + CHANNELS_N * height * width].reshape(height, width, CHANNELS_N)


def sound(mapped: np.ndarray, row: np.void) -> bool:
    """Whether an earlier attempt left this image whole."""
    return bool(row["done"]) and digest(view(mapped, row)) == row["hash"]


def digest(image: np.ndarray) -> int:
    """64-bit xxh3 of an image's bytes."""
    return xxhash.xxh3_64_intdigest(np.ascontiguousarray(image))


def fill(files: list[str], hw, rows: np.ndarray, mapped: np.ndarray, todo: list[int], say) -> None:
    """Decode and resize the images of these numbers in parallel; a line now and then."""
    done, started = [], time.monotonic()
    last = started

    def worker(_: int) -> Callable[[int], None]:
        def act(i: int) -> None:
            image, size = pixels.load(files[i], hw)
            if size != (rows[i]["h0"], rows[i]["w0"]) or image.shape[:2] != (rows[i]["h"], rows[i]["w"]):
                raise Refusal(f"{files[i]} decodes to {size}, its header says another size: take it out.")
            view(mapped, rows[i])[:] = image
            rows[i]["hash"], rows[i]["done"] = digest(image), True
            done.append(i)

        return act

    def tell() -> None:
        nonlocal last
        if (now := time.monotonic()) - last >= LINE_EVERY_S:
            last, rate = now, len(done) / (now - started)
            left = f"{(len(todo) - len(done)) / rate:.0f} s left" if rate else "none yet"
            say(f"decoded {len(done)} of {len(todo)} images, {rate:.0f} images/s, {left}")

    pace.drain(todo, worker, pace.cores_n(), tell)
