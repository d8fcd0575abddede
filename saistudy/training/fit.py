"""The one way to train: stock Ultralytics, its conditions checked, each patience's weights kept."""

import hashlib
import logging
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import torch
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils import LOGGER, SETTINGS
from ultralytics.utils.torch_utils import strip_optimizer

from saistudy.paths import Refusal
from saistudy.training import conditions, patience
from saistudy.training.rect import RectTrainer, pin_torch

FIXED = {"time": None, "val": True, "save": True, "resume": False}  # else no stop can be read off the csv
ENGINES = {"rect": RectTrainer, "stock": DetectionTrainer}


@dataclass
class Fit:
    """What a training left: `folder`, effective `conditions`, `declared` differences, the stops.

    `stops` has a row per patience: patience, epochs_n (trained until the stop), best_epoch, stopped_early,
    train_s, images_per_s, weights (path), sha256, bytes. `cost` holds train_s,
    gpu_peak_gib (None on a CPU) and device.
    """

    folder: Path
    conditions: dict = field(default_factory=dict)
    declared: list = field(default_factory=list)
    stops: list = field(default_factory=list)
    cost: dict = field(default_factory=dict)


def fit(
    weights,
    data,
    folder,
    *,
    engine="rect",
    patiences=(0,),
    declared=(),
    weights_sha256="",
    **train,
) -> Fit:
    """Train a model and return what really happened.

    Args:
        weights: a `.pt` file or a model yaml such as `yolov8n.yaml` (random weights).
        data: Ultralytics data yaml.
        folder: new folder of the run: args.yaml, results.csv, train.log, weights/.
        engine: "rect" trains exactly the tensor [height, width] of `imgsz`; "stock" is Ultralytics untouched.
        patiences: ascending, in epochs; the last is trained, the shorter ones are read off the same run.
        declared: accepted differences between requested and effective, [{key, value, reason}].
        weights_sha256: expected hash of a `.pt` file; empty accepts any.
        train: Ultralytics' own arguments under its own names.

    Raises:
        Refusal: weights are missing or not the expected ones, there is no such GPU, stops could not be
            read off, or an effective condition is neither the requested one nor declared.
    """
    _refuse(weights, weights_sha256, patiences, train)
    run = Fit(_prepared(folder))
    requested = dict(train, patience=patiences[-1])
    with log_to(run.folder / "train.log"):
        trainer = ENGINES[engine](overrides=_overrides(weights, data, run.folder) | requested)
        follow(trainer, run, requested, list(declared), list(patiences))
        started = time.perf_counter()
        trainer.train()
        run.cost = _cost(trainer, time.perf_counter() - started)
    run.stops = [_stop(run, p) for p in patiences]
    return run


def _refuse(weights, weights_sha256: str, patiences, train: dict) -> None:
    """Raise Refusal for what cannot be trained, before anything is written."""
    refuse_weights(weights, weights_sha256)
    if isinstance(train.get("pretrained"), str | Path):
        refuse_weights(train["pretrained"])
    refuse_settings(train, patiences)
    refuse_device(train.get("device", "cpu"))


def _prepared(folder) -> Path:
    """The run's folder, empty; Ultralytics' own reporting off; peak memory counted from here."""
    folder = Path(folder).absolute()  # Ultralytics puts a relative one below its own runs folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    SETTINGS.update({k: False for k, v in SETTINGS.items() if isinstance(v, bool)})
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    return folder


def _overrides(weights, data, folder: Path) -> dict:
    """Ultralytics' arguments that say what is trained on and where the run goes."""
    place = {"project": str(folder.parent), "name": folder.name, "exist_ok": True}
    return {"model": str(weights), "data": str(data), "plots": False} | place


def follow(trainer, run: Fit, requested: dict, declared: list, patiences: list[int]) -> None:
    """Register callbacks that check the conditions, print a line per epoch and fork the shorter patiences."""

    def check(trainer):
        run.conditions = conditions.read_back(trainer)
        run.declared = conditions.refuse_undeclared(requested, run.conditions, declared)

    def unchanged(trainer):
        if trainer.batch_size != run.conditions["batch"]:
            raise Refusal(
                f"batch fell from {run.conditions['batch']} to {trainer.batch_size} after out of memory in"
                " the first epoch, which is another experiment: ask for a batch that fits."
            )

    def saved(trainer):
        fork(trainer.csv, trainer.best, patiences[:-1], trainer.epochs)
        print(epoch_line(trainer), flush=True)

    trainer.add_callback("on_train_start", pin_torch)
    trainer.add_callback("on_val_start", pin_torch)
    trainer.add_callback("on_train_start", check)
    trainer.add_callback("on_train_epoch_end", unchanged)
    trainer.add_callback("on_model_save", saved)


