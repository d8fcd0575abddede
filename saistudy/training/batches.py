"""One training at one batch, learning rate and warm-up, from its first step to its stop.

Each epoch is seeded anew with (seed, epoch), so that a training that goes on from a checkpoint is the
uninterrupted one (on a GPU but for cuDNN's own rounding); weights, order and test set go with the seed alone,
so that arms are compared in pairs.
"""

import math
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from saistudy.training import bilstm, checkpoints, confusion, sequences
from saistudy.training.sequences import Sequences

DIVERGED, CAPPED = "diverged", "epochs_most was reached"
STATE = "state.pt"  # below a checkpoint's folder
SEED_STEP = 100_003  # seeds of epochs: seed x this + epoch, apart for every pair in use
SCORED_N = 512  # sequences that are scored at once: without gradients memory is no question


class Recipe(NamedTuple):
    """What arms differ in: sequences a pass, rate after the warm-up, its epochs, passes a step."""

    batch: int
    lr: float
    warmup_epochs: int = 0
    accumulate: int = 1


class Run(NamedTuple):
    """A training: a row per epoch (see `train`), test counts int64 (epochs, N, C, C), how it ended, what
    its checkpoints took, the loss before the first step, the peak on the GPU in GiB (with the sequences that
    lie there) or None."""

    rows: list[dict]
    confusions: np.ndarray
    ended: str
    saves: list[dict]
    loss_start: float
    peak_gib: float | None


def rate(rule: str, base_lr: float, base_batch: int, batch: int) -> float:
    """The learning rate of a batch: "none" the base's; "sqrt" times the root of the ratio of batches
    (Krizhevsky 2014, arXiv 1404.5997, section 5); "linear" times the ratio (Goyal et al. 2017, arXiv
    1706.02677, section 2.1)."""
    ratio = batch / base_batch
    return base_lr * {"none": 1.0, "sqrt": math.sqrt(ratio), "linear": ratio}[rule]


def warmed(lr: float, epoch: int, warmup_epochs: int) -> float:
    """The rate of an epoch (from 0) within the warm-up, the full one after: the seed's own (L111-122)."""
    return lr * min((epoch + 1) / warmup_epochs, 1.0) if warmup_epochs else lr


def train(data: dict, network: dict, train: dict, recipe: Recipe, seed: int, least_s=0.0, folder=None) -> Run:
    """Train until `train["epochs"]` are done and `least_s` seconds of training too, or until an earlier stop:
    patience, divergence, or `epochs_most`, which bounds what the seconds may add.

    A row: epoch (from 1), lr, loss (mean of its steps), val_loss, val_f1, test_f1, grad_norm (the largest of
    its steps before clipping), train_s (seconds of training alone, summed up to here), diverged.

    Args:
        data: train, val and test.
        network: arguments of `bilstm.ConvBiLstm`.
        train: as in params/h200/large-batch.yaml, under the seed's names; what differs between arms is read
            from the recipe.
        folder: where a checkpoint is committed every save_freq epochs, and gone on from; None for none.
    """
    course = Course(data, network, train, recipe, seed, folder)
    while not (ended := course.ended(least_s)):
        course.epoch()
    peak = torch.cuda.max_memory_allocated() / 2**30 if course.device.type == "cuda" else None
    return Run(course.rows, np.stack(course.tested), ended, course.saves, course.loss_start, peak)


def keep(run: Run, folder: Path) -> None:
    """Write a finished training below a folder, whole or not at all."""

    def fill(part: Path) -> None:
        told = run._asdict() | {"confusions": None}
        torch.save(told | {"tested": torch.from_numpy(run.confusions)}, part / STATE)

    checkpoints.publish(folder, fill)


def kept(folder: Path) -> Run | None:
    """The finished training that `keep` wrote there, if there is one."""
    if not checkpoints.whole(folder):
        return None
    told = torch.load(folder / STATE, weights_only=True)
    return Run(**told | {"confusions": told.pop("tested").numpy()})


