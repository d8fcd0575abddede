"""A record against the files beside it: every metric, stop and cost again. Findings are sentences."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from saistudy.evaluation import predict, score
from saistudy.paths import results
from saistudy.study.audit.executed import trained
from saistudy.study.record import model_name, read_record
from saistudy.study.saved import PREDICTIONS, RETENTION, read_frame, sha256
from saistudy.training import patience, telemetry

DIGITS = 1e-9  # sums in another order on another processor; figures are fractions or seconds


def differences(seen, told, where: str = "") -> Iterator[str]:
    """Every place at which two values of JSON differ: numbers by more than `DIGITS`, all else at all."""
    if isinstance(seen, dict) and isinstance(told, dict):
        for key in sorted(seen.keys() | told.keys(), key=str):
            if key not in seen or key not in told:
                yield f"{where}.{key} is on one side only"
            else:
                yield from differences(seen[key], told[key], f"{where}.{key}")
    elif isinstance(seen, list) and isinstance(told, list) and len(seen) == len(told):
        for at, pair in enumerate(zip(seen, told, strict=True)):
            yield from differences(*pair, f"{where}[{at}]")
    elif not _same(seen, told):
        yield f"{where.lstrip('.')} is {told} in the record, {seen} computed again"


def _same(seen, told) -> bool:
    if isinstance(seen, bool) or isinstance(told, bool):
        return seen is told
    if isinstance(seen, int | float) and isinstance(told, int | float):
        return abs(seen - told) <= DIGITS * max(1, abs(told))
    return seen == told


def files(folder: Path, record: dict) -> tuple[list[str], list[str]]:
    """Findings on the prediction files, and those that are not at hand, being too large to commit."""
    found, absent = [], []
    for row in record["predictions"]:
        path = folder / row["file"]
        if not path.is_file():
            (found if row["committed"] else absent).append(f"{row['file']} is not there")
        elif (sha256(path), path.stat().st_size) != (row["sha256"], row["bytes"]):
            found.append(f"{row['file']} is not the file that the record tells of")
        elif len(pd.read_parquet(path, columns=["score"])) != row["rows_n"]:
            found.append(f"{row['file']} has another number of rows than the record tells")
    return found, absent


def metrics(profile: str, record: dict) -> list[str]:
    """Metrics, evaluation sizes, recall at budgets and retention, from predictions and truth alone."""
    truth, images = (read_frame(profile, record["run"], name) for name in ("truth", "images"))
    names = {int(key): word for key, word in record["data"]["names"].items()}
    models = list(dict.fromkeys(row["model"] for row in record["metrics"]))
    at = _detections(profile, record, PREDICTIONS)
    own = at["{}x{}".format(*_tensor(record))]
    reported = record.get("reported", "test")
    seen = set(images.loc[images["seen"] & (images["split"] == reported), "group"])
    again = {"metrics": score.rows(models, own, truth, images, names, seen, reported)}
    if "sizes" in record:
        again["sizes"] = score.matrix(models, at, truth, images, names)
    if "operation" in record:
        again["operation"] = _operation(record, again["metrics"], own, truth, images)
        again["retention"] = _retention(profile, record)
    return [line for key, value in again.items() for line in differences(value, record[key], key)]


def _tensor(record: dict) -> list[int]:
    """The run's own tensor; of weights that were only evaluated the first one of its files."""
    return record["conditions"]["imgsz"] if record["conditions"] else record["predictions"][0]["imgsz"]


def _detections(profile: str, record: dict, kind: str) -> dict[str, pd.DataFrame]:
    """Saved detections by tensor, in the order of the record, each with its model."""
    found: dict[str, list] = {}
    for row in record["predictions"]:
        if row["file"].startswith(f"{kind}/"):
            frame = pd.read_parquet(results(profile) / record["run"] / row["file"])
            found.setdefault("{}x{}".format(*row["imgsz"]), []).append(frame.assign(model=row["model"]))
    return {tensor: pd.concat(frames, ignore_index=True) for tensor, frames in found.items()}


def _operation(record: dict, rows: list[dict], own, truth, images) -> dict:
    """What an operator would see of each handling, at its own threshold."""
    given, found = record["params"], {}
    for handling in given["handlings"]:
        model = model_name(handling, {"patience": max(given["patiences"])})
        cut = next(row["threshold"] for row in rows if row["model"] == model)
        mine, how = own[own["model"] == model], (given["frames_per_day"], given["alarm_budgets"])
        found[handling] = score.operation(mine, truth, images, cut, *how)
    return found


