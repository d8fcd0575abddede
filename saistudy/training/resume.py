"""Exact resume: an epoch's randomness follows from (seed, epoch), and its end is kept in full precision.

Stock Ultralytics goes on from a half-precision average of the weights with a fresh random state: another
run (measured on 8.4.190: loss .419 where the uninterrupted run had .380). Here no random state is kept at
all. Each epoch is seeded anew, and what the optimizer will read is written as it is, in 32 bits.
"""

import os
import random
import shutil
import time
from pathlib import Path

import numpy as np
import torch
from ultralytics.utils.torch_utils import unwrap_model

from saistudy.paths import write_text
from saistudy.training import checkpoints

STATE = "state.pt"
SETTINGS = ("batch", "imgsz", "cache", "workers")  # change one of these and the batches are others
EPOCHN_KEPT_N = 2
TABLES = ("*.csv", "*.json")


def epoch_seed(seed: int, epoch: int) -> int:
    """The 32-bit seed of an epoch (from 0), both mixed by NumPy's SeedSequence: seeds do not share epochs."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])


def reseed(trainer) -> None:
    """Make this epoch's order and augmentation follow from seed and epoch alone, with any number of workers.

    Workers end, for each holds a random state and decoded images for mosaic of its own; they start again with
    the epoch's first batch. A callback of on_train_epoch_start, in uninterrupted runs too.
    """
    seed = epoch_seed(trainer.args.seed, trainer.epoch)
    for start in (random.seed, np.random.seed, torch.manual_seed, trainer.train_loader.generator.manual_seed):
        start(seed)
    trainer.train_loader.reset()
    dataset = trainer.train_loader.dataset
    if dataset.cache != "ram":  # then mosaic draws from all images, nothing depends on what was read before
        dataset.buffer = []
        dataset.ims, dataset.im_hw0, dataset.im_hw = ([None] * dataset.ni for _ in range(3))


class Resumable:
    """Mixin for an Ultralytics trainer that goes on where a killed one stood.

    `checkpoint` is the folder to go on from; once trained, `resumed` says how exactly that was done.
    """

    checkpoint: Path | None = None
    resumed: dict | None = None
    exact = False  # see seed_epochs
    spent_s = 0.0  # by the attempts before

    def resume_training(self, ckpt):
        """Stock, which finds nothing to resume; then the state of our own checkpoint."""
        super().resume_training(ckpt)
        if self.checkpoint:
            self.resumed = restore(self, self.checkpoint)

    def save_model(self):
        """Stock, each file whole or not at all; of the epochN.pt the latest two stay."""
        names = self.wdir, self.last, self.best
        part = self.wdir / ".part"
        shutil.rmtree(part, ignore_errors=True)
        self.wdir, self.last, self.best = part, part / self.last.name, part / self.best.name
        try:
            saved = super().save_model()
        finally:
            self.wdir, self.last, self.best = names
        for file in part.iterdir() if saved else ():
            os.replace(file, self.wdir / file.name)
        shutil.rmtree(part)
        for old in sorted(self.wdir.glob("epoch*.pt"), key=_number)[:-EPOCHN_KEPT_N]:
            old.unlink()
        return saved


def seed_epochs(trainer) -> None:
    """Have every epoch seeded anew: the one declared difference to the order of stock Ultralytics."""
    trainer.exact = True
    trainer.add_callback("on_train_epoch_start", reseed)


def _number(path: Path) -> int:
    return int(path.stem.removeprefix("epoch"))


def count_on(trainer) -> None:
    """Make the csv's seconds include those of the attempts before; a callback of on_train_start."""
    trainer.train_time_start -= trainer.spent_s


def keep(trainer, root: Path) -> Path:
    """Commit the checkpoint of the epoch just saved: the state, and tables and best weights so far."""

    def fill(folder: Path) -> None:
        torch.save(state(trainer), folder / STATE)
        tables = (file for kind in TABLES for file in trainer.save_dir.glob(kind))
        for file in [*tables, *trainer.wdir.glob("best*.pt")]:
            shutil.copyfile(file, folder / file.name)

    return checkpoints.commit(root, trainer.epoch + 1, fill)