class Course:
    """A training on its way; all that a checkpoint holds and what it is trained on."""

    def __init__(self, data, network, train, recipe, seed, folder):
        self.data, self.settings, self.recipe, self.seed, self.folder = data, train, recipe, seed, folder
        self.device = data["train"].features.device
        torch.manual_seed(seed)
        self.network = bilstm.ConvBiLstm(**network).to(self.device)
        self.weights = torch.tensor(train["class_weights"], device=self.device)
        decay = train["weight_decay"]
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=recipe.lr, weight_decay=decay)
        self.plateau = bilstm.plateau(self.optimizer, train)
        self.rows, self.tested, self.saves = [], [], []
        self.loss_start = self._scored("val")[0]
        self._restore()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()

    def ended(self, least_s: float) -> str:
        """Why there is no further epoch, empty where there is one."""
        if not self.rows:
            return ""
        last, train = self.rows[-1], self.settings
        if last["diverged"]:
            return DIVERGED
        if bilstm.stopped([row["val_f1"] for row in self.rows], train["early_stopping_patience"]):
            return f"no better in {train['early_stopping_patience']} epochs"
        if last["epoch"] >= train["epochs_most"]:
            return CAPPED
        done = last["epoch"] >= train["epochs"] and last["train_s"] >= least_s
        return "all epochs were trained" if done else ""

    def epoch(self) -> None:
        """Train, score and note one epoch; step the plateau after the warm-up; commit every save_freq."""
        number = len(self.rows)
        if number < self.recipe.warmup_epochs:
            self._set(warmed(self.recipe.lr, number, self.recipe.warmup_epochs))
        torch.manual_seed(self.seed * SEED_STEP + number)
        row = {"epoch": number + 1, "lr": self.optimizer.param_groups[0]["lr"]} | self._trained()
        row["val_loss"], val = self._scored("val")
        _, test = self._scored("test")
        row["val_f1"], row["test_f1"] = (float(confusion.f1_macro(one.sum(0))) for one in (val, test))
        row["diverged"] = self._diverged(row["loss"], row["val_loss"])
        self.rows.append(row)
        self.tested.append(test)
        if number + 1 >= self.recipe.warmup_epochs and not row["diverged"]:
            self.plateau.step(row["val_loss"])
        if self.folder and row["epoch"] % self.settings["save_freq"] == 0:
            self.saves.append(save(self, Path(self.folder)))

    def _set(self, lr: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    def _diverged(self, *losses: float) -> bool:
        """A loss that is no number, or more than `diverged_factor` times that before the first step."""
        bound = self.settings["diverged_factor"] * self.loss_start
        return not all(math.isfinite(loss) and loss <= bound for loss in losses)

    def _trained(self) -> dict:
        """One pass over the training sequences: mean loss, largest gradient norm, seconds summed so far."""
        self.network.train()
        generator = torch.Generator(self.device).manual_seed(self.seed * SEED_STEP + len(self.rows))
        order = torch.randperm(len(self.data["train"].labels), generator=generator, device=self.device)
        begun = self._now()
        seen = [self._step(one, generator) for one in order.split(self.recipe.batch * self.recipe.accumulate)]
        losses, norms = (torch.stack(one) for one in zip(*seen, strict=True))
        spent = self._now() - begun
        before = self.rows[-1]["train_s"] if self.rows else 0.0
        figures = {"loss": losses.mean().item(), "grad_norm": norms.max().item()}
        return figures | {"train_s": before + spent}

    def _step(self, chosen: torch.Tensor, generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss and gradient norm of one step: one pass, or `accumulate` whose losses are divided by that
        number as the seed does (L147-155)."""
        total = torch.zeros((), device=self.device)
        for part in chosen.split(self.recipe.batch):
            batch = Sequences(*(one[part] for one in self.data["train"]))
            jitter, noise = self.settings["temporal_jitter"], self.settings["noise_std"]
            features, labels = sequences.altered(batch, noise, jitter, generator)
            loss = self._loss(self.network(features), labels) / self.recipe.accumulate
            loss.backward()
            total += loss.detach()
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.settings["grad_clip"])
        self.optimizer.step()
        self.optimizer.zero_grad()
        return total, norm.detach()

    @torch.no_grad()
    def _scored(self, split: str) -> tuple[float, np.ndarray]:
        """Loss over all frames of a split, and its confusion counts (N, C, C)."""
        self.network.eval()
        features, labels = self.data[split]
        scores = torch.cat([self.network(part) for part in features.split(SCORED_N)])
        loss = self._loss(scores, labels).item()
        called = scores.argmax(-1).cpu().numpy()
        return loss, confusion.counts(labels.cpu().numpy(), called, scores.shape[-1])

    def _loss(self, scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return bilstm.loss(scores, labels, self.weights, self.settings["label_smoothing"])

    def _now(self) -> float:
        """Seconds on a clock that the GPU has caught up with."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def _restore(self) -> None:
        """Go on from the latest whole checkpoint, where there is one."""
        if self.folder and (found := checkpoints.newest(Path(self.folder))):
            state = torch.load(found / STATE, map_location=self.device, weights_only=True)
            for name in ("network", "optimizer", "plateau"):
                getattr(self, name).load_state_dict(state[name])
            self.rows, self.saves = state["rows"], state["saves"]
            self.tested = [one.cpu().numpy() for one in state["tested"]]


def save(course: Course, root: Path) -> dict:
    """Commit a checkpoint whole or not at all (`checkpoints.commit`): epoch, seconds, bytes of the file."""
    begun, epoch = course._now(), len(course.rows)
    state = {name: getattr(course, name).state_dict() for name in ("network", "optimizer", "plateau")}
    state |= {
        "rows": course.rows,
        "saves": course.saves,
        "tested": [torch.from_numpy(t) for t in course.tested],
    }
    found = checkpoints.commit(root, epoch, lambda folder: torch.save(state, folder / STATE))
    seconds = time.perf_counter() - begun
    return {"epoch": epoch, "seconds": seconds, "bytes": (found / STATE).stat().st_size}
