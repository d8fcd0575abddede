"""The starts of one training: each goes on from the last checkpoint, with what memory allows."""

import gc
import json
import math
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import torch
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils import DEFAULT_CFG

from saistudy.paths import Refusal, write_json, write_text
from saistudy.training import (
    checkpoints,
    conditions,
    ladder,
    memory,
    patience,
    progress,
    resume,
    telemetry,
)
from saistudy.training.decay import LayerDecay
from saistudy.training.rect import RectTrainer, pin_torch

TABLE = "attempts.json"
AUTO = "auto"


class _Sized:
    """Mixin: where no batch is given (-1), the largest that fits at the tensor that is really trained."""

    batch_found: dict | None = None

    def auto_batch(self, max_num_obj=0, dataset_size=0):
        """What memory.find found, kept in `batch_found`; with the boxes of a mosaic of the fullest image."""
        cache, self.args.cache = self.args.cache, False
        data = self.build_dataset(self.data["train"], batch=1)
        self.args.cache = cache
        boxes_n = 4 * max(len(label["cls"]) for label in data.labels)
        amp = torch.bfloat16 if self.args.amp == "bf16" else self.amp
        self.batch_found = memory.find(self.model, self._largest(), amp, len(data), boxes_n)
        _amend(self.save_dir, {"batch": self.batch_found["batch"], "batch_found": self.batch_found})
        return self.batch_found["batch"]

    def _largest(self) -> tuple[int, int]:
        """The largest tensor that training may see: with multi_scale it grows by that share."""
        sides = (side * (1 + self.args.multi_scale) for side in resume.tensor(self))
        return tuple(math.ceil(side / self.stride) * self.stride for side in sides)


class _Rect(telemetry.Watched, resume.Resumable, LayerDecay, _Sized, RectTrainer):
    """Exactly the tensor of `imgsz`."""


class _Stock(telemetry.Watched, resume.Resumable, LayerDecay, _Sized, DetectionTrainer):
    """Ultralytics' own trainer and data."""


ENGINES = {"rect": _Rect, "stock": _Stock}


@dataclass
class Start:
    """What every attempt at one training begins with, and what was read back of the latest.

    `second` is another place for checkpoints, or None; `extra` are attributes of the trainer (`llrd_rate`,
    `dataset`). `conditions` and `occurred` are filled in before the first step: what is in effect, and the
    declared differences among it.
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
    conditions: dict = field(default_factory=dict)
    occurred: list = field(default_factory=list)


def climb(start: Start, train: dict, recovery: bool):
    """The trainer that reached the end; where memory runs out, a step of the ladder and another attempt.

    Steps of earlier processes hold. Every attempt has a row in attempts.json.

    Raises:
        Refusal: memory ran out, and nothing is left to give up or `recovery` is False.
    """
    _recall(start)
    while True:
        train = _reduced(train, rows(start.folder))
        trainer, shortage = _attempt(start, train)
        if trainer:
            return trainer
        _free()
        kind, told = shortage
        if not recovery:
            raise Refusal(f"{told}: lower batch, imgsz or workers, or allow oom_recovery.")
        known = rows(start.folder)
        asked = vars(DEFAULT_CFG) | _reduced(train, known) | {"workers": known[-1]["workers"]}
        step = ladder.step(asked, kind)
        _amend(start.folder, {"step": step})
        print(f"{told}: {step['key']} {step['before']} becomes {step['after']}", flush=True)


def _reduced(train: dict, attempts: list[dict]) -> dict:
    """Settings of the next attempt: a batch that was sought stays found, and steps that were taken hold."""
    found = [row["batch"] for row in attempts if row["batch"] != AUTO]
    if train.get("batch") == AUTO and found:
        train = train | {"batch": found[0]}
    return train | {row["step"]["key"]: row["step"]["after"] for row in attempts if row["step"]}


def _recall(start: Start) -> None:
    """Where the run's folder is lost, the attempts that its latest checkpoint tells of."""
    latest = checkpoints.newest(start.folder / "checkpoints", start.second)
    if latest and not (start.folder / TABLE).exists():
        write_text(start.folder / TABLE, (latest / TABLE).read_text(encoding="utf-8"))


def rows(folder: Path) -> list[dict]:
    """The attempts so far: epoch, exact, why, batch, imgsz, cache, workers, wall_s, ended, step.

    `epoch` is the first one trained, None where it did not come to that; `wall_s` None where it was killed.
    """
    path = folder / TABLE
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def _amend(folder: Path, change: dict) -> None:
    """Complete the row of the latest attempt."""
    *before, last = rows(folder)
    write_json(folder / TABLE, [*before, last | change])


