"""The images and labels of an index, brought into a tree's folders: read in turn, written side by side."""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import pandas as pd

from saistudy.data import boxes, index
from saistudy.data.photographs import END, START
from saistudy.paths import Refusal

THREADS_N = 2  # that write; more gained nothing on 2 cores
CHUNK_N = 16  # images that a thread takes at a time
AHEAD_N = 4  # chunks read ahead of the writing: 20 MB of FASDD, enough to keep it busy


def photo(row: object) -> str:
    """Path of an index row's image below the tree's folder."""
    return f"images/{row.split}/{row.image}"


def label(row: object) -> str:
    """Path of an index row's label file below the tree's folder."""
    return f"labels/{row.split}/{row.image.rpartition('.')[0]}.txt"


def fill(folder: Path, dataset: index.Dataset, rows: pd.DataFrame, present: set[str]) -> None:
    """Labels and images; this thread reads, in the order of storage, others hash and write.

    They run beside each other, for hashing, reading and writing give up Python's lock.
    """
    here = str(folder)
    with ThreadPoolExecutor(THREADS_N) as pool:
        old = ((here, row) for row in rows.itertuples() if photo(row) in present)
        sound = {row.image for row in _ahead(pool, _sound, old) if row}
        jobs = ((here, *job) for job in _jobs(dataset, rows, sound))
        for _ in index.progress(_ahead(pool, _place, jobs), len(rows), "images written"):
            pass


def _ahead(pool: ThreadPoolExecutor, work: Callable, jobs: Iterable[tuple]) -> Iterator:
    """Results of work(*job) in order; so few jobs are drawn ahead that memory stays flat.

    Threads take them by the chunk: handing over each one alone costs a third of the time.
    """
    jobs, pending = iter(jobs), deque()
    while chunk := list(islice(jobs, CHUNK_N)):
        pending.append(pool.submit(lambda chunk: [work(*job) for job in chunk], chunk))
        if len(pending) > AHEAD_N:
            yield from pending.popleft().result()
    while pending:
        yield from pending.popleft().result()


def _sound(here: str, row: object) -> object | None:
    """The row if its image lies there with the indexed bytes, with or without an added end marker."""
    data = Path(here, photo(row)).read_bytes()
    exact = {hashlib.sha256(part).hexdigest() for part in (data, data.removesuffix(END))}
    return row if data == _marked(data) and row.sha256 in exact else None


def _jobs(dataset: index.Dataset, rows: pd.DataFrame, sound: set[str]) -> Iterator[tuple]:
    """Each row with the published bytes of its image, None where the image is there already."""
    by_image = {row.image: row for row in rows.itertuples()}
    for image in dataset.storage or by_image:
        if image in by_image:
            yield by_image[image], None if image in sound else _published(dataset, image)


def _published(dataset: index.Dataset, image: str) -> bytes:
    try:
        return dataset.read(image)
    except Refusal:
        raise
    except (OSError, ValueError, LookupError) as error:  # a shard that is another one now, too
        told = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise Refusal(
            f"{image} was indexed but cannot be read any more ({told}): put the source back and run again."
        ) from error


def _place(here: str, row: object, data: bytes | None) -> None:
    """Write a label, and an image unless `data` is None."""
    _write(f"{here}/{label(row)}", boxes.format(row.boxes).encode())
    if data is None:
        return
    if hashlib.sha256(data).hexdigest() != row.sha256:
        raise Refusal(f"{row.image} is no longer the image that was indexed: read the source again.")
    _write(f"{here}/{photo(row)}", _marked(data))


def _marked(data: bytes) -> bytes:
    """The bytes of an image, of a JPEG with its end marker."""
    return data + END if data[:2] == START and not data.endswith(END) else data


def _write(path: str, data: bytes) -> None:
    """A file stands under its name only when whole: a temporary name, then a rename.

    A label cut short would read as fewer boxes or as a negative, so labels as well. Without fsync:
    a kill loses nothing that the kernel has, and after a power failure the sizes tell (tree.build).
    Python's `open` would give up its lock twice as often, which costs a fifth of the time.
    """
    place, _, name = path.rpartition("/")
    part = f"{place}/.{name}.part"
    file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(file, left) :]
    finally:
        os.close(file)
    os.replace(part, path)
