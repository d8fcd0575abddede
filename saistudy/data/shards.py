"""Parquet shards of PyroSDIS: which there are, and their rows in a stream that holds few at a time."""

import re
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from saistudy.data import index
from saistudy.data.known import Known, Stamp
from saistudy.data.photographs import Damaged, Photograph
from saistudy.paths import Refusal

COLUMNS = ["image", "annotations", "image_name", "partner", "camera", "date"]
PIXELS, TEXTS = "image.bytes", COLUMNS[1:]
BATCH_N, AHEAD_N = 16, 32  # images unpacked at a time and waiting for a free core: 5 MB of 100 KB each
# A column of a row group, which may be as large as its shard, is read in pieces (pyarrow: at once).
PIECES = {"buffer_size": 2**20, "pre_buffer": False}


class Row(NamedTuple):
    """A row without its pixels: where it is (shard, row group, row in it), its number in the shard, texts."""

    place: tuple[Path, int, int]
    number: int
    annotations: str | None
    image_name: str
    partner: str
    camera: str
    date: str

    @property
    def file(self) -> str:
        """What Known calls it."""
        return f"{self.place[0].name}/{self.number}/{self.image_name}"


class Reader:
    """Calling it with an image name gives its bytes; the last row group stays in memory."""

    def __init__(self) -> None:
        self.places: dict[str, tuple[Path, int, int]] = {}
        self._held: tuple[tuple[Path, int] | None, pa.ChunkedArray | None] = (None, None)

    def __call__(self, image: str) -> bytes:
        path, group, row = self.places[image]
        held, column = self._held
        if held != (path, group):
            with pq.ParquetFile(path, **PIECES) as content:
                column = content.read_row_group(group, columns=[PIXELS])["image"]
            self._held = ((path, group), column)
        return column[row]["bytes"].as_py()


def find(source: Path, name: str) -> Path:
    """The folder with the shards: `source`, its data/, or <name>/data/ in it.

    Raises:
        Refusal: there are none.
    """
    for folder in (source, source / "data", source / name / "data"):
        if any(folder.glob("train-*.parquet")):
            return folder
    raise Refusal(
        f"{source} holds no PyroSDIS: looked for train-*.parquet in it, data/ and {name}/data/;"
        " name the folder of the downloaded repository."
    )


def listed(folder: Path, split: str) -> list[Path]:
    """The shards of a published split, all of the number that their names promise.

    Raises:
        Refusal: there are more or fewer.
    """
    paths = sorted(folder.glob(f"{split}-*.parquet"))
    found = [re.fullmatch(rf"{split}-(\d+)-of-(\d+)\.parquet", path.name) for path in paths]
    expected_n = int(found[0][2]) if found and found[0] else 1
    numbers = [int(one[1]) if one else number for number, one in enumerate(found)]
    if numbers != [*range(expected_n)]:
        raise Refusal(
            f"{folder} holds {split} shards with the numbers {numbers} where {[*range(expected_n)]} were"
            " expected: download the missing ones, remove the others."
        )
    return paths


def rows_n(path: Path) -> int:
    """How many rows a shard says that it holds.

    Raises:
        Refusal: none, or it cannot be read.
    """
    with _opened(path) as content:
        if content.metadata.num_rows == 0:
            raise Refusal(f"{path} holds no row where images were expected: download it again.")
        return content.metadata.num_rows


def annotations(path: Path) -> list[str | None]:
    """The label texts of a shard, read without its pixels."""
    with _opened(path) as content:
        return _texts(content.read(["annotations"])["annotations"])


def photographs(path: Path, known: Known) -> Iterator[tuple[Row, Photograph | Damaged | None]]:
    """Each row of a shard with what its image is, None where its name is unsafe.

    Pixels of a row group are not read where `known` holds all of its images.

    Raises:
        Refusal: the shard cannot be read or lacks a column.
    """
    waiting: deque = deque()
    with _opened(path) as content, ThreadPoolExecutor() as pool:
        seen = path.stat()
        stamp = seen.st_size, seen.st_mtime_ns
        for row, data in _rows(path, content, known, stamp):
            waiting.append((row, pool.submit(_described, row, data, known, stamp)))
            if len(waiting) > AHEAD_N:
                row, told = waiting.popleft()
                yield row, told.result()
        yield from ((row, told.result()) for row, told in waiting)


def _rows(
    path: Path, content: pq.ParquetFile, known: Known, stamp: Stamp
) -> Iterator[tuple[Row, bytes | None]]:
    """Rows with the bytes of their images: None for all of a row group where no image need be read."""
    number = 0
    for group in range(content.num_row_groups):
        columns = content.read_row_group(group, TEXTS)
        cells = zip(*(_texts(columns[name]) for name in TEXTS), strict=True)
        rows = [_row((path, group, k), number + k, cell) for k, cell in enumerate(cells)]
        number += len(rows)
        if all(known.holds(row.file, stamp) or not index.safe(row.image_name) for row in rows):
            yield from ((row, None) for row in rows)
        else:
            yield from zip(rows, _pixels(content, group), strict=True)


def _pixels(content: pq.ParquetFile, group: int) -> Iterator[bytes | None]:
    for batch in content.iter_batches(BATCH_N, [group], [PIXELS]):
        yield from (cell and cell["bytes"] for cell in batch["image"].to_pylist())


def _described(row: Row, data: bytes | None, known: Known, stamp: Stamp) -> Photograph | Damaged | None:
    return known.describe(row.file, stamp, lambda: data or b"") if index.safe(row.image_name) else None


def _row(place: tuple[Path, int, int], number: int, cells: tuple) -> Row:
    """A missing label text stays missing; any other missing text is an empty one."""
    return Row(place, number, cells[0], *(cell or "" for cell in cells[1:]))


def _texts(column: pa.ChunkedArray) -> list[str | None]:
    """Cells as text: bytes that are no UTF-8 would else stop the whole column."""
    cells = column.cast(pa.binary()).to_pylist()
    return [None if cell is None else cell.decode("utf-8", "replace") for cell in cells]


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path, **PIECES) as content:
            columns = map(content.schema.column, range(len(content.schema)))
            missing = {PIXELS, *TEXTS} - {c.path for c in columns if c.physical_type == "BYTE_ARRAY"}
            if missing:
                raise pa.ArrowInvalid(f"no column {', '.join(sorted(missing))} of texts or bytes")
            yield content
    except (OSError, pa.ArrowException) as error:
        raise Refusal(
            f"{path} cannot be read ({' '.join(str(error).split())}); a parquet shard with the columns"
            f" {', '.join(COLUMNS)} was expected, download it again."
        ) from error
