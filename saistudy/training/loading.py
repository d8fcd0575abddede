"""Ultralytics' own training loader without a model: its rate, its memory, and nothing left behind."""

import gc
import io
import math
import os
import random
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import yaml
from PIL import Image
from ultralytics.cfg import get_cfg
from ultralytics.data.build import InfiniteDataLoader, build_dataloader, build_yolo_dataset
from ultralytics.data.utils import check_det_dataset, img2label_paths
from ultralytics.utils import RANK

from saistudy.data.room import room
from saistudy.data.staging import pace
from saistudy.paths import Refusal
from saistudy.training.footprint import resident_bytes, shared_bytes

MARGINS = {"ram": 2.0, "disk": 1.1}  # what Ultralytics itself asks for (data/base.py, 8.4.190)


class Pass(NamedTuple):
    """One pass: images counted over `seconds` after the warm-up, what building took, bytes held.

    `build_s` is the data set with its labels scanned and its cache filled. `resident_bytes`: by how
    much the proportional set size (PSS: a page shared by n processes counts 1/n in each, so once) of
    this process and its workers stood higher than before the pass, the higher of two moments: after
    building, and at the end when the workers have prefetched all they may. `shared_bytes`: the
    batches that lay in /dev/shm at that end, mapped or on their way. `disk_bytes`: what the kernel fetched
    from a block device while batches were served, None where it does not count (`pace.fetched_bytes`).
    """

    images_per_s: float
    batch_s: float
    images_n: int
    seconds: float
    build_s: float
    workers: int
    resident_bytes: int
    shared_bytes: int
    disk_bytes: int | None


def feed(
    data_yaml: Path,
    cache: bool | str,
    workers: int,
    batch: int,
    imgsz: int,
    batches_n: int,
    images_n: int,
    scratch: Path,
    cold: bool = False,
    **train,
) -> Pass:
    """What one pass over the training split of a tree gives, with the stock loader and no model.

    The clock starts after one batch per worker and runs over whole rounds of the workers, at least
    `batches_n` batches where one epoch has them: all workers start together, so any other span counts
    batches that were made before it.

    Args:
        data_yaml: of a tree (`images/train`, `labels/train`); nothing is written there.
        cache, workers, batch, imgsz, train: Ultralytics' arguments; stage 1's augmentation in `train`.
        images_n: images of the split to use at most, evenly spread over the sorted names.
        scratch: folder for a throw-away tree of links, where `.npy` and `.cache` files of Ultralytics lie.
        cold: files are dropped from the page cache right before the pass, else read once into it.

    Raises:
        Refusal: more workers than cores, a cache that does not fit, too few images.
    """
    refuse_workers(workers)
    scratch.mkdir(parents=True, exist_ok=True)
    with borrowed(data_yaml, images_n, scratch) as tree:
        refuse_cache(sorted((tree / "images/train").iterdir()), cache, imgsz, tree)
        before = resident_bytes()
        started = time.perf_counter()
        batches = loader(tree / "data.yaml", cache, workers, batch, imgsz, **train)
        build_s = time.perf_counter() - started
        try:
            built = resident_bytes()
            (pace.drop if cold else touch)((tree / "images/train").iterdir())
            fetched = pace.fetched_bytes()
            images, seconds, counted = _clocked(batches, batches_n)
            shared = _settled(batches.num_workers * seconds / counted)
            resident = max(built, resident_bytes()) - before
        finally:
            batches.close()
        disk_bytes = None if fetched is None else pace.fetched_bytes() - fetched  # of ended workers, too
    result = images / seconds, seconds / counted, images, seconds, build_s, batches.num_workers
    del batches
    gc.collect()
    return Pass(*result, resident, shared, disk_bytes)


def loader(
    data_yaml: Path,
    cache: bool | str,
    workers: int,
    batch: int,
    imgsz: int,
    build=build_yolo_dataset,
    **train,
) -> InfiniteDataLoader:
    """The loader over the training split as `DetectionTrainer` of Ultralytics 8.4.190 builds and seeds it.

    Its `init_seeds` is not called: it sets deterministic kernels too, which a loader does not use, and
    that imports torch's compiler. `build` makes the data set of (cfg, images, batch, data).

    Raises:
        Refusal: Ultralytics did without the cache.
    """
    cfg = get_cfg(overrides={"data": str(data_yaml), "cache": cache, "imgsz": imgsz, **train})
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(cfg.seed + 1 + RANK)
    data = check_det_dataset(str(data_yaml), autodownload=False)
    with redirect_stdout(io.StringIO()):  # a bar for the cache, whatever YOLO_VERBOSE says
        dataset = build(cfg, data["train"], batch, data)
    if cache and dataset.cache != cache:
        raise Refusal(f"cache={cache} was asked for, Ultralytics does without: it found too little room.")
    device = "cpu" if str(cfg.device) == "cpu" else "cuda"  # decides whether batches are pinned
    return build_dataloader(dataset, batch, workers, shuffle=True, device=device)


