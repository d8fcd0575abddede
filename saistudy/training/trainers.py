"""A trainer of a run: built to go on from a checkpoint, with what happens beside the training."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from ultralytics.utils import DEFAULT_CFG

from saistudy.training import (
    attempts,
    checkpoints,
    conditions,
    curves,
    ladder,
    patience,
    progress,
    resume,
    stopping,
    telemetry,
)
from saistudy.training.engines import ENGINES
from saistudy.training.rect import pin_torch


@dataclass
class Start:
    """What every attempt at one training begins with, and what was read back of the latest.

    `second` is another place for checkpoints, or None; `extra` are attributes of the trainer (`llrd_rate`,
    `dataset`); with `tensorboard` the curves are written too. `conditions` and `occurred` are filled in while
    it trains: what is in effect, and the declared differences among it.
    """

    weights: str | Path
    data: str | Path
    folder: Path
    engine: str
    patiences: list[int]
    exact: bool
    declared: list[dict]
    second: Path | None
    extra: dict
    tensorboard: bool
    conditions: dict = field(default_factory=dict)
    occurred: list = field(default_factory=list)

    @property
    def checkpoints(self) -> Path:
        """The folder of the run's own checkpoints."""
        return self.folder / checkpoints.FOLDER


def build(start: Start, train: dict, checkpoint: Path | None):
    """A trainer of this run that will go on from a checkpoint, or begin where there is none."""
    place = {"project": str(start.folder.parent), "name": start.folder.name, "exist_ok": True}
    what = {"model": str(start.weights), "data": str(start.data), "plots": False}
    batch = {"batch": -1} if train.get("batch") == attempts.AUTO else {}  # Ultralytics then asks auto_batch
    if not checkpoint:
        shutil.rmtree(start.folder / "weights", ignore_errors=True)  # of a start that nothing is left of
    trainer = ENGINES[start.engine](overrides=what | place | train | batch)
    trainer.args.workers = train.get("workers", trainer.args.workers)  # Ultralytics sets 0 on a CPU
    trainer.checkpoint = checkpoint
    vars(trainer).update(start.extra)
    trainer.add_callback("on_train_epoch_start", stopping.heed)  # before workers are started for that epoch
    if start.exact:
        resume.seed_epochs(trainer)
    _follow(trainer, _Beside(start, train))
    return trainer


def _follow(trainer, beside: "_Beside") -> None:
    """Register what happens beside the training."""
    for event in ("on_train_start", "on_val_start"):
        trainer.add_callback(event, pin_torch)
    trainer.add_callback("on_train_start", resume.count_on)
    trainer.add_callback("on_train_start", beside.begin)
    beside.teller.watch(trainer)
    trainer.add_callback("on_train_batch_start", beside.refuse_halving)
    trainer.add_callback("on_train_epoch_end", beside.check_mosaic)
    telemetry.attach(trainer, beside.start.folder / "telemetry.csv")
    if beside.start.tensorboard:
        curves.attach(trainer, beside.start.folder / curves.FOLDER)
    trainer.add_callback("on_model_save", beside.save)


class _Beside:
    """Callbacks: conditions checked before the first step and in every epoch, epochs kept and told."""

    def __init__(self, start: Start, train: dict):
        self.start, self.train, self.teller, self.batch = start, train, progress.Teller(), None

    def begin(self, trainer) -> None:
        start, self.batch = self.start, trainer.batch_size
        start.conditions = conditions.read_back(trainer)
        found = {"batch": trainer.batch_size} if trainer.batch_found else {}
        declared = [*start.declared, *_followed(start, self.train)]
        start.occurred = conditions.refuse_undeclared(self.train | found, start.conditions, declared)
        workers = {"workers": start.conditions["workers"]}
        attempts.amend(start.folder, (trainer.resumed or {"epoch": 1}) | workers)
        self.retell(trainer)

    def refuse_halving(self, trainer) -> None:
        if trainer.batch_size != self.batch:
            raise ladder.OutOfMemory(f"out of memory at batch {self.batch}, as Ultralytics found")

    def check_mosaic(self, trainer) -> None:
        for entry in conditions.refuse_mosaic(trainer, self.train, self.start.declared):
            if entry["key"] not in [known["key"] for known in self.start.occurred]:
                self.start.occurred.append(entry)

    def save(self, trainer) -> None:
        fork(trainer.csv, trainer.best, self.start.patiences[:-1], trainer.epochs)
        _keep(trainer, self.start)
        self.teller.tell(_table(trainer))

    def retell(self, trainer) -> None:
        """Show the epochs of earlier attempts again, so that a notebook holds them all."""
        if trainer.resumed:
            self.teller.tell(_table(trainer), trainer.start_epoch)
            why = ", ".join(trainer.resumed["why"])
            how = f"not exactly: {why}" if why else "exactly"
            print(f"resumed with epoch {trainer.resumed['epoch']}, {how}", flush=True)


def _followed(start: Start, train: dict) -> list[dict]:
    """The weight decay that follows from a batch that was found or halved, where it is another one.

    Stock scales it by batch x accumulate / nbs (8.4.190), which is 1 only where the batch divides nbs.
    """
    if not any(row["step"] or row.get("batch_found") for row in attempts.rows(start.folder)):
        return []
    seen = start.conditions
    scale = seen["batch"] * seen["accumulate"] / seen["nbs"]
    value = train.get("weight_decay", DEFAULT_CFG.weight_decay) * scale
    reason = f"batch {seen['batch']} x accumulate {seen['accumulate']} / nbs {seen['nbs']}, as memory allowed"
    return [{"key": "weight_decay", "value": value, "reason": reason}]


def _table(trainer) -> pd.DataFrame:
    return progress.table(trainer.csv, trainer.epochs, len(trainer.train_loader.dataset))


def _keep(trainer, start: Start) -> None:
    """A checkpoint of every epoch but the last, after which nothing is left to train; the mirror in turn."""
    if trainer.stop:
        return
    checkpoint = resume.keep(trainer, start.checkpoints)
    if start.second and trainer.epoch % max(trainer.save_period, 1) == 0:
        checkpoints.mirror(checkpoint, start.second)


def fork(csv: Path, best: Path, shorter: list[int], epochs: int) -> None:
    """Copy best.pt for each shorter patience whose stop is the epoch just saved.

    Replays the csv each time, so it keeps no state. With a fixed `epochs` the schedule does not depend on
    patience, and a run with a shorter one is an exact prefix (measured on 8.4.190: bit for bit).
    """
    fitness = patience.fitness(csv)
    for p in shorter:
        stop = patience.replay(fitness, p, epochs)
        if stop.known and stop.stopped_early and stop.stop_epoch == len(fitness):
            (best.parent / f".{best.name}.part").write_bytes(best.read_bytes())
            (best.parent / f".{best.name}.part").replace(forked(best.parent, p))


def forked(weights: Path, p: int) -> Path:
    """Where the weights of a shorter patience are kept."""
    return weights / f"best_patience{p}.pt"
