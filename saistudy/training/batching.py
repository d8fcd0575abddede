"""Batches on their way from a worker to the training: stock's values in memory that is used again."""

import torch
from torch.utils.data import get_worker_info
from ultralytics.data import YOLODataset

PREFETCH_N = 4  # batches that a worker prepares ahead in training (data/build.py, 8.4.190)


class Ring:
    """Shared memory that a worker's batches of images take in turn, instead of fresh pages for each.

    A worker is given its task n + prefetch when batch n is handed to the training, so prefetch + 1 batches of
    it may be alive, and one is spare: a batch is overwritten `slots_n` batches of its worker later. Whoever
    keeps one longer copies it.
    """

    def __init__(self, slots_n: int = PREFETCH_N + 2):
        self.slots_n, self.slots, self.taken_n = slots_n, [], 0

    def stacked(self, images: list[torch.Tensor]) -> torch.Tensor:
        """Images (3, height, width) uint8 as one tensor (N, 3, height, width) in shared memory."""
        if len(self.slots) < self.slots_n:
            self.slots.append(torch.empty((len(images), *images[0].shape), dtype=torch.uint8).share_memory_())
        slot = self.slots[self.taken_n % self.slots_n]
        self.taken_n += 1
        if slot.shape[0] < len(images) or slot.shape[1:] != images[0].shape:
            return torch.stack(images)
        return torch.stack(images, out=slot[: len(images)])


class Sent(dict):
    """A batch on its way out of a worker: its tensors go as bytes, but for those that lie in shared memory.

    torch gives every tensor a file of its own in shared memory, and the receiver fetches its descriptor by
    a socket with a handshake: 4 a batch, a third of what planned images cost (2026-11-28, `bench loader`:
    1.18 to .83 ms). Labels and plans are a few KB.
    """

    def __reduce__(self):
        small = {key: value.numpy() for key, value in self.items() if _small(value)}
        return _received, (dict(self) | small, list(small))


def _small(value) -> bool:
    return isinstance(value, torch.Tensor) and not value.is_shared()


def _received(batch: dict, keys: list[str]) -> dict:
    """The batch as a plain dictionary of the tensors that were sent."""
    return batch | {key: torch.from_numpy(batch[key]) for key in keys}


def collate(samples: list[dict], ring: Ring) -> dict:
    """Stock's collate, images into a worker's ring, the rest as bytes; without workers stock's."""
    if get_worker_info() is None:
        return YOLODataset.collate_fn(samples)
    images = [sample.pop("img") for sample in samples]
    stacked = ring.stacked(images) if images[0].ndim == 3 else torch.stack(images)
    return Sent(YOLODataset.collate_fn(samples) | {"img": stacked})
