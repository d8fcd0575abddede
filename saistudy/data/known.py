"""What was found out about files before: one that has not changed is not read again."""

import hashlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import PIL
import pyarrow as pa
import pyarrow.parquet as pq

from saistudy.data import photographs
from saistudy.data.photographs import Damaged, Photograph
from saistudy.paths import Refusal

Stamp = tuple[int, int]  # size in bytes, and modification time in ns or the CRC-32 that an archive keeps
SAVED_EVERY_S = 60
SCHEMA = pa.schema(
    [
        *(("file", pa.string()), ("bytes", pa.int64()), ("changed", pa.int64())),
        *(("width", pa.int64()), ("height", pa.int64()), ("sha256", pa.string()), ("phash", pa.uint64())),
        *(("oddities", pa.list_(pa.string())), ("reason", pa.string()), ("told", pa.string())),
    ]
)


class Known:
    """Photographs (or the damage) by file and stamp, kept in a parquet file; without a path only in memory.

    A file that another version of `photographs` or of Pillow wrote, or that cannot be read, counts as empty.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path, self.read_n = path, 0
        self._found: dict[tuple[str, int, int], Photograph | Damaged] = {}
        self._saved_s = time.monotonic()
        self._code, self._lock = _code(), threading.Lock()
        if path and path.is_file():
            self._load(path)

    def holds(self, file: str, stamp: Stamp) -> bool:
        """Whether `describe` answers without reading."""
        return (file, *stamp) in self._found

    def describe(self, file: str, stamp: Stamp, read: Callable[[], bytes]) -> Photograph | Damaged:
        """The photograph in a file, or what is wrong with it; `read` gives its bytes if they must be read.

        `file` tells files apart and ends in the image's name. A file that cannot be read at all is
        `unreadable`, and is tried again next time.
        """
        if (seen := self._found.get((file, *stamp))) is not None:
            return seen
        with self._lock:
            self.read_n += 1
        try:
            found = photographs.describe(read(), file.rpartition("/")[2])
        except Damaged as damage:
            found = damage
        except (OSError, ValueError, RuntimeError) as error:
            return Damaged("unreadable", str(error))
        self._found[file, *stamp] = found
        return found

    def keep(self, often: bool = False) -> None:
        """Write what is known, whole or not at all; with `often` only once a minute.

        Raises:
            Refusal: the folder cannot be written to.
        """
        if self.path is None or (often and time.monotonic() - self._saved_s < SAVED_EVERY_S):
            return
        part = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        try:
            with self._lock:
                self._write(part)
        except OSError as error:
            raise Refusal(
                f"{self.path} cannot be written ({error.strerror}): give its folder space and permission."
            ) from error

    def _write(self, part: Path) -> None:
        rows = [_row(key, found) for key, found in sorted(self._found.copy().items())]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows, SCHEMA.with_metadata({"code": self._code})), part)
        os.replace(part, self.path)
        self._saved_s = time.monotonic()

    def _load(self, path: Path) -> None:
        try:
            table = pq.read_table(path)
            if (table.schema.metadata or {}).get(b"code", b"").decode() == self._code:
                self._found = dict(map(_entry, table.to_pylist()))
        except (OSError, KeyError, TypeError, pa.ArrowException):
            self._found = {}


def _code() -> str:
    """Hash of what decides how a photograph is described."""
    code = Path(photographs.__file__).read_bytes() + PIL.__version__.encode()
    return hashlib.sha256(code).hexdigest()


def _row(key: tuple[str, int, int], found: Photograph | Damaged) -> dict:
    file = dict(zip(("file", "bytes", "changed"), key, strict=True))
    if isinstance(found, Damaged):
        return file | {"reason": found.reason, "told": str(found)}
    return file | found._asdict() | {"oddities": list(found.oddities)}


def _entry(row: dict) -> tuple[tuple[str, int, int], Photograph | Damaged]:
    key = row["file"], row["bytes"], row["changed"]
    if row["reason"] is not None:
        return key, Damaged(row["reason"], row["told"])
    values = {name: row[name] for name in Photograph._fields} | {"oddities": tuple(row["oddities"])}
    return key, Photograph(**values)
