"""Frames of a run beside its record: truth, images, and predictions, a file per model and evaluation size."""

import hashlib
import json
import shutil
from contextlib import suppress
from pathlib import Path

import pandas as pd

from saistudy.paths import ROOT, Refusal, results, write_text

PREDICTIONS, RETENTION = "predictions", "retention"
RUN_MAX_BYTES, PROFILE_MAX_BYTES = 5_000_000, 50_000_000
"""Predictions of a run, and of a profile, that go into the repository. Larger ones stay where they were
made, with their hashes in the record (issue 5)."""


def read_frame(profile: str, run: str, name: str) -> pd.DataFrame:
    """A parquet file of a run: predictions, truth or images.

    Raises:
        Refusal: the file is not there.
    """
    path = results(profile) / run / f"{name}.parquet"
    if not path.is_file():
        raise Refusal(f"{shown(path)} does not exist beside its record: fetch it or run {run} again.")
    return pd.read_parquet(path)


def save_predictions(folder: Path, kind: str, models, detections: dict[str, pd.DataFrame]) -> list[dict]:
    """Write detections, a parquet file per model and evaluation size; a model without any has its file too.

    Args:
        folder: results folder of the run; kind: `PREDICTIONS` or `RETENTION`.
        models: names of the models.
        detections: `predict.tensor_name` to a frame with a column `model`.

    Returns:
        Rows for the record: file (below the run's folder), model, imgsz, rows_n, bytes, sha256.
    """
    shutil.rmtree(folder / kind, ignore_errors=True)
    found = []
    for tensor, frame in detections.items():
        for model in models:
            mine = frame[frame["model"] == model].drop(columns="model").reset_index(drop=True)
            path = folder / kind / f"{model}@{tensor}.parquet"
            save_frame(mine, path)
            imgsz = [int(side) for side in tensor.split("x")]
            what = {"file": f"{kind}/{path.name}", "model": model, "imgsz": imgsz, "rows_n": len(mine)}
            found.append(what | {"bytes": path.stat().st_size, "sha256": sha256(path)})
    return found


def keep_out(folder: Path, rows: list[dict]) -> list[dict]:
    """The rows of `save_predictions` with `committed`; files that are too large are ignored by git.

    All or none of a run's: half of them would recompute half of a table. A `.gitignore` in the run's folder
    names them.
    """
    others = [path for path in folder.parent.glob("*/record.json") if path.parent != folder]
    taken = sum(sum(row["bytes"] for row in _listed(path) if row["committed"]) for path in others)
    mine = sum(row["bytes"] for row in rows)
    inside = mine <= RUN_MAX_BYTES and taken + mine <= PROFILE_MAX_BYTES
    (folder / ".gitignore").unlink(missing_ok=True)
    if not inside:
        write_text(folder / ".gitignore", f"{PREDICTIONS}/\n{RETENTION}/\n")
    return [row | {"committed": inside} for row in rows]


def _listed(path: Path) -> list[dict]:
    """The prediction files that a record lists; none where it cannot be read."""
    with suppress(OSError, ValueError):
        return json.loads(path.read_text(encoding="utf-8")).get("predictions", [])
    return []


def sha256(path: Path) -> str:
    """Hash of a file, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_frame(frame: pd.DataFrame, path: Path) -> None:
    """Write a frame as zstd parquet, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    frame.to_parquet(part, compression="zstd", index=False)
    part.replace(path)


def shown(path: Path) -> str:
    """A path relative to the project where it lies inside."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
