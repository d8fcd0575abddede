"""Does a switch cost accuracy? Paired differences over seeds and test images, beside its speed."""

import numpy as np
import pandas as pd

from saistudy.evaluation import layers, stats
from saistudy.study.bench import spread

BASE = "base"
UNTAUGHT = "the base learnt nothing"


def judge(lessons: list[dict], margin: float, chance: float, resamples_n: int, seed: int) -> list[dict]:
    """A row per switch: what its accuracy is against the base, paired by seed and by test image.

    switch, accuracies (one a seed), differences, difference, low, high (95 %, `layers.interval` over seeds
    and test images together), word, speed (ratios to the base, one a seed), largest_norms, note.

    Args:
        lessons: rows of `lessons.teach`, or {switch, seed, note} where a training could not be.
        margin: the loss of accuracy that matters, a fraction, set before.
        chance: accuracy of guessing; where the base is not above it, nothing is decided.
    """
    taught = {(row["switch"], row["seed"]): row for row in lessons}
    seeds = sorted({row["seed"] for row in lessons})
    images_n = len(taught[BASE, seeds[0]]["correct"])
    images = [str(i) for i in range(images_n)]  # drawn apart from one another: each is its own group
    weights = stats.group_bootstrap_weights(images, resamples_n, np.random.default_rng(seed))
    switches = [name for name in dict.fromkeys(row["switch"] for row in lessons) if name != BASE]
    judged = [_judged(name, seeds, taught, weights, margin) for name in switches]
    if not learnt([taught[BASE, s]["accuracy"] for s in seeds], images_n, chance):
        judged = [
            row | ({"word": "unresolved", "note": UNTAUGHT} if not row["note"] else {}) for row in judged
        ]
    return judged


def learnt(accuracies: list[float], images_n: int, chance: float) -> bool:
    """Whether every accuracy lies above what guessing reaches in 97.5 % of test sets of that size.

    chance + 1.96 sqrt(chance (1 - chance) / n), the normal approximation of the binomial.
    """
    return min(accuracies) > chance + 1.96 * (chance * (1 - chance) / images_n) ** 0.5


def _judged(name: str, seeds: list[int], taught: dict, weights: np.ndarray, margin: float) -> dict:
    mine, base = [taught[name, s] for s in seeds], [taught[BASE, s] for s in seeds]
    notes = "; ".join(dict.fromkeys(row["note"] for row in mine if row.get("note")))
    if notes:
        empty = {"accuracies": [], "differences": [], "speed": [], "largest_norms": []}
        bounds = dict.fromkeys(("difference", "low", "high"))
        return {"switch": name, **empty, **bounds, "word": "not measured", "note": notes}
    apart = np.mean(
        [m["correct"].astype(int) - b["correct"] for m, b in zip(mine, base, strict=True)], axis=0
    )
    resampled = weights @ apart / len(apart)
    differences = [m["accuracy"] - b["accuracy"] for m, b in zip(mine, base, strict=True)]
    difference, low, high = layers.interval(differences, resampled, len(apart))
    return {
        "switch": name,
        "accuracies": [row["accuracy"] for row in mine],
        "differences": differences,
        "difference": difference,
        "low": low,
        "high": high,
        "word": verdict(low, high, margin),
        "speed": [m["images_per_s"] / b["images_per_s"] for m, b in zip(mine, base, strict=True)],
        "largest_norms": [row["largest_norm"] for row in mine],
        "note": "",
    }


def verdict(low: float | None, high: float | None, margin: float) -> str:
    """The rule: gain (interval above 0), no loss (above -margin), loss (below 0), else unresolved."""
    if low is None or high is None:
        return "unresolved"
    if low > 0:
        return "gain"
    if low > -margin:
        return "no loss"
    return "loss" if high < 0 else "unresolved"


def table(rows: list[dict]) -> pd.DataFrame:
    """What `judge` found, a row per switch; accuracy in percent points."""
    found = {}
    for row in rows:
        bounds = "-"
        if row["low"] is not None:
            bounds = f"{100 * row['difference']:+.1f} [{100 * row['low']:+.1f}, {100 * row['high']:+.1f}]"
        found[row["switch"]] = {
            "accuracy": spread(row["accuracies"]),
            "difference to the base, points [95 %]": bounds,
            "by the rule": row["word"],
            "speed, ratio": spread(row["speed"]),
            "largest gradient norm": spread([norm for norm in row["largest_norms"] if norm is not None]),
            "note": row["note"],
        }
    return pd.DataFrame.from_dict(found, orient="index")


def by_chance(rows: list[dict], level: float = 0.95) -> float:
    """How many of the measured switches are expected to have an interval wholly above their true difference.

    Each misses on that side in (1 - level) / 2 of trainings; nothing is adjusted for how many there are.
    """
    return sum(bool(row["differences"]) for row in rows) * (1 - level) / 2


def recorded(lessons: list[dict]) -> list[dict]:
    """The trainings for a record, test images told right as a text of 0 and 1."""
    return [
        row | {"correct": "".join(str(int(c)) for c in row["correct"])} if "correct" in row else row
        for row in lessons
    ]