def _retention(profile: str, record: dict) -> list[dict]:
    """What stage 2 kept of stage 1, from its saved detections and those of its parent."""
    parent = read_record(profile, record["parent"]["run"])
    names = {int(key): word for key, word in parent["data"]["names"].items()}
    longest = max(parent["stops"], key=lambda stop: stop["patience"])["model"]
    before = _detections(profile, parent, PREDICTIONS)["{}x{}".format(*_tensor(parent))]
    before = before[(before["model"] == longest) & (before["split"] == "test")].assign(model="stage 1")
    kept = pd.concat([before, *_detections(profile, record, RETENTION).values()], ignore_index=True)
    own = {"stage 1": parent["conditions"]} | {
        h: record["handlings"][h]["conditions"] for h in record["params"]["handlings"]
    }
    known = {model: _classes(ran["names"], names) for model, ran in own.items()}
    frames = (read_frame(profile, parent["run"], name) for name in ("truth", "images"))
    return score.retention(known, kept, *frames, names)


def _classes(own: dict[str, str], names: dict[int, str]) -> list[str]:
    """Classes of a table that a model with these names can output."""
    numbers = predict.shared({int(key): word for key, word in own.items()}, names).values()
    return [names[number] for number in sorted(numbers)]


def costs(folder: Path, record: dict) -> list[str]:
    """Stops and telemetry from the csv files beside the record, and seconds that add up."""
    found = []
    for prefix, ran in trained(record).items():
        csv = folder / prefix / "epochs.csv"
        told = [stop for stop in record["stops"] if stop["model"] == model_name(prefix, stop)]
        asked = ran["epochs"], ran["images_n"]
        again = [stop | patience.stop(csv, stop["patience"], *asked) for stop in told]
        found += differences(again, told, f"{prefix} stops")
        summary = telemetry.summary(folder / prefix / "telemetry.csv")
        found += differences(summary, record["telemetry"][prefix], f"{prefix} telemetry")
        cost = record["handlings"][prefix]["cost"] if "handlings" in record else record["cost"]
        if cost["train_s"] < told[-1]["train_s"] - 0.1 and len(record["attempts"][prefix]) == 1:
            found.append(f"{prefix} cost.train_s is {cost['train_s']}, its epochs took {told[-1]['train_s']}")
    if "handlings" in record:
        sum_s = sum(told["cost"]["train_s"] for told in record["handlings"].values())
        found += differences(round(sum_s, 1), round(record["cost"]["train_s"], 1), "cost.train_s")
    return found


def counts(profile: str, record: dict) -> list[str]:
    """Images, images without boxes and boxes of val and test as the frames have them."""
    truth, images = (read_frame(profile, record["run"], name) for name in ("truth", "images"))
    shown = _counted(record)[record["data"]["name"]]
    seen = {split: int(n) for split, n in shown["images"].items() if n}
    found = list(differences(seen, record["data"]["images_n"], "data.images_n"))
    for split, mine in images.groupby("split"):
        boxes = truth[truth["split"] == split]
        again = {"images": len(mine), "groups": mine["group"].nunique()}
        again |= {"without boxes": int((~mine["image"].isin(boxes["image"])).sum())}
        names = record["data"]["names"].items()
        again |= {f"{word} boxes": int((boxes["class"] == int(key)).sum()) for key, word in names}
        found += differences(again, {key: int(shown.loc[split, key]) for key in again}, f"counts.{split}")
    return found


def _counted(record: dict) -> dict[str, pd.DataFrame]:
    """The counts that a notebook shows by data set."""
    if "handlings" not in record:
        return {record["data"]["name"]: pd.DataFrame(**record["counts"])}
    names = {handling: told["name"] for handling, told in record["handlings"].items()}
    return {names[handling]: pd.DataFrame(**frame) for handling, frame in record["counts"].items()}


def copies(profile: str, record: dict) -> list[str]:
    """What a record says in two places is the same in both."""
    found = []
    if "trained" in record and record["trained"] is not None:
        found += differences(record["settled"], record["trained"], "trained")
    if "handlings" in record:
        first = record["handlings"][record["params"]["handlings"][0]]
        found += differences(first["conditions"], record["conditions"], "conditions")
        parent = read_record(profile, record["parent"]["run"])["data"]
        told = {parent["name"]: parent["images_n"]}
        told |= {name: frame["images"].to_dict() for name, frame in _counted(record).items()}
        for other in record["data"]["others"]:
            found += differences(told[other["name"]], other["images_n"], f"images_n of {other['name']}")
    return found
