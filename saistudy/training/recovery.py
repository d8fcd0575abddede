"""One training in as many attempts as memory asks for, each from the last checkpoint."""

import gc
import time

import torch
from ultralytics.utils import DEFAULT_CFG

from saistudy.paths import Refusal
from saistudy.training import attempts, checkpoints, ladder, resume
from saistudy.training.trainers import Start, build

INTERRUPT = "interrupt"  # beside the kinds of memory of `ladder`


class Interrupted(KeyboardInterrupt):
    """A training was interrupted (Kernel > Interrupt, Ctrl-C); a notebook shows its sentence alone."""

    def _render_traceback_(self) -> list[str]:
        """IPython shows these lines instead of a traceback (IPython.core.interactiveshell.showtraceback)."""
        return [str(self)]


def climb(start: Start, train: dict, recovery: bool):
    """The trainer that reached the end; where memory runs out, a step of the ladder and another attempt.

    Steps of earlier processes hold. Every attempt has a row in attempts.json.

    Raises:
        Refusal: memory ran out, and nothing is left to give up or `recovery` is False.
        Interrupted: says which epoch is kept. No frame of the training hangs on it: memory is given back.
    """
    while True:
        checkpoint = checkpoints.newest(start.checkpoints, start.second)
        attempts.recall(start.folder, checkpoint)
        train = attempts.reduced(train, attempts.rows(start.folder))
        trainer, shortage = _attempt(start, train, checkpoint)
        if trainer:
            return trainer
        _free()
        kind, told = shortage
        if kind == INTERRUPT:
            raise Interrupted(_kept(start, told))
        if not recovery:
            raise Refusal(f"{told}: lower batch, imgsz or workers, or allow oom_recovery.")
        step = ladder.step(_settings(start, train), kind)
        attempts.amend(start.folder, {"step": step})
        print(f"{told}: {step['key']} {step['before']} becomes {step['after']}", flush=True)


def _settings(start: Start, train: dict) -> dict:
    """What the latest attempt had: a batch that it found, and the workers that it really got."""
    known = attempts.rows(start.folder)
    return vars(DEFAULT_CFG) | attempts.reduced(train, known) | {"workers": known[-1]["workers"]}


def _attempt(start: Start, train: dict, checkpoint):
    """(trainer, None), or (None, (kind, sentence)) where memory ran out or somebody interrupted.

    Nothing of that trainer is held then.
    """
    attempts.begin(start.folder, {key: (vars(DEFAULT_CFG) | train)[key] for key in resume.SETTINGS})
    begun, trainer, told = time.perf_counter(), None, "interrupted"
    try:
        trainer = build(start, train, checkpoint)
        trainer.train()
        kind, told = None, "finished"
    except KeyboardInterrupt:
        kind, told = INTERRUPT, f"interrupted in epoch {getattr(trainer, 'epoch', 0) + 1}"
    except Exception as error:
        kind = ladder.kind(error)
        epoch = getattr(trainer, "epoch", 0) + 1
        told = f"{kind} memory ran out in epoch {epoch}" if kind else f"{type(error).__name__}: {error}"
        if not kind:
            raise
    finally:
        attempts.amend(start.folder, {"ended": told, "wall_s": round(time.perf_counter() - begun, 1)})
    return (None, (kind, told)) if kind else (trainer, None)


def _kept(start: Start, told: str) -> str:
    """What an interrupted training leaves, and how to go on."""
    checkpoint = checkpoints.newest(start.checkpoints, start.second)
    if not checkpoint:
        return f"training {told}: no epoch is finished yet, run it again to begin anew"
    epoch = checkpoints.epoch(checkpoint)
    return f"training {told}: all up to epoch {epoch} is kept, run it again to go on with epoch {epoch + 1}"


def _free() -> None:
    """Give back what a failed attempt held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
