"""Synthetic twins of the two data sets, in the formats in which these are published.

The pictures are painted; folders, names, lists, labels and proportions are the published ones, so
the code that reads a twin reads a download. Proportions: FASDD (Wang et al. 2024,
doi 10.1080/10095020.2024.2347922, counts of FASDD_CV in the Science Data Bank record V9) and the
data set card of pyronear/pyro-sdis. The boxes are larger than the published ones: see `BOXES`.
"""

import fcntl
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from saistudy.data import footage, layouts, scenes
from saistudy.paths import Refusal, write_json, write_text

BOXES = "large, median about 3 % of the frame: for learning in a few epochs, not the published sizes"
CATEGORIES = {  # stem: images published, fire in it, smoke in it
    "fire_CV": (12_550, True, False),
    "smoke_CV": (23_414, False, True),
    "bothFireAndSmoke_CV": (20_151, True, True),
    "neitherFireNorSmoke_CV": (39_199, False, False),
}
EXTRA_FIRES = 73_297 / (12_550 + 20_151) - 1  # fire boxes of an image with fire beyond its first
EXTRA_SMOKE = 53_080 / (23_414 + 20_151) - 1
SIZES = ((320, 240), (320, 180), (288, 192), (256, 192), (320, 214), (224, 224), (192, 256))
VAL_FRAC = 4_099 / 33_636  # pyro-sdis
DUPLICATE_FRAC = 0.01  # byte-identical images across splits, for the leak check to find
SHARDS_N = 6


def write_fasdd(folder: Path, images_n: int, seed: int, area_frac: float = 0.03) -> Path:
    """Folder `FASDD_CV` under `folder`: painted images in FASDD's published layout.

    `area_frac` is the median box area as a share of the image. The same arguments give the same
    bytes; a complete twin made with the same arguments is left as it is, another one is replaced.
    `folder/provenance.json` says that it is synthetic and what made it.

    Raises:
        Refusal: too few images, or a FASDD_CV stands there that is no twin.
    """
    _enough(images_n, 24, "images")
    made_from = {"images_n": images_n, "seed": seed, "area_frac": area_frac}
    return _whole(Path(folder), "FASDD_CV", made_from, _fasdd)


def write_pyrosdis(
    folder: Path,
    images_n: int,
    seed: int,
    cameras_n: int = 8,
    size: tuple[int, int] = (320, 180),
    area_frac: float = 0.03,
) -> Path:
    """Folder `pyro-sdis` under `folder`: painted camera events in PyroSDIS's published layout.

    `size` is width and height in pixels (published: 1280 x 720). Otherwise as `write_fasdd`.

    Raises:
        Refusal: too few cameras or images for them, or a pyro-sdis stands there that is no twin.
    """
    _enough(cameras_n, 2, "cameras")
    _enough(images_n, 9 * cameras_n, "images")
    made_from = {"images_n": images_n, "seed": seed, "cameras_n": cameras_n, "size": list(size)}
    return _whole(Path(folder), "pyro-sdis", made_from | {"area_frac": area_frac}, _pyrosdis)


def _enough(n: int, least_n: int, what: str) -> None:
    if n < least_n:
        raise Refusal(f"A twin of {n} {what} was asked for: ask for at least {least_n}.")


