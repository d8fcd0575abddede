"""The attempts at one training, a row each in attempts.json: with what, from which epoch, how it ended."""

import json
from pathlib import Path

from saistudy.paths import write_json, write_text

TABLE = "attempts.json"
AUTO = "auto"  # a batch that is sought


def rows(folder: Path) -> list[dict]:
    """The attempts so far: epoch, exact, why, batch, imgsz, cache, workers, wall_s, ended, step.

    `epoch` is the first one trained, None where it did not come to that; `wall_s` None where it was killed.
    """
    path = folder / TABLE
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def begin(folder: Path, settings: dict) -> None:
    """Add the row of an attempt with these settings; as it stands if the process is killed."""
    row = {"epoch": None, "exact": True, "why": [], **settings}
    write_json(folder / TABLE, [*rows(folder), row | {"wall_s": None, "ended": "killed", "step": None}])


def amend(folder: Path, change: dict) -> None:
    """Complete the row of the latest attempt."""
    *before, last = rows(folder)
    write_json(folder / TABLE, [*before, last | change])


def recall(folder: Path, checkpoint: Path | None) -> None:
    """Where the run's folder is lost, the attempts that its latest checkpoint tells of."""
    if checkpoint and not (folder / TABLE).exists():
        write_text(folder / TABLE, (checkpoint / TABLE).read_text(encoding="utf-8"))


def reduced(train: dict, known: list[dict]) -> dict:
    """Settings of the next attempt: a batch that was sought stays found, and steps that were taken hold."""
    found = [row["batch"] for row in known if row["batch"] != AUTO]
    if train.get("batch") == AUTO and found:
        train = train | {"batch": found[0]}
    return train | {row["step"]["key"]: row["step"]["after"] for row in known if row["step"]}
