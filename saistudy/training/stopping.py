"""A stop that is asked for from outside: a file that a training looks for between two epochs."""

import os
from pathlib import Path

PLACE = "SAISTUDY_STOP"  # environment: where the file would stand; each start of a study has its own
EPOCH, NOW = "epoch", "now"


class Stopped(Exception):
    """A training ended between two epochs because it was asked to; all its epochs so far are kept."""


def asked() -> str:
    """What is asked of this process: `EPOCH` (end with the epoch), `NOW` (drop it), or "" for nothing."""
    try:
        return Path(os.environ[PLACE]).read_text(encoding="utf-8").strip()
    except (KeyError, FileNotFoundError):
        return ""


def heed(trainer) -> None:
    """Leave the training where a stop is asked for; a callback of on_train_epoch_start.

    There nothing of the next epoch has happened, and all that goes with the one before is written.

    Raises:
        Stopped: a stop was asked for.
    """
    if asked():
        raise Stopped(f"{trainer.epoch} of {trainer.epochs} epochs are kept, the same command goes on there")
