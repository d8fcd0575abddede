"""PyroSDIS as Pyronear publishes it: parquet shards with the JPEG, its boxes, camera and date."""

import hashlib
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from saistudy.data import index
from saistudy.paths import Refusal

NAME = "pyro-sdis"
NAMES = {0: "smoke"}
PUBLISHED = {"train": 29_537, "val": 4_099}  # images of the two published splits
CLASS = 1  # every published box carries class id 1, although data.yaml says nc: 1
GAP_S = 600  # a longer pause between two frames of a camera starts a new event (Pyronear's grouping)
COLUMNS = ["image", "annotations", "image_name", "partner", "camera", "date"]
BATCH_N = 64  # images decoded at a time: 33,636 of 100 KB are not held in memory at once
HELD_FRAC = 0.1  # share of the images that a cut by cameras must reach


class _Shards:
    """Calling it with an image name gives its bytes; the last row group stays in memory."""

    def __init__(self) -> None:
        self.places: dict[str, tuple[Path, int, int]] = {}
        self._held: tuple[tuple[Path, int] | None, pa.ChunkedArray | None] = (None, None)

    def __call__(self, image: str) -> bytes:
        path, group, row = self.places[image]
        held, column = self._held
        if held != (path, group):
            column = pq.ParquetFile(path).read_row_group(group, columns=["image.bytes"])["image"]
            self._held = ((path, group), column)
        return column[row]["bytes"].as_py()


def read(source: Path) -> index.Dataset:
    """The index of PyroSDIS in a folder: the repository, its `data/`, or its parent; streamed.

    Class id 1 becomes 0. Group = partner_camera; event = group and a number, a new one after more
    than 600 s without a frame (frames without a readable date form one event). The published val
    becomes test, and whole cameras are cut from train for val (by the sha256 of their names
    until 10 % of the images are reached), so that val never chooses on test. A name that
    returns gets _2, _3 before its suffix.

    Raises:
        Refusal: no shards there, one missing or unreadable, columns missing, an unsafe name, fewer
            than two cameras in train, or more than half of a split refused.
    """
    source = Path(source)
    folder = _folder(source)
    shards = _Shards()
    examined, seen = [], {}
    with ThreadPoolExecutor() as pool:
        for batch in _batches(folder, shards, seen):
            examined += pool.map(lambda item: _examine(*item), batch)
    rows, quarantine = _split(examined, seen)
    provenance = index.provenance(source, source.parent, folder.parent, folder.parent.parent)
    storage = tuple(image for image in shards.places if image in set(rows["image"]))
    return index.Dataset(NAME, rows, quarantine, NAMES, provenance, shards, storage)


def disjoint(dataset: index.Dataset) -> index.Dataset:
    """The same images under the name "pyro-sdis-disjoint", split 80/10/10 by whole cameras.

    The published val shows the cameras of train. Here cameras in the order of the sha256 of their
    names fill test, then val, until each holds 10 % of the images; the rest is train.

    Raises:
        Refusal: fewer than three cameras.
    """
    rows = dataset.rows.copy()
    images_n = rows["group"].value_counts().to_dict()
    test = cut(images_n, HELD_FRAC * len(rows), left_n=2)
    rest = {camera: n for camera, n in images_n.items() if camera not in test}
    val = cut(rest, HELD_FRAC * len(rows), left_n=1)
    rows["split"] = ["test" if c in test else "val" if c in val else "train" for c in rows["group"]]
    return replace(dataset, name=f"{NAME}-disjoint", rows=rows)


def cut(images_n: dict[str, int], target_n: float, left_n: int = 1) -> set[str]:
    """Cameras, in the order of the sha256 of their names, that reach `target_n` images together.

    At least one is taken and at least `left_n` stay.

    Raises:
        Refusal: there are not more than `left_n` cameras.
    """
    if len(images_n) <= left_n:
        raise Refusal(
            f"PyroSDIS: {len(images_n)} cameras ({', '.join(sorted(images_n))}) were found where"
            f" {left_n + 1} were expected, so no split by whole cameras exists; add shards."
        )
    order = sorted(images_n, key=lambda camera: hashlib.sha256(camera.encode()).hexdigest())
    taken: set[str] = set()
    while not taken or (sum(images_n[c] for c in taken) < target_n and len(order) - len(taken) > left_n):
        taken.add(order[len(taken)])
    return taken


