"""The one way to train: Ultralytics, its conditions checked; killed and called again, it goes on."""

import shutil
import time
from functools import partial
from pathlib import Path

import torch
from ultralytics.utils import SETTINGS
from ultralytics.utils.torch_utils import strip_optimizer

from saistudy.paths import write_text
from saistudy.training import attempts, curves, feed, finished, patience, progress, request, telemetry
from saistudy.training.finished import Fit
from saistudy.training.paste import PasteDataset
from saistudy.training.recovery import climb
from saistudy.training.trainers import Start, forked

BEGUN = "asked.txt"  # the digest of what was asked for


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
    tensorboard=False,
    input="stock",
    stores=(),
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
        tensorboard: write the columns of results.csv as event files into `folder`/tensorboard as well.
        input: where pixels come from: "stock", "store" or "deferred" (training.feed); the same bits each way.
        stores: folders where a store of decoded images may stand, in the order of preference.
        train: Ultralytics' own arguments under its own names; batch "auto" is the largest that fits.

    Raises:
        Refusal: weights are missing or not the expected ones, there is no such GPU, stops could not be
            read off, memory ran out and nothing is left to give up, or an effective condition is neither
            the requested one nor declared, before the first step or, for mosaic, in an epoch.
    """
    begins = request.refuse(weights, weights_sha256, patiences, train)
    kind = {"engine": engine, "patiences": list(patiences), "exact": exact, "declared": list(declared)}
    asked = request.digest(
        begins, data, identity, train=train, llrd=llrd_rate, paste=paste and paste.digest(), **kind
    )
    run, second = Fit(Path(folder).absolute()), durable_dir and Path(durable_dir).absolute() / asked
    if finished.take_up(run, asked, second):
        if tensorboard:
            curves.rewritten(run.folder / "results.csv", run.folder / curves.FOLDER).close()
        return run
    _prepare(run.folder, asked)
    fed = feed.datasets(feed.asked(input, stores, train), engine)
    if paste:  # objects are pasted on the decoded image: that is stock's way, and the store is left out
        fed = {"dataset": partial(PasteDataset, paste=paste)}
    extra = {"llrd_rate": llrd_rate} | fed
    start = Start(weights, data, run.folder, second=second, extra=extra, tensorboard=tensorboard, **kind)
    with progress.log_to(run.folder / "train.log"):
        trainer = climb(start, dict(train, patience=patiences[-1]), oom_recovery)
    _fill(run, start, trainer)
    finished.leave(run, asked, second)
    return run


def _prepare(folder: Path, asked: str) -> None:
    """The run's folder: as it stands where this very training was begun, else empty."""
    begun = folder / BEGUN
    if not begun.is_file() or begun.read_text(encoding="utf-8") != asked:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(begun, asked)
    SETTINGS.update({k: False for k, v in SETTINGS.items() if isinstance(v, bool)})  # nothing is reported


def _fill(run: Fit, start: Start, trainer) -> None:
    """What a trainer that reached the end has left."""
    run.conditions, run.declared, run.attempts = start.conditions, start.occurred, attempts.rows(run.folder)
    run.telemetry = telemetry.summary(run.folder / "telemetry.csv")
    run.cost = _cost(trainer, run.telemetry, run.attempts)
    run.stops = [_stop(run, p) for p in start.patiences]


def _stop(run: Fit, p: int) -> dict:
    """The row of one patience in a finished run; its weights stripped of the optimizer."""
    weights = forked(run.folder / "weights", p)
    if weights.exists():
        strip_optimizer(weights)
    else:
        weights = run.folder / "weights" / "best.pt"
    asked = run.conditions["epochs"], run.conditions["images_n"]
    row = patience.stop(run.folder / "results.csv", p, *asked)
    hashed = {"sha256": request.sha256(weights), "bytes": weights.stat().st_size}
    return row | {"weights": weights} | hashed


def _cost(trainer, seen: dict, known: list[dict]) -> dict:
    """Seconds of the whole training with its validations, lost epochs left out, and peak GPU memory.

    Where a batch was sought, `batch_found` sets the peak that occurred beside the one of the trial.
    """
    found = next((row["batch_found"] for row in known if row.get("batch_found")), None)
    cuda = trainer.device.type == "cuda"
    return {
        "train_s": round(time.time() - trainer.train_time_start, 1),
        "gpu_peak_gib": seen["gpu_peak_gib"],
        "device": torch.cuda.get_device_name() if cuda else "CPU",
        **({"batch_found": found | {"peak_seen_gib": seen["gpu_reserved_gib"]}} if found else {}),
    }
