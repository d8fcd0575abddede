"""Stored JPEGs, decoded and resized for a classifier: each time, or once and then kept in memory."""

import random
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset


class Jpegs(Dataset):
    """Images uint8 (3, side, side) RGB with their labels; mirrored with probability a half.

    Cached, decoding and resizing are done once, before the first batch, and the mirror still each time: what
    seed document 001 says of its cache (L124-133).
    """

    def __init__(self, paths: Sequence[Path], labels: np.ndarray, side_px: int, cached: bool = False):
        self.paths, self.labels, self.side_px = paths, labels, side_px
        self.cache = np.stack([self._read(i) for i in range(len(paths))]) if cached else None

    def _read(self, i: int) -> np.ndarray:
        image = cv2.imdecode(np.fromfile(self.paths[i], np.uint8), cv2.IMREAD_COLOR)
        resized = cv2.resize(image, (self.side_px, self.side_px), interpolation=cv2.INTER_AREA)
        return np.ascontiguousarray(resized[..., ::-1].transpose(2, 0, 1))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        image = self._read(i) if self.cache is None else self.cache[i]
        mirrored = image[..., ::-1] if random.random() < 0.5 else image
        return torch.from_numpy(mirrored.copy()), int(self.labels[i])


def loader(
    data: Jpegs, batch: int, workers: int, prefetch: int, persistent: bool, pinned: bool
) -> DataLoader:
    """torch's own loader over whole batches in random order; without workers there is nothing to prefetch."""
    ahead = {"prefetch_factor": prefetch, "persistent_workers": persistent} if workers else {}
    # forked, as on Linux before Python 3.14: spawned workers would import torch anew in every epoch
    ahead |= {"multiprocessing_context": "fork"} if workers else {}
    # torch warns of more workers than cores, which is what one of the seed's recipes asks for
    warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
    return DataLoader(
        data, batch, shuffle=True, drop_last=True, num_workers=workers, pin_memory=pinned, **ahead
    )


def epochs(feed: DataLoader, epochs_n: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The batches of so many epochs; workers that do not persist are started anew for each."""
    for _ in range(epochs_n):
        yield from feed