def _attempt(start: Start, train: dict):
    """(trainer, None), or (None, (kind, sentence)) where memory ran out: nothing of that trainer is held."""
    asked = {key: (vars(DEFAULT_CFG) | train)[key] for key in resume.SETTINGS}
    row = {"epoch": None, "exact": True, "why": [], **asked, "wall_s": None, "ended": "killed", "step": None}
    write_json(start.folder / TABLE, [*rows(start.folder), row])
    begun, trainer, told = time.perf_counter(), None, "interrupted"
    try:
        trainer = _build(start, train)
        trainer.train()
        kind, told = None, "finished"
    except Exception as error:
        kind = ladder.kind(error)
        epoch = getattr(trainer, "epoch", 0) + 1
        told = f"{kind} memory ran out in epoch {epoch}" if kind else f"{type(error).__name__}: {error}"
        if not kind:
            raise
    finally:
        _amend(start.folder, {"ended": told, "wall_s": round(time.perf_counter() - begun, 1)})
    return (None, (kind, told)) if kind else (trainer, None)


def _free() -> None:
    """Give back what a failed attempt held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _build(start: Start, train: dict):
    """A trainer of this run that will go on from the newest whole checkpoint."""
    place = {"project": str(start.folder.parent), "name": start.folder.name, "exist_ok": True}
    what = {"model": str(start.weights), "data": str(start.data), "plots": False}
    batch = {"batch": -1} if train.get("batch") == AUTO else {}  # -1: Ultralytics asks auto_batch
    checkpoint = checkpoints.newest(start.folder / "checkpoints", start.second)
    if not checkpoint:
        shutil.rmtree(start.folder / "weights", ignore_errors=True)  # of a start that nothing is left of
    trainer = ENGINES[start.engine](overrides=what | place | train | batch)
    trainer.args.workers = train.get("workers", trainer.args.workers)  # Ultralytics sets 0 on a CPU
    trainer.checkpoint = checkpoint
    vars(trainer).update(start.extra)
    if start.exact:
        resume.seed_epochs(trainer)
    _follow(trainer, start, train)
    return trainer


def _follow(trainer, start: Start, train: dict) -> None:
    """Register what happens beside the training: conditions checked, epochs kept and told."""
    held, teller = [], progress.Teller()

    def begin(trainer):
        held.append(trainer.batch_size)
        start.conditions = conditions.read_back(trainer)
        found = {"batch": trainer.batch_size} if trainer.batch_found else {}
        declared = [*start.declared, *_followed(start, train)]
        start.occurred = conditions.refuse_undeclared(train | found, start.conditions, declared)
        workers = {"workers": start.conditions["workers"]}
        _amend(start.folder, (trainer.resumed or {"epoch": 1}) | workers)
        _retell(trainer, teller)

    def unchanged(trainer):
        if trainer.batch_size != held[-1]:
            raise ladder.OutOfMemory(f"out of memory at batch {held[-1]}, as Ultralytics found")

    def saved(trainer):
        fork(trainer.csv, trainer.best, start.patiences[:-1], trainer.epochs)
        _keep(trainer, start)
        teller.tell(_table(trainer))

    for event in ("on_train_start", "on_val_start"):
        trainer.add_callback(event, pin_torch)
    trainer.add_callback("on_train_start", resume.count_on)
    trainer.add_callback("on_train_start", begin)
    trainer.add_callback("on_train_batch_start", unchanged)
    telemetry.attach(trainer, start.folder / "telemetry.csv")
    trainer.add_callback("on_model_save", saved)


def _followed(start: Start, train: dict) -> list[dict]:
    """The weight decay that follows from a batch that was found or halved, where it is another one.

    Stock scales it by batch x accumulate / nbs (8.4.190), which is 1 only where the batch divides nbs.
    """
    if not any(row["step"] or row.get("batch_found") for row in rows(start.folder)):
        return []
    seen = start.conditions
    scale = seen["batch"] * seen["accumulate"] / seen["nbs"]
    value = train.get("weight_decay", DEFAULT_CFG.weight_decay) * scale
    reason = f"batch {seen['batch']} x accumulate {seen['accumulate']} / nbs {seen['nbs']}, as memory allowed"
    return [{"key": "weight_decay", "value": value, "reason": reason}]


def _retell(trainer, teller: progress.Teller) -> None:
    """Show the epochs of earlier attempts again, so that a notebook holds them all."""
    if trainer.resumed:
        teller.tell(_table(trainer), trainer.start_epoch)
        why = ", ".join(trainer.resumed["why"])
        how = f"not exactly: {why}" if why else "exactly"
        print(f"resumed with epoch {trainer.resumed['epoch']}, {how}", flush=True)


def _table(trainer) -> pd.DataFrame:
    return progress.table(trainer.csv, trainer.epochs, len(trainer.train_loader.dataset))


def _keep(trainer, start: Start) -> None:
    """A checkpoint of every epoch but the last, after which nothing is left to train; the mirror in turn."""
    if trainer.stop:
        return
    checkpoint = resume.keep(trainer, start.folder / "checkpoints")
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
