"""What a shorter patience would have done, read from the curve of a longer run. Pure: no torch.

Patience enters an Ultralytics run only where it stops, so the run with patience 10 is a prefix of
the run with patience 30 and one training answers for both. This holds for the same `epochs`, with
validation in every epoch, and within one uninterrupted run (a stock resume, a halved batch or a NaN
recovery changes the curve itself).
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from saistudy.paths import Refusal

COLUMN = "metrics/mAP50-95(B)"


@dataclass(frozen=True)
class Replay:
    """Where a run with this patience ends. Epochs count from 1; both are None when not known."""

    stop_epoch: int | None
    best_epoch: int | None
    stopped_early: bool
    known: bool


UNKNOWN = Replay(stop_epoch=None, best_epoch=None, stopped_early=False, known=False)


def replay(fitness: Sequence[float], patience: int, epochs: int) -> Replay:
    """Last epoch of the run with this patience, and the epoch whose weights its best.pt holds.

    The rule of Ultralytics 8.4.190 (EarlyStopping.__call__, BaseTrainer.validate and save_model):
    the stopper keeps the first maximum (strictly greater), and while its best is 0 every epoch
    becomes its best, so zeros never consume patience; best.pt is written whenever the fitness
    equals the best so far, so a tie replaces it by the later epoch: the two "best" epochs differ.

    Args:
        fitness: one value an epoch from epoch 1 (mAP50-95, a fraction), at most `epochs` of them.
        patience: epochs without improvement after which the run stops; 0 never stops early.
        epochs: epochs the run was asked for.

    Returns:
        `known=False` where the curve ends before either stop: a short csv is no answer.
        `stopped_early` is True when epochs were left untrained (stop_epoch < epochs).

    Raises:
        Refusal: a negative patience, no epochs, more values than epochs, a value not finite.
    """
    _check(fitness, patience, epochs)
    stopper_best, stopper_epoch = 0.0, 0
    run_best, best_epoch = -np.inf, 0
    for epoch, value in enumerate(fitness, start=1):
        if value >= run_best:
            run_best, best_epoch = value, epoch
        if value > stopper_best or stopper_best == 0:
            stopper_best, stopper_epoch = value, epoch
        early = patience > 0 and epoch - stopper_epoch >= patience
        if early or epoch == epochs:
            return Replay(epoch, best_epoch, stopped_early=epoch < epochs, known=True)
    return UNKNOWN


def fitness(csv_path: Path) -> np.ndarray:
    """Fitness of epochs 1..n of a results.csv, its `metrics/mAP50-95(B)`: float64 (n,), fractions.

    The trainer rounds fitness to 5 decimals before the stopper and the csv see it, so the column is
    lossless. An epoch written twice (killed between csv and checkpoint, then resumed) counts with
    its last row.

    Raises:
        Refusal: no such file or column, a row cut short, a value that is no finite number, or
            epochs that are not 1..n without a gap.
    """
    by_epoch = dict(_rows(Path(csv_path)))
    epochs = sorted(by_epoch)
    if epochs != list(range(1, len(epochs) + 1)):
        raise Refusal(
            f"{csv_path} holds the epochs {_brief(epochs)}, 1 to n without a gap was expected:"
            " use the untouched results.csv of one run."
        )
    return np.array([by_epoch[epoch] for epoch in epochs], dtype=np.float64)


def stop(csv_path: Path, patience: int, epochs: int, images_n: int) -> dict:
    """What a run with this patience was, from its results.csv alone.

    Args:
        epochs: those that the run was asked for; images_n: training images of an epoch.

    Returns:
        patience, epochs_n (trained until the stop), best_epoch, stopped_early, stop_reason, train_s (column
        `time` at the stop) and images_per_s.

    Raises:
        Refusal: as `fitness` and `replay`.
    """
    ended = replay(fitness(csv_path), patience, epochs)
    train_s = float(pd.read_csv(csv_path)["time"].iloc[ended.stop_epoch - 1])
    reason = f"no better in {patience} epochs" if ended.stopped_early else "all epochs were trained"
    return {
        "patience": patience,
        "epochs_n": ended.stop_epoch,
        "best_epoch": ended.best_epoch,
        "stopped_early": ended.stopped_early,
        "stop_reason": reason,
        "train_s": round(train_s, 1),
        "images_per_s": round(images_n * ended.stop_epoch / train_s, 1),
    }


def _check(fitness: Sequence[float], patience: int, epochs: int) -> None:
    if patience < 0 or epochs < 1:
        raise Refusal(
            f"patience {patience} and epochs {epochs} were given, patience of 0 or more and epochs"
            " of 1 or more were expected: correct them (0 means: never stop early)."
        )
    if len(fitness) > epochs:
        raise Refusal(
            f"The curve has {len(fitness)} epochs, at most {epochs} were expected: pass the number"
            " of epochs that the run was asked for, its schedule depends on it."
        )
    if not np.isfinite(np.asarray(fitness, dtype=np.float64)).all():
        raise Refusal(
            "The curve holds a value that is not finite, fractions were expected: such a run was"
            " repaired midway and its patience cannot be replayed; train that patience itself."
        )


def _rows(path: Path) -> list[tuple[int, float]]:
    """(epoch, fitness) of every row, in the order of the file."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = [[cell.strip() for cell in line] for line in csv.reader(file) if line]
    except OSError as error:
        raise Refusal(
            f"{path} cannot be read ({error.strerror}), a results.csv was expected: name the file"
            " that the training wrote."
        ) from error
    if not lines or "epoch" not in lines[0] or COLUMN not in lines[0]:
        raise Refusal(
            f"{path} has no columns 'epoch' and '{COLUMN}': name the results.csv of a detection training."
        )
    at = lines[0].index("epoch"), lines[0].index(COLUMN)
    return [_row(path, n, line, len(lines[0]), at) for n, line in enumerate(lines[1:], start=2)]


def _row(path: Path, n: int, line: list[str], width: int, at: tuple[int, int]) -> tuple[int, float]:
    try:
        epoch, value = int(line[at[0]]), float(line[at[1]])
        if len(line) == width and np.isfinite(value):
            return epoch, value
    except (ValueError, IndexError):
        pass
    raise Refusal(
        f"{path}, line {n} is {','.join(line)[:80]!r}, {width} columns with a whole epoch and"
        " a finite fitness were expected: the run was cut or repaired there; train that patience"
        " itself."
    )


def _brief(epochs: list[int]) -> str:
    return ", ".join(map(str, epochs[:5])) + (f", ..., {epochs[-1]}" if len(epochs) > 5 else "")
