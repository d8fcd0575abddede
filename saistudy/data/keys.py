"""A key of a data set's files, by which is told whether they changed."""

import hashlib
import zipfile
import zlib
from pathlib import Path

from saistudy.paths import Refusal

TEXT = (".txt", ".json")  # what the study's own lists and labels are written in; FASDD's XML is not read
MORE = (".csv", ".xml", ".yaml")  # what those of a further layout may be, too
ADVICE = {  # what to do about a file that is no whole zip
    "fasdd_cv": "name FASDD_CV.zip, and download it again if it breaks off.",
    "pyro-sdis": "name the folder that holds the shards (train-*.parquet).",
}


def of(path: Path, dataset: str) -> str:
    """Sixteen hex digits that change when a file of the data set changes, as far as can be told quickly.

    Hashed are every file's name and size, and the contents of lists, labels and COCO files by their CRC-32,
    which a zip keeps; not the contents of images and shards (their hashes are in the index), and no clock:
    the same download has the same key whether it is named by its folder, its parent or its zip.

    Raises:
        Refusal: a file that is no whole zip.
    """
    text = TEXT if dataset in ADVICE else TEXT + MORE
    files = _zipped(path, dataset, text) if path.is_file() else _listed(path, text)
    entries = [(_inner(name, dataset), size, crc) for name, size, crc in files]
    lines = [f"{name} {size} {crc}" for name, size, crc in entries if name is not None]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]


def _inner(name: str, dataset: str) -> str | None:
    """A file's path within its data set, None for one that is no part of it.

    FASDD: from `images/` or `annotations/` on; PyroSDIS: the shards' bare names; of a further layout all.
    """
    parts = name.split("/")
    if dataset == "pyro-sdis":
        return parts[-1] if name.endswith(".parquet") else None
    if dataset != "fasdd_cv":
        return name
    tops = [i for i, part in enumerate(parts) if part in ("images", "annotations")]
    return "/".join(parts[tops[0] :]) if tops else None


def _listed(path: Path, text: tuple[str, ...]) -> list[tuple[str, int, int]]:
    """Path, size and, for a text file, CRC-32 (else 0) of every file below a folder."""
    files = (entry for entry in path.rglob("*") if entry.is_file())
    return [
        (
            f.relative_to(path).as_posix(),
            f.stat().st_size,
            zlib.crc32(f.read_bytes()) if f.suffix in text else 0,
        )
        for f in files
    ]


def _zipped(path: Path, dataset: str, text: tuple[str, ...]) -> list[tuple[str, int, int]]:
    """Path, size and, for a text file, CRC-32 of every member of an archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [m for m in archive.infolist() if not m.is_dir()]
    except (OSError, zipfile.BadZipFile) as error:
        advice = ADVICE.get(dataset, "name its folder, or a whole zip of it.")
        raise Refusal(f"{path} is no whole zip ({error}): {advice}") from error
    return [(m.filename, m.file_size, m.CRC if m.filename.endswith(text) else 0) for m in members]
