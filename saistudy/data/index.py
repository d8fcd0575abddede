"""The one table of a data set: a row an image, whatever format it was published in."""

import hashlib
import os
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from saistudy.data import boxes
from saistudy.data.photographs import cluster as cluster
from saistudy.data.photographs import describe as describe
from saistudy.paths import Refusal

SPLITS = ("train", "val", "test")
COLUMNS = ["image", "split", "group", "event", "width", "height", "sha256", "phash", "boxes"]
NOTES = ["image", "split", "reason", "line", "text"]
KEPT = boxes.DROPPED | {"repeated-name", "undated"}  # notes on an image that stays


@dataclass(frozen=True)
class Dataset:
    """An indexed data set.

    rows: one row an image, sorted by image; COLUMNS (boxes: label arrays (N, 5), sizes in px).
    quarantine: NOTES; images that were refused, and lines dropped from images that were kept.
    read: the bytes of an image as published. storage: image names in the order in which reading is
    cheap (empty: any order).
    """

    name: str
    rows: pd.DataFrame
    quarantine: pd.DataFrame
    names: dict[int, str]
    provenance: str
    read: Callable[[str], bytes]
    storage: tuple[str, ...] = ()


def safe(image: str) -> bool:
    """Whether a published image name can be a file name inside one folder, on any file system."""
    stem, dot, suffix = image.rpartition(".")
    plain = image.isprintable() and not set(image) & set('/\\:*?"<>|') and not image.startswith(".")
    return bool(stem and plain and suffix.lower() in {"jpg", "jpeg", "png"} and len(image.encode()) <= 200)


def free(image: str, taken: Collection[str]) -> str:
    """The image name, or the first of _2, _3 before its suffix that is not taken."""
    stem, dot, suffix = image.rpartition(".")
    number, name = 1, image
    while name in taken:
        number += 1
        name = f"{stem}_{number}{dot}{suffix}"
    return name


def provenance(*folders: Path) -> str:
    """Where it comes from: "synthetic" if a folder holds a provenance.json, else "published-format"."""
    marked = any((folder / "provenance.json").is_file() for folder in folders)
    return "synthetic" if marked else "published-format"


def examine(
    image: str, split: str, get: Callable[[], bytes], text: str | None, classes: Collection[int]
) -> tuple[dict | None, list[dict]]:
    """Index row (None if the image is refused) and notes, from an image's bytes and label text.

    A label file with a refused line refuses the image, because Ultralytics would ignore all of it;
    zero-area and duplicate lines alone are dropped and noted. No label file (None) refuses too.
    """
    try:
        width, height, sha256, phash = describe(get())
    except (Refusal, OSError, ValueError, RuntimeError) as error:
        return None, [note(image, split, "unreadable", text=str(error))]
    if text is None:
        return None, [note(image, split, "missing-label")]
    array, findings = boxes.parse(text, classes, (width, height))
    notes = [note(image, split, found.reason, found.line, found.text) for found in findings]
    if any(found.reason not in boxes.DROPPED for found in findings):
        return None, notes
    row = (image, split, "", "", width, height, sha256, phash, array)
    return dict(zip(COLUMNS, row, strict=True)), notes


def note(image: str, split: str, reason: str, line: int = 0, text: str = "") -> dict:
    """A quarantine row; line 0 speaks of the whole image."""
    return dict(zip(NOTES, (image, split, reason, line, text), strict=True))


def refused(quarantine: pd.DataFrame) -> pd.DataFrame:
    """One quarantine row for each image that was refused: images in = rows + these.

    Left out are the notes on images that stayed (reasons KEPT) and further lines of the same image.
    """
    whole = quarantine[~quarantine["reason"].isin(KEPT)]
    return whole.drop_duplicates(["image", "split"]).reset_index(drop=True)


def assemble(
    examined: Iterable[tuple[dict | None, list[dict]]],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows sorted by image, and the quarantine, of what `examine` gave.

    Raises:
        Refusal: a split has no image left, or more than half of its images were refused.
    """
    rows, notes = [], []
    for row, found in examined:
        notes += found
        if row is not None:
            rows.append(row)
    frame = pd.DataFrame(rows, columns=COLUMNS).sort_values("image", ignore_index=True)
    frame = frame.astype({"width": "int64", "height": "int64", "phash": "uint64"})
    quarantine = pd.DataFrame(notes, columns=NOTES).astype({"line": "int64"})
    bad = refused(quarantine)
    for split in SPLITS:
        _require_half(split, int((frame["split"] == split).sum()), bad[bad["split"] == split])
    return frame, quarantine


def _require_half(split: str, kept_n: int, bad: pd.DataFrame) -> None:
    if kept_n and len(bad) <= kept_n:
        return
    if bad.empty:
        raise Refusal(f"{split}: no image at all; every split needs one, so check the source.")
    first = bad.iloc[0]
    raise Refusal(
        f"{split}: {len(bad)} of {len(bad) + kept_n} images were refused, most for"
        f" '{bad['reason'].mode()[0]}' (the first is {first['image']}: {first['reason']}"
        f" {first['text']!r}); at least half should be sound, so unpack or download again."
    )


def fingerprint(rows: pd.DataFrame) -> str:
    """Hex sha256 over image, split, sha256 and boxes in image order: whatever training sees.

    Group and event names do not enter; neither does the order of the rows.
    """
    digest = hashlib.sha256()
    for row in rows.sort_values("image").itertuples():
        digest.update(f"{row.image}\t{row.split}\t{row.sha256}\n{boxes.format(row.boxes)}".encode())
    return digest.hexdigest()


def save(rows: pd.DataFrame, path: Path) -> None:
    """Write index rows as parquet, whole or not at all; boxes become list<list<double>>."""
    table = rows.assign(boxes=[array.tolist() for array in rows["boxes"]])
    types = {"width": pa.int64(), "height": pa.int64(), "phash": pa.uint64()}
    types["boxes"] = pa.list_(pa.list_(pa.float64()))
    schema = pa.schema([(name, types.get(name, pa.string())) for name in COLUMNS])
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    pq.write_table(pa.Table.from_pandas(table[COLUMNS], schema, preserve_index=False), part)
    os.replace(part, path)


def load(path: Path) -> pd.DataFrame:
    """Index rows as saved, bit for bit.

    Raises:
        Refusal: the file is missing or is no index.
    """
    try:
        rows = pq.read_table(path, columns=COLUMNS).to_pandas()
    except (OSError, pa.ArrowException) as error:
        raise Refusal(f"{path} is not a readable index ({error}): build the tree again.") from error
    cells = ([*map(list, cell)] for cell in rows["boxes"])
    arrays = [np.array(cell, dtype=np.float64).reshape(-1, 5) for cell in cells]
    return rows.assign(boxes=pd.Series(arrays, index=rows.index, dtype=object))
