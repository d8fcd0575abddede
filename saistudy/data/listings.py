"""The three lists of FASDD_CV against what lies there: a bad line costs its image, not the data set."""

import re
from collections.abc import Iterator
from itertools import chain

from saistudy.data import index
from saistudy.data.archives import LABELS, YOLO, Archive
from saistudy.paths import Refusal

Listed = dict[str, tuple[str, dict | None]]  # image -> its split and, where its listing refuses it, why


def read(archive: Archive) -> tuple[Listed, list[dict]]:
    """Image -> its split and, where its listing refuses it, why; and notes on lines that repeat an image.

    A refused line that means an image which no line names (in other case, or by another path) and that image
    are one: refused under the image's name, where the line stands.
    """
    found: Listed = {}
    stems, taken, lines, besides = {}, set(), {}, []
    for split in index.SPLITS:
        for line, text in _lines(archive, split):
            image = text.removeprefix("./").removeprefix("images/")
            if index.safe(image) and image in found:
                note = index.note(image, split, "listed-twice", line, f"first in {found[image][0]}.txt")
                besides.append(note)
                continue
            reason, told = "unsafe-name", index.printable(text)
            if index.safe(image):
                reason, told = _refusal(archive, image, stems)
            else:
                image = index.free(index.shown(image), taken)
            lines[image] = text
            found[image] = split, reason and index.note(image, split, reason, line, told)
    return _joined(archive, found, lines), besides


def _joined(archive: Archive, found: Listed, lines: dict[str, str]) -> Listed:
    """What was found, with each image that no line names under the first refused line that means it."""
    spare = filter(index.safe, sorted(archive.images.keys() - found.keys()))
    unnamed = {image.casefold(): image for image in spare}
    joined: Listed = {}
    for image, (split, refusal) in found.items():
        meant = re.split(r"[/\\]", lines[image])[-1].casefold()
        if refusal and refusal["reason"] != "shared-label" and meant in unnamed:
            image, text = unnamed.pop(meant), f"unlisted, the line says {index.printable(lines[image])}"
            refusal = refusal | {"image": image, "text": text}
        joined[image] = split, refusal
    return joined


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


def unlisted(archive: Archive, listed: Listed) -> Iterator[tuple[None, list[dict]]]:
    """Images that lie there and stand in no list, and members that no folder could hold."""
    taken: set[str] = set()
    for image in [*sorted(archive.images.keys() - listed.keys()), *archive.outside]:
        name = image if index.safe(image) else index.free(index.shown(image), taken)
        yield None, [index.note(name, "", "unlisted")]


def orphans(archive: Archive, listed: Listed) -> list[dict]:
    """Notes on label files without an image and without a listing."""
    files = (path.removeprefix(f"{LABELS}/") for path in archive.texts if path.startswith(f"{LABELS}/"))
    labels = {file.removesuffix(".txt") for file in files if file.endswith(".txt") and "/" not in file}
    images = {image.rpartition(".")[0] for image in chain(archive.images, listed)}
    return [index.note(index.shown(f"{stem}.jpg"), "", "orphan-label") for stem in sorted(labels - images)]