def _whole(folder: Path, name: str, made_from: dict, write: Callable[..., None]) -> Path:
    """Write `folder/name` beside its place, mark it synthetic, rename it: one writer at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    mark, target, part = folder / "provenance.json", folder / name, folder / f".{name}.part"
    sources = b"".join(Path(m.__file__).read_bytes() for m in (scenes, footage, layouts))
    generator = hashlib.sha256(sources + Path(__file__).read_bytes()).hexdigest()[:12]
    entry = made_from | {"generator": generator, "complete": True}
    with open(folder / ".twin.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = json.loads(mark.read_text(encoding="utf-8")) if mark.exists() else {}
        if target.exists() and known.get(name) == entry:
            return target
        if target.exists() and name not in known:
            raise Refusal(
                f"{target} is no synthetic twin (no provenance.json beside it names it), so it is"
                " not replaced: name an empty folder."
            )
        shutil.rmtree(part, ignore_errors=True)
        write(part, **made_from)
        known |= {"provenance": "synthetic", "boxes": BOXES}
        write_json(mark, known | {name: entry | {"complete": False}})
        shutil.rmtree(target, ignore_errors=True)
        part.rename(target)
        write_json(mark, known | {name: entry})
    return target


def _shares(n: int, weights: list[int]) -> list[int]:
    """Whole numbers in the given proportion that sum to n (largest remainders)."""
    exact = np.array(weights) * n / sum(weights)
    counts = exact.astype(int)
    counts[np.argsort(counts - exact, kind="stable")[: n - counts.sum()]] += 1
    return counts.tolist()


def _fasdd(part: Path, images_n: int, seed: int, area_frac: float) -> None:
    labels, coco = part / "annotations/YOLO_CV/labels", part / "annotations/COCO_CV/Annotations"
    for place in (part / "images", labels, coco):
        place.mkdir(parents=True)
    rows, done = _fasdd_plan(images_n, np.random.default_rng([seed, 0])), {}
    for i, (stem, _, fire, smoke, same_as) in enumerate(rows):
        rng = np.random.default_rng([seed, 1, i])
        size = SIZES[rng.integers(len(SIZES))]
        fires_n = (1 + int(rng.poisson(EXTRA_FIRES))) * fire
        plumes_n = (1 + int(rng.random() < EXTRA_SMOKE)) * smoke
        if same_as is None:
            done[stem] = (*footage.photograph(rng, size, fires_n, plumes_n, area_frac), size)
        else:
            done[stem] = done[same_as]
        data, boxes, size = done[stem]
        text = layouts.yolo(boxes, size, {"fire": 0, "smoke": 1})
        (part / f"images/{stem}.jpg").write_bytes(data)
        (labels / f"{stem}.txt").write_text(text and text + "\n")
    for split in ("train", "val", "test"):
        stems = sorted(row[0] for row in rows if row[1] == split)
        lines = "".join(f"./images/{stem}.jpg\r\n" for stem in stems)
        (part / f"annotations/YOLO_CV/{split}.txt").write_bytes(lines.encode())
        (coco / f"{split}.json").write_text(json.dumps(layouts.coco(stems, done)))


def _fasdd_plan(images_n: int, rng) -> list[tuple]:
    """Rows (stem, split, fire, smoke, stem of the train image that it repeats or None)."""
    rows = []
    counts = _shares(images_n, [n for n, _, _ in CATEGORIES.values()])
    for (name, (_, fire, smoke)), n in zip(CATEGORIES.items(), counts, strict=True):
        held_n = n // 6
        order = ["val"] * held_n + ["test"] * held_n + ["train"] * (n - 2 * held_n)
        stems = {f"{name}{i:06d}": split for i, split in enumerate(rng.permutation(order).tolist())}
        train, test = ([s for s in stems if stems[s] == which] for which in ("train", "test"))
        copies_n = min(held_n, max(1, round(n * DUPLICATE_FRAC)))
        copies = dict(zip(test[:copies_n], rng.permutation(train).tolist(), strict=False))
        rows += [(stem, split, fire, smoke, copies.get(stem)) for stem, split in stems.items()]
    return sorted(rows, key=lambda row: row[1] != "train")


def _pyrosdis(part: Path, images_n: int, seed: int, cameras_n: int, size, area_frac: float) -> None:
    (part / "data").mkdir(parents=True)
    rng = np.random.default_rng([seed, 0])
    rows = []
    for i, frame in enumerate(footage.watch(rng, images_n, cameras_n)):
        data, boxes = footage.shoot(frame, seed, i, tuple(size), area_frac)
        date = f"{frame.date:%Y-%m-%dT%H-%M-%S}"
        name = f"{frame.partner}_{frame.camera}_{date}.jpg"
        text = layouts.yolo(boxes, size, {"smoke": 1})
        rows.append([data, text, name, frame.partner, frame.camera, date])
    held = _held_out(rows, rng)
    shards = np.array_split(rng.permutation([i for i in range(images_n) if i not in held]), SHARDS_N)
    for k, shard in enumerate(shards):
        layouts.shard(part / f"data/train-{k:05d}-of-{SHARDS_N:05d}.parquet", [rows[i] for i in shard])
    layouts.shard(part / "data/val-00000-of-00001.parquet", [rows[i] for i in rng.permutation(held)])
    (part / "data.yaml").write_text(layouts.DATA_YAML)
    counts = {"train": [r for i, r in enumerate(rows) if i not in held]}
    write_text(part / "README.md", layouts.card(counts | {"val": [rows[i] for i in held]}))


def _held_out(rows: list[list], rng) -> list[int]:
    """Row numbers of val, from every camera; some of them become copies of a train frame."""
    cameras = sorted({row[4] for row in rows})
    wanted = _shares(round(len(rows) * VAL_FRAC), [1] * len(cameras))
    held = []
    for camera, n in zip(cameras, wanted, strict=True):
        own = [i for i, row in enumerate(rows) if row[4] == camera]
        held += rng.choice(own, n, replace=False).tolist()
    smoky = [i for i in held if rows[i][1]][: max(1, round(len(rows) * DUPLICATE_FRAC))]
    for i in smoky:
        near = sorted(set(range(len(rows))) - set(held), key=lambda j: abs(j - i))
        rows[i][:2] = next(rows[j][:2] for j in near if rows[j][4] == rows[i][4] and rows[j][1])
    return held
