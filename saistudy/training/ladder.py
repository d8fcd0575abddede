"""What to give up when memory runs out. Pure: no torch.

Batch and image size cost GPU memory; a cache in memory and loader workers cost host memory. So each
kind has its own steps, and nothing is given up that would not have helped. Seed 004 (L244-251) goes
through batch, size, cache, workers whatever ran out.
"""

import errno

from saistudy.paths import Refusal

ORDER = {"gpu": ("batch", "imgsz"), "host": ("cache", "workers")}
SEED_ORDER = ("batch", "imgsz", "cache", "workers")  # seed 004, L244-251
BATCH_FLOOR = 4  # the smallest batch of seed 004's own table (L47); BatchNorm wants several images
IMGSZ_FLOOR_PX = 320  # the smallest size of that table, for the longer side
SHRINK = 0.75  # of each side: .56 of the pixels, about what a halved batch gives back
STRIDE_PX = 32  # the coarsest grid of YOLOv8: tensors are multiples of it
HOST = (
    "dataloader worker",  # "(pid 7) is killed by signal: Killed / Bus error", "exited unexpectedly"
    "can't allocate memory",  # torch's CPU allocator
    "cannot allocate memory",  # ENOMEM of the system
    "insufficient memory",  # OpenCV
    "unable to allocate",  # NumPy
    "unable to write to file </torch",  # torch, where /dev/shm is full
    "shared memory",  # torch, where it cannot be had at all
)
GPU = (
    "out of memory",
    "cublas_status_alloc_failed",
    "cudnn_status_internal_error",
    "unable to find an engine",
)


class OutOfMemory(RuntimeError):
    """GPU memory ran out and Ultralytics halved the batch by itself: taken back, and a step of the ladder."""


def kind(error: BaseException) -> str | None:
    """Which memory ran out: "gpu", "host", or None where the error is another one, such as a full disk.

    Decided by type and text, for a loader's worker raises its own error again in the trainer with
    the type in the text. The texts are those of torch 2.15, OpenCV 5, NumPy 2 and Linux; Ultralytics
    8.4.190 knows the GPU ones (engine/trainer.py).
    """
    text = f"{type(error).__name__} {error}".lower()
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return "host"
    if "caught memoryerror" in text or any(words in text for words in HOST):
        return "host"
    return "gpu" if any(words in text for words in GPU) else None


def step(train: dict, kind: str) -> dict:
    """The next thing given up: {key, before, after, seed_key}, with Ultralytics' keys of `train`.

    gpu: `batch` halved down to 4 with `nbs` as it stands (accumulation keeps the effective batch and the
    weight decay), then `imgsz` by a quarter of each side down to 320 px: another experiment. host: `cache`
    off, then `workers` halved down to none. seed_key is what the order of seed 004 would have come to.

    Raises:
        Refusal: nothing is left to give up.
    """
    if key := _next(ORDER[kind], train):
        after = LOWER[key](train.get(key))
        return {"key": key, "before": train.get(key), "after": after, "seed_key": _next(SEED_ORDER, train)}
    raise Refusal(
        f"{kind} memory ran out and nothing is left to give up"
        f" ({', '.join(f'{key} {train.get(key)}' for key in ORDER[kind])}):"
        " free memory, or take a machine with more or a smaller model."
    )


def _next(order: tuple[str, ...], train: dict) -> str | None:
    """The first key of an order that can be lowered yet."""
    return next((key for key in order if LOWER[key](train.get(key)) != train.get(key)), None)


def _half(batch: int | str) -> int | str:
    """Half of it down to the floor; a batch that is still sought is none to halve."""
    return max(batch // 2, BATCH_FLOOR) if isinstance(batch, int) and batch > BATCH_FLOOR else batch


def _smaller(imgsz: int | list[int]) -> int | list[int]:
    sides = [imgsz] if isinstance(imgsz, int) else imgsz
    lower = [max(int(side * SHRINK) // STRIDE_PX * STRIDE_PX, STRIDE_PX) for side in sides]
    if max(lower) < IMGSZ_FLOOR_PX:
        return imgsz
    return lower[0] if isinstance(imgsz, int) else lower


def _uncached(cache: bool | str | None) -> bool | str | None:
    return False if cache in (True, "ram") else cache


LOWER = {"batch": _half, "imgsz": _smaller, "cache": _uncached, "workers": lambda n: (n or 0) // 2}
