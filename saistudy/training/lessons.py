"""A classifier taught the painted task, with one switch at a time: does what it learns change?"""

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torchvision.transforms import v2

from saistudy.training import checkpointing, residual, stripes
from saistudy.training.settings import FAILURES, NOT_COMPILED, not_measured

LEARNING = ("focal loss", "label smoothing", "RandAugment", "mixup", "one-cycle", "clipping")
LEARNING += ("truncated-normal init", "AdamW")
COMPUTING = ("AMP float16", "AMP bfloat16", "compile", "channels-last", "checkpointing", "all of the seed's")
FOCAL_GAMMA = 2.0  # Lin et al. 2017 (ICCV), section 4; seed document 001 names no value
SMOOTHING = 0.1  # seed document 001, L364
MIXUP_ALPHA = 0.2  # Zhang et al. 2018 (ICLR), section 3: 0.1 to 0.4 on ImageNet
MAX_NORM = 1.0  # seed document 001, L173
ADAMW = {
    "lr": 1e-3,
    "betas": (0.9, 0.999),
    "weight_decay": 1e-4,
}  # seed document 001, L168-169; rate: torch's
SGD = {"lr": 0.05, "momentum": 0.9}
PEAK = 4.0  # one-cycle: its highest rate over the constant one of the base


class Task(NamedTuple):
    """Images uint8 (N, 3, side, side) and labels int64 (N,), to learn from and to be tested on."""

    train: tuple[torch.Tensor, torch.Tensor]
    test: tuple[torch.Tensor, torch.Tensor]


def task(train_n: int, test_n: int, side_px: int, seed: int, device: str) -> Task:
    """A painted task; its test images are others, and the same for every training."""
    split = []
    for i, n in enumerate((train_n, test_n)):
        images, labels = stripes.draw(n, side_px, 2 * seed + i)
        pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
        split.append((pixels.to(device), torch.from_numpy(labels).to(device)))
    return Task(*split)


