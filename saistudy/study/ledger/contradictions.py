"""Checks of one sentence against another of the same seed: they can contradict a claim, never confirm it.

Each takes the claim and the whole ledger and never reads the claim's own quantity.
"""

import math

from saistudy.data import fasdd, pyrosdis
from saistudy.study.ledger.quantities import Finding, number
from saistudy.study.ledger.rows import Claim, Ledger

SOURCE = "another sentence of the same seed"
BATCH_N = 128  # L77 of the first seed, as in params/h200/stage1.yaml


def _other(claim: Claim, ledger: Ledger, i: int = 0) -> Claim:
    return ledger[claim.against[i]]


def _place(other: Claim) -> str:
    return f"{other.id}, L{other.line}"


def said_elsewhere(claim: Claim, ledger: Ledger) -> Finding:
    """What another claim of the same seed says of the same thing."""
    other = _other(claim, ledger)
    value = number(other.quantity)
    value = other.quantity if value is None else value
    return Finding(value, f"{_place(other)}: {other.claim}", "the seed against itself", within=True)


def share_saved(claim: Claim, ledger: Ledger) -> Finding:
    """Percent saved from one total of the seed to another."""
    late, early = _other(claim, ledger, 0), _other(claim, ledger, 1)
    value = 100 * (1 - float(late.quantity) / float(early.quantity))
    how = f"from {early.quantity} h ({_place(early)}) to {late.quantity} h ({_place(late)})"
    return Finding(value, how, "the only longer total that the seed gives", within=True)


def stage_hours(claim: Claim, ledger: Ledger) -> Finding:
    """Hours of so many epochs at the rate that the seed gives, from the published number of images.

    Lower bound: training alone. Upper bound: its validation images at the same rate on top.
    """
    return _hours(claim, ledger, claim.said["stage"], claim.figures()["epochs"])


def _hours(claim: Claim, ledger: Ledger, stage: str, epochs: float) -> Finding:
    rate, (train_n, val_n) = _other(claim, ledger, -1), _images(stage)
    batches_n = math.ceil(train_n / BATCH_N)
    hours = epochs * batches_n / float(rate.quantity) / 3600
    how = f"{epochs:g} epochs x {batches_n} batches / {rate.quantity} it/s ({_place(rate)})"
    why = (
        f"stage {stage}: {train_n} images in batches of {BATCH_N}; the upper bound adds {val_n} of validation"
    )
    return Finding(hours, how, why, low=hours, high=hours * (1 + val_n / train_n), within=True)


def total_hours(claim: Claim, ledger: Ledger) -> Finding:
    """Hours of both stages at the rate that the seed gives, as stage_hours counts them."""
    f = claim.figures()
    parts = [_hours(claim, ledger, stage, f[f"epochs{stage}"]) for stage in ("1", "2")]
    low, high = sum(part.low for part in parts), sum(part.high for part in parts)
    return Finding(
        low, "; ".join(part.evidence for part in parts), parts[0].conditions, low, high, within=True
    )


def scaled_by_pixels(claim: Claim, ledger: Ledger) -> Finding:
    """A rate at another size, in inverse proportion to the pixels of two squares."""
    other, f = _other(claim, ledger), claim.figures()
    value = float(other.quantity) * (f["from"] / f["to"]) ** 2
    how = f"{other.quantity} {other.unit} ({_place(other)}) x ({f['from']:g} / {f['to']:g}) squared"
    why = (
        f"if it was measured at {f['from']:g} px and the other at the square of {f['to']:g}, both may be true"
    )
    return Finding(value, how, why, within=True)


def _images(stage: str) -> tuple[int, int]:
    """Images of training and validation as the seed uses them: stage 1 has those with boxes only."""
    if stage == "2":
        return pyrosdis.PUBLISHED["train"], pyrosdis.PUBLISHED["val"]
    positive = [n for kind, n in fasdd.CATEGORIES.items() if fasdd.CLASSES[kind]]
    return sum(n["train"] for n in positive), sum(n["val"] for n in positive)


def table_epochs(claim: Claim, ledger: Ledger) -> Finding:
    """Epochs in the seed's own table of times, of as many stages as the claim names."""
    rows = [ledger[name] for name in claim.against]
    value = tuple(row.figures()["epochs"] for row in rows)
    how = "its table of times: " + ", ".join(f"{row.said['epochs']} ({_place(row)})" for row in rows)
    return Finding(value if len(value) > 1 else value[0], how, "the seed against itself", within=True)


def sum_of_parts(claim: Claim, ledger: Ledger) -> Finding:
    """GB of all parts of a memory that the seed lists, the network's given in MB with the claim itself."""
    giga = {"GB": 1.0, "MB": 1e-3}
    rows = [_other(claim, ledger, i) for i in range(len(claim.against))]
    parts = [claim.figures()["network_mb"] * giga["MB"], *(float(r.quantity) * giga[r.unit] for r in rows)]
    how = " + ".join(f"{r.quantity} {r.unit} ({_place(r)})" for r in rows)
    return Finding(math.fsum(parts), f"{how} + {parts[0] * 1e3:g} MB", "the seed's own list", within=True)


def combined_speedup(claim: Claim, ledger: Ledger) -> Finding:
    """Rate and speed-up when the gains that the seed gives for the steps on top are multiplied."""
    first, *steps = [ledger[name] for name in claim.against]
    base, known = claim.figures()["baseline_it_s"], float(first.quantity.split("/")[1])
    highest = math.prod(1 + float(step.quantity.split("-")[1]) / 100 for step in steps)
    names = ", ".join(f"{step.quantity} % ({_place(step)})" for step in steps)
    how = f"{known:g} times ({_place(first)}), then at most {names}"
    why = "the seed gives no figure for the other steps, and one that costs speed for checkpointing"
    return Finding((base * known * highest, known * highest), how, why, within=True)


def cheapest(claim: Claim, ledger: Ledger) -> Finding:
    """Which row of the seed's cost table is the lowest."""
    other = _other(claim, ledger)
    costs = dict(zip(claim.said["order"].split(), map(float, other.quantity.split("/")), strict=True))
    how = f"{_place(other)}: " + ", ".join(f"{name} {cost:g}" for name, cost in costs.items())
    return Finding(min(costs, key=costs.get), how, "the seed's own table", within=True)


CHECKS = {
    f.__name__: f
    for f in (
        *(said_elsewhere,),
        *(share_saved, stage_hours, table_epochs, combined_speedup),
        *(cheapest, total_hours, scaled_by_pixels, sum_of_parts),
    )
}
