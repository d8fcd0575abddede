"""PyroSDIS as Pyronear publishes it: parquet shards with the JPEG, its boxes, camera and date."""

from datetime import datetime
from pathlib import Path

import pandas as pd

from saistudy.data import index, shards, split
from saistudy.data.known import Known
from saistudy.data.photographs import Damaged, Photograph
from saistudy.paths import Refusal

NAME = "pyro-sdis"
NAMES = {0: "smoke"}
CLASS = 1  # every published box carries class id 1, although data.yaml says nc: 1
GAP_S = 600  # a longer pause between two frames of a camera starts a new event (Pyronear's grouping)
HELD_FRAC = 0.1  # share of the images that a cut by cameras must reach
SPLITS = {"train": "train", "test": "val"}  # our split: the published one
REVISION = "a1e553ec4d806f71fc6db744cc22bc3469487382"  # of the Hugging Face data set pyronear/pyro-sdis
# Images of the published splits and totals as on its card and in its shards, whose SHA-256 follow.
PUBLISHED = {"train": 29_537, "val": 4_099}
TOTALS = {"images with boxes": 28_103, "boxes": 32_109}
SHA256 = {
    "train-00000-of-00006.parquet": "7cebaeff1d94d23513a59a5652ce04303d02297dd6126dbf9d4ea0d37d7eabae",
    "train-00001-of-00006.parquet": "feb69d99b41e42cf9d73582ef2ff4237c7bbf5ad3f733a5ca0418e00795bd5b5",
    "train-00002-of-00006.parquet": "79ac3a22306cdafad474b4f56288b254d400e30ef1b2ed7d1e961cefd32e6858",
    "train-00003-of-00006.parquet": "ce112887c5eb1a44fe4e5bae6843714a9574c89fa5d5215580b1e2ed4b64822e",
    "train-00004-of-00006.parquet": "1352d4d6b2443019fac83967b463bd0daab9030987363f26bae4ba8691653884",
    "train-00005-of-00006.parquet": "05c000f07253dd60858a629119a5a2d94c8f8427b54f6f2fd503bbe06f933065",
    "val-00000-of-00001.parquet": "d3929f81f755625e35c8b18f27f95cff8726bc279cedaf1c3d048b0fd35d6c57",
}


def read(source: Path, known: Known | None = None) -> index.Dataset:
    """The index of PyroSDIS in a folder: the repository, its `data/`, or its parent; streamed.

    Class id 1 becomes 0. Group = partner_camera; event = group and a number, a new one after more
    than 600 s without a frame (frames without a readable date form one event). The published val
    becomes test, and whole cameras are cut from train for val (by the sha256 of their names
    until 10 % of the images are reached), so that val never chooses on test. A name that
    returns gets _2, _3 before its suffix; an unsafe one refuses its image, a missing camera
    too, for no split by cameras could place it. Pixels of a row group whose
    images `known` has all seen in the unchanged shard are not read.

    Raises:
        Refusal: no shards there, one missing or unreadable, columns missing, fewer than two cameras in
            train, or more than half of a split refused.
    """
    source, known = Path(source), known or Known()
    folder = shards.find(source, NAME)
    paths = [(path, ours) for ours, theirs in SPLITS.items() for path in shards.listed(folder, theirs)]
    images_n = sum(shards.rows_n(path) for path, _ in paths)
    stream = ((row, ours, photo) for path, ours in paths for row, photo in shards.photographs(path, known))
    reader, frames, examined, taken = shards.Reader(), [], [], set()
    for row, ours, photo in index.progress(stream, images_n, "images of PyroSDIS examined"):
        examined.append(_examined(row, ours, photo, taken, reader))
        frames.append((f"{row.partner}_{row.camera}", _time(row.date)))
        known.keep(often=True)
    known.keep()
    _group(examined, frames)
    rows, quarantine, images_n = index.assemble(examined)
    provenance = index.provenance(source, source.parent, folder.parent, folder.parent.parent)
    kept = set(rows["image"])
    storage = tuple(image for image in reader.places if image in kept)
    return index.Dataset(NAME, rows, quarantine, images_n, NAMES, provenance, reader, storage)


def events(frames: pd.DataFrame) -> pd.Series:
    """Event names of frames with columns group and time (NaT where unknown), on the same index."""
    ordered = frames.sort_values(["group", "time"], kind="stable")
    pause_s = ordered.groupby("group")["time"].diff().dt.total_seconds()
    number = (pause_s > GAP_S).groupby(ordered["group"]).cumsum()
    name = ordered["group"] + "-e" + number.astype(int).astype(str).str.zfill(4)
    return name.where(ordered["time"].notna(), ordered["group"] + "-undated").reindex(frames.index)


