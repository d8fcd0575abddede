"""Checks against the records of gate and throughput that a GPU made. None where there is none.

Only profile h200 is asked, and of it only what ran on a GPU of Hopper (H100, H200).
"""

import json
import math
from statistics import median

from saistudy.paths import results
from saistudy.study import record
from saistudy.study.ledger.quantities import Finding
from saistudy.study.ledger.recorded import PROFILE, SOURCE
from saistudy.study.ledger.rows import Claim, Ledger

__all__ = ["CHECKS", "SOURCE"]
HOPPER = "NVIDIA H"
OPEN = "not settled"  # the verdict of speedups.claims where the run could not show it


def run_of(notebook: str, gpu: str = HOPPER) -> dict | None:
    """The record of one of the three notebooks, if such a GPU made it."""
    path = results(PROFILE) / notebook / "record.json"
    found = json.loads(path.read_text()) if path.is_file() else {}
    gpus = (found.get("environment") or {}).get("gpus") or []
    return found if gpus and all(gpu in one["name"] for one in gpus) else None


def finding(run: dict, value: object, why: str, **more) -> Finding:
    """What a record says, with the card that it was measured on."""
    card = run["environment"]["gpus"][0]["name"]
    return Finding(value, f"results/{PROFILE}/{run['run']}/record.json", f"{card}; {why}", **more)


def spread(run: dict | None, values: list[float], why: str) -> Finding | None:
    """The median of what was seen between its ends; None if nothing was."""
    if not run or not values:
        return None
    return finding(run, median(values), why, low=min(values), high=max(values))


IN = {  # how a sentence writes a ratio of speeds or a share of memory
    "times": lambda seen: seen,
    "percent": lambda seen: 100 * seen,
    "percent more": lambda seen: 100 * (seen - 1),
}


def accelerated(claim: Claim, _: Ledger) -> Finding | None:
    """A gain of throughput, median of networks and passes; `said`: in (a key of IN), of which it may exceed.

    With `above` or `below` in `said`: whether every pass of every network lies there.
    """
    if not (run := run_of("throughput")):
        return None
    rows = [row for row in run["claims"] if str(row["line"]) == claim.line and row["verdict"] != OPEN]
    values = [IN[claim.said["in"]](value) for row in rows for value in row["values"]]
    found = spread(run, values, "of " + ", ".join(row["network"] for row in rows))
    if found is None or not {"above", "below"} & claim.said.keys():
        return found
    limit = claim.figures()
    inside = limit.get("above", -math.inf) < found.low and found.high < limit.get("below", math.inf)
    return finding(run, inside, f"{found.low:.3g} to {found.high:.3g} times")


def compiled_once(claim: Claim, _: Ledger) -> Finding | None:
    """Whether the first step takes seconds (`said`: at most most_s) and a later process less of them."""
    run = run_of("throughput")
    rows = [row for row in (run or {}).get("compiled", []) if row["first_s"]]
    if not rows:
        return None
    seen = [(row["first_s"], row["again_s"]) for row in rows]
    short = all(first <= claim.figures()["most_s"] and again < first for first, again in seen)
    told = ", ".join(f"{first:.3g} s, then {again:.3g} s" for first, again in seen)
    return finding(run, short, f"first steps of {', '.join(row['network'] for row in rows)}: {told}")


def compiled_gradients(_: Claim, __: Ledger) -> Finding | None:
    """How far the gradients of compiled networks lie from plain ones, relative to their norm."""
    run = run_of("throughput")
    rows = [row for row in (run or {}).get("gradients", []) if row["factor"] == "compile"]
    values = [row["apart"] for row in rows if row["apart"] is not None]
    return spread(run, values, "gradients of one step, |difference| / |plain|")


YOLO = "YOLOv8s in place of the seed's network"


def _gate() -> tuple[dict, dict] | None:
    """The gate's record, and its row of steps as the seed's are."""
    run = run_of("gate")
    return (run, run["metrics"][0]) if run and run["losses"] else None


def sanity_steps(_: Claim, __: Ledger) -> Finding | None:
    """Steps of the gate that ran through with a finite loss."""
    if not (seen := _gate()):
        return None
    run, _row = seen
    steps_n = sum(math.isfinite(loss) for loss in run["losses"])
    return finding(run, steps_n, f"{YOLO}; a step is {run['params']['step']}")


def sanity_util(_: Claim, __: Ledger) -> Finding | None:
    """GPU utilisation over the gate's steady part, percent."""
    if not (seen := _gate()) or (value := seen[1]["gpu"]["gpu_util"]["value"]) is None:
        return None
    return finding(seen[0], 100 * value, f"{YOLO}; mean of samples of NVML over the steady part")


def sanity_waits(claim: Claim, _: Ledger) -> Finding | None:
    """Whether waiting for batches is more than `said` share (a fraction) of the gate's steady part."""
    if not (seen := _gate()):
        return None
    share = seen[1]["steady"]["wait"]
    why = f"{YOLO}; of the steady part, {share:.2f} is waiting for a batch"
    return finding(seen[0], share > claim.figures()["share"], why)


def full_run_util(claim: Claim, _: Ledger) -> Finding | None:
    """Whether every stage 1 of an H200 kept its GPU as busy as `said`: at_least, a fraction."""
    runs = [
        run
        for run in record.trainings(PROFILE)
        if run["notebook"] == "stage1" and run["environment"].get("gpus")
    ]
    runs = [run for run in runs if run["telemetry"][""].get("gpu_util") is not None]
    if not runs:
        return None
    values = [run["telemetry"][""]["gpu_util"] for run in runs]
    why = f"GPU utilisation {min(values):.2f} to {max(values):.2f} by NVML over {len(runs)} whole trainings"
    return finding(runs[0], min(values) >= claim.figures()["at_least"], why)


CHECKS = {
    f.__name__: f
    for f in (
        *(accelerated, compiled_once, compiled_gradients),
        *(sanity_steps, sanity_util, sanity_waits, full_run_util),
    )
}
