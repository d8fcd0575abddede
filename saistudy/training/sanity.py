"""A number of training steps without an epoch's end: losses, seconds by part, utilisation, weights moved.

The trainer is that of a run (training.engines): its network, its loader, its augmentation, its optimizer.
Left out is what stands between epochs: validation and checkpoints.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import pandas as pd
import torch
from ultralytics.utils import SETTINGS

from saistudy.paths import Refusal
from saistudy.training import clocks, conditions, feed, progress
from saistudy.training.engines import ENGINES
from saistudy.training.rect import pin_torch
from saistudy.training.telemetry import Lacking, Sampler, gpu_peaks, nvml_probe

PARTS = ["wait_s", "transfer_s", "step_s"]
COLUMNS = ["batch", "loss", *PARTS, "images_n"]


@dataclass
class Steps:
    """What the steps were.

    `rows` has a row per batch: batch (from 1), loss (of an image: box, cls and dfl with their gains), wait_s
    (until the loader gave it), transfer_s (to the device, as 32-bit floats), step_s (all the rest, to the end
    of the update), images_n. `build_s`: model, data set, loaders. `wall_s`: all, profiled batches left out.
    `moved_frac`: length of the way the weights went, over their length at first. `gpu`: gpu_util (NVML, mean
    over the batches after `warmup_n`), gpu_peak_gib, gpu_reserved_gib, kernel_frac and copy_frac (share of a
    profiled window with a kernel, or a copy to the GPU, on it); a `telemetry.Lacking` says why there is none.
    """

    rows: pd.DataFrame
    warmup_n: int
    conditions: dict
    declared: list[dict]
    build_s: float
    wall_s: float
    moved_frac: float
    gpu_util_n: int
    gpu: dict[str, float | Lacking] = field(default_factory=dict)

    def losses(self, per_n: int) -> list[float]:
        """The mean loss of every `per_n` batches, those left over at the end included."""
        return self.rows["loss"].groupby(self.rows.index // per_n).mean().tolist()

    @property
    def steady(self) -> pd.DataFrame:
        """The rows after the warm-up."""
        return self.rows.iloc[self.warmup_n :]


def take(
    weights,
    data,
    folder,
    batches_n: int,
    warmup_n: int,
    *,
    engine="rect",
    declared=(),
    profiled_n=0,
    probe=nvml_probe,
    input=feed.STOCK,
    stores=(),
    resident=False,
    **train,
) -> Steps:
    """Train for so many batches and stop there, whatever epochs they make.

    Ultralytics updates the weights after every `nbs` / `batch` batches, rounded, with the gradients summed
    (engine/trainer.py, 8.4.190): batch 16 with nbs 128 accumulates over 8. The loss of a batch is multiplied
    by its images before that (utils/loss.py), so the sum is that of all 128 images.

    Args:
        weights, data, folder, engine, declared, train: as of training.fit; `epochs` is set here.
        warmup_n: batches before the steady part, in which workers start and kernels are chosen.
        profiled_n: further batches on a GPU, under torch's profiler, which slows them.
        probe: as of telemetry.attach.
        input, stores: as of training.fit.
        resident: every batch is the first one, which stays on the device: what feeding costs beyond that.

    A loss that is no finite number is the last one.

    Raises:
        Refusal: nothing is left after the warm-up, a condition is neither the one asked for nor declared, or
            memory ran out.
    """
    if not 0 <= warmup_n < batches_n:
        raise Refusal(f"{warmup_n} of {batches_n} batches are the warm-up, fewer were expected: lower it.")
    begun, folder = perf_counter(), Path(folder).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    SETTINGS.update({k: False for k, v in SETTINGS.items() if isinstance(v, bool)})  # nothing is reported
    train = train | {"epochs": batches_n + profiled_n + 1}  # more than these batches can make
    counted = _Counted(train, declared, probe, (batches_n, warmup_n, profiled_n))
    with progress.log_to(folder / "train.log"):
        trainer = _built(engine, weights, data, folder, train)
        vars(trainer).update(feed.datasets(feed.asked(input, stores, train), engine))
        trainer.resident = resident
        counted.follow(trainer)
        try:
            trainer.train()
        except _Enough:
            pass
        finally:
            counted.close(trainer)
    return counted.steps(begun)


class _Enough(Exception):
    """Ends a training after a batch: `trainer.stop` would validate and save first."""


class _Timed:
    """Mixin, named before the trainer: seconds of a batch's way to the device; one may stay there."""

    transfer_s: Callable[[], float]
    resident, stayed = False, None

    def preprocess_batch(self, batch):
        """The trainer's own, timed."""
        stop = clocks.stopwatch(self.device)
        if self.stayed is None:
            batch = super().preprocess_batch(batch)
            self.stayed = batch if self.resident else None
        else:
            batch = self.stayed
            self.images_n += len(batch["img"])
        self.transfer_s = stop()
        return batch