def claims(dataset: index.Dataset) -> bool:
    """Whether it claims to be the published set: at least as many images came in."""
    return dataset.name == NAME and dataset.images_n >= sum(PUBLISHED.values())


def published(dataset: index.Dataset, source: Path, kept: Path | None = None) -> list[index.Told]:
    """What, where, n and "agrees ..." or "differs ...": counts of images and boxes, SHA-256 of the shards.

    Boxes are lines of the published label texts, whatever became of them (`kept`: see `index.digest`).
    """
    folder = shards.find(Path(source), NAME)
    texts = {name: _annotations(folder, name) for name in PUBLISHED}
    lines_n = [sum(map(bool, map(str.strip, text.split("\n")))) for told in texts.values() for text in told]
    totals = dict(zip(TOTALS, (sum(map(bool, lines_n)), sum(lines_n)), strict=True))
    rows = [index.counted(name, len(texts[name]), n) for name, n in PUBLISHED.items()]
    rows += [index.counted(what, totals[what], n) for what, n in TOTALS.items()]
    rows.append(index.counted("images that came in", dataset.images_n, sum(PUBLISHED.values())))
    names = index.progress(SHA256.items(), len(SHA256), "shards of PyroSDIS hashed")
    return rows + [_hashed(folder / name, sha256, kept) for name, sha256 in names]


def assert_published(source: Path, dataset: index.Dataset, kept: Path | None = None) -> None:
    """Do nothing where a download is the published data set; `kept` as for `published`.

    Raises:
        Refusal: its counts or the checksums of its shards are not the published ones.
    """
    found = published(dataset, source, kept)
    if told := index.differing(found):
        raise Refusal(
            f"{source} is not PyroSDIS as published ({told}): download pyronear/pyro-sdis at"
            f" revision {REVISION[:8]} again, or run any other set with PROFILE=mini."
        )


def _annotations(folder: Path, name: str) -> list[str]:
    return [text or "" for path in shards.listed(folder, name) for text in shards.annotations(path)]


def _hashed(path: Path, sha256: str, kept: Path | None) -> index.Told:
    if not path.is_file():
        return "published checksum", path.name, 0, "differs: it is not there"
    verdict = "agrees with" if index.digest(path, "sha256", kept) == sha256 else "differs from"
    return "published checksum", path.name, 1, f"{verdict} the published SHA-256 {sha256[:16]}"


def _time(date: str) -> datetime | None:
    try:
        return datetime.strptime(date, "%Y-%m-%dT%H-%M-%S")
    except ValueError:
        return None


def _examined(
    row: shards.Row, ours: str, photo: Photograph | Damaged | None, taken: set, reader: shards.Reader
) -> tuple[dict | None, list[dict]]:
    """What index.examine says, and about name and date; `taken` and `reader` learn the image's name."""
    if photo is None:
        image = index.free(index.shown(row.image_name), taken)
        return None, [index.note(image, ours, "unsafe-name", text=row.place[0].name)]
    image, notes = index.free(row.image_name, taken), []
    if not row.camera:
        return None, [index.note(image, ours, "no-camera", text=row.place[0].name)]
    reader.places[image] = row.place
    if image != row.image_name:
        notes.append(index.note(image, ours, "repeated-name", text=row.image_name))
    if _time(row.date) is None:
        notes.append(index.note(image, ours, "undated", text=row.date))
    found, told = index.examine(image, ours, photo, row.annotations, {CLASS})
    if found is not None:
        found["boxes"][:, 0] = 0
    return found, notes + told


def _group(examined: list[tuple], frames: list[tuple]) -> None:
    """Give the kept rows their groups and events, and cut val from train by whole cameras."""
    table = pd.DataFrame(frames, columns=["group", "time"])
    event = events(table.assign(time=pd.to_datetime(table["time"], errors="coerce")))
    kept = []
    for (row, _), group, name in zip(examined, table["group"], event, strict=True):
        if row is not None:
            row["group"], row["event"] = group, name
            kept.append(row)
    train = pd.Series([row["group"] for row in kept if row["split"] == "train"], dtype=object)
    val = split.cut(train.value_counts().to_dict(), HELD_FRAC * len(train)) if len(train) else set()
    for row in kept:
        if row["split"] == "train" and row["group"] in val:
            row["split"] = "val"
