"""Any data set with a YOLO data.yaml: folders or lists of images, labels where Ultralytics looks for them."""

import glob
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import yaml

from saistudy.data import index, photographs
from saistudy.data.known import Known
from saistudy.paths import Refusal

# What Ultralytics 8.4.190 takes for an image (data.utils.IMG_FORMATS); some of it is refused for its format.
SUFFIXES = {"avif", "bmp", "dng", "heic", "heif", "jp2", "jpeg", "jpg", "mpo", "png", "tif", "tiff", "webp"}


class _Image(NamedTuple):
    """An image as found: its name in the index, split, path; what is odd about it, and why it is refused."""

    image: str
    split: str
    path: str
    notes: list[dict]
    refusal: dict | None


def read(data_yaml: Path, known: Known | None = None) -> index.Dataset:
    """The index of the data set that a data.yaml describes, named after its folder.

    `train`, `val` and, where there is one, `test` are a folder (searched to the bottom), a list of images or
    several of these, below `path` or else beside the data.yaml. Where Ultralytics takes a path from the
    folder that it runs in, it is taken from the data.yaml's or the list's. Labels lie where the last
    /images/ becomes /labels/; an image without such a file has no boxes. Labels are held to one pixel, where
    Ultralytics allows 1 %, and polygons are refused. An image name that returns gets _2, _3 before its
    suffix. The group is "v" and a number: images whose perceptual hashes chain together.

    Raises:
        Refusal: no such file, no YAML, keys missing or wrong, nothing where a split should be, or more than
            half of a split refused.
    """
    path, known = Path(os.path.abspath(data_yaml)), known or Known()
    told = _content(path)
    names, root = _names(told, path), path.parent / str(told.get("path") or "")
    found, besides = _found(path, root, told)
    with ThreadPoolExecutor() as pool:
        stream = pool.map(lambda one: _examined(one, names, known), found)
        examined = []
        for each in index.progress(stream, len(found), f"images of {path.parent.name} examined"):
            examined.append(each)
            known.keep(often=True)
    known.keep()
    splits = [split for split in index.SPLITS if told.get(split)]
    rows, quarantine, images_n = index.assemble(examined, besides, splits)
    rows["group"] = [f"v{label:05d}" for label in photographs.cluster(rows["phash"].to_numpy())]
    paths = {one.image: one.path for one in found}
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.parent.name).strip("-.") or "yolo"
    provenance = index.provenance(path.parent, root)
    return index.Dataset(
        name, rows, quarantine, images_n, names, provenance, lambda image: Path(paths[image]).read_bytes()
    )


def _content(path: Path) -> dict:
    try:
        told = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        why = " ".join(str(error).split())
        raise Refusal(f"{path} cannot be read as YAML ({why}): name a YOLO data.yaml.") from error
    if not isinstance(told, dict):
        raise Refusal(f"{path} holds no keys and values: write `train`, `val` and `names` there.")
    told = {"val": told.get("validation")} | told  # Ultralytics takes this word for it, too
    if missing := [key for key in ("train", "val") if not told.get(key)]:
        raise Refusal(
            f"{path} has no {' and no '.join(missing)}: name the images to train on and to choose by."
        )
    return told


def _names(told: dict, path: Path) -> dict[int, str]:
    """Class names by number from 0; from `nc` alone they are class_0, class_1, as Ultralytics has it."""
    names, number = told.get("names"), told.get("nc")
    try:
        if names is None:
            names = [f"class_{label}" for label in range(int(str(number)))]
        pairs = names.items() if isinstance(names, dict) else enumerate([*names])
        known = {int(label): str(name) for label, name in pairs}
    except (TypeError, ValueError):
        known = {}
    counted = number is None or str(number) == str(len(known))
    if isinstance(names, str) or not known or sorted(known) != [*range(len(known))] or not counted:
        raise Refusal(
            f"{path}: names {names!r} and nc {number!r}, where a list of names, or a mapping from 0 on,"
            " and as many in nc were expected: mend them."
        )
    return known


