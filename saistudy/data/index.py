"""The one table of a data set: a row an image, whatever format it was published in."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from saistudy.data import boxes
from saistudy.data.photographs import FORMATS, Damaged, Photograph
from saistudy.paths import Refusal, write_json

SPLITS = ("train", "val", "test")
COLUMNS = ["image", "split", "group", "event", "width", "height", "sha256", "phash", "boxes"]
NOTES = ["image", "split", "reason", "line", "text"]
ODDITIES = {"exif-rotated", "grey", "cmyk", "16-bit", "misnamed", "no-end-marker"}  # of photographs
# Notes on an image that stays, or on what is no image.
KEPT = boxes.KEPT | ODDITIES
KEPT |= {"repeated-name", "undated", "listed-twice", "orphan-label", "category", "no-label-file"}
FORBIDDEN = set('/\\:*?"<>|')  # in a file name, on one system or another
Told = tuple[str, str, int, str]  # what, where, n, and the effect in words
PROGRESS_S = 10  # seconds between two lines of progress
BLOCK_BYTES = 2**23


@dataclass(frozen=True)
class Dataset:
    """An indexed data set.

    rows: one row an image, sorted by image; COLUMNS (boxes: label arrays (N, 5), sizes in px).
    quarantine: NOTES; images that were refused, lines dropped from images that were kept, and oddities.
    images_n: images that came in: those in rows and those refused.
    read: the bytes of an image as published. storage: image names in the order in which reading is
    cheap (empty: any order).
    """

    name: str
    rows: pd.DataFrame
    quarantine: pd.DataFrame
    images_n: int
    names: dict[int, str]
    provenance: str
    read: Callable[[str], bytes]
    storage: tuple[str, ...] = ()


def safe(image: str) -> bool:
    """Whether a published image name can be a file name inside one folder, and nothing more."""
    stem, dot, suffix = image.rpartition(".")
    plain = image.isprintable() and not set(image) & FORBIDDEN and not image.startswith(".")
    known = suffix.lower() in set().union(*FORMATS.values())
    return bool(stem and plain and known and len(image.encode()) <= 200)


def shown(image: str) -> str:
    """An image name as it can be written: a safe one as it is, others with a "?", which no safe one holds."""
    plain = "".join("?" if c in FORBIDDEN else c for c in printable(image))
    return image if safe(image) else plain if "?" in plain else f"?{plain}"


def printable(text: str) -> str:
    """The first characters of a text, "?" for each that cannot be shown."""
    return "".join(c if c.isprintable() else "?" for c in text[: boxes.TEXT_N])


def free(image: str, taken: set[str]) -> str:
    """The image name, or the first of _2, _3 before its suffix whose stem is free; `taken` learns it.

    Stems count, in any case: two images of one stem would share a label file.
    """
    stem, suffix = os.path.splitext(image)
    number, name = 1, stem
    while name.casefold() in taken:
        number += 1
        name = f"{stem}_{number}"
    taken.add(name.casefold())
    return f"{name}{suffix}"


def provenance(*folders: Path) -> str:
    """Where it comes from: "synthetic" if a folder holds a provenance.json, else "published-format"."""
    marked = any((folder / "provenance.json").is_file() for folder in folders)
    return "synthetic" if marked else "published-format"


def examine(
    image: str, split: str, photo: Photograph | Damaged, text: str | None, classes: Collection[int]
) -> tuple[dict | None, list[dict]]:
    """Index row (None if the image is refused) and notes, from a photograph and its label text.

    A label file with a refused line refuses the image, because Ultralytics would ignore all of it;
    zero-area and duplicate lines alone are dropped and noted. No label file (None) refuses too.
    """
    if isinstance(photo, Damaged):
        return None, [note(image, split, photo.reason, text=str(photo))]
    notes = [note(image, split, oddity) for oddity in photo.oddities]
    if text is None:
        return None, [*notes, note(image, split, "missing-label")]
    array, findings = boxes.parse(text, classes, (photo.width, photo.height))
    notes += [note(image, split, found.reason, found.line, found.text) for found in findings]
    if any(found.reason not in boxes.KEPT for found in findings):
        return None, notes
    row = (image, split, "", "", photo.width, photo.height, photo.sha256, photo.phash, array)
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
    besides: Iterable[dict] = (),
    splits: Collection[str] = SPLITS,
) -> tuple[pd.DataFrame, pd.DataFrame, int]:
    """Rows sorted by image, the quarantine, and how many images came in.

    `examined` is what `examine` gave, once for each image that came in; `besides` are notes on what is no
    image of its own. Images in = rows + refused images, or it raises.

    Raises:
        Refusal: one of `splits` has no image left, or more than half of its images were refused.
    """
    rows, notes, images_n = [], list(besides), 0
    for row, found in examined:
        images_n += 1
        notes += found
        if row is not None:
            rows.append(row)
    frame = pd.DataFrame(rows, columns=COLUMNS).sort_values("image", ignore_index=True)
    frame = frame.astype({"width": "int64", "height": "int64", "phash": "uint64"})
    quarantine = pd.DataFrame(notes, columns=NOTES).astype({"line": "int64"})
    bad = refused(quarantine)
    if images_n != len(frame) + len(bad):
        raise RuntimeError(
            f"{images_n} images in, {len(frame)} kept and {len(bad)} refused: a reader lost some"
        )
    for split in splits:
        _require_half(split, int((frame["split"] == split).sum()), bad[bad["split"] == split])
    return frame, quarantine, images_n


def differing(found: list[Told]) -> str:
    """Rows what, where, n, effect whose effect differs from what was published: two of each kind, or ""."""
    rows = pd.DataFrame(found, columns=["what", "where", "n", "effect"])
    rows = rows[rows["effect"].str.contains("differs")]
    shown = rows.groupby("what", sort=False).head(2)
    told = [f"{row.what} {row.where}: {row.n:_} {row.effect}" for row in shown.itertuples()]
    more_n = len(rows) - len(shown)
    return "; ".join(told) + (f"; and {more_n} more" if more_n else "")


def counted(where: str, seen_n: int, published_n: int) -> Told:
    """A row for `differing`: a number that was published, and what is there."""
    verdict = "agrees with" if seen_n == published_n else "differs from"
    return "published count", where, seen_n, f"{verdict} the published {published_n:_}"


def digest(path: Path, algorithm: str, kept: Path | None = None) -> str:
    """Hex digest of a file; `kept`, a JSON file, remembers it while path, size, clock and inode stay.

    Raises:
        Refusal: `kept` cannot be written.
    """
    seen, known = path.stat(), {}
    key = f"{algorithm} {path.resolve()} {seen.st_size} {seen.st_mtime_ns} {seen.st_ino}"
    with suppress(OSError, ValueError, TypeError):  # what cannot be read counts as empty
        known |= json.loads(kept.read_text(encoding="utf-8")) if kept else {}
    if key not in known:
        hasher = hashlib.new(algorithm, usedforsecurity=False)
        with open(path, "rb") as file:
            blocks, blocks_n = iter(lambda: file.read(BLOCK_BYTES), b""), -(-seen.st_size // BLOCK_BYTES)
            for block in progress(blocks, blocks_n, f"blocks of {path.name} hashed"):
                hasher.update(block)
        known[key] = hasher.hexdigest()
        if kept:
            write_json(kept, known)
    return known[key]


def progress(items: Iterable, total_n: int, what: str) -> Iterator:
    """The items, with a line now and then that says how many are done and how long the rest will take."""
    started = said = time.monotonic()
    for done_n, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - said >= PROGRESS_S and done_n < total_n:
            said, rate = now, done_n / (now - started)
            left_s = (total_n - done_n) / rate
            print(f"{what}: {done_n:_} of {total_n:_}, {rate:.3g} a second, {left_s:.0f} s left", flush=True)


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
    """Write index rows and fingerprint as parquet, whole or not at all; boxes become list<list<double>>."""
    table = rows.assign(boxes=[array.tolist() for array in rows["boxes"]])
    types = {"width": pa.int64(), "height": pa.int64(), "phash": pa.uint64()}
    types["boxes"] = pa.list_(pa.list_(pa.float64()))
    fields = [(name, types.get(name, pa.string())) for name in COLUMNS]
    schema = pa.schema(fields, {"fingerprint": fingerprint(rows)})
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    pq.write_table(pa.Table.from_pandas(table[COLUMNS], schema, preserve_index=False), part)
    os.replace(part, path)


def load(path: Path) -> pd.DataFrame:
    """Index rows as saved, bit for bit.

    Raises:
        Refusal: the file is missing or is no index, or its rows do not give the fingerprint saved with them.
    """
    try:
        table = pq.read_table(path, columns=COLUMNS)
        rows = table.to_pandas()
    except (OSError, pa.ArrowException) as error:
        raise Refusal(f"{path} is not a readable index ({error}): build the tree again.") from error
    cells = ([*map(list, cell)] for cell in rows["boxes"])
    arrays = [np.array(cell, dtype=np.float64).reshape(-1, 5) for cell in cells]
    rows = rows.assign(boxes=pd.Series(arrays, index=rows.index, dtype=object))
    saved = (table.schema.metadata or {}).get(b"fingerprint", b"").decode()
    if saved != (found := fingerprint(rows)):
        raise Refusal(
            f"{path} holds rows of fingerprint {found[:12]} where {saved[:12] or 'none'} was saved with it:"
            " it was changed or cut, so build the tree again."
        )
    return rows
