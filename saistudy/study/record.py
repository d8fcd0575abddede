"""The record of a run: what was asked, what ran, on what, at what cost, with what result."""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from saistudy import hardware
from saistudy.paths import NOTEBOOKS, ROOT, Refusal, results, work, write_json, write_text
from saistudy.study import model_card, prereg, saved
from saistudy.study.saved import PREDICTIONS, read_frame, shown

SCHEMA = 2
PARTS = {"run", "notebook", "profile", "run_id", "params", "data", "metrics", "cost"}


def expect(name: str, seen, expected, source: str) -> dict:
    """A row that sets a value beside what was expected of it: name, seen, expected, agrees, source."""
    return {
        "what": name,
        "seen": seen,
        "expected": expected,
        "agrees": seen == expected,
        "source": source,
    }


def require(rows: list[dict]) -> None:
    """Stop where an expectation that everything after it relies on is not met.

    Raises:
        Refusal: names what was seen and what was expected.
    """
    for row in rows:
        if not row["agrees"]:
            data = "look at the findings in notebooks/data.ipynb and mend the source"
            advice = "give both the same value" if ".yaml" in row["source"] else data
            raise Refusal(
                f"{row['what']}: {row['seen']} was seen, {row['expected']} was expected ({row['source']}):"
                f" {advice}."
            )


def write_record(folder: Path, **parts) -> Path:
    """Write `record.json` into a run's folder, whole or not at all; a run exists when its record exists.

    Environment and code are added here. A missing value is None with its reason in a neighbouring key.

    Raises:
        Refusal: a part is missing.
        ValueError, TypeError: a value is NaN or infinite, or nothing that JSON can hold.
    """
    if missing := PARTS - parts.keys():
        raise Refusal(f"the record of {parts.get('run')} lacks {sorted(missing)}: pass them to write_record.")
    path = folder / "record.json"
    stamp = {"schema": SCHEMA, "written": datetime.now(UTC).isoformat(timespec="seconds")}
    stamp |= {"source": source(parts["notebook"]), "prereg_sha256": prereg.digest()}
    if parts["profile"] == "demo":
        parts["twin"] = {p.parent.name: json.loads(p.read_text()) for p in sorted(_twins())}
    write_json(path, {**stamp, "environment": hardware.environment(), **parts})
    return path


def source(notebook: str) -> dict:
    """The notebook that ran: its file in the project, and its blob, the hash under which git keeps it."""
    path = NOTEBOOKS / f"{notebook}.ipynb"
    return {"file": path.relative_to(ROOT).as_posix(), "blob": blob(path.read_bytes())}