def state(trainer) -> dict:
    """All that the next epoch starts from, tensors in the precision they have, else plain types."""
    return {
        "model": unwrap_model(trainer.model).state_dict(),
        "ema": trainer.ema.ema.state_dict(),
        "updates": trainer.ema.updates,
        "optimizer": trainer.optimizer.state_dict(),
        "scaler": trainer.scaler.state_dict(),
        "best_fitness": float(trainer.best_fitness),
        "stopper": {
            "best_fitness": float(trainer.stopper.best_fitness),
            "best_epoch": int(trainer.stopper.best_epoch),
        },
        "spent_s": time.time() - trainer.train_time_start,
        "settings": _settings(trainer),
    }


def tensor(trainer) -> tuple[int, int]:
    """Height and width in pixels that a trainer trains at; stock has one number for both."""
    return tuple(getattr(trainer, "hw", (trainer.args.imgsz,) * 2))


def _settings(trainer) -> dict:
    """What the batches depend on, as it really is in the loaders."""
    loader = trainer.train_loader
    return {
        "batch": loader.batch_size,
        "imgsz": list(tensor(trainer)),
        "cache": loader.dataset.cache,
        "workers": loader.num_workers,
    }


def restore(trainer, checkpoint: Path) -> dict:
    """Put a trainer that was just set up where the checkpoint's stood; how it goes on from there.

    Returns:
        {epoch: the one trained next (from 1), exact: whether the rest is bit for bit the uninterrupted run
        on the same device, why: what keeps it from being so}.
    """
    saved = torch.load(checkpoint / STATE, map_location=trainer.device, weights_only=True)
    unwrap_model(trainer.model).load_state_dict(saved["model"])
    trainer.ema.ema.load_state_dict(saved["ema"])
    trainer.ema.updates = saved["updates"]
    _load(trainer.optimizer, saved["optimizer"])
    trainer.scaler.load_state_dict(saved["scaler"])
    trainer.best_fitness = saved["best_fitness"]
    vars(trainer.stopper).update(saved["stopper"])
    trainer.spent_s = saved["spent_s"]
    trainer.start_epoch = checkpoints.epoch(checkpoint)
    _files(trainer, checkpoint)
    why = _reasons(trainer, saved["settings"])
    return {"epoch": trainer.start_epoch + 1, "exact": not why, "why": why}


def _load(optimizer, saved: dict) -> None:
    """State and schedule of an optimizer, with the weight decay that was built for the batch of now."""
    decays = [group["weight_decay"] for group in optimizer.param_groups]
    optimizer.load_state_dict(saved)
    for group, decay in zip(optimizer.param_groups, decays, strict=True):
        group["weight_decay"] = decay


def _files(trainer, checkpoint: Path) -> None:
    """The csv and the best weights as they were, other tables where they are lost; what came later goes."""
    for stale in [*trainer.wdir.glob("best*.pt"), *trainer.wdir.glob("epoch*.pt")]:
        if stale.name.startswith("best") or _number(stale) >= trainer.start_epoch:
            stale.unlink()
    for file in checkpoint.glob("best*.pt"):
        shutil.copyfile(file, trainer.wdir / file.name)
    for file in (
        file for kind in TABLES for file in checkpoint.glob(kind) if file.name != checkpoints.HASHES
    ):
        if file.name == trainer.csv.name or not (trainer.save_dir / file.name).exists():
            write_text(trainer.save_dir / file.name, file.read_text(encoding="utf-8"))


def _reasons(trainer, before: dict) -> list[str]:
    """Why what follows is not bit for bit the uninterrupted run; empty where it is."""
    now = _settings(trainer)
    reasons = [f"{key} {before[key]} became {now[key]}" for key in SETTINGS if before[key] != now[key]]
    if trainer.accumulate > 1:
        reasons.append(f"gradients accumulate over {trainer.accumulate} batches and are not kept")
    if getattr(unwrap_model(trainer.model).model[-1], "one2one_cv2", None) is not None:  # YOLO10, YOLO26
        reasons.append("the loss of this model counts epochs, and its count is not kept")
    return reasons + ([] if trainer.exact else ["epochs are not seeded anew"])
