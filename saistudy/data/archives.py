"""A download behind one face, whether it is a folder or a zip. Nothing is unpacked, nothing written."""

import os
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from saistudy.data.known import Stamp
from saistudy.data.photographs import FORMATS
from saistudy.paths import Refusal

TOP = "FASDD_CV"
YOLO = "annotations/YOLO_CV"
LABELS = f"{YOLO}/labels"
COCO = "annotations/COCO_CV/Annotations"
SUFFIXES = {f".{suffix}" for suffixes in FORMATS.values() for suffix in suffixes}


@dataclass(frozen=True)
class Archive:
    """FASDD_CV as it lies there.

    images: stamps by name below images/. texts: paths of lists and label files below FASDD_CV/.
    outside: members of a zip whose names would leave a folder; nobody reads them.
    read: bytes of a path below FASDD_CV/. folders: where provenance.json may lie.
    """

    images: dict[str, Stamp]
    texts: frozenset[str]
    outside: tuple[str, ...]
    read: Callable[[str], bytes]
    folders: tuple[Path, ...]


def find(source: Path) -> Archive:
    """FASDD_CV in a folder of that name, in its parent, or in a zip, which is read in place.

    Raises:
        Refusal: no FASDD_CV there, or a zip that breaks off.
    """
    if source.is_file():
        return _zipped(source)
    for root in (source, source / TOP):
        if (root / YOLO).is_dir():
            return _unpacked(root, source)
    raise Refusal(
        f"{source} holds no FASDD_CV: looked for {YOLO}/ in it and in {source / TOP};"
        " name the unpacked FASDD_CV folder, its parent, or FASDD_CV.zip."
    )


def _unpacked(root: Path, source: Path) -> Archive:
    images = {}
    for entry in _files(root / "images"):
        if _pictured(entry.name):
            seen = entry.stat()
            images[entry.name] = seen.st_size, seen.st_mtime_ns
    beside = (source, root, root.parent)
    texts = {f"{folder}/{entry.name}" for folder in (YOLO, LABELS) for entry in _files(root / folder)}
    return Archive(images, frozenset(texts), (), lambda path: (root / path).read_bytes(), beside)


def _files(folder: Path) -> list[os.DirEntry]:
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return [entry for entry in entries if entry.is_file()]


def _pictured(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES


def _zipped(source: Path) -> Archive:
    try:
        content = zipfile.ZipFile(source)
    except (OSError, zipfile.BadZipFile) as error:
        raise Refusal(
            f"{source} is no whole zip ({error}): name FASDD_CV.zip, and download it again if it breaks off."
        ) from error
    members = {member.filename: member for member in content.infolist() if not member.is_dir()}
    outside = tuple(name for name in members if _leaves(name))
    inside = members.keys() - set(outside)
    tops = {name[: name.index(f"{YOLO}/")] for name in inside if f"/{YOLO}/" in f"/{name}"}
    if not tops:
        raise Refusal(f"{source} holds no FASDD_CV: no {YOLO}/ in it; name FASDD_CV.zip.")
    top = min(tops, key=lambda top: (len(top), top))
    below = {name.removeprefix(top): members[name] for name in inside if name.startswith(top)}
    images = {
        name.removeprefix("images/"): (member.file_size, member.CRC)
        for name, member in below.items()
        if name.startswith("images/") and name.count("/") == 1 and _pictured(name)
    }
    texts = frozenset(name for name in below if name.startswith(f"{YOLO}/"))
    return Archive(images, texts, outside, lambda path: _member(content, top + path), (source.parent,))


def _leaves(name: str) -> bool:
    """Whether a member's name would lead out of the folder that it is unpacked into."""
    parts = name.split("/")
    return parts[0] == "" or ".." in parts or "\\" in name or ":" in parts[0]


def _member(content: zipfile.ZipFile, path: str) -> bytes:
    """Bytes of a member; that it is absent, or damage found by its checksum, is told as an OSError."""
    try:
        return content.read(path)
    except (KeyError, RuntimeError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise OSError(f"damaged in the zip: {error}") from error
