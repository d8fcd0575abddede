"""What feeding a training costs the CPU: a loader of each input without a model, all processes counted."""

import os
import time
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import NamedTuple

import psutil
from ultralytics.data.build import InfiniteDataLoader

from saistudy.training import feed, loading
from saistudy.training.dataset import build_dataset
from saistudy.training.ladder import STRIDE_PX


class Rate(NamedTuple):
    """One pass: CPU seconds an image of this process and its workers, images/s, images counted, what ran."""

    cpu_s: float
    images_per_s: float
    images_n: int
    input: str


def loader(data_yaml: Path, way: str, hw, batch: int, workers: int, places, **train) -> InfiniteDataLoader:
    """A training loader: Ultralytics' own for the square `hw` where `way` is stock, else fed from a store.

    Raises:
        Refusal: no such way.
    """
    asked = feed.asked(way, places, {"batch": batch, "imgsz": list(hw), "workers": workers})
    kind = partial(feed.FedDataset, feed=asked)

    def fed(cfg, images, batch, data):
        return build_dataset(cfg, images, hw, batch, data, "train", STRIDE_PX, kind)

    own = {"build": fed} if way != feed.STOCK or hw[0] != hw[1] else {}
    return loading.loader(data_yaml, False, workers, batch, max(hw), device="cpu", **own, **train)


def rate(
    data_yaml: Path, way: str, hw, batch: int, workers: int, batches_n: int, warm_n: int, places, **train
) -> Rate:
    """One pass of `batches_n` batches after `warm_n`, which fill the workers' mosaic buffers and queues.

    What workers prepared ahead of the clock's start is as much as they have ahead at its end.
    """
    batches = loader(data_yaml, way, hw, batch, workers, places, **train)
    stream = chain.from_iterable(repeat(batches))  # epoch after epoch
    try:
        for _ in range(warm_n):
            next(stream)
        _filled()
        before, started = _cpu_s(), time.perf_counter()
        images_n = sum(len(next(stream)["img"]) for _ in range(batches_n))
        seconds = time.perf_counter() - started
        _filled()
        spent = _cpu_s() - before
    finally:
        batches.close()
    ran = getattr(batches.dataset, "input", feed.STOCK)
    return Rate(spent / images_n, images_n / seconds, images_n, ran)


def _cpu_s() -> float:
    """User and system seconds of this process and its children so far."""
    own = psutil.Process(os.getpid())
    times = [process.cpu_times() for process in (own, *own.children(recursive=True))]
    return sum(one.user + one.system for one in times)


def _filled() -> None:
    """Return when no process works any more: the queues are full."""
    last, now = -1.0, _cpu_s()
    while now > last:
        time.sleep(0.25)
        last, now = now, _cpu_s()
