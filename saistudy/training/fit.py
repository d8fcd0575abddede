"""The one way to train: Ultralytics, its conditions checked; killed and called again, it goes on."""

import hashlib
import json
import shutil
import time
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from ultralytics.utils import SETTINGS
from ultralytics.utils.torch_utils import strip_optimizer

from saistudy.paths import write_json, write_text
from saistudy.training import checkpoints, patience, progress, request, telemetry
from saistudy.training.attempts import Start, climb, forked, rows
from saistudy.training.paste import PasteDataset

DONE = "fit.json"  # written last: what this run left
BEGUN = "asked.txt"  # the digest of what was asked for
CHECKPOINTS = "checkpoints"


@dataclass
class Fit:
    """What a training left: `folder`, effective `conditions`, `declared` differences, the stops.

    `stops` has a row per patience: patience, epochs_n (trained until the stop), best_epoch, stopped_early,
    stop_reason, train_s, images_per_s, weights (path), sha256, bytes. `cost` holds train_s, gpu_peak_gib
    (None on a CPU), device and, where a batch was sought, `batch_found`. `attempts` has a row per start: the
    epoch it began with, whether it went on exactly and why not, its settings, its seconds, how it ended, and
    the step of the ladder that followed. `telemetry` is the summary of telemetry.csv, a row per epoch.
    """

    folder: Path
    conditions: dict = field(default_factory=dict)
    declared: list = field(default_factory=list)
    stops: list = field(default_factory=list)
    cost: dict = field(default_factory=dict)
    attempts: list = field(default_factory=list)
    telemetry: dict = field(default_factory=dict)


def fit(
    weights,
    data,
    folder,
    *,
    engine="rect",
    patiences=(0,),
    declared=(),
    weights_sha256="",
    exact=True,
    oom_recovery=True,
    durable_dir=None,
    identity="",
    llrd_rate=1.0,
    paste=None,
    **train,
) -> Fit:
    """Train a model and return what really happened; killed and called again, it goes on.

    Args:
        weights: a `.pt` file or a model yaml such as `yolov8n.yaml` (random weights).
        data: Ultralytics data yaml.
        folder: of the run: args.yaml, results.csv, train.log, weights/, checkpoints/. Whatever another
            training left there goes.
        engine: "rect" trains exactly the tensor [height, width] of `imgsz`; "stock" is Ultralytics untouched.
        patiences: ascending, in epochs; the last is trained, the shorter ones are read off the same run.
        declared: accepted differences between requested and effective, [{key, value, reason}].
        weights_sha256: expected hash of a `.pt` file; empty accepts any.
        exact: seed every epoch anew, so that a resumed run is the uninterrupted one; False is stock order.
        oom_recovery: where memory runs out, take the next step of `ladder` and go on from the last epoch.
        durable_dir: a second place for checkpoints every `save_period` epochs and for the finished run.
        identity: of the caller's code and parameters; a run is only continued under the same.
        llrd_rate: learning rate of a layer as a fraction of the next one's (training.decay); 1 is stock.
        paste: a training.paste.Paste: synthetic images beside the real ones; engine "rect" only.
        train: Ultralytics' own arguments under its own names; batch "auto" is the largest that fits.

    Raises:
        Refusal: weights are missing or not the expected ones, there is no such GPU, stops could not be
            read off, memory ran out and nothing is left to give up, or an effective condition is neither
            the requested one nor declared.
    """
    request.refuse(weights, weights_sha256, patiences, train)
    kind = {"engine": engine, "patiences": list(patiences), "exact": exact, "declared": list(declared)}
    asked = request.digest(weights, data, identity, train=train, llrd=llrd_rate, paste=paste, **kind)
    run, second = Fit(Path(folder).absolute()), durable_dir and Path(durable_dir).absolute() / asked
    if _finished(run, asked, second):
        return run
    _prepare(run.folder, asked)
    kind["extra"] = {"llrd_rate": llrd_rate}
    if paste:
        kind["extra"]["dataset"] = partial(PasteDataset, paste=paste)
    start = Start(weights, data, run.folder, second=second, **kind)
    with progress.log_to(run.folder / "train.log"):
        trainer = climb(start, dict(train, patience=patiences[-1]), oom_recovery)
    run.telemetry = telemetry.summary(run.folder / "telemetry.csv")
    run.cost = _cost(trainer, run.telemetry, rows(run.folder))
    run.conditions, run.declared, run.attempts = start.conditions, start.occurred, rows(run.folder)
    run.stops = [_stop(run, p) for p in patiences]
    _finish(run, asked, second)
    return run


