"""FASDD_CV as its authors publish it: flat images, YOLO and COCO annotations, three lists."""

import json
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from saistudy.data import index
from saistudy.paths import Refusal

NAME = "fasdd_cv"
NAMES = {0: "fire", 1: "smoke"}
# Images of the archive by split: val and test are floor(n / 6) of each of the four categories.
PUBLISHED = {"train": 63_546, "val": 15_884, "test": 15_884}
YOLO = "annotations/YOLO_CV"
COCO = "annotations/COCO_CV/Annotations"


@dataclass(frozen=True)
class _Archive:
    """Paths below FASDD_CV/, how to read one, and the folders where provenance.json may lie."""

    members: frozenset[str]
    read: Callable[[str], bytes]
    folders: tuple[Path, ...]


def read(source: Path) -> index.Dataset:
    """The index of FASDD_CV: a folder `FASDD_CV`, its parent, or the zip, which is read in place.

    Splits come from the published lists (CRLF, `./images/` prefix), boxes from the YOLO labels. The
    group is "v" and a number: frames of one video were numbered in shuffled order and split at
    random, so images whose perceptual hashes chain together (index.cluster) count as one group.

    Raises:
        Refusal: no FASDD_CV there, a list missing or empty, an image listed twice or not there, an
            unsafe name, or more than half of a split refused.
    """
    archive = _open(Path(source))
    splits = _splits(archive)
    with ThreadPoolExecutor() as pool:
        examined = list(pool.map(lambda item: _examine(archive, *item), splits.items()))
    examined += [(None, [index.note(name, "", "unlisted")]) for name in _unlisted(archive, splits)]
    rows, quarantine = index.assemble(examined)
    labels = index.cluster(rows["phash"].to_numpy())
    rows["group"] = [f"v{label:05d}" for label in labels]
    provenance = index.provenance(*archive.folders)
    return index.Dataset(NAME, rows, quarantine, NAMES, provenance, _reader(archive))


def coco(source: Path) -> pd.DataFrame:
    """What the COCO files say: a row an image with split, image, width, height (px), boxes_n.

    Raises:
        Refusal: no FASDD_CV there, or a COCO file is missing or is not what it should be.
    """
    archive = _open(Path(source))
    rows = [row for split in index.SPLITS for row in _coco_split(archive, split)]
    return pd.DataFrame(rows, columns=["split", "image", "width", "height", "boxes_n"])


def _coco_split(archive: _Archive, split: str) -> Iterator[tuple]:
    path = f"{COCO}/{split}.json"
    try:
        content = json.loads(archive.read(path))
        owners = pd.Series([box["image_id"] for box in content["annotations"]], dtype="int64")
        boxes_n = owners.value_counts().to_dict()
        for image in content["images"]:
            size = image["width"], image["height"]
            yield split, image["file_name"], *size, boxes_n.get(image["id"], 0)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise Refusal(
            f"{path} cannot be read as COCO ({error!r}): images with id, file_name, width, height"
            " and annotations with image_id were expected, so unpack FASDD_CV again."
        ) from error


def _open(source: Path) -> _Archive:
    """Folder or zip behind one face."""
    if source.is_file() and zipfile.is_zipfile(source):
        return _open_zip(source)
    for root in (source, source / "FASDD_CV"):
        if (root / YOLO).is_dir():
            return _open_folder(root, source)
    raise Refusal(
        f"{source} holds no FASDD_CV: looked for {YOLO}/ in it and in {source / 'FASDD_CV'};"
        " name the unpacked FASDD_CV folder, its parent, or FASDD_CV.zip."
    )


def _open_folder(root: Path, source: Path) -> _Archive:
    members = [
        f"{folder}/{path.name}"
        for folder in ("images", YOLO, f"{YOLO}/labels")
        if (root / folder).is_dir()
        for path in (root / folder).iterdir()
    ]
    beside = (source, root, root.parent)
    return _Archive(frozenset(members), lambda path: (root / path).read_bytes(), beside)


def _open_zip(source: Path) -> _Archive:
    content = zipfile.ZipFile(source)
    names = content.namelist()
    first = next((name for name in names if f"{YOLO}/" in name), None)
    if first is None:
        raise Refusal(f"{source} holds no FASDD_CV: no {YOLO}/ in it; name FASDD_CV.zip.")
    top = first[: first.index(YOLO)]
    members = frozenset(name.removeprefix(top) for name in names if not name.endswith("/"))
    return _Archive(members, lambda path: _member(content, top + path), (source.parent,))


def _member(content: zipfile.ZipFile, path: str) -> bytes:
    """Bytes of a member; damage found by its checksum is told as an OSError."""
    try:
        return content.read(path)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise OSError(f"damaged in the zip: {error}") from error


def _splits(archive: _Archive) -> dict[str, str]:
    """Image name -> split, from the three lists."""
    splits: dict[str, str] = {}
    stems: dict[str, str] = {}
    for split in index.SPLITS:
        for image in _listed(archive, split):
            stem = image.rpartition(".")[0]
            if stem in stems:
                raise Refusal(
                    f"{image} of {split}.txt is listed a second time (as {stems[stem]} in"
                    f" {splits[stems[stem]]}.txt); an image belongs to one split: mend the lists."
                )
            stems[stem], splits[image] = image, split
    return splits


def _listed(archive: _Archive, split: str) -> list[str]:
    """Image names of one list, each safe and present."""
    path = f"{YOLO}/{split}.txt"
    if path not in archive.members:
        raise Refusal(f"{path} is missing in {archive.folders[0]}: unpack FASDD_CV again.")
    lines = archive.read(path).decode("utf-8-sig", errors="replace").splitlines()
    listed = [line.strip() for line in lines if line.strip()]
    names = [line.removeprefix("./").removeprefix("images/") for line in listed]
    for line, image in zip(listed, names, strict=True):
        if not index.safe(image):
            raise Refusal(f"{path} names {line!r} where ./images/<name>.jpg was expected: mend it.")
    missing = [image for image in names if f"images/{image}" not in archive.members]
    if missing or not names:
        first = f"{len(missing)} of {len(names)} images are not there, first {missing[:1]}"
        seen = first if names else "it names no image"
        raise Refusal(f"{path}: {seen}; every split needs its images, so unpack FASDD_CV again.")
    return names


def _unlisted(archive: _Archive, splits: dict[str, str]) -> list[str]:
    """Images that lie in the folder and stand in no list."""
    images = (path for path in archive.members if path.startswith("images/"))
    present = {path.removeprefix("images/") for path in images}
    return sorted(present - splits.keys())


def _examine(archive: _Archive, image: str, split: str) -> tuple[dict | None, list[dict]]:
    path = f"{YOLO}/labels/{image.rpartition('.')[0]}.txt"
    known = path in archive.members
    try:
        text = archive.read(path).decode("utf-8", errors="replace") if known else None
    except OSError as error:
        return None, [index.note(image, split, "unreadable", text=f"label file: {error}")]
    return index.examine(image, split, lambda: archive.read(f"images/{image}"), text, NAMES)


def _reader(archive: _Archive) -> Callable[[str], bytes]:
    return lambda image: archive.read(f"images/{image}")
