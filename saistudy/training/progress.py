"""What a person sees of a training: a line per epoch, and the whole log in a file."""

import logging
import os
import time
from pathlib import Path

import pandas as pd
from ultralytics.utils import LOGGER

from saistudy.training import live
from saistudy.wording import clock


def table(csv: Path, epochs: int, images_n: int) -> pd.DataFrame:
    """A row per epoch of a results.csv: losses summed, AP on val, images/s so far, time to go at that pace.

    Then what only the live table shows: the epoch's own seconds, the losses one by one, those on val summed.

    Args:
        epochs: those that the run was asked for; it may stop earlier.
        images_n: images per epoch.
    """
    rows = pd.read_csv(csv)
    losses = rows.filter(regex="^train/").rename(columns=lambda name: name[6:].removesuffix("_loss"))
    told = pd.DataFrame(
        {
            "epoch": [f"{epoch:.0f}/{epochs}" for epoch in rows["epoch"]],
            "loss": rows.filter(regex="^train/").sum(axis="columns"),
            "val AP50": rows["metrics/mAP50(B)"],
            "AP50-95": rows["metrics/mAP50-95(B)"],
            "images/s": images_n * rows["epoch"] / rows["time"],
            "to go": [clock(s / n * (epochs - n)) for n, s in zip(rows["epoch"], rows["time"], strict=True)],
            "seconds": rows["time"].diff().fillna(rows["time"]),
        }
    )
    return told.join(losses).assign(**{"val loss": rows.filter(regex="^val/").sum(axis="columns")})


def lines(epochs: pd.DataFrame) -> list[str]:
    """A line per row of `table`."""
    shape = (
        "epoch {0}  loss {1:.3f}  val AP50 {2:.3f}  AP50-95 {3:.3f}  | {4:.0f} images/s, at most {5} to go"
    )
    return [shape.format(*row) for row in epochs.itertuples(index=False)]


class Teller:
    """Shows epochs as they come: a line each, or a live table where `SAISTUDY_LIVE` is set (params.check)."""

    def __init__(self):
        self.view = live.View() if os.environ.get("SAISTUDY_LIVE") else None

    def tell(self, epochs: pd.DataFrame, new_n: int = 1) -> None:
        """Show the latest `new_n` rows of `table`; the live table is shown whole."""
        if self.view:
            self.view.epochs(epochs, lines(epochs))
        else:
            print(*lines(epochs.tail(new_n)), sep="\n", flush=True)

    def watch(self, trainer) -> None:
        """Have the live table say which batch of which epoch is trained, from the first one on."""
        if self.view:
            trainer.add_callback("on_train_epoch_start", self._begin)
            trainer.add_callback("on_train_batch_end", self._batch)
            trainer.add_callback("on_train_epoch_end", lambda trainer: self._say(trainer, "validation"))
            trainer.add_callback("on_train_end", lambda _: self.view.now("trained; the weights are tested"))

    def _begin(self, trainer) -> None:
        self.done_n, self.begun_s = 0, time.monotonic()
        self._say(trainer, "the first batch")

    def _batch(self, trainer) -> None:
        self.done_n, of = self.done_n + 1, len(trainer.train_loader)
        left_s = (time.monotonic() - self.begun_s) / self.done_n * (of - self.done_n)
        what = f"batch {self.done_n} of {of}, {clock(left_s)} to its validation"
        self._say(trainer, what, live.PAUSE_S)

    def _say(self, trainer, what: str, pause_s: float = 0.0) -> None:
        self.view.now(f"epoch {trainer.epoch + 1} of {trainer.epochs}: {what}", pause_s)


class log_to:
    """Send Ultralytics' log to a file instead of the notebook while the block runs."""

    def __init__(self, path: Path):
        self.handler = logging.FileHandler(path, encoding="utf-8")

    def __enter__(self):
        self.before = LOGGER.handlers[:], LOGGER.level
        LOGGER.handlers[:] = [self.handler]
        LOGGER.setLevel(logging.INFO)

    def __exit__(self, *_):
        LOGGER.handlers[:], level = self.before
        LOGGER.setLevel(level)
        self.handler.close()
