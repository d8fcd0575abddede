"""A further layout, as CONTRIBUTING.md describes one: train/, val/, test/, each with a COCO file."""

import json
from pathlib import Path

from saistudy.data import index, photographs
from saistudy.data.known import Known

NAMES = {0: "fire", 1: "smoke"}


def read(source: Path, known: Known | None = None) -> index.Dataset:
    """The index of such a folder; groups are clusters of similar images."""
    source, known = Path(source), known or Known()
    examined = [_examined(path, split, known) for split in index.SPLITS for path in _images(source, split)]
    rows, quarantine, images_n = index.assemble(examined)
    rows["group"] = [f"v{label:05d}" for label in photographs.cluster(rows["phash"].to_numpy())]
    known.keep()
    split_of = dict(zip(rows["image"], rows["split"], strict=True))
    provenance = index.provenance(source)
    return index.Dataset(
        "coco",
        *(rows, quarantine, images_n, NAMES, provenance),
        lambda image: (source / split_of[image] / image).read_bytes(),
    )


def _images(source: Path, split: str) -> list[Path]:
    return sorted((source / split).glob("*.jpg"))


def _examined(path: Path, split: str, known: Known):
    seen = path.stat()
    photo = known.describe(f"{split}/{path.name}", (seen.st_size, seen.st_mtime_ns), path.read_bytes)
    return index.examine(path.name, split, photo, _lines(path), NAMES)


def _lines(path: Path) -> str:
    """The boxes of an image as YOLO writes them: class, then centre and size as fractions."""
    told = json.loads((path.parent / "coco.json").read_text())
    (entry,) = [one for one in told["images"] if one["file_name"] == path.name]
    wide, high = entry["width"], entry["height"]
    lines = []
    for one in told["annotations"]:
        x, y, w, h = one["bbox"]
        if one["image_id"] == entry["id"]:
            middle = f"{(x + w / 2) / wide:.6f} {(y + h / 2) / high:.6f}"
            lines.append(f"{one['category_id'] - 1} {middle} {w / wide:.6f} {h / high:.6f}")
    return "\n".join(lines)
