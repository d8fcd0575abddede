"""Checks against a record of large-batch that a GPU made. None where there is none.

A claim that names the card of its figure (`said`: gpu) is settled by that card alone. What was trained on
generated sequences can refute a general sentence on training, and confirms none.
"""

import math

from saistudy.study.ledger.quantities import Finding
from saistudy.study.ledger.recorded import GB, SOURCE
from saistudy.study.ledger.rows import Claim, Ledger
from saistudy.study.ledger.speeds import HOPPER, finding, run_of, spread

__all__ = ["CHECKS", "SOURCE"]


def _large(claim: Claim) -> dict | None:
    return run_of("large-batch", claim.said.get("gpu", HOPPER))


def _pace(run: dict, precision: str, key: str) -> dict[int, float]:
    """A figure of every batch that was timed in a precision."""
    rows = [row for row in run["timed"] if row["precision"] == precision and row[key]]
    return {row["batch"]: row[key] for row in rows}


HALVES = ("float16", "bfloat16")
RANDOM = "generated sequences of the seed's shape"


def _paced(claim: Claim, key: str) -> tuple[dict | None, list[float]]:
    """The record, and a figure of a step in 32 bits at the batch that is `said`."""
    run, batch = _large(claim), int(claim.said["batch"])
    found = _pace(run, "float32", key) if run else {}
    return run, [found[batch]] if batch in found else []


def batch_ms(claim: Claim, _: Ledger) -> Finding | None:
    """Milliseconds a step at the batch that is `said`, in 32 bits."""
    return spread(*_paced(claim, "ms"), f"{RANDOM}, float32, the data on the GPU")


def batch_gb(claim: Claim, _: Ledger) -> Finding | None:
    """GB of GPU memory at the peak of such a step."""
    run, values = _paced(claim, "peak_gib")
    return spread(run, [GB * value for value in values], f"{RANDOM}, float32, as allocated by torch")


def batch_knee(claim: Claim, _: Ledger) -> Finding | None:
    """The least batch over which the next larger adds less than `said` gain (a fraction) of sequences/s."""
    run = _large(claim)
    rates = sorted(_pace(run, "float32", "sequences_per_s").items()) if run else []
    gains = [(batch, later / now - 1) for (batch, now), (_n, later) in zip(rates, rates[1:], strict=False)]
    knees = [batch for batch, gain in gains if gain < claim.figures()["gain"]]
    told = ", ".join(f"the next over {batch} {gain:+.1%}" for batch, gain in gains)
    return finding(run, knees[0], f"{RANDOM}; {told}") if knees else None


def half_precision(claim: Claim, _: Ledger) -> Finding | None:
    """How many times the speed of 32 bits float16 and bfloat16 have at the batch that is `said`."""
    run, plain = _paced(claim, "ms")
    ms = [_pace(run, name, "ms").get(int(claim.said["batch"])) for name in HALVES] if plain else []
    return spread(run, [plain[0] / one for one in ms if one], f"{RANDOM}, {' and '.join(HALVES)}")


def _arms(run: dict, own: str) -> list[dict]:
    """The rows with the rule and batch of one of the seed's own arms."""
    one = next(row for row in run["metrics"] if row["arm"] == run["own"][own])
    alike = ("rule", "batch", "accumulate")
    return [row for row in run["metrics"] if all(row[key] == one[key] for key in alike)]


def warm_up(claim: Claim, _: Ledger) -> Finding | None:
    """The fewest epochs of warm-up with which no run of the seed's rate and batch diverged."""
    if not (run := _large(claim)):
        return None
    rows = _arms(run, "written")
    why = "; ".join(f"{row['diverged_n']} of {row['runs_n']} runs of {row['arm']} diverged" for row in rows)
    whole = [row["warmup_epochs"] for row in rows if not row["diverged_n"]]
    return finding(run, min(whole), f"{RANDOM}: {why}", refutes=True) if whole else None


def cold_start(claim: Claim, _: Ledger) -> Finding | None:
    """The lowest rate at which every run of the seed's batch without warm-up diverged; else no bound."""
    if not (run := _large(claim)):
        return None
    batch = next(row["batch"] for row in run["metrics"] if row["arm"] == run["own"]["cold"])
    cold = [row for row in run["metrics"] if (row["batch"], row["warmup_epochs"]) == (batch, 0)]
    why = ", ".join(f"{row['diverged_n']} of {row['runs_n']} at {row['lr']:.3g}" for row in cold)
    rates = [row["lr"] for row in cold if row["diverged_n"] == row["runs_n"]]
    return finding(run, min(rates, default=math.inf), f"{RANDOM}, runs that diverged: {why}", refutes=True)


def failures(claim: Claim, _: Ledger) -> Finding | None:
    """Runs of the seed's own configuration that diverged; for want of memory there would be no record."""
    if not (run := _large(claim)):
        return None
    written = next(row for row in run["metrics"] if row["arm"] == run["own"]["written"])
    why = f"{RANDOM}: of {written['runs_n']} runs of {written['arm']}"
    return finding(run, written["diverged_n"], why, refutes=True)


CHECKS = {
    f.__name__: f for f in (batch_ms, batch_gb, batch_knee, half_precision, warm_up, cold_start, failures)
}
