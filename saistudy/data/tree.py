"""A clean tree on disk, as Ultralytics wants it: images/<split>, labels/<split>, data.yaml."""

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml

from saistudy.data import boxes, index
from saistudy.data.photographs import END
from saistudy.paths import Refusal, write_json, write_text

DONE = "tree.json"  # written last: what lacks it is no tree
BEGUN = "tree.begun"  # written first: the folder is ours to clean


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

    Raises:
        Refusal: a split would be empty, the folder holds something else, bytes no longer match the
            index, or the disk is full.
    """
    folder = Path(folder).absolute()
    rows = _chosen(dataset.rows, negatives)
    stamp = _stamp(dataset, rows, negatives)
    if _complete(folder, rows, stamp, dataset.names):
        return folder / "data.yaml"
    try:
        _begin(folder)
        _clean(folder, rows)
        _fill(folder, dataset, rows)
        index.save(rows, folder / "index.parquet")
        write_text(folder / "quarantine.csv", dataset.quarantine.to_csv(index=False))
        write_text(folder / "data.yaml", data_yaml(folder, dataset.names))
    except OSError as error:
        raise Refusal(
            f"{folder} cannot be filled ({error.strerror}): give it space and write permission and"
            " run again; what is already there is kept."
        ) from error
    write_json(folder / DONE, stamp)
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


def data_yaml(folder: Path, names: dict[int, str]) -> str:
    """Text of an Ultralytics data.yaml for a tree at an absolute folder."""
    splits = {split: f"images/{split}" for split in index.SPLITS}
    return yaml.safe_dump({"path": str(folder), **splits, "names": names}, sort_keys=False)


def _chosen(rows: pd.DataFrame, negatives: bool) -> pd.DataFrame:
    chosen = rows if negatives else rows[rows["boxes"].map(len) > 0].reset_index(drop=True)
    empty = [split for split in index.SPLITS if not (chosen["split"] == split).any()]
    if empty:
        raise Refusal(
            f"{' and '.join(empty)} would hold no image (negatives={negatives}, {len(rows)} images"
            " in the index): every split needs one, so keep the negatives or index more images."
        )
    return chosen


def _stamp(dataset: index.Dataset, rows: pd.DataFrame, negatives: bool) -> dict:
    """What tree.json says. Images in = images in the tree + refused + (negatives left out)."""
    counts = {split: int((rows["split"] == split).sum()) for split in index.SPLITS}
    return {
        "name": dataset.name,
        "provenance": dataset.provenance,
        "fingerprint": index.fingerprint(rows),
        "names": {str(key): value for key, value in dataset.names.items()},
        "negatives": negatives,
        "images_n": counts,
        "boxes_n": int(rows["boxes"].map(len).sum()),
        "refused_n": len(index.refused(dataset.quarantine)),
        "left_out_n": len(dataset.rows) - len(rows),
    }


def _paths(folder: Path, row: object) -> tuple[Path, Path]:
    """Image and label file of an index row."""
    stem = row.image.rpartition(".")[0]
    return folder / "images" / row.split / row.image, folder / "labels" / row.split / f"{stem}.txt"


def _complete(folder: Path, rows: pd.DataFrame, stamp: dict, names: dict[int, str]) -> bool:
    """Whether this very tree is finished there, with no image or label missing or added."""
    try:
        known = json.loads((folder / DONE).read_text(encoding="utf-8"))
        text = (folder / "data.yaml").read_text(encoding="utf-8")
        if known != stamp or text != data_yaml(folder, names):
            return False
    except (OSError, ValueError):
        return False
    wanted = {path for row in rows.itertuples() for path in _paths(folder, row)}
    present = {path for kind in ("images", "labels") for path in folder.glob(f"{kind}/*/*")}
    return wanted == present and (folder / "index.parquet").is_file()


def _begin(folder: Path) -> None:
    """Claim the folder; from here on it is unfinished."""
    ours = (folder / BEGUN).exists() or (folder / DONE).exists()
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not ours)):
        raise Refusal(f"{folder} holds something else than a tree: name an empty or new folder.")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / BEGUN).touch()
    (folder / DONE).unlink(missing_ok=True)


def _clean(folder: Path, rows: pd.DataFrame) -> None:
    """Remove whatever Ultralytics would read that is not of this tree."""
    wanted = {path for row in rows.itertuples() for path in _paths(folder, row)}
    for kind in ("images", "labels"):
        for split in index.SPLITS:
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
        for path in [*folder.glob(f"{kind}/*"), *folder.glob(f"{kind}/*/*")]:
            if path in wanted or (path.is_dir() and path.name in index.SPLITS):
                continue
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _fill(folder: Path, dataset: index.Dataset, rows: pd.DataFrame) -> None:
    by_image = {row.image: row for row in rows.itertuples()}
    for image in dataset.storage or by_image:
        if row := by_image.get(image):
            photo, label = _paths(folder, row)
            write_text(label, boxes.format(row.boxes))
            if not _sound(photo, row.sha256):
                _copy(dataset.read(image), row, photo)


def _sound(path: Path, sha256: str) -> bool:
    """Whether the file holds the indexed bytes, with or without an added end marker."""
    try:
        data = path.read_bytes()
    except OSError:
        return False
    whole = data.endswith(END) or data[:2] != b"\xff\xd8"
    exact = {hashlib.sha256(part).hexdigest() for part in (data, data.removesuffix(END))}
    return whole and sha256 in exact


def _copy(data: bytes, row: object, path: Path) -> None:
    if hashlib.sha256(data).hexdigest() != row.sha256:
        raise Refusal(f"{row.image} is no longer the image that was indexed: read the source again.")
    missing = data[:2] == b"\xff\xd8" and not data.endswith(END)
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(data + END if missing else data)
    os.replace(part, path)