def _clocked(batches: InfiniteDataLoader, batches_n: int) -> tuple[int, float, int]:
    """Images, seconds and batches of the span that counts."""
    together = max(1, batches.num_workers)
    rounds = min(-(-batches_n // together), len(batches) // together - 1)
    if rounds < 1:
        raise Refusal(
            f"an epoch has {len(batches)} batches, {2 * together} were expected (a warm-up and a measured"
            f" one for each of {together} workers): raise images_n or lower batch."
        )
    stream = iter(batches)
    for _ in range(together):
        next(stream)
    started = time.perf_counter()
    images = sum(len(next(stream)["img"]) for _ in range(rounds * together))
    return images, time.perf_counter() - started, rounds * together


def _settled(round_s: float) -> int:
    """Bytes of batches in /dev/shm once no worker has added one for as long as two rounds of batches take."""
    seen, now = -1, shared_bytes()
    while now != seen:
        time.sleep(2 * round_s + 0.02)
        seen, now = now, shared_bytes()
    return now


@contextmanager
def borrowed(data_yaml: Path, images_n: int, scratch: Path) -> Iterator[Path]:
    """A throw-away tree whose images and labels are links; it goes with the block.

    Ultralytics reads through a link and writes `.npy` and `.cache` beside it, so never in the source.
    """
    data = check_det_dataset(str(data_yaml), autodownload=False)
    images = sorted(p for p in Path(data["train"]).iterdir() if p.suffix != ".npy")
    n = min(images_n, len(images))
    images = [images[i * len(images) // n] for i in range(n)]
    with tempfile.TemporaryDirectory(dir=scratch, prefix="tree-") as folder:
        for kind in ("images", "labels"):
            (Path(folder) / kind / "train").mkdir(parents=True)
        for image, label in zip(images, map(Path, img2label_paths(images)), strict=True):
            (Path(folder) / "images/train" / image.name).symlink_to(image)
            (Path(folder) / "labels/train" / label.name).symlink_to(label)
        text = {"path": folder, "train": "images/train", "val": "images/train", "names": data["names"]}
        (Path(folder) / "data.yaml").write_text(yaml.safe_dump(text))
        yield Path(folder)


def touch(files: Iterable[Path]) -> None:
    """Read every file once: then it is in the page cache, as far as there is memory."""
    for file in files:
        file.read_bytes()


def refuse_workers(workers: int) -> None:
    """Raise Refusal where more workers are asked for than this process has cores."""
    cores_n = len(os.sched_getaffinity(0))
    if workers > cores_n:
        raise Refusal(f"not on this machine: {workers} workers were asked for, it has {cores_n} cores.")


def refuse_cache(files: list[Path], cache: bool | str, imgsz: int, folder: Path) -> None:
    """Raise Refusal where a cache would not fit: in memory under the control group, or in the folder's disk.

    Ultralytics asks for the same margins, but of the host's memory, whatever the group may use.
    """
    if not cache:
        return
    needed = int(MARGINS[cache] * decoded_bytes(files, imgsz if cache == "ram" else None))
    there = room(folder).free_memory_bytes if cache == "ram" else shutil.disk_usage(folder).free
    if needed > there:
        raise Refusal(
            f"cache={cache} does not fit: {needed / 2**30:.2f} GiB are needed for {len(files)} images"
            f" ({MARGINS[cache]} times their decoded size), {there / 2**30:.2f} GiB can be used."
        )


def decoded_bytes(files: list[Path], longest_px: int | None = None) -> int:
    """Bytes of the images decoded to 8-bit BGR, with `longest_px` resized to that longest side."""
    total = 0
    for file in files:
        with Image.open(file) as image:
            ratio = longest_px / max(image.size) if longest_px else 1
            width, height = (math.ceil(side * ratio) for side in image.size)
        total += 3 * width * height
    return total