def blob(data: bytes) -> str:
    """What git calls a file of these bytes (git hash-object): 40 hex digits."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _twins():
    """What says how the synthetic twins were made: sizes of the boxes, numbers, seeds."""
    return (work("demo") / "twin").glob("*/provenance.json")


def read_record(profile: str, run: str) -> dict:
    """The record of one run.

    Raises:
        Refusal: the run has none; the sentence says which notebook makes it.
    """
    path = results(profile) / run / "record.json"
    if not path.is_file():
        notebook = "stage2" if run.startswith("stage2-") else "stage1"
        raise Refusal(
            f"{shown(path)} does not exist: run {run} comes from notebooks/{notebook}.ipynb;"
            " execute that first, in JupyterLab or with papermill."
        )
    return json.loads(path.read_text())


def read_records(profile: str) -> list[dict]:
    """All records of a profile's training runs, ordered by run name.

    Raises:
        Refusal: there is none, or one belongs to another profile.
    """
    if runs := trainings(profile):
        return runs
    raise Refusal(
        f"{shown(results(profile))} holds no record of a training: run notebooks/stage1.ipynb"
        f" with profile {profile} first (or make study PROFILE={profile})."
    )


def trainings(profile: str) -> list[dict]:
    """As `read_records`, and none where there is none: other notebooks may have left theirs before any of it.

    Raises:
        Refusal: one belongs to another profile.
    """
    records = [json.loads(path.read_text()) for path in sorted(results(profile).glob("*/record.json"))]
    runs = [r for r in records if r["notebook"] in ("stage1", "stage2")]
    for record in runs:
        if record["profile"] != profile:
            raise Refusal(
                f"{record['run']} is of profile {record['profile']} among records of {profile}: a table never"
                " mixes profiles; move it to its own folder."
            )
    return runs


def predicted(profile: str, run: str, model: str, imgsz=None, kind: str = PREDICTIONS) -> pd.DataFrame:
    """Saved detections of one model of a run at one evaluation size.

    Args:
        imgsz: [height, width] in pixels; without it the tensor that the run was trained at.
        kind: the folder: `PREDICTIONS` on val and test (test alone at other sizes), or `RETENTION`, stage 2's
            on the test images of stage 1.

    Raises:
        Refusal: the file is not there.
    """
    height, width = imgsz or read_record(profile, run)["conditions"]["imgsz"]
    return read_frame(profile, run, f"{kind}/{model}@{height}x{width}")


def save_run(folder: Path, fits: dict, frames: dict[str, pd.DataFrame], detections: dict) -> list[dict]:
    """Keep each training's tables and args.yaml, frames and predictions beside the record that comes last.

    epochs.csv is Ultralytics' results.csv untouched; in args.yaml only this machine's path of the project is
    replaced by `.`, so that nobody's home stands in a committed file.

    Args:
        folder: results folder of the run.
        fits: subfolder (empty for a run of one training) to Fit.
        frames: name to frame; written as parquet.
        detections: `saved.PREDICTIONS` or `RETENTION` to the models and their detections by tensor.

    Returns:
        What the record lists of the prediction files: rows of `saved.save_predictions` and whether committed.
    """
    (folder / "record.json").unlink(missing_ok=True)
    for name, frame in frames.items():
        saved.save_frame(frame, folder / f"{name}.parquet")
    for prefix, fit in fits.items():
        write_text(folder / prefix / "epochs.csv", (fit.folder / "results.csv").read_text())
        write_text(folder / prefix / "telemetry.csv", (fit.folder / "telemetry.csv").read_text())
        args = (fit.folder / "args.yaml").read_text().replace(str(ROOT), ".")
        write_text(folder / prefix / "args.yaml", args)
    rows = [saved.save_predictions(folder, kind, *given) for kind, given in detections.items()]
    return saved.keep_out(folder, sum(rows, []))


def write_training(folder, name, notebook, p, run_id, trees, fits, metrics, **more) -> Path:
    """Write the record of a training run, and before it the model card beside its weights.

    Args:
        folder, name, notebook: where it goes, the run's name, the notebook's.
        p: the validated parameters.
        run_id: from params.identity.
        trees: the tree trained on first, further ones (test only) after it.
        fits: model prefix to Fit; the first one's conditions stand for the run. None where weights were only
            evaluated.
        metrics: rows of score.rows.
        more: further parts (stage 2: its parent).
    """
    first = next(iter(fits.values()), None)
    model_card.write(name, vars(p), trees, fits, metrics, more)
    return write_record(
        folder,
        run=name,
        notebook=notebook,
        profile=p.profile,
        run_id=run_id,
        params=vars(p),
        data=describe(trees[0]) | {"others": [describe(tree) for tree in trees[1:]]},
        conditions=first.conditions if first else {},
        declared=[d for fit in fits.values() for d in fit.declared],
        stops=[_stop(prefix, stop) for prefix, fit in fits.items() for stop in fit.stops],
        attempts={prefix: fit.attempts for prefix, fit in fits.items()},
        telemetry={prefix: fit.telemetry for prefix, fit in fits.items()},
        metrics=metrics,
        cost={**(first.cost if first else {}), "train_s": sum(fit.cost["train_s"] for fit in fits.values())},
        **more,
    )


def describe(tree) -> dict:
    """What a record says of a tree."""
    return {
        "name": tree.name,
        "provenance": tree.provenance,
        "fingerprint": tree.fingerprint,
        "images_n": tree.rows["split"].value_counts().sort_index().to_dict(),
        "names": {str(key): value for key, value in tree.names.items()},
    }


def by_handling(runs: dict, trees: dict) -> dict:
    """What each class handling of stage 2 ran as, cost and was trained on."""
    told = {}
    for handling, run in runs.items():
        tree = trees[handling]
        told[handling] = {"conditions": run.conditions, "cost": run.cost, "declared": run.declared}
        told[handling] |= {"name": tree.name, "provenance": tree.provenance, "fingerprint": tree.fingerprint}
    return told


def _stop(prefix: str, stop: dict) -> dict:
    """A stop of `fit` under its model's name, the weights as a path relative to the project."""
    return stop | {"model": model_name(prefix, stop), "weights": shown(stop["weights"])}


def model_name(prefix: str, stop: dict) -> str:
    """Name of a model in metrics and predictions: `patience-30`, or `named-patience-20` in stage 2."""
    return f"{prefix}{'-' if prefix else ''}patience-{stop['patience']}"
