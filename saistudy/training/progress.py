"""What a person sees of a training: a line per epoch, and the whole log in a file."""

import logging
import os
from pathlib import Path

import pandas as pd
from IPython.display import display
from ultralytics.utils import LOGGER


def table(csv: Path, epochs: int, images_n: int) -> pd.DataFrame:
    """A row per epoch of a results.csv: losses summed, AP on val, images/s so far, time to go at that pace.

    Args:
        epochs: those that the run was asked for; it may stop earlier.
        images_n: images per epoch.
    """
    rows = pd.read_csv(csv)
    return pd.DataFrame(
        {
            "epoch": [f"{epoch:.0f}/{epochs}" for epoch in rows["epoch"]],
            "loss": rows.filter(regex="^train/").sum(axis="columns"),
            "val AP50": rows["metrics/mAP50(B)"],
            "AP50-95": rows["metrics/mAP50-95(B)"],
            "images/s": images_n * rows["epoch"] / rows["time"],
            "to go": [_clock(s / n * (epochs - n)) for n, s in zip(rows["epoch"], rows["time"], strict=True)],
        }
    )


def _clock(seconds: float) -> str:
    return f"{seconds // 3600:.0f}:{seconds % 3600 // 60:02.0f}:{seconds % 60:02.0f}"


def lines(epochs: pd.DataFrame) -> list[str]:
    """A line per row of `table`."""
    shape = (
        "epoch {0}  loss {1:.3f}  val AP50 {2:.3f}  AP50-95 {3:.3f}  | {4:.0f} images/s, at most {5} to go"
    )
    return [shape.format(*row) for row in epochs.itertuples(index=False)]


class Teller:
    """Shows epochs as they come: a line each, or a live table where `SAISTUDY_LIVE` is set (params.check)."""

    def __init__(self):
        self.handle = None

    def tell(self, epochs: pd.DataFrame, new_n: int = 1) -> None:
        """Show the latest `new_n` rows of `table`; the live table is shown whole."""
        if not os.environ.get("SAISTUDY_LIVE"):
            print(*lines(epochs.tail(new_n)), sep="\n", flush=True)
        elif self.handle:
            self.handle.update(_shown(epochs))
        else:
            self.handle = display(_shown(epochs), display_id=True)


def _shown(epochs: pd.DataFrame) -> pd.DataFrame:
    return epochs.round(3).set_index("epoch")


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
