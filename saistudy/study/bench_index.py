"""How fast the index and the tree are made, each against the plainest way to do the same, A B A B in one run.

The pictures are noise, low-pass with detail, so that they decode and compress about as photographs do.
"""

import hashlib
import io
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from saistudy.data import fasdd, index, photographs, pyrosdis, tree
from saistudy.data.known import Known
from saistudy.study import bench_staging

FASDD_SIZES = ((640, 480), (1024, 768), (1280, 720), (1920, 1080))  # px
FASDD_QUALITIES = (85, 88, 92)
PYROSDIS_SIZE, PYROSDIS_QUALITY = (1280, 720), 85
FINE_FASDD, FINE_PYROSDIS = 7.0, 2.0  # grey levels of the detail: JPEGs of .1 to .9 MB, and of 100 KB
DISTINCT_N = 48  # pictures that the shards' rows repeat, each time with another comment
GROUP_N = 100  # rows of a row group, as published
LINE = "0 0.500000 0.500000 0.200000 0.200000\n"
TARGETS = {"ratio_to_one_process": 1.6, "ratio_to_raw": 0.6}


def measure_index(files_n: int = 600, passes_n: int = 4, work: Path | None = None) -> dict:
    """Seconds of an index by one process and one thread, and by `fasdd.read`, both from a warm page cache.

    One process: hashlib.sha256, all pixels as RGB by Pillow, and the same perceptual hash.
    ratio_to_one_process: median by one process / median by fasdd.read, larger is better; spread: its
    lowest and highest over the passes. seconds: both lists. again_s, again_read_n: a second read
    with what was found out, and how many images it opened. bytes; environment.

    Args:
        work: folder for the made files, which are removed again; the system's by default.
    """
    with _made(work, lambda folder: _write_fasdd(folder, files_n)) as source:
        files = sorted((source / "images").iterdir())
        seen_bytes = sum(len(file.read_bytes()) for file in files)
        known = Known()
        fasdd.read(source, known)
        read_n = known.read_n
        again_s = bench_staging.clock(lambda: fasdd.read(source, known))
        ways = {"one_process": lambda: _plain_index(files), "index": lambda: fasdd.read(source, Known())}
        found = _measured("ratio_to_one_process", ways, passes_n, files_n)
    again = {"again_s": again_s, "again_read_n": known.read_n - read_n}
    return found | again | {"files_n": files_n, "bytes": seen_bytes}


def measure_tree(images_n: int = 1500, passes_n: int = 4, work: Path | None = None) -> dict:
    """Seconds from PyroSDIS shards to files: raw parquet read and plain write, and `tree.build`.

    The index is read before and not timed. ratio_to_raw: median raw / median of tree.build; spread:
    its lowest and highest over the passes; seconds: both lists; images_n, bytes, environment.
    For minutes after many files were removed, ext4 is slow to make new ones (it passes over their
    inodes; measured: .41 for .67), and the tree makes two an image: wait, or `work` on another one.
    """
    with _made(work, lambda folder: _write_pyrosdis(folder, images_n)) as source:
        dataset = pyrosdis.read(source)
        targets = (source.parent / f"to{i}" for i in range(2 * passes_n))
        ways = {
            "raw": lambda: _plain_tree(source, next(targets)),
            "tree": lambda: tree.build(dataset, next(targets)),
        }
        found = _measured("ratio_to_raw", ways, passes_n, images_n)
        written = sum(file.stat().st_size for file in (source.parent / "to0").iterdir())
    return found | {"images_n": images_n, "bytes": written}


def sentences(result: dict) -> str:
    """What `measure_index` or `measure_tree` found, in a few lines."""
    key = next(key for key in TARGETS if key in result)
    (plain, plain_rate), (own, own_rate) = result["images_per_s"].items()
    low, high = result["spread"]
    passes = f"{result['bytes'] / 2**20:.0f} MiB, {len(result['seconds'][own])} passes in turn"
    lines = [
        f"{own}: {own_rate:.0f} images a second, {plain.replace('_', ' ')}: {plain_rate:.0f} ({passes}).",
        f"{key} {result[key]:.2f} ({low:.2f} to {high:.2f}); at least {TARGETS[key]} is asked on 2 cores.",
    ]
    if "again_s" in result:
        again = f"{result['again_s']:.2f} s, {result['again_read_n']} images opened"
        lines.append(f"Read again, unchanged: {again}.")
    machine = "{cores_n} cores of {cpu}, {ram_gib:.0f} GiB RAM, {platform}.".format(**result["environment"])
    return "\n".join([*lines, machine])


@contextmanager
def _made(work: Path | None, write: Callable[[Path], Path]) -> Iterator[Path]:
    """What `write` made in a folder of its own, removed afterwards."""
    if work:
        work.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="bench-", dir=work) as folder:
        yield write(Path(folder))