def _found(path: Path, root: Path, told: dict) -> tuple[list[_Image], list[dict]]:
    """The images of all splits under names of their own, and notes on paths that a split lists twice."""
    found, besides, taken = [], [], set()
    for split in [split for split in index.SPLITS if told.get(split)]:
        entries = told[split] if isinstance(told[split], list) else [told[split]]
        listed = sorted(file for entry in entries for file in _files(path, root, split, str(entry)))
        if not listed:
            raise Refusal(f"{path}: {split} ({told[split]}) holds no image of {', '.join(sorted(SUFFIXES))}.")
        for file, before in zip(listed, [None, *listed], strict=False):
            if file == before:
                besides.append(index.note(os.path.basename(_told(file)), split, "listed-twice"))
            else:
                found.append(_named(file, split, taken))
    return found, besides


def _files(path: Path, root: Path, split: str, entry: str) -> Iterator[str]:
    """Paths of the images that an entry of a split names."""
    place = root / entry
    if not place.exists() and entry.startswith(
        "../"
    ):  # as Ultralytics does it, for exports that are off by one
        place = root / entry[3:]
    place = place.resolve()
    if place.is_dir():
        files = glob.iglob(f"{glob.escape(str(place))}/**/*.*", recursive=True)
    elif place.is_file():
        lines = re.split(r"\r\n|\r|\n", place.read_text(encoding="utf-8-sig", errors="replace"))
        files = (
            os.path.join(place.parent, line.strip().removeprefix("./")) for line in lines if line.strip()
        )
    else:
        raise Refusal(f"{path}: {split} names {entry}, and nothing is at {place}: mend the entry or `path`.")
    return (file for file in files if file.rpartition(".")[2].lower() in SUFFIXES)


def _named(file: str, split: str, taken: set[str]) -> _Image:
    """An image under a name of its own, with a note where that is another, or why it cannot be taken."""
    published = os.path.basename(file)
    stem, _, suffix = published.rpartition(".")
    if not index.safe(f"{stem}.jpg"):
        image = index.free(index.shown(published), taken)
        return _Image(image, split, file, [], index.note(image, split, "unsafe-name", text=_told(file)))
    image, notes, refusal = index.free(published, taken), [], None
    if image != published:
        notes = [index.note(image, split, "repeated-name", text=_told(file))]
    if not index.safe(published):
        refusal = index.note(image, split, "format", text=f"{suffix}: convert it, to JPEG or PNG for example")
    elif not os.path.exists(file):
        refusal = index.note(image, split, "missing-image", text=_told(file))
    return _Image(image, split, file, notes, refusal)


def _examined(one: _Image, names: dict[int, str], known: Known) -> tuple[dict | None, list[dict]]:
    if one.refusal:
        return None, [*one.notes, one.refusal]
    try:
        seen = os.stat(one.path)
        text = _label(one.path)
    except OSError as error:
        return None, [*one.notes, index.note(one.image, one.split, "unreadable", text=_told(str(error)))]
    photo = known.describe(_told(one.path), (seen.st_size, seen.st_mtime_ns), Path(one.path).read_bytes)
    bare = [index.note(one.image, one.split, "no-label-file")] if text is None else []
    row, notes = index.examine(one.image, one.split, photo, text or "", names)
    return row, one.notes + bare + notes


def _label(path: str) -> str | None:
    """Text of an image's label file, None where there is none."""
    top, images, rest = path.rpartition("/images/")
    label = Path((f"{top}/labels/{rest}" if images else path).rpartition(".")[0] + ".txt")
    return label.read_text(encoding="utf-8", errors="replace") if label.is_file() else None


def _told(path: str) -> str:
    """A path as text, also where its bytes are no UTF-8."""
    return path.encode("utf-8", "backslashreplace").decode()