def _finished(run: Fit, asked: str, second: Path | None) -> bool:
    """Whether this very training was finished before; then `run` is filled with what it left."""
    if second and not (run.folder / DONE).is_file() and checkpoints.whole(second / "finished"):
        part = run.folder.with_name(f".{run.folder.name}.part")
        for old in (part, run.folder):
            shutil.rmtree(old, ignore_errors=True)
        shutil.copytree(second / "finished", part)
        part.rename(run.folder)
    try:
        left = json.loads((run.folder / DONE).read_text(encoding="utf-8"))
        stops = [stop | {"weights": run.folder / stop["weights"]} for stop in left["fit"].pop("stops")]
        if left["asked"] != asked or any(_sha256(stop["weights"]) != stop["sha256"] for stop in stops):
            return False
    except (OSError, ValueError, KeyError):
        return False
    if not (run.folder / "results.csv").is_file():
        return False
    vars(run).update(left["fit"], stops=stops)
    _tidy(run.folder, second)
    epochs = progress.table(run.folder / "results.csv", run.conditions["epochs"], run.conditions["images_n"])
    progress.Teller().tell(epochs, len(epochs))
    print(f"finished before: nothing is trained again ({DONE} stands in its folder)", flush=True)
    return True


def _prepare(folder: Path, asked: str) -> None:
    """The run's folder: as it stands where this very training was begun, else empty."""
    begun = folder / BEGUN
    if not begun.is_file() or begun.read_text(encoding="utf-8") != asked:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(begun, asked)
    SETTINGS.update({k: False for k, v in SETTINGS.items() if isinstance(v, bool)})  # nothing is reported


def _finish(run: Fit, asked: str, second: Path | None) -> None:
    """Say that the training is done, give back its checkpoints, and mirror what it left."""
    stops = [stop | {"weights": str(stop["weights"].relative_to(run.folder))} for stop in run.stops]
    left = {key: value for key, value in asdict(run).items() if key != "folder"} | {"stops": stops}
    write_json(run.folder / DONE, {"asked": asked, "fit": left})
    _tidy(run.folder, second)


def _tidy(folder: Path, second: Path | None) -> None:
    """Give back the checkpoints of a finished run, once what it left is mirrored; killed, it is repeated."""
    if second and not checkpoints.whole(second / "finished"):
        checkpoints.publish(second / "finished", partial(_copy, folder))
    for place in filter(None, (folder / CHECKPOINTS, second)):
        for old in place.glob("epoch-*"):
            shutil.rmtree(old)


def _copy(folder: Path, part: Path) -> None:
    """All of a finished run but its checkpoints."""
    shutil.copytree(folder, part, dirs_exist_ok=True, ignore=shutil.ignore_patterns(CHECKPOINTS))


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
        "stop_reason": f"no better in {p} epochs" if stop.stopped_early else "all epochs were trained",
        "train_s": round(train_s, 1),
        "images_per_s": round(run.conditions["images_n"] * stop.stop_epoch / train_s, 1),
        "weights": weights,
        "sha256": _sha256(weights),
        "bytes": weights.stat().st_size,
    }


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _cost(trainer, seen: dict, attempts: list[dict]) -> dict:
    """Seconds of the whole training with its validations, lost epochs left out, and peak GPU memory.

    Where a batch was sought, `batch_found` sets the peak that occurred beside the one of the trial.
    """
    found = next((row["batch_found"] for row in attempts if row.get("batch_found")), None)
    cuda = trainer.device.type == "cuda"
    return {
        "train_s": round(time.time() - trainer.train_time_start, 1),
        "gpu_peak_gib": seen["gpu_peak_gib"],
        "device": torch.cuda.get_device_name() if cuda else "CPU",
        **({"batch_found": found | {"peak_seen_gib": seen["gpu_reserved_gib"]}} if found else {}),
    }
