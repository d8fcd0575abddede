"""A clean tree on disk, as Ultralytics wants it: images/<split>, labels/<split>, data.yaml."""

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml

from saistudy.data import index
from saistudy.data.filling import fill, label, photo
from saistudy.paths import Refusal, write_json, write_text

DONE = "tree.json"  # written last: what lacks it is no tree
BEGUN = "tree.begun"  # written first: the folder is ours to clean
TABLES = ("index.parquet", "quarantine.csv")
NEEDED = {"train", "val"}  # Ultralytics trains and chooses on these; a data set may have no test
KINDS = ("images", "labels")


@dataclass(frozen=True)
class Tree:
    """A finished tree: where it is, its index rows (see data.index), and whose images they are."""

    folder: Path
    yaml: Path
    rows: pd.DataFrame
    name: str
    provenance: str
    fingerprint: str
    names: dict[int, str]


def build(dataset: index.Dataset, folder: Path, negatives: bool = True) -> Path:
    """Path of the data.yaml of a tree that holds exactly the images of the index.

    Every image is a copy of the published bytes: never a link, for Ultralytics rewrites a JPEG
    without end marker in place; such a copy gets the marker. An image without boxes has an empty
    label file, or with negatives=False is left out. Killed and called again it keeps each file
    whose sha256 is right; leftovers of another tree (label caches and .npy included) are removed.
    A finished tree is known by the names and sizes of its files, no image is read again.

    Raises:
        Refusal: a split would be empty, the folder holds something else or cannot be filled, the
            bytes are gone or no longer match the index, or a file was lost or added meanwhile.
    """
    folder = Path(folder).absolute()
    rows = _chosen(dataset.rows, negatives)
    stamp = _stamp(dataset, rows, negatives)
    told = data_yaml(folder, dataset.names, stamp["images_n"])
    if _complete(folder, stamp, told):
        (folder / BEGUN).unlink(missing_ok=True)  # killed between the two last lines below
        return folder / "data.yaml"
    try:
        _begin(folder)
        fill(folder, dataset, rows, present=_clean(folder, rows))
        index.save(rows, folder / "index.parquet")
        write_text(folder / "quarantine.csv", dataset.quarantine.to_csv(index=False))
        write_text(folder / "data.yaml", told)
        _require_all(folder, stamp)
    except OSError as error:
        raise Refusal(
            f"{folder} cannot be filled ({error.strerror}): give it space and write permission and"
            " run again; what is already there is kept."
        ) from error
    write_json(folder / DONE, stamp | {"listing": _listing(folder)})
    (folder / BEGUN).unlink(missing_ok=True)
    return folder / "data.yaml"


def load(folder: Path) -> Tree:
    """The finished tree in a folder.

    Raises:
        Refusal: it was never finished, or its files cannot be read.
    """
    folder = Path(folder).absolute()
    try:
        stamp = json.loads((folder / DONE).read_text(encoding="utf-8"))
        names = {int(key): value for key, value in stamp["names"].items()}
        known = stamp["name"], stamp["provenance"], stamp["fingerprint"]
    except (OSError, ValueError, KeyError) as error:
        raise Refusal(f"{folder} is no finished tree (no sound {DONE}): build it first.") from error
    rows = index.load(folder / "index.parquet")
    return Tree(folder, folder / "data.yaml", rows, *known, names)


def data_yaml(folder: Path, names: dict[int, str], splits: Iterable[str] = index.SPLITS) -> str:
    """Text of an Ultralytics data.yaml for a tree at an absolute folder."""
    folders = {split: f"images/{split}" for split in splits}
    return yaml.safe_dump({"path": str(folder), **folders, "names": names}, sort_keys=False)


def _chosen(rows: pd.DataFrame, negatives: bool) -> pd.DataFrame:
    chosen = rows if negatives else rows[rows["boxes"].map(len) > 0].reset_index(drop=True)
    empty = NEEDED.union(rows["split"]) - set(chosen["split"])
    if empty:
        raise Refusal(
            f"{' and '.join(sorted(empty))} would hold no image (negatives={negatives}, {len(rows)} images"
            " in the index): every split needs one, so keep the negatives or index more images."
        )
    return chosen