def fork(csv: Path, best: Path, shorter: list[int], epochs: int) -> None:
    """Copy best.pt for each shorter patience whose stop is the epoch just saved.

    Replays the csv each time, so it keeps no state. With a fixed `epochs` the schedule does not depend on
    patience, and a run with a shorter one is an exact prefix (measured on 8.4.190: bit for bit).
    """
    fitness = patience.fitness(csv)
    for p in shorter:
        stop = patience.replay(fitness, p, epochs)
        if stop.known and stop.stopped_early and stop.stop_epoch == len(fitness):
            shutil.copyfile(best, forked(best.parent, p))


def forked(weights: Path, p: int) -> Path:
    """Where the weights of a shorter patience are kept."""
    return weights / f"best_patience{p}.pt"


def epoch_line(trainer) -> str:
    """One line on the epoch just finished: losses, AP on val, images/s, time to go at this pace."""
    epoch, epochs = trainer.epoch + 1, trainer.epochs
    spent_s = time.time() - trainer.train_time_start
    rate = len(trainer.train_loader.dataset) * (epoch - trainer.start_epoch) / spent_s
    left_s = spent_s / (epoch - trainer.start_epoch) * (epochs - epoch)
    loss = sum(float(v) for v in trainer.tloss.values())
    ap50, ap = (trainer.metrics[f"metrics/{k}(B)"] for k in ("mAP50", "mAP50-95"))
    clock = f"{left_s // 3600:.0f}:{left_s % 3600 // 60:02.0f}:{left_s % 60:02.0f}"
    return (
        f"epoch {epoch}/{epochs}  loss {loss:.3f}  val AP50 {ap50:.3f}  AP50-95 {ap:.3f}"
        f"  | {rate:.0f} images/s, at most {clock} to go"
    )


def _stop(run: Fit, p: int) -> dict:
    """The row of one patience in a finished run; its weights stripped of the optimizer."""
    csv = run.folder / "results.csv"
    stop = patience.replay(patience.fitness(csv), p, run.conditions["epochs"])
    weights = forked(run.folder / "weights", p)
    if weights.exists():
        strip_optimizer(weights)
    else:
        weights = run.folder / "weights" / "best.pt"
    train_s = float(pd.read_csv(csv)["time"].iloc[stop.stop_epoch - 1])
    return {
        "patience": p,
        "epochs_n": stop.stop_epoch,
        "best_epoch": stop.best_epoch,
        "stopped_early": stop.stopped_early,
        "train_s": round(train_s, 1),
        "images_per_s": round(run.conditions["images_n"] * stop.stop_epoch / train_s, 1),
        "weights": weights,
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "bytes": weights.stat().st_size,
    }


def _cost(trainer, train_s: float) -> dict:
    """Seconds of the whole training with its validations, and peak GPU memory."""
    cuda = trainer.device.type == "cuda"
    return {
        "train_s": round(train_s, 1),
        "gpu_peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2) if cuda else None,
        "device": torch.cuda.get_device_name() if cuda else "CPU",
    }


def refuse_device(device) -> None:
    """Raise Refusal where a GPU is asked for that is not there."""
    if str(device) != "cpu" and not torch.cuda.is_available():
        raise Refusal(
            f"device {device} was asked for, but torch {torch.__version__} sees no CUDA GPU here: run profile"
            " demo or mini on a CPU, or install a driver that this torch works with."
        )


def refuse_settings(train: dict, patiences) -> None:
    """Raise Refusal where epochs would not all be validated and saved under one fixed schedule.

    `patience` 0 means never to Ultralytics; beside other patiences it has no place in ascending order.
    """
    if sorted(set(patiences)) != list(patiences) or (0 in patiences and len(patiences) > 1):
        raise Refusal(f"patiences {list(patiences)} were given, ascending numbers above 0 were expected.")
    for key, value in FIXED.items():
        if train.get(key, value) != value:
            raise Refusal(
                f"{key} {train[key]} was asked for, {value} was expected: the stops are read off epochs that"
                f" were all validated and saved under a schedule fixed by `epochs`; leave {key} out."
            )


def refuse_weights(weights, sha256: str = "") -> None:
    """Raise Refusal where a weights file is missing (Ultralytics would download it) or has another hash."""
    path = Path(weights)
    if path.suffix in (".yaml", ".yml"):
        return
    if not path.is_file():
        raise Refusal(
            f"weights {path} do not exist: name a file that does, or a model yaml such as yolov8s.yaml"
            " for random weights (nothing is downloaded)."
        )
    seen = hashlib.sha256(path.read_bytes()).hexdigest()
    if sha256 and seen != sha256:
        raise Refusal(
            f"weights {path} have the sha256 {seen}, {sha256} was expected: fetch the right file,"
            " or correct weights_sha256."
        )


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
