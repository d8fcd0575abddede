"""Frames of what training shows: learning curves, what each patience would have done, and the cost."""

from pathlib import Path

import numpy as np
import pandas as pd

from saistudy.paths import results
from saistudy.study import comparisons
from saistudy.study.forecast import AS_MEANT
from saistudy.study.frames import cases
from saistudy.training import patience

AP50, AP, LR = "metrics/mAP50(B)", "metrics/mAP50-95(B)", "lr/pg0"
PATIENCE_MAX = 50
LEARNING = ["arm", "seed", "epoch", "ap50", "ap50_95"]
PATIENCE = {
    **{"stage": "int64", "arm": "str", "label": "str", "seed": "int64", "patience": "int64"},
    **{"known": "bool", "stop_epoch": "Int64", "best_epoch": "Int64", "stopped_early": "boolean"},
    **{"epochs_saved": "Int64", "hours_saved": "float64", "val_ap50_95": "float64"},
    **{"val_ap50_95_lost": "float64", "test_ap50_lost": "float64", "lr_frac": "float64"},
    "mosaic_open": "boolean",
}
COST = ["arm", "seed", "train_h", "images_per_s", "ap50", "device", "pixels"]


def curve(csv: Path, arm: str, seed: int) -> pd.DataFrame:
    """One learning curve: arm, seed, epoch, ap50, ap50_95 (fractions, on val) of Ultralytics' results.csv.

    An epoch written twice (killed before its checkpoint, then resumed) counts with its last row.
    """
    rows = _epochs(csv)
    values = {"epoch": rows["epoch"], "ap50": rows[AP50], "ap50_95": rows[AP]}
    return pd.DataFrame({"arm": arm, "seed": seed, **values})[LEARNING]


def _epochs(csv: Path) -> pd.DataFrame:
    frame = pd.read_csv(csv, skipinitialspace=True)
    return frame.drop_duplicates("epoch", keep="last").sort_values("epoch").reset_index(drop=True)


def learning(profile: str, found: list[dict], stage: int) -> pd.DataFrame:
    """The curves of every seed of every case of a stage, one below the other; `arm` is the case's label."""
    parts = [
        curve(_csv(profile, case, record), case["label"], record["params"]["seed"])
        for case, record in cases.runs(found)
        if case["stage"] == stage
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=LEARNING)


def _csv(profile: str, case: dict, record: dict) -> Path:
    """The epochs.csv of a case's training; stage 2 has one a class handling."""
    return results(profile) / record["run"] / (case.get("handling") or "") / "epochs.csv"


def patiences(profile: str, found: list[dict]) -> pd.DataFrame:
    """What every patience up to the one trained would have done, by exact replay of each run's own curve.

    Patience 0 never stops early; it is known only where the run came to its last planned epoch. What a
    patience saves and loses is counted against the run's own end. Of stage 2 it is the named class, as-meant.

    Returns:
        stage, arm, label, seed, patience, known, stop_epoch, best_epoch, stopped_early, epochs_saved,
        hours_saved, val_ap50_95 (of the epoch in best.pt), val_ap50_95_lost, test_ap50_lost (of patiences
        whose weights were kept), lr_frac (learning rate at the stop, of its largest), mosaic_open (the stop
        came before mosaic closed). Fractions; empty where not known.
    """
    mine = [c for c in found if c["stage"] == 1 or (c["stage2_arm"], c["handling"]) == (AS_MEANT, "named")]
    rows = [row for case, record in cases.runs(mine) for row in _replayed(profile, case, record)]
    return pd.DataFrame(rows, columns=list(PATIENCE)).astype(PATIENCE)


def _replayed(profile: str, case: dict, record: dict) -> list[dict]:
    """Rows of `patiences` of one run."""
    csv = _csv(profile, case, record)
    fitness, epochs = patience.fitness(csv), _epochs(csv)
    planned = record["conditions"]["epochs"]
    what = {"stage": case["stage"], "arm": case["arm"], "label": case["label"]}
    what["seed"] = record["params"]["seed"]
    end = patience.replay(fitness, case["patience"], planned)
    tried = range(min(case["patience"], PATIENCE_MAX) + 1)
    stops = {p: patience.replay(fitness, p, planned) for p in tried}
    return [
        what | {"patience": p, "known": stop.known} | _stop(stop, end, fitness, epochs, case, record, p)
        for p, stop in stops.items()
    ]


def _stop(stop, end, fitness, epochs: pd.DataFrame, case: dict, record: dict, p: int) -> dict:
    """What is known of a stop; nothing where it lies beyond the curve."""
    if not (stop.known and end.known):
        return {}
    elapsed_s = _elapsed_s(epochs["time"].to_numpy(float))
    lr = epochs[LR].to_numpy(float)
    return {
        "stop_epoch": stop.stop_epoch,
        "best_epoch": stop.best_epoch,
        "stopped_early": stop.stopped_early,
        "epochs_saved": end.stop_epoch - stop.stop_epoch,
        "hours_saved": (elapsed_s[end.stop_epoch - 1] - elapsed_s[stop.stop_epoch - 1]) / 3600,
        "val_ap50_95": fitness[stop.best_epoch - 1],
        "val_ap50_95_lost": fitness[end.best_epoch - 1] - fitness[stop.best_epoch - 1],
        "test_ap50_lost": _test_lost(case, record, p),
        "lr_frac": lr[stop.stop_epoch - 1] / lr.max(),
        "mosaic_open": _mosaic_open(record["conditions"], stop.stop_epoch),
    }


def _elapsed_s(time: np.ndarray) -> np.ndarray:
    """Seconds since the start of the run at the end of each epoch, float64 (N,).

    Ultralytics' `time` begins at 0 again when a run is resumed: where it falls, the epoch took all of it.
    """
    steps = np.diff(time, prepend=0.0)
    return np.cumsum(np.where(steps < 0, time, steps))


def _test_lost(case: dict, record: dict, p: int) -> float | None:
    """AP50 on test given up by a patience; None where its weights were not kept."""
    model = case["model"].removesuffix(str(case["patience"])) + str(p)
    if model not in {stop["model"] for stop in record["stops"]}:
        return None
    kept, mine = (comparisons.metric(record, name)["ap50"] for name in (case["model"], model))
    return None if None in (kept, mine) else kept - mine


def _mosaic_open(conditions: dict, epoch: int) -> bool:
    """Whether training ended with mosaic on: Ultralytics closes it for the last `close_mosaic` epochs."""
    closes = conditions["epochs"] - conditions["close_mosaic"]
    never = conditions["close_mosaic"] == 0
    return conditions["mosaic"] > 0 and (never or epoch <= closes)


def cost(found: list[dict]) -> pd.DataFrame:
    """Stage 1, a row a run: arm, seed, train_h, images_per_s, ap50 (on test), device, pixels (tensor)."""
    rows = []
    for case, record in cases.runs([c for c in found if c["stage"] == 1]):
        stop = next(s for s in record["stops"] if s["model"] == case["model"])
        row = {"arm": case["label"], "seed": record["params"]["seed"], "train_h": stop["train_s"] / 3600}
        row["images_per_s"] = stop["images_per_s"]
        row["ap50"] = comparisons.metric(record, case["model"])["ap50"]
        height, width = record["conditions"]["imgsz"]
        rows.append(row | {"device": record["cost"]["device"], "pixels": height * width})
    return pd.DataFrame(rows, columns=COST)