def _measured(key: str, ways: dict[str, Callable], passes_n: int, images_n: int) -> dict:
    """What two ways take, A B A B, each pass begun with nothing left to write, their ratio under `key`."""
    seconds = bench_staging.in_turn(ways, passes_n, lambda _: os.sync())
    ratio, spread = bench_staging.ratio(*seconds.values())
    rates = {name: images_n / float(np.median(passes)) for name, passes in seconds.items()}
    found = {key: ratio, "spread": spread, "seconds": seconds, "images_per_s": rates}
    return found | {"environment": bench_staging.environment()}


def _plain_index(files: list[Path]) -> list[tuple[str, int]]:
    found = []
    for file in files:
        data = file.read_bytes()
        photo = Image.open(io.BytesIO(data)).convert("RGB")
        grey = np.asarray(photo.convert("L"))
        found.append((hashlib.sha256(data).hexdigest(), photographs.perceptual_hash(grey)))
    return found


def _plain_tree(source: Path, folder: Path) -> None:
    folder.mkdir()
    for path in sorted(source.glob("*.parquet")):
        content = pq.ParquetFile(path)
        for group in range(content.num_row_groups):
            for cell in content.read_row_group(group, columns=["image", "image_name"]).to_pylist():
                with open(folder / cell["image_name"], "wb") as file:
                    file.write(cell["image"]["bytes"])


def _jpeg(seed: int, size: tuple[int, int], quality: int, fine: float) -> bytes:
    """A JPEG of smooth noise with `fine` grey levels of detail."""
    rng, (width, height) = np.random.default_rng(seed), size
    coarse = rng.uniform(20, 235, (height // 80, width // 80, 3)).astype(np.float32)
    middle = rng.normal(0, 12, (height // 8, width // 8, 3)).astype(np.float32)
    pixels = sum(cv2.resize(level, size, interpolation=cv2.INTER_CUBIC) for level in (coarse, middle))
    pixels += fine * rng.standard_normal((height, width, 1), dtype=np.float32)
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _write_fasdd(folder: Path, files_n: int) -> Path:
    """FASDD_CV in its published layout: a third of the images in each split."""
    root = folder / "FASDD_CV"
    labels = root / "annotations" / "YOLO_CV" / "labels"
    for place in (root / "images", labels):
        place.mkdir(parents=True)
    names = [f"fire_CV{i:06d}" for i in range(files_n)]
    for i, split in enumerate(index.SPLITS):
        listed = "".join(f"./images/{name}.jpg\r\n" for name in names[i::3])
        (labels.parent / f"{split}.txt").write_bytes(listed.encode())

    def write(i: int) -> None:
        size, quality = FASDD_SIZES[i % len(FASDD_SIZES)], FASDD_QUALITIES[i % len(FASDD_QUALITIES)]
        (root / "images" / f"{names[i]}.jpg").write_bytes(_jpeg(i, size, quality, FINE_FASDD))
        (labels / f"{names[i]}.txt").write_text(LINE)

    with ThreadPoolExecutor() as pool:
        list(pool.map(write, range(files_n)))
    return root


def _write_pyrosdis(folder: Path, images_n: int) -> Path:
    """Shards in PyroSDIS's published layout: three of train and one of val, ten cameras."""
    with ThreadPoolExecutor() as pool:
        made = pool.map(lambda i: _jpeg(i, PYROSDIS_SIZE, PYROSDIS_QUALITY, FINE_PYROSDIS), range(DISTINCT_N))
        pictures = list(made)
    data = folder / "pyro-sdis"
    data.mkdir()
    names = [f"train-{i:05d}-of-00003" for i in range(3)] + ["val-00000-of-00001"]
    for shard, name in enumerate(names):
        cells = [_cell(i, pictures[i % DISTINCT_N]) for i in range(shard, images_n, len(names))]
        pq.write_table(pa.Table.from_pylist(cells), data / f"{name}.parquet", row_group_size=GROUP_N)
    return data


def _cell(i: int, picture: bytes) -> dict:
    """A row of a shard; a comment behind the start marker makes its bytes unlike any other's."""
    camera, name = f"camera-{i % 10}", f"bench_{i:06d}.jpg"
    date = (pd.Timestamp(2024, 1, 1) + pd.Timedelta(seconds=30 * i)).strftime("%Y-%m-%dT%H-%M-%S")
    comment = name.encode()
    unique = picture[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + picture[2:]
    told = {"annotations": "1" + LINE[1:], "image_name": name, "partner": "bench", "camera": camera}
    return {"image": {"bytes": unique, "path": name}} | told | {"date": date}
