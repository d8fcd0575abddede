"""The images of a split, decoded and resized once, in one file that every worker maps: the store.

A store is of one list of files (names, sizes, times), one tensor and one OpenCV: its folder is named by a
digest of all of them, for an array of 896 beside a training at 1440 would be enlarged in silence by
Ultralytics. Its manifest is written last. Killed while it is built and begun again, it goes on.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np

from saistudy.data import storing
from saistudy.data.room import room
from saistudy.data.shm import gib
from saistudy.data.staging import transfer
from saistudy.paths import Refusal, write_json

MANIFEST = "store.json"


class Store:
    """A finished store, mapped for reading: `index` has a row per image (storing.ROW), `hw` is the tensor's.

    Pickled (to a worker that is spawned), only its folder travels.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.known = json.loads((self.folder / MANIFEST).read_text(encoding="utf-8"))
        self.hw = tuple(self.known["hw"])
        self.index = np.load(self.folder / storing.INDEX)
        self._lock = os.open(self.folder / MANIFEST, os.O_RDONLY | os.O_CLOEXEC)
        fcntl.flock(self._lock, fcntl.LOCK_SH)  # in use: no other training makes room by removing it
        self.bytes = np.memmap(self.folder / storing.PIXELS, np.uint8, "r")

    def __reduce__(self):
        return Store, (self.folder,)

    def __del__(self):
        with suppress(AttributeError, OSError):
            os.close(self._lock)

    def __len__(self) -> int:
        return len(self.index)

    def sizes(self, i: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Original and stored (height, width) of image i in pixels."""
        row = self.index[i]
        return (int(row["h0"]), int(row["w0"])), (int(row["h"]), int(row["w"]))

    def image(self, i: int) -> np.ndarray:
        """A read-only view of image i, (height, width, 3) BGR uint8."""
        return np.asarray(storing.view(self.bytes, self.index[i]))

    def shared(self) -> np.memmap:
        """All bytes, mapped writable: torch has no read-only tensors, a private mapping would be copied."""
        return np.memmap(self.folder / storing.PIXELS, np.uint8, "r+")

    def differing(self) -> list[int]:
        """Numbers of the images whose pixels are not those that were hashed when it was built (reads all)."""
        return [i for i in range(len(self)) if storing.digest(self.image(i)) != self.index[i]["hash"]]


def name(files: list[str], hw: tuple[int, int]) -> str:
    """Folder name of the store of these files: tensor, OpenCV, and 16 digits over names, sizes and times.

    Raises:
        Refusal: a file is missing.
    """
    root, hasher = os.path.commonpath([os.path.dirname(file) for file in files]), hashlib.sha256()
    for file in files:
        try:
            seen = os.stat(file)
        except OSError as error:
            raise Refusal(f"{file} cannot be read ({error.strerror}): mend that first.") from None
        hasher.update(f"{os.path.relpath(file, root)}\0{seen.st_size}\0{seen.st_mtime_ns}\n".encode())
    return f"{hw[0]}x{hw[1]}-opencv-{cv2.__version__}-{hasher.hexdigest()[:16]}"


def opened(folder: Path, files: list[str], hw: tuple[int, int]) -> Store:
    """The finished store in `folder`, if it is of exactly these files, this tensor and this OpenCV.

    Raises:
        Refusal: there is none, it is of something else, or its files do not have the size they should.
    """
    return _finished(folder, name(files, hw))


def _finished(folder: Path, asked: str) -> Store:
    """The store in `folder`, if it is finished and has this name."""
    try:
        known = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        size = (folder / storing.PIXELS).stat().st_size
    except (OSError, ValueError):
        raise Refusal(f"{folder} holds no finished store: build it, or name another folder.") from None
    if known["name"] != asked or size != known["bytes"]:
        seen = known["name"] if known["name"] != asked else f"{size} bytes of {known['bytes']}"
        raise Refusal(f"{folder} is the store {seen}, {asked} was expected: remove it, it is built again.")
    return Store(folder)


def ensure(
    files: list[str],
    hw: tuple[int, int],
    places: list[Path],
    beside_bytes: int = 0,
    wait_s: float = 3600,
    say: Callable[[str], None] = print,
) -> Store:
    """The store of these files: found in one of the places, else built in the first that has room.

    Args:
        files: images of one split, in the order of their numbers.
        hw: height and width of the tensor in pixels.
        places: folders of stores in the order of preference; each is one file system (/dev/shm, a disk).
        beside_bytes: what must stay free in a place that is memory: the loaders' batches and a reserve.
        wait_s: how long another process that builds the same store is waited for.

    Raises:
        Refusal: no place has room (nothing is left behind), a file is no image or changed meanwhile.
    """
    asked, wants = name(files, hw), []
    for place in places:
        if (place / asked / MANIFEST).is_file():
            return _finished(place / asked, asked)
    index = storing.layout(files, hw)
    for place in places:
        needed = storing.size_bytes(index) + index.nbytes + beside_bytes
        if not _make_room(place, asked, needed):
            wants.append(f"{place} has {gib(_usable(place, asked))}")
            continue
        try:
            return _built(place / asked, files, hw, index, wait_s, say)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM):
                raise
            shutil.rmtree(place / asked, ignore_errors=True)
            wants.append(f"{place} filled up meanwhile")
    needed = f"{gib(storing.size_bytes(index) + beside_bytes)} are needed, {', '.join(wants)}"
    raise Refusal(f"no place for the decoded images: {needed}: free some, or train with input stock.")


def release(place: Path) -> None:
    """Remove the stores of a place that no training uses."""
    for folder in sorted(place.glob("*-opencv-*")):
        if not _used(folder):
            shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        place.rmdir()


def _usable(place: Path, asked: str) -> int:
    """Bytes that may be filled in a place, those of an unfinished store of this name counted as free."""
    begun = place / asked / storing.PIXELS
    own = 512 * begun.stat().st_blocks if begun.exists() else 0
    return room(place).usable_bytes + own


def _make_room(place: Path, asked: str, needed_bytes: int) -> bool:
    """Whether a place has room, after stores that nobody uses went, the oldest first, as far as needed."""
    stores = [folder for folder in place.glob("*-opencv-*") if folder.name != asked]
    for folder in sorted(stores, key=lambda one: one.stat().st_mtime):
        if _usable(place, asked) >= needed_bytes:
            break
        if not _used(folder):
            shutil.rmtree(folder, ignore_errors=True)
    return _usable(place, asked) >= needed_bytes


def _used(folder: Path) -> bool:
    """Whether a training has mapped this store or a process builds it."""
    for file in (folder / MANIFEST, folder.with_name(f".{folder.name}.lock")):
        with suppress(FileNotFoundError), open(file, "rb") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
    return False


def _built(folder: Path, files, hw, index: np.ndarray, wait_s: float, say) -> Store:
    """Fill a folder, or what is missing of one that was begun; its manifest last."""
    with transfer.owned(folder, wait_s, say):
        if (folder / MANIFEST).is_file():
            return _finished(folder, folder.name)
        folder.mkdir(parents=True, exist_ok=True)
        rows = storing.begun(folder, index)
        mapped = np.memmap(folder / storing.PIXELS, np.uint8, "r+", shape=storing.size_bytes(index))
        todo = [i for i in range(len(files)) if not storing.sound(mapped, rows[i])]
        storing.fill(files, hw, rows, mapped, todo, say)
        mapped.flush()
        rows.flush()
        if name(files, hw) != folder.name:
            raise Refusal(f"images of {folder} changed while they were decoded: start again.")
        write_json(
            folder / MANIFEST,
            {"name": folder.name, "hw": list(hw), "images_n": len(files), "bytes": storing.size_bytes(index)},
        )
        return Store(folder)