def _stamp(dataset: index.Dataset, rows: pd.DataFrame, negatives: bool) -> dict:
    """What tree.json says, but for its `listing`: images in = in the tree + refused + left out."""
    counts = {split: int((rows["split"] == split).sum()) for split in index.SPLITS}
    return {
        "name": dataset.name,
        "provenance": dataset.provenance,
        "fingerprint": index.fingerprint(rows),
        "names": {str(key): value for key, value in dataset.names.items()},
        "negatives": negatives,
        "images_in_n": dataset.images_n,
        "images_n": {split: n for split, n in counts.items() if n},
        "boxes_n": int(rows["boxes"].map(len).sum()),
        "refused_n": len(index.refused(dataset.quarantine)),
        "left_out_n": len(dataset.rows) - len(rows),
    }


def _walk(folder: Path) -> Iterator[tuple[str, os.DirEntry]]:
    """Path below the folder and entry of whatever lies in images/<split> and labels/<split>."""
    for place in (f"{kind}/{split}" for kind in KINDS for split in index.SPLITS):
        if (folder / place).is_dir():
            with os.scandir(folder / place) as entries:
                yield from ((f"{place}/{entry.name}", entry) for entry in entries)


def _listing(folder: Path) -> str:
    """Hex sha256 over path and size of each image, label and table."""
    sizes = [(name, entry.stat(follow_symlinks=False).st_size) for name, entry in _walk(folder)]
    sizes += [(name, (folder / name).stat().st_size) for name in TABLES]
    return hashlib.sha256(repr(sorted(sizes)).encode()).hexdigest()


def _complete(folder: Path, stamp: dict, told: str) -> bool:
    """Whether this very tree is finished there, with no file missing, added or of another size."""
    try:
        known = json.loads((folder / DONE).read_text(encoding="utf-8"))
        if (folder / "data.yaml").read_text(encoding="utf-8") != told:
            return False
        return known == stamp | {"listing": _listing(folder)}
    except (OSError, ValueError):
        return False


def _begin(folder: Path) -> None:
    """Claim the folder; from here on it is unfinished."""
    ours = (folder / BEGUN).exists() or (folder / DONE).exists()
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not ours)):
        raise Refusal(f"{folder} holds something else than a tree: name an empty or new folder.")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / BEGUN).touch()
    for file in [folder / DONE, *folder.glob(".*.part")]:  # a write that was killed leaves its .part
        file.unlink(missing_ok=True)


def _clean(folder: Path, rows: pd.DataFrame) -> set[str]:
    """Paths of this tree that are files already; whatever else Ultralytics would read is removed."""
    wanted = {path(row) for row in rows.itertuples() for path in (photo, label)}
    places = {folder / kind / split for kind in KINDS for split in rows["split"].unique()}
    for place in places:
        place.mkdir(parents=True, exist_ok=True)
    beside = (path for kind in KINDS for path in (folder / kind).iterdir())
    for path in [path for path in beside if path not in places]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    present = set()
    for name, entry in [*_walk(folder)]:
        if name in wanted and entry.is_file(follow_symlinks=False):
            present.add(name)
        else:
            shutil.rmtree(entry) if entry.is_dir(follow_symlinks=False) else os.unlink(entry)
    return present


def _require_all(folder: Path, stamp: dict) -> None:
    """Images in = images that lie there + refused + left out, split by split, with a label each."""
    places = Counter(os.path.dirname(name) for name, _ in _walk(folder))
    seen = {kind: {split: places[f"{kind}/{split}"] for split in stamp["images_n"]} for kind in KINDS}
    out_n = sum(seen["images"].values()) + stamp["refused_n"] + stamp["left_out_n"]
    if any(counts != stamp["images_n"] for counts in seen.values()) or out_n != stamp["images_in_n"]:
        raise Refusal(
            f"{folder} holds {seen} files where {stamp['images_n']} were expected of each, and"
            f" {stamp['images_in_n']} images came in of which {stamp['refused_n']} were refused and"
            f" {stamp['left_out_n']} left out: something else writes there or the reader lost some,"
            " so read the source and build again."
        )
