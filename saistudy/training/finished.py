"""A finished run: what it left, known by hash; taken up again, or fetched from a second place."""

import json
import shutil
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from saistudy.paths import write_json
from saistudy.training import checkpoints, progress, request

DONE = "fit.json"  # written last: what this run left


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


def take_up(run: Fit, asked: str, second: Path | None) -> bool:
    """Whether the training of this digest was finished before; then `run` is filled with what it left.

    Args:
        second: a folder of this training on another disk, or None.
    """
    _fetch(run.folder, second)
    left = _read(run.folder, asked)
    if left is None:
        return False
    vars(run).update(left)
    _tidy(run.folder, second)
    epochs = progress.table(run.folder / "results.csv", run.conditions["epochs"], run.conditions["images_n"])
    progress.Teller().tell(epochs, len(epochs))
    print(f"finished before: nothing is trained again ({DONE} stands in its folder)", flush=True)
    return True


def _fetch(folder: Path, second: Path | None) -> None:
    """Copy a finished run back from the second place where its own folder holds none."""
    if second and not (folder / DONE).is_file() and checkpoints.whole(second / "finished"):
        part = folder.with_name(f".{folder.name}.part")
        for old in (part, folder):
            shutil.rmtree(old, ignore_errors=True)
        shutil.copytree(second / "finished", part)
        part.rename(folder)


def _read(folder: Path, asked: str) -> dict | None:
    """The fields of a Fit that this very training left, None unless all its weights have their hash."""
    try:
        left = json.loads((folder / DONE).read_text(encoding="utf-8"))
        stops = [stop | {"weights": folder / stop["weights"]} for stop in left["fit"].pop("stops")]
        if left["asked"] != asked or any(request.sha256(stop["weights"]) != stop["sha256"] for stop in stops):
            return None
    except (OSError, ValueError, KeyError):
        return None
    return left["fit"] | {"stops": stops} if (folder / "results.csv").is_file() else None


def leave(run: Fit, asked: str, second: Path | None) -> None:
    """Say that the training is done, give back its checkpoints, and mirror what it left."""
    stops = [stop | {"weights": str(stop["weights"].relative_to(run.folder))} for stop in run.stops]
    left = {key: value for key, value in asdict(run).items() if key != "folder"} | {"stops": stops}
    write_json(run.folder / DONE, {"asked": asked, "fit": left})
    _tidy(run.folder, second)


def _tidy(folder: Path, second: Path | None) -> None:
    """Give back the checkpoints of a finished run, once what it left is mirrored; killed, it is repeated."""
    if second and not checkpoints.whole(second / "finished"):
        checkpoints.publish(second / "finished", partial(_copy, folder))
    for place in filter(None, (folder / checkpoints.FOLDER, second)):
        for old in place.glob("epoch-*"):
            shutil.rmtree(old)


def _copy(folder: Path, part: Path) -> None:
    """All of a finished run but its checkpoints."""
    ignore = shutil.ignore_patterns(checkpoints.FOLDER)
    shutil.copytree(folder, part, dirs_exist_ok=True, ignore=ignore)
