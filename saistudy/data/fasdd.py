"""FASDD_CV as its authors publish it: flat images, YOLO and COCO annotations, three lists."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import pandas as pd

from saistudy.data import archives, crosscheck, index, listings, photographs
from saistudy.data.archives import LABELS, Archive
from saistudy.data.known import Known
from saistudy.paths import Refusal

NAME = "fasdd_cv"
NAMES = {0: "fire", 1: "smoke"}
CLASSES = {  # of the boxes in an image, by the category that its stem names (Wang et al. 2024)
    "fire_CV": {0},
    "smoke_CV": {1},
    "bothFireAndSmoke_CV": {0, 1},
    "neitherFireNorSmoke_CV": set(),
}
# The archive: Science Data Bank doi 10.57760/sciencedb.j00104.00103, version V9 of 2025-09-09. Counts as in
# its file lists: val and test are floor(n / 6) of each category, train is the rest.
ARCHIVE_BYTES = 12_326_081_298
ARCHIVE_MD5 = "da5e1410e13113fc9d605567aea54508"
CATEGORIES = {
    "fire_CV": {"train": 8_368, "val": 2_091, "test": 2_091},
    "smoke_CV": {"train": 15_610, "val": 3_902, "test": 3_902},
    "bothFireAndSmoke_CV": {"train": 13_435, "val": 3_358, "test": 3_358},
    "neitherFireNorSmoke_CV": {"train": 26_133, "val": 6_533, "test": 6_533},
}
PUBLISHED = {split: sum(images_n[split] for images_n in CATEGORIES.values()) for split in index.SPLITS}
CHUNK_N = 64  # images that a thread takes at a time
Examined = tuple[dict | None, list[dict]]


def read(source: Path, known: Known | None = None) -> index.Dataset:
    """The index of FASDD_CV: a folder `FASDD_CV`, its parent, or the zip, which is read in place.

    Splits come from the published lists (CRLF or LF; `./images/x.jpg`, `images/x.jpg` or bare), boxes from
    the YOLO labels. The group is "v" and a number: frames of one video were numbered in shuffled order and
    split at random, so images whose perceptual hashes chain together (photographs.cluster) count as one
    group. A bad list line refuses its image, with the number of the line; images that `known` has seen
    unchanged are not read again.

    Raises:
        Refusal: no FASDD_CV there, a list missing or empty, or more than half of a split refused.
    """
    known = known or Known()
    archive = archives.find(Path(source))
    listed, besides = listings.read(archive)
    examined = _all_examined(archive, known, listed)
    examined = index.progress(examined, len(listed), "images of FASDD_CV examined")
    besides += listings.orphans(archive, listed)
    rows, quarantine, images_n = index.assemble(chain(examined, listings.unlisted(archive, listed)), besides)
    labels = photographs.cluster(rows["phash"].to_numpy())
    rows["group"] = [f"v{label:05d}" for label in labels]
    provenance = index.provenance(*archive.folders)

    def image_bytes(image: str) -> bytes:
        if image not in archive.images:
            raise FileNotFoundError(f"{image} is no image of {source}")
        return archive.read(f"images/{image}")

    return index.Dataset(NAME, rows, quarantine, images_n, NAMES, provenance, image_bytes)


def category(image: str) -> str:
    """The category that a published image name tells, "" for a name of another shape."""
    prefix, number = image.rpartition(".")[0][:-6], image.rpartition(".")[0][-6:]
    return prefix if prefix in CLASSES and number.isdecimal() else ""


def coco(source: Path) -> pd.DataFrame:
    """What the COCO files say: a row an image with split, image, width, height (px), boxes.

    boxes: float64 (N, 5), category id, x, y, w, h in px. Boxes of an image that no file describes stand
    under the name "image_id <id>".

    Raises:
        Refusal: no FASDD_CV there, or a COCO file is missing or is not what it should be.
    """
    archive = archives.find(Path(source))
    rows = [row for split in index.SPLITS for row in crosscheck.said(archive, split)]
    return pd.DataFrame(rows, columns=crosscheck.SAID)


def _all_examined(archive: Archive, known: Known, listed: listings.Listed) -> Iterator[Examined]:
    items = [(image, *told) for image, told in listed.items()]
    chunks = [items[start : start + CHUNK_N] for start in range(0, len(items), CHUNK_N)]
    with ThreadPoolExecutor() as pool:
        for found in pool.map(lambda chunk: [_examined(archive, known, *item) for item in chunk], chunks):
            known.keep(often=True)
            yield from found
    known.keep()


def _examined(archive: Archive, known: Known, image: str, split: str, refusal: dict | None) -> Examined:
    if refusal:
        return None, [refusal]
    path = f"images/{image}"
    photo = known.describe(path, archive.images[image], lambda: archive.read(path))
    label = f"{LABELS}/{image.rpartition('.')[0]}.txt"
    try:
        text = archive.read(label).decode("utf-8", errors="replace") if label in archive.texts else None
    except OSError as error:
        return None, [index.note(image, split, "unreadable", text=f"label file: {error}")]
    row, notes = index.examine(image, split, photo, text, NAMES)
    return row, notes + (_contradiction(row, notes) if row else [])


def _contradiction(row: dict, notes: list[dict]) -> list[dict]:
    """A note where the labels hold other classes than the category; a dropped line counts as labelled."""
    wanted = CLASSES.get(category(row["image"]))
    dropped = {float(note["text"].split()[0]) for note in notes if note["reason"] == "zero-area"}
    held = set(row["boxes"][:, 0]) | dropped
    if wanted is None or held == wanted:
        return []
    told = [" and ".join(NAMES[int(label)] for label in sorted(kind)) or "nothing" for kind in (held, wanted)]
    text = f"the labels hold {told[0]}, the name says {told[1]}"
    return [index.note(row["image"], row["split"], "category", text=text)]


def claims(dataset: index.Dataset, source: Path | None = None) -> bool:
    """Whether it claims to be the published archive: a zip of its size, or at least as many listed images."""
    if dataset.name != NAME:
        return False
    sized = source is not None and source.is_file() and source.stat().st_size == ARCHIVE_BYTES
    return sized or len(_names(dataset)) >= sum(PUBLISHED.values())


def published(
    dataset: index.Dataset, source: Path | None = None, kept: Path | None = None
) -> list[index.Told]:
    """What, where, n and "agrees ..." or "differs ...": counts by split and category, names, the zip's MD5.

    Images that were refused count: the archive lists them. Only a zip has a checksum (`kept`: index.digest).
    """
    names = _names(dataset)
    table = names.groupby(["category", "split"]).size()
    rows = [index.counted(split, int((names["split"] == split).sum()), n) for split, n in PUBLISHED.items()]
    rows += [
        index.counted(f"{split} {kind}", int(table.get((kind, split), 0)), n)
        for kind, counts in CATEGORIES.items()
        for split, n in counts.items()
    ]
    rows += [_numbered(kind, names.loc[names["category"] == kind, "image"]) for kind in CATEGORIES]
    odd_n = int((names["category"] == "").sum())
    told = "differs from the published stems" if odd_n else "agrees"
    rows.append(("published names", "others", odd_n, told))
    if source is not None and source.is_file():
        md5 = index.digest(source, "md5", kept)
        verdict = "agrees with" if md5 == ARCHIVE_MD5 else f"{md5} differs from"
        rows.append(("published checksum", source.name, 1, f"{verdict} the published MD5 {ARCHIVE_MD5}"))
    return rows


def assert_published(source: Path, dataset: index.Dataset, kept: Path | None = None) -> None:
    """Do nothing where a download is the published archive; `kept` as for `published`.

    Raises:
        Refusal: its counts, names or (of a zip) its checksum are not the published ones.
    """
    found = published(dataset, Path(source), kept)
    if told := index.differing(found):
        raise Refusal(
            f"{source} is not FASDD_CV as published ({told}): download FASDD_CV.zip of version V9"
            " again, or run any other set with PROFILE=mini."
        )


def _names(dataset: index.Dataset) -> pd.DataFrame:
    """Every listed image with its split and category."""
    gone = index.refused(dataset.quarantine)
    listed = pd.concat([dataset.rows[["image", "split"]], gone.loc[gone["split"] != "", ["image", "split"]]])
    return listed.assign(category=listed["image"].astype(str).map(category))


def _numbered(kind: str, images: pd.Series) -> index.Told:
    """Numbers that lack between 0 and the highest of a category."""
    numbers = set(images.str.rpartition(".")[0].str[-6:].astype(int))
    gaps = sorted(set(range(max(numbers, default=-1) + 1)) - numbers)
    told = f"differs: numbers are missing, first {gaps[0]:06d}" if gaps else "agrees: from 0 without gaps"
    return "published names", kind, len(gaps), told