def _built(engine: str, weights, data, folder: Path, train: dict):
    """A trainer of the engine that keeps no checkpoint and validates no epoch."""
    place = {"project": str(folder.parent), "name": folder.name, "exist_ok": True}
    off = {"val": False, "save": False, "plots": False}
    kind = type("Timed", (_Timed, ENGINES[engine]), {})
    trainer = kind(overrides={"model": str(weights), "data": str(data)} | place | train | off)
    trainer.args.workers = train.get("workers", trainer.args.workers)  # Ultralytics sets 0 on a CPU
    return trainer


class _Counted:
    """Callbacks that time every batch, and end the training after the last."""

    def __init__(self, train: dict, declared, probe, numbers: tuple[int, int, int]):
        self.train, self.declared, self.probe, self.rows = train, declared, probe, []
        self.batches_n, self.warmup_n, self.profiled_n = numbers
        self.sampler = self.profiler = None

    def follow(self, trainer) -> None:
        for event, call in (
            ("on_train_start", pin_torch),
            ("on_train_start", self.begin),
            ("on_train_batch_start", self.start),
            ("on_train_batch_end", self.end),
        ):
            trainer.add_callback(event, call)

    def begin(self, trainer) -> None:
        self.read = conditions.read_back(trainer)
        self.occurred = conditions.refuse_undeclared(self.train, self.read, self.declared)
        self.reader = self.probe(trainer.device)
        self.before = [w.detach().cpu().clone() for w in trainer.model.parameters()]
        if trainer.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(trainer.device)
        self.mark = self.opened = perf_counter()

    def start(self, trainer) -> None:
        if trainer.batch_size != self.read["batch"]:
            raise Refusal(f"memory ran out at batch {self.read['batch']}: the gate needs a smaller one.")
        self.wait_s, self.mark = perf_counter() - self.mark, perf_counter()
        if len(self.rows) == self.warmup_n and not isinstance(self.reader, Lacking):
            self.sampler = Sampler(self.reader)

    def end(self, trainer) -> None:
        loss = sum(float(part) for part in trainer.loss_items.values())
        spent, transfer_s = perf_counter() - self.mark, trainer.transfer_s()
        images_n = trainer.images_n - sum(row["images_n"] for row in self.rows)
        values = len(self.rows) + 1, loss, self.wait_s, transfer_s, spent - transfer_s, images_n
        self.rows.append(dict(zip(COLUMNS, values, strict=True)))
        self.say()
        broken = not math.isfinite(loss)
        if len(self.rows) == self.batches_n or (broken and len(self.rows) < self.batches_n):
            self.finish(trainer)
        if broken or len(self.rows) >= self.batches_n + (self.profiled_n if self.profiler else 0):
            raise _Enough
        self.mark = perf_counter()

    def say(self) -> None:
        """A line for each quarter of the batches."""
        done_n, loss = len(self.rows), self.rows[-1]["loss"]
        if done_n <= self.batches_n and done_n % max(self.batches_n // 4, 1) == 0:
            print(f"batch {done_n} of {self.batches_n}: loss {loss:.3f}", flush=True)

    def finish(self, trainer) -> None:
        """What is known after the last batch that counts; the profiler is started where it has a use."""
        self.ended = perf_counter()
        util, self.util_n = self.sampler.stop() if self.sampler else (self.reader, 0)
        self.moved_frac = moved(self.before, [w.detach().cpu() for w in trainer.model.parameters()])
        self.gpu = {"gpu_util": util} | gpu_peaks(trainer.device)
        if trainer.device.type == "cuda" and self.profiled_n:
            self.profiler = torch.profiler.profile()
            self.profiler.start()
            self.window = perf_counter()

    def close(self, trainer) -> None:
        if self.sampler:
            self.sampler.done.set()
        if self.profiler:
            torch.cuda.synchronize()
            window_s = perf_counter() - self.window
            self.profiler.stop()
            self.gpu |= clocks.shares(self.profiler.events(), window_s)
        for loader in (getattr(trainer, name, None) for name in ("train_loader", "test_loader")):
            if hasattr(loader, "close"):
                loader.close()

    def steps(self, begun: float) -> Steps:
        none = Lacking(f"trained on {self.read['device']}" if not self.profiler else "not profiled")
        gpu = dict.fromkeys(("kernel_frac", "copy_frac"), none) | self.gpu
        rows = pd.DataFrame(self.rows[: self.batches_n])
        seconds = self.opened - begun, self.ended - begun
        seen = self.read, self.occurred, *seconds, self.moved_frac, self.util_n
        return Steps(rows, self.warmup_n, *seen, gpu)


def moved(before: list[torch.Tensor], after: list[torch.Tensor]) -> float:
    """Length of the way that all weights as one vector went, over the length of that vector at first."""
    way = sum(float((b.double() - a.double()).square().sum()) for a, b in zip(before, after, strict=True))
    length = sum(float(a.double().square().sum()) for a in before)
    return (way / length) ** 0.5
