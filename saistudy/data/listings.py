"""The three lists of FASDD_CV against what lies there: a bad line costs its image, not the data set."""

import re
from collections.abc import Iterator
from itertools import chain

from saistudy.data import index
from saistudy.data.archives import LABELS, YOLO, Archive
from saistudy.data.boxes import TEXT_N
from saistudy.paths import Refusal

Listed = dict[str, tuple[str, dict | None]]  # image -> its split and, where its listing refuses it, why


def read(archive: Archive) -> tuple[Listed, list[dict]]:
    """Image -> its split and, where its listing refuses it, why; and notes on lines that repeat an image."""
    found: Listed = {}
    stems: dict[str, str] = {}
    besides = []
    for split in index.SPLITS:
        for line, text in _lines(archive, split):
            image = text.removeprefix("./").removeprefix("images/")
            if not index.safe(image):
                image = _apart(_shown(image), found, f"{split} line {line}")
                found[image] = (
                    split,
                    index.note(image, split, "unsafe-name", line, _shown(text, set())[:TEXT_N]),
                )
            elif image in found:
                besides.append(
                    index.note(image, split, "listed-twice", line, f"first in {found[image][0]}.txt")
                )
            else:
                reason, told = _refusal(archive, image, stems)
                found[image] = split, reason and index.note(image, split, reason, line, told)
    return found, besides


def _refusal(archive: Archive, image: str, stems: dict[str, str]) -> tuple[str | None, str]:
    """Why a listed image cannot be taken, None where it can; `stems` learns whose label file it is."""
    if image not in archive.images:
        return "missing-image", "listed, not there"
    owner = stems.setdefault(image.rpartition(".")[0], image)
    return ("shared-label", f"{owner} has the same label file") if owner != image else (None, "")


def _lines(archive: Archive, split: str) -> list[tuple[int, str]]:
    """Lines of a list that are not blank, with their numbers from 1."""
    path = f"{YOLO}/{split}.txt"
    try:
        text = archive.read(path).decode("utf-8-sig", errors="replace")
    except OSError as error:
        raise Refusal(
            f"{path} is missing or unreadable in {archive.folders[0]} ({error}): unpack FASDD_CV again."
        ) from error
    numbered = enumerate(map(str.strip, re.split(r"\r\n|\r|\n", text)), start=1)
    if found := [(number, line) for number, line in numbered if line]:
        return found
    raise Refusal(f"{path}: it names no image; every split needs its images, so unpack FASDD_CV again.")


def _shown(name: str, forbidden: set[str] = index.FORBIDDEN) -> str:
    """A name as it can be shown and written; no image that `index.safe` lets pass is called so."""
    shown = "".join("?" if not c.isprintable() or c in forbidden else c for c in name)
    return shown if len(shown) <= TEXT_N else f"{shown[:TEXT_N]}?"


def _apart(name: str, taken: dict, place: str) -> str:
    return f"{name}?{place}" if name in taken else name


def unlisted(archive: Archive, listed: Listed) -> Iterator[tuple[None, list[dict]]]:
    """Images that lie there and stand in no list, and members that no folder could hold."""
    notes: dict[str, dict] = {}
    for number, image in enumerate([*sorted(archive.images.keys() - listed.keys()), *archive.outside]):
        name = image if index.safe(image) else _apart(_shown(image), notes, str(number))
        notes[name] = index.note(name, "", "unlisted")
    return ((None, [note]) for note in notes.values())


def orphans(archive: Archive, listed: Listed) -> list[dict]:
    """Notes on label files without an image and without a listing."""
    files = (path.removeprefix(f"{LABELS}/") for path in archive.texts if path.startswith(f"{LABELS}/"))
    labels = {file.removesuffix(".txt") for file in files if file.endswith(".txt") and "/" not in file}
    images = {image.rpartition(".")[0] for image in chain(archive.images, listed)}
    return [index.note(_shown(f"{stem}.jpg"), "", "orphan-label") for stem in sorted(labels - images)]
