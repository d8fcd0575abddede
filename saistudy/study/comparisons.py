"""What is compared with what, and how sure one may be: cases of a profile, their paired differences."""

import numpy as np
import pandas as pd

from saistudy.evaluation import score, stats
from saistudy.paths import Refusal
from saistudy.study.record import read_frame

CUT = ", cut to "


def longest(record: dict) -> int:
    """The patience that a run was trained with."""
    return max(record["params"]["patiences"])


def metric(record: dict, model: str, subset: str = score.PUBLISHED) -> dict:
    """The metrics row of one model on one set of test images."""
    return next(m for m in record["metrics"] if m["model"] == model and m["subset"] == subset)


def experiment(record: dict) -> str:
    """The run's arm; where its size was cut because memory ran out it is another experiment, and named so."""
    rows = [row for attempts in record.get("attempts", {}).values() for row in attempts]
    if not any(row["step"] and row["step"]["key"] == "imgsz" for row in rows):
        return record["params"]["arm"]
    height, width = record["conditions"]["imgsz"]
    return f"{record['params']['arm']}{CUT}{height}x{width}"


def cases(records: list[dict], baseline: str) -> list[dict]:
    """What the table has a row for: arm x patience of stage 1, arm x class handling of stage 2.

    Each case holds its records in the order of seeds and the model that it reads from each. The baseline
    comes first, the other arms by the pixels of their tensor.
    """
    found = []
    for arm in _arms(records, "stage1", baseline):
        runs = _of(records, "stage1", arm)
        for p in sorted(runs[0]["params"]["patiences"], reverse=True):
            found.append({"stage": 1, "arm": arm, "patience": p, "model": f"patience-{p}", "runs": runs})
    for arm in _arms(records, "stage2", baseline):
        runs = _of(records, "stage2", arm)
        for handling in runs[0]["params"]["handlings"]:
            p = longest(runs[0])
            model = f"{handling}-patience-{p}"
            found.append(
                {
                    "stage": 2,
                    "arm": arm,
                    "patience": p,
                    "handling": handling,
                    "model": model,
                    "runs": runs,
                }
            )
    return found


def _arms(records: list[dict], notebook: str, baseline: str) -> list[str]:
    """Arms of a notebook in the order of the table."""
    pixels = {
        experiment(r): int(np.prod(r["conditions"]["imgsz"])) for r in records if r["notebook"] == notebook
    }
    return sorted(pixels, key=lambda arm: (arm != baseline, pixels[arm], arm))


def _of(records: list[dict], notebook: str, arm: str) -> list[dict]:
    """Records of one arm in the order of their seeds, alike in everything but the seed."""
    runs = [r for r in records if r["notebook"] == notebook and experiment(r) == arm]
    for run in runs[1:]:
        _refuse_unlike(runs[0], run, {"seed"})
    _refuse_one_stream(runs)
    return sorted(runs, key=lambda r: r["params"]["seed"])


def _refuse_one_stream(runs: list[dict]) -> None:
    """Raise Refusal where two seeds began with the same batch: such runs are no replicates of each other.

    Below Ultralytics 8.4.135 `seed` did not reach the loader (pull request 25815), and nobody could see it.
    """
    seen = {}
    for run in runs:
        for prefix, told in run.get("telemetry", {}).items():
            other = seen.setdefault((prefix, told["first_batch"]), run)
            if other is not run and told["first_batch"]:
                raise Refusal(
                    f"{other['run']} and {run['run']} began with the same batch under two seeds: the seed did"
                    " not reach the data loader, so look at the Ultralytics version of these records."
                )


def _refuse_unlike(one: dict, other: dict, free: set[str]) -> None:
    """Raise Refusal where two runs differ in data, or in a parameter that is not free to differ."""
    unlike = [k for k in one["params"] if k not in free and one["params"][k] != other["params"][k]]
    if "negatives" not in free and one["data"]["fingerprint"] != other["data"]["fingerprint"]:
        unlike.append("data")
    if unlike:
        raise Refusal(
            f"{one['run']} and {other['run']} differ in {', '.join(unlike)}, which no comparison may: execute"
            " the one that is out of date again (make study does)."
        )


def base_of(case: dict, found: list[dict], baseline: str) -> dict:
    """The case that a case is compared with."""
    if case["stage"] == 2:
        return next(c for c in found if c["stage"] == 2 and c["arm"] == case["arm"])
    for other in found:  # the longest patience comes first
        if other["stage"] == 1 and other["arm"] == baseline:
            return other
    raise Refusal(f"there is no record of the baseline arm {baseline}: run it, or name another baseline.")