def focal(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean of -(1 - p)^gamma log p over images, p the true class's softmax: Lin et al. 2017, formula 4."""
    log_p = functional.log_softmax(scores.float(), dim=1).gather(1, labels[:, None])[:, 0]
    return -((1 - log_p.exp()) ** FOCAL_GAMMA * log_p).mean()


def teach(
    switch: str, seed: int, data: Task, width: int, blocks_n: int, epochs_n: int, batch: int, backend: str
) -> dict:
    """Train once: {switch, seed, accuracy, correct (bool (test N,)), images_per_s, steps_n, largest_norm}.

    Weights, order and mirroring go with the seed alone, so that switches are compared in pairs.
    `largest_norm`: the largest gradient norm of a step (before clipping), None where it was not finite.
    images_per_s is that of training, its first step left out.
    """
    lesson = _Lesson(switch, seed, data, width, blocks_n, epochs_n, batch, backend)
    norms, started = [], time.perf_counter()
    for epoch in range(epochs_n):
        for i, chosen in enumerate(lesson.order(epoch)):
            norms.append(lesson.step(*lesson.drawn(chosen)))
            if epoch == i == 0:
                lesson.wait()
                started = time.perf_counter()
    lesson.wait()
    seconds = time.perf_counter() - started
    correct = lesson.correct()
    largest = float(torch.stack(norms).max())
    return {
        "switch": switch,
        "seed": seed,
        "accuracy": float(correct.mean()),
        "correct": correct,
        "images_per_s": batch * (len(norms) - 1) / seconds,
        "steps_n": len(norms),
        "largest_norm": largest if np.isfinite(largest) else None,
    }


def course(seeds: list[int], data: Task, compiles: bool, say: Callable, **how) -> list[dict]:
    """Rows of `teach`, or {switch, seed, note}: the base and each switch in turn, once a seed.

    Args:
        compiles: whether this run compiles the classifier.
        say: told a seed when it is done.
        how: what `teach` takes besides.
    """
    rows = []
    for seed in seeds:
        for switch in ("base", *LEARNING, *COMPUTING):
            row = {"switch": switch, "seed": seed, "note": ""}
            if switch == "compile" and not compiles:
                rows.append(row | {"note": NOT_COMPILED})
                continue
            try:
                rows.append(row | teach(switch, seed, data, **how))
            except FAILURES as error:
                rows.append(row | {"note": not_measured(error)})
        say(seed)
    return rows


class _Lesson:
    """One training in progress."""

    def __init__(self, switch, seed, data: Task, width, blocks_n, epochs_n, batch, backend):
        torch.manual_seed(seed)
        every = switch == "all of the seed's"
        self.on = {*LEARNING, "AMP float16", "channels-last"} if every else {switch}
        self.data, self.batch, self.device = data, batch, data.train[0].device
        self.network = residual.build(width, blocks_n, len(stripes.STRIPES_N)).to(self.device)
        if "truncated-normal init" in self.on:
            residual.truncated_normal(self.network)
        if "checkpointing" in self.on:
            checkpointing.wrap(self.network)
        if "channels-last" in self.on:
            self.network = self.network.to(memory_format=torch.channels_last)
        self.called = torch.compile(self.network, backend=backend) if "compile" in self.on else self.network
        self.rng = torch.Generator().manual_seed(seed)  # of the order, and no switch draws from it
        self.own = np.random.default_rng(seed)  # of what a switch draws
        self.augment = v2.RandAugment()  # torchvision's: two operations of magnitude 9
        self.per_epoch_n = len(data.train[0]) // batch
        self._optimize(epochs_n * self.per_epoch_n)

    def _optimize(self, steps_n: int) -> None:
        own = self.network.parameters()
        self.optimizer = (
            torch.optim.AdamW(own, **ADAMW) if "AdamW" in self.on else torch.optim.SGD(own, **SGD)
        )
        rate = self.optimizer.param_groups[0]["lr"]
        self.schedule = None
        if "one-cycle" in self.on:
            self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, PEAK * rate, steps_n)
        self.cast = {"AMP float16": torch.float16, "AMP bfloat16": torch.bfloat16}
        self.cast = next((kind for name, kind in self.cast.items() if name in self.on), None)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.cast is torch.float16)

    def order(self, epoch: int) -> torch.Tensor:
        """Images of each step of an epoch, int64 (steps, batch)."""
        drawn = torch.randperm(len(self.data.train[0]), generator=self.rng)
        return drawn[: self.per_epoch_n * self.batch].view(self.per_epoch_n, self.batch)

    def drawn(self, chosen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Images uint8, half of them mirrored, and labels, of a step."""
        chosen = chosen.to(self.device)
        images, labels = (part[chosen] for part in self.data.train)
        mirrored = torch.rand(self.batch, generator=self.rng).to(self.device) < 0.5
        images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        if "RandAugment" in self.on:
            torch.manual_seed(int(self.own.integers(2**31)))
            images = torch.stack([self.augment(image) for image in images])
        return images, labels

    def loss(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Mean loss of images uint8."""
        pixels, other, share = images.float() / 255, labels, 1.0
        if "mixup" in self.on:
            share, turned = (
                float(self.own.beta(MIXUP_ALPHA, MIXUP_ALPHA)),
                torch.arange(len(labels) - 1, -1, -1),
            )
            other, pixels = labels[turned], share * pixels + (1 - share) * pixels[turned]
        if "channels-last" in self.on:
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, dtype=self.cast, enabled=self.cast is not None):
            scores = self.called(pixels)
        judged = focal if "focal loss" in self.on else self._entropy
        return share * judged(scores, labels) + ((1 - share) * judged(scores, other) if share < 1 else 0)

    def _entropy(self, scores, labels) -> torch.Tensor:
        smoothing = SMOOTHING if "label smoothing" in self.on else 0.0
        return functional.cross_entropy(scores.float(), labels, label_smoothing=smoothing)

    def step(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """One step; the norm of its gradient before clipping."""
        self.network.train()
        self.scaler.scale(self.loss(images, labels)).backward()
        self.scaler.unscale_(self.optimizer)
        bound = MAX_NORM if "clipping" in self.on else float("inf")
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), bound)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.schedule:
            self.schedule.step()
        return norm.detach()

    def wait(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    @torch.no_grad()
    def correct(self) -> np.ndarray:
        """Which test images are told right, bool (N,); in float32, whatever it was trained in."""
        self.network.eval()
        images, labels = self.data.test
        found = [self.network(part.float() / 255).argmax(1) for part in images.split(256)]
        return (torch.cat(found) == labels).cpu().numpy()
