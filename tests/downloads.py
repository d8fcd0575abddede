"""A small FASDD_CV in the published layout, made by hand, and ways to spoil it; as folder or zip."""

import hashlib
import io
import json
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from saistudy.data import archives, index

LABELS = {"fire_CV": "0 0.5 0.5 0.2 0.2\n", "smoke_CV": "1 0.5 0.5 0.4 0.2\n"}
LABELS |= {"neitherFireNorSmoke_CV": ""}
BOXES = {"fire_CV": [0, 25.6, 19.2, 12.8, 9.6], "smoke_CV": [1, 19.2, 19.2, 25.6, 9.6]}  # of 64 x 48 px


def picture(seed: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    """A smooth random picture, independent of every other seed's."""
    pixels = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def encode(photo: Image.Image, form: str = "JPEG", **how) -> bytes:
    buffer = io.BytesIO()
    photo.save(buffer, form, **how)
    return buffer.getvalue()


def fasdd(root: Path, each_n: int = 4) -> Path:
    """Folder FASDD_CV: `each_n` images of fire, smoke and neither; the last four are val and test.

    With four each: fire and smoke are train, neither 0 and 1 val, 2 and 3 test.
    """
    for folder in ("images", archives.LABELS, archives.COCO):
        (root / folder).mkdir(parents=True)
    stems = [f"{kind}{n:06d}" for kind in LABELS for n in range(each_n)]
    splits = ["train"] * (len(stems) - 4) + ["val"] * 2 + ["test"] * 2
    for seed, stem in enumerate(stems):
        (root / f"images/{stem}.jpg").write_bytes(encode(picture(seed)))
        label(root, stem, LABELS[stem[:-6]])
    for split in index.SPLITS:
        own = [stem for stem, where in zip(stems, splits, strict=True) if where == split]
        write_list(root, split, [f"./images/{stem}.jpg" for stem in own])
        images = [{"id": i, "file_name": f"{s}.jpg", "width": 64, "height": 48} for i, s in enumerate(own)]
        boxed = [(i, BOXES[stem[:-6]]) for i, stem in enumerate(own) if stem[:-6] in BOXES]
        annotations = [
            {"id": k, "image_id": i, "category_id": box[0], "bbox": box[1:]}
            for k, (i, box) in enumerate(boxed)
        ]
        content = {"images": images, "annotations": annotations}
        (root / f"{archives.COCO}/{split}.json").write_text(json.dumps(content))
    return root


def label(root: Path, stem: str, text: str | bytes) -> None:
    data = text if isinstance(text, bytes) else text.encode()
    (root / f"{archives.LABELS}/{stem}.txt").write_bytes(data)


def write_list(root: Path, split: str, lines: list[str], end: str = "\r\n") -> None:
    (root / f"{archives.YOLO}/{split}.txt").write_bytes("".join(line + end for line in lines).encode())


def add_line(root: Path, split: str, line: str) -> None:
    with open(root / f"{archives.YOLO}/{split}.txt", "ab") as file:
        file.write(f"{line}\r\n".encode())


def zipped(root: Path, top: str = "FASDD_CV/", extra: tuple = ()) -> Path:
    """The tree as FASDD_CV.zip beside it; `extra` are (ZipInfo or name, bytes) put in besides."""
    path = root.parent / "FASDD_CV.zip"
    with zipfile.ZipFile(path, "w") as content:
        for file in sorted(root.rglob("*")):
            content.write(file, f"{top}{file.relative_to(root)}")
        for name, data in extra:
            content.writestr(name, data)
    return path


def seen(folder: Path) -> dict[str, tuple]:
    """Path below the folder -> sha256 and modification time of every file, to prove it untouched."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        str(path.relative_to(folder)): (
            hashlib.sha256(path.read_bytes()).hexdigest(),
            path.stat().st_mtime_ns,
        )
        for path in files
    }


def balance(dataset: index.Dataset, in_n: int) -> None:
    """Counts in = counts out + quarantined."""
    bad = index.refused(dataset.quarantine)
    assert dataset.images_n == in_n == len(dataset.rows) + len(bad)
    assert not set(dataset.rows["image"]) & set(bad["image"])