def confirmatory(case: dict, base: dict, baseline: str) -> bool:
    """Whether a comparison belongs to the preregistered family (params/prereg.yaml).

    Every arm at its longest patience, the baseline at its shorter ones, and the class handlings of
    stage 2. Patience of other arms, the arm as-printed (it changes several values) and runs whose size
    was cut are shown without a verdict: with eight seeds the rule can be met by six comparisons,
    6 x 2 / 2^8 = .047, and not by more.
    """
    if case is base or case["arm"] == "as-printed" or CUT in case["arm"]:
        return False
    return case["stage"] == 2 or case["arm"] == baseline or case["patience"] == base["patience"]


class Weights:
    """Bootstrap weights of a set of test images, drawn once and shared by every comparison."""

    def __init__(self, resamples_n: int, seed: int):
        self.resamples_n, self.seed, self.drawn = resamples_n, seed, {}

    def __call__(self, images: pd.DataFrame) -> np.ndarray | None:
        """(R, images_n) weights; None where there are too few groups for an interval."""
        key = tuple(images["image"])
        if images["group"].nunique() < stats.GROUPS_MIN:
            return None
        if key not in self.drawn:
            rng = np.random.default_rng(self.seed)
            self.drawn[key] = stats.group_bootstrap_weights(images["group"], self.resamples_n, rng)
        return self.drawn[key]


# What may differ between an arm and the baseline: what an arm file can hold, and the seed.
ARM = {"arm", "question", "change", "seed", "negatives", "engine", "effective"}


def compare(case: dict, base: dict, profile: str, weights: Weights) -> dict:
    """Paired difference in AP50 to the base: mean over seeds, and its interval over groups of the test set.

    p and verdict stay None here: they belong to the family. Without enough groups there are no bounds.
    """
    empty = dict.fromkeys(("delta", "delta_low", "delta_high", "p", "verdict", "differences"))
    if case is base:
        return empty
    _refuse_unlike(base["runs"][0], case["runs"][0], ARM)
    pairs = _pairs(case, base)
    deltas = [_ap50(m, case["model"]) - _ap50(b, base["model"]) for m, b in pairs]
    resampled = [_resampled(m, case["model"], b, base["model"], profile, weights) for m, b in pairs]
    enough = resampled and resampled[0] is not None
    low, high = stats.interval(np.mean(resampled, axis=0)) if enough else (None, None)
    delta = float(np.mean(deltas))
    return empty | {"delta": delta, "delta_low": low, "delta_high": high, "differences": deltas}


def _pairs(case: dict, base: dict) -> list[tuple[dict, dict]]:
    """Records of both cases with the same seed."""
    of_base = {r["params"]["seed"]: r for r in base["runs"]}
    pairs = [(r, of_base[r["params"]["seed"]]) for r in case["runs"] if r["params"]["seed"] in of_base]
    if not pairs:
        raise Refusal(f"arms {case['arm']} and {base['arm']} share no seed: train both with the same seeds.")
    return pairs


def _ap50(record: dict, model: str) -> float:
    """AP50 of a model on the published test images; no value counts as none found, which is an error."""
    return metric(record, model)["ap50"]


def _resampled(mine: dict, model: str, base: dict, base_model: str, profile: str, weights: Weights):
    """Differences in AP50 on resamples of the test images, (R,), or None below GROUPS_MIN groups."""
    images = read_frame(profile, mine["run"], "images")
    test = images[images["split"] == "test"].reset_index(drop=True)
    drawn = weights(test)
    if drawn is None:
        return None
    frames = _predicted(profile, mine["run"], model), _predicted(profile, base["run"], base_model)
    return score.differences(*frames, read_frame(profile, mine["run"], "truth"), test, drawn)


def _predicted(profile: str, run: str, model: str) -> pd.DataFrame:
    """Predictions of one model of a run."""
    frame = read_frame(profile, run, "predictions")
    return frame[frame["model"] == model]


def verdict(compared: dict, margin: float, alpha: float) -> str:
    """The verdict of a comparison of the family.

    Both layers of variance must agree: the interval is the wider hull of the one over groups and the one
    over seeds, so a difference that only one of them resolves stays unresolved.
    """
    _, low, high = stats.seed_interval(compared["differences"])
    bounds = [(low, high), (compared["delta_low"], compared["delta_high"])]
    known = None not in [b for pair in bounds for b in pair]
    hull = (min(b[0] for b in bounds), max(b[1] for b in bounds)) if known else (None, None)
    return stats.verdict(compared["differences"], hull, margin, alpha, compared["p"])
