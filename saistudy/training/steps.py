"""One training step of a network under a setting: its rate, its parts, and the memory that it takes."""

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from saistudy.training import checkpointing, networks
from saistudy.training.networks import Sizes
from saistudy.training.settings import Setting

PARTS = ("wait", "forward", "backward", "optimizer")
LR, WEIGHT_DECAY = 1e-4, 1e-4  # weight decay: seed document 001, L170; a step's rate depends on neither
CAST = {"float32": None, "float16": torch.float16, "bfloat16": torch.bfloat16}


class Stepper:
    """A network under a setting, and the one training step that everything here measures.

    float16 has its gradient scaler (torch.amp.GradScaler), the others need none. AdamW is the seed's (L168).
    """

    def __init__(self, name: str, sizes: Sizes, setting: Setting, device: str, seed: int = 0):
        self.name, self.setting, self.device = name, setting, torch.device(device)
        self.network = networks.build(name, sizes, setting, device, seed)
        self.called = (
            torch.compile(self.network, backend=setting.compiled) if setting.compiled else self.network
        )
        own = self.network.parameters()
        self.optimizer = torch.optim.AdamW(own, lr=LR, weight_decay=WEIGHT_DECAY)
        scaled = setting.precision == "float16"
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=scaled)
        self.marks = False

    def _part(self, name: str):
        """A span for the profiler; while it looks, the device is waited for at its end."""
        return _Span(f"part.{name}", self.device) if self.marks else nullcontext()

    def _cast(self):
        kind = CAST[self.setting.precision]
        return torch.autocast(self.device.type, dtype=kind, enabled=kind is not None)

    def take(self, batch: dict) -> dict:
        """A batch on the device, images as float in 0 to 1, in the layout of the setting."""
        moved = {k: v.to(self.device, non_blocking=self.setting.non_blocking) for k, v in batch.items()}
        moved["img"] = moved["img"].float() / 255
        if self.setting.channels_last:
            moved["img"] = moved["img"].contiguous(memory_format=torch.channels_last)
        return moved

    def loss(self, batch: dict) -> torch.Tensor:
        """The mean loss of a batch that `take` gave, in the precision of the setting."""
        with self._cast():
            return networks.loss(self.name, self.network, self.called(batch["img"]), batch)

    def step(self, batch: dict) -> torch.Tensor:
        """Forward, backward and optimizer on a batch that `take` gave; the loss before it, on the device."""
        split = networks.parts(batch, self.setting.accumulate)
        total = 0.0
        for part in split:
            with self._part("forward"):
                loss = self.loss(part) / len(split)
            with self._part("backward"):
                self.scaler.scale(loss).backward()
            total = total + loss.detach()
        with self._part("optimizer"):
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.zero_grad(set_to_none=True)
        return total

    def wait(self) -> None:
        """Wait until the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def run(self, batches: Iterable[dict]) -> int:
        """A step for each batch; how many that were."""
        steps_n, batches = 0, iter(batches)
        while True:
            with self._part("wait"):
                batch = next(batches, None)
                batch = batch if batch is None else self.take(batch)
            if batch is None:
                return steps_n
            self.step(batch)
            steps_n += 1


class _Span:
    """A record_function whose end waits for the device, so that its seconds are those of its work."""

    def __init__(self, name: str, device: torch.device):
        self.span, self.device = record_function(name), device

    def __enter__(self):
        self.span.__enter__()

    def __exit__(self, *error):
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.span.__exit__(*error)


def rate(stepper: Stepper, batches: Iterable[dict]) -> tuple[float, int | None]:
    """(steps/s, peak bytes) over all batches, the start of the feed included.

    The peak is that of torch's allocator on the GPU (torch.cuda.max_memory_allocated), None on a CPU.
    """
    gpu = stepper.device.type == "cuda"
    if gpu:
        torch.cuda.reset_peak_memory_stats(stepper.device)
    stepper.wait()
    started = time.perf_counter()
    steps_n = stepper.run(batches)
    stepper.wait()
    seconds = time.perf_counter() - started
    return steps_n / seconds, torch.cuda.max_memory_allocated(stepper.device) if gpu else None


def seconds(stepper: Stepper, batches: Iterator[dict]) -> dict[str, float]:
    """Seconds a step in each of PARTS, by torch's profiler, and `step`, the whole of it.

    The device is waited for after each part, which a training does not: the sum is above 1 / rate.
    """
    stepper.marks = True
    stepper.wait()
    with _hushed(), profile(activities=[ProfilerActivity.CPU]) as seen:
        started = time.perf_counter()
        steps_n = stepper.run(batches)
        stepper.wait()
        whole_s = time.perf_counter() - started
    stepper.marks = False
    found = {event.key: event.cpu_time_total / 1e6 for event in seen.key_averages()}
    split = {name: found.get(f"part.{name}", 0.0) / steps_n for name in PARTS}
    return split | {"step": whole_s / steps_n}


@contextmanager
def _hushed():
    """Nothing on standard error: Kineto of torch 2.15 writes there at any log level (seen 2026-11)."""
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def kept_bytes(stepper: Stepper, batch: dict) -> int:
    """Bytes that a forward pass keeps for backward (checkpointing.Kept); of parts in turn, the most."""
    sizes = []
    for part in networks.parts(stepper.take(batch), stepper.setting.accumulate):
        with checkpointing.Kept(stepper.network) as kept:
            loss = stepper.loss(part)
        sizes.append(kept.bytes)
        del loss
    return max(sizes)
