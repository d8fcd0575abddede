"""Checks against what was measured on an H200: records, table, bench. None where nothing stands yet.

Only profile h200 is asked: no accuracy rests on a synthetic figure or on mini, no memory or rate on a CPU.
Memory and rate may rest on generated images, which the conditions then say.
"""

import json
import math

import pandas as pd

from saistudy.evaluation import score
from saistudy.paths import results
from saistudy.study import record
from saistudy.study.forecast import AS_MEANT
from saistudy.study.ledger.quantities import Finding
from saistudy.study.ledger.rows import Claim, Ledger

SOURCE = "records of an H200"
PROFILE = "h200"
SYNTHETIC = "synthetic"  # provenance of the twins
BENCH = "h200-bench"  # what `bench training --json` printed on an H200
GB = 2**30 / 1e9  # GB in a GiB


def _bench() -> list[dict]:
    """The rows of every bench of trainings on an H200: arm, batch, gpu_reserved_gib, images_per_s."""
    rows = []
    for path in sorted(results(BENCH).glob("*.json")):
        told = json.loads(path.read_text())
        gpus = (told.get("environment") or {}).get("gpus") or []
        if gpus and all("H200" in gpu["name"] for gpu in gpus):
            rows += [row | {"file": path.name} for row in told.get("rows", []) if not row.get("note")]
    return rows


def _trained() -> list[dict]:
    """Rows as of _bench, of every stage 1 that was trained on an H200, on whatever images."""
    rows = []
    for run in record.trainings(PROFILE):
        gpus = (run.get("environment") or {}).get("gpus") or []
        if run["notebook"] == "stage1" and gpus and all("H200" in gpu["name"] for gpu in gpus):
            told = {"file": run["run"], "images": run["data"]["provenance"], "arm": _side(run["conditions"])}
            rows.append(run["telemetry"][""] | told | {"batch": run["conditions"]["batch"]})
    return rows


def _side(conditions: dict) -> str:
    """The square that was trained, named as its arm; a rectangle by both sides."""
    height, width = conditions["imgsz"]
    return str(width) if height == width else f"{width}x{height}"


def _seen(claim: Claim, key: str) -> list[tuple[float, str, str]]:
    """A figure at the claim's batch and size, or of every size: value, where it stands, of what images."""
    arm, batch = claim.said.get("arm"), int(claim.figures()["batch"])
    rows = [{"images": "generated", **row, "file": f"{BENCH}/{row['file']}"} for row in _bench()]
    rows += [{**row, "file": f"{PROFILE}/{row['file']}"} for row in _trained()]
    rows = [row for row in rows if row["batch"] == batch and arm in (None, row["arm"]) and row.get(key)]
    return [(row[key], f"{row['file']}, {row['arm']}", row["images"]) for row in rows]


def _spread(seen: list[tuple[float, str, str]], factor: float) -> Finding | None:
    if not seen:
        return None
    values = sorted(value * factor for value, _, _ in seen)
    where = "; ".join(sorted({place for _, place, _ in seen}))
    why = f"on an H200, YOLOv8s, images: {', '.join(sorted({images for *_, images in seen}))}"
    return Finding(values[len(values) // 2], where, why, low=values[0], high=values[-1])


def gpu_gb(claim: Claim, _: Ledger) -> Finding | None:
    """GPU memory at its peak, GB as reserved by torch, at the claim's batch and arm (else over all arms)."""
    return _spread(_seen(claim, "gpu_reserved_gib"), GB)


def steps_per_s(claim: Claim, _: Ledger) -> Finding | None:
    """Training steps a second at the claim's batch and arm."""
    return _spread(_seen(claim, "images_per_s"), 1 / claim.figures()["batch"])


def seconds_per_step(claim: Claim, ledger: Ledger) -> Finding | None:
    """Seconds a training step at the claim's batch and arm."""
    found = steps_per_s(claim, ledger)
    if found is None:
        return None
    return Finding(1 / found.value, found.evidence, found.conditions, 1 / found.high, 1 / found.low)


def _runs(stage: str, arm: str) -> list[dict]:
    """Records of one arm of a stage on the published data; of stage 2 with lr0 as it was meant."""
    runs = [run for run in record.trainings(PROFILE) if run["data"].get("provenance", SYNTHETIC) != SYNTHETIC]
    runs = [run for run in runs if run["params"].get("stage2_arm", AS_MEANT) == AS_MEANT]
    return [run for run in runs if run["notebook"] == f"stage{stage}" and run["params"]["arm"] == arm]


def ap50(claim: Claim, _: Ledger) -> Finding | None:
    """AP50 on the published test images, mean over seeds, of an arm's longest patience, times `per`.

    `said`: stage, arm, and of stage 2 the handling.
    """
    values, names = [], []
    for run in _runs(claim.said["stage"], claim.said["arm"]):
        model = _model(run, claim.said.get("handling", ""))
        rows = [m for m in run["metrics"] if m["model"] == model and m["subset"] == score.PUBLISHED]
        values += [m["ap50"] * claim.figures().get("per", 1.0) for m in rows if m["ap50"] is not None]
        names += [run["run"]] if rows else []
    if not values:
        return None
    mean = math.fsum(values) / len(values)
    why = f"AP50 on the published test images, mean of {len(values)} seeds"
    return Finding(mean, f"results/{PROFILE}: {', '.join(names)}", why, min(values), max(values))


def _model(run: dict, handling: str) -> str:
    return record.model_name(handling, {"patience": max(run["params"]["patiences"])})


def better_size(_: Claim, __: Ledger) -> Finding | None:
    """Which of 896 and [1440,808] (in stock: square 1440) is better by the rule of prereg.yaml.

    None where the table says neither: unresolved and equivalent are no answer to that.
    """
    path = results(PROFILE) / "table.csv"
    if not path.is_file():
        return None
    table = pd.read_csv(path, dtype={"arm": str})
    table = table[(table["provenance"] != SYNTHETIC) & (table["stage"] == 1) & (table["arm"] == "1440")]
    row = table.sort_values("patience").iloc[-1:]
    won = {"better": "[1440,808]", "worse": "896"}
    verdicts = [won[v] for v in row.get("verdict", []) if v in won]
    where = f"results/{PROFILE}/table.csv, arm 1440 against 896"
    return Finding(verdicts[0], where, "AP50 on the published test images") if verdicts else None


CHECKS = {f.__name__: f for f in (gpu_gb, steps_per_s, seconds_per_step, ap50, better_size)}