def events(frames: pd.DataFrame) -> pd.Series:
    """Event names of frames with columns group and time (NaT where unknown), on the same index."""
    ordered = frames.sort_values(["group", "time"], kind="stable")
    pause_s = ordered.groupby("group")["time"].diff().dt.total_seconds()
    number = (pause_s > GAP_S).groupby(ordered["group"]).cumsum()
    name = ordered["group"] + "-e" + number.astype(int).astype(str).str.zfill(4)
    return name.where(ordered["time"].notna(), ordered["group"] + "-undated").reindex(frames.index)


def _folder(source: Path) -> Path:
    for folder in (source, source / "data", source / NAME / "data"):
        if any(folder.glob("train-*.parquet")):
            return folder
    raise Refusal(
        f"{source} holds no PyroSDIS: looked for train-*.parquet in it, data/ and {NAME}/data/;"
        " name the folder of the downloaded repository."
    )


def _listed(folder: Path, split: str) -> list[Path]:
    """The shards of a published split, all of the number that their names promise."""
    paths = sorted(folder.glob(f"{split}-*.parquet"))
    numbers = [re.fullmatch(rf"{split}-(\d+)-of-(\d+)\.parquet", path.name) for path in paths]
    expected_n = int(numbers[0][2]) if numbers and numbers[0] else 1
    if len(paths) != expected_n:
        raise Refusal(
            f"{folder} holds {len(paths)} {split} shards where {expected_n} were expected;"
            " download the missing ones."
        )
    return paths


def _batches(folder: Path, shards: _Shards, seen: dict) -> Iterator[list[tuple]]:
    """Lists of (image, split, bytes, label text, notes); `shards` and `seen` learn each image."""
    for split, published in (("train", "train"), ("test", "val")):
        for path in _listed(folder, published):
            try:
                content = pq.ParquetFile(path)
                for group in range(content.num_row_groups):
                    row = 0
                    for batch in content.iter_batches(BATCH_N, [group], COLUMNS):
                        cells = batch.to_pylist()
                        numbered = [((path, group, row + k), cell) for k, cell in enumerate(cells)]
                        yield [_item(cell, split, at, shards, seen) for at, cell in numbered]
                        row += len(cells)
            except (OSError, KeyError, pa.ArrowException) as error:
                raise Refusal(
                    f"{path} cannot be read ({error}); a parquet shard with the columns"
                    f" {', '.join(COLUMNS)} was expected, download it again."
                ) from error


def _item(cell: dict, split: str, place: tuple, shards: _Shards, seen: dict) -> tuple:
    published = str(cell["image_name"])
    if not index.safe(published):
        raise Refusal(
            f"{place[0].name} names an image {published!r}; a plain <name>.jpg was expected, since"
            " names become files: rename it in the shard."
        )
    image, notes = index.free(published, shards.places), []
    if image != published:
        notes += [index.note(image, split, "repeated-name", text=published)]
    time = pd.to_datetime(cell["date"], format="%Y-%m-%dT%H-%M-%S", errors="coerce")
    if pd.isna(time):
        notes += [index.note(image, split, "undated", text=str(cell["date"]))]
    shards.places[image] = place
    seen[image] = {"group": f"{cell['partner']}_{cell['camera']}", "time": time}
    return image, split, (cell["image"] or {}).get("bytes"), cell["annotations"], notes


def _examine(image: str, split: str, data: bytes, text: str | None, notes: list) -> tuple:
    row, found = index.examine(image, split, lambda: data, text, {CLASS})
    if row is not None:
        row["boxes"][:, 0] = 0
    return row, notes + found


def _split(examined: list[tuple], seen: dict) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows and quarantine with groups and events, val cut from train by whole cameras."""
    frames = pd.DataFrame.from_dict(seen, orient="index")
    event = events(frames.assign(time=pd.to_datetime(frames["time"]))).to_dict()
    kept = [row for row, _ in examined if row is not None]
    for row in kept:
        row["group"], row["event"] = seen[row["image"]]["group"], event[row["image"]]
    train = pd.Series([row["group"] for row in kept if row["split"] == "train"], dtype=object)
    val = cut(train.value_counts().to_dict(), HELD_FRAC * len(train)) if len(train) else set()
    for row in kept:
        if row["split"] == "train" and row["group"] in val:
            row["split"] = "val"
    return index.assemble(examined)
