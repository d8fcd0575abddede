"""What is compared with what, and how sure one may be: cases of a profile, their paired differences."""

from itertools import product

import numpy as np
import pandas as pd

from saistudy.evaluation import layers, score, stats
from saistudy.paths import Refusal
from saistudy.study.forecast import AS_MEANT
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


def stage2_arm(record: dict) -> str:
    """The arm of a run of stage 2; records from before there were several are as-meant."""
    return record["params"].get("stage2_arm", AS_MEANT)


def cases(records: list[dict], baseline: str) -> list[dict]:
    """What the table has a row for: arm x patience of stage 1, arm x arm of stage 2 x class handling.

    Each case holds its records in the order of seeds and the model that it reads from each. The baseline
    comes first, the other arms by the pixels of their tensor.
    """
    found = []
    for arm in _arms(records, "stage1", baseline):
        runs = _of(records, "stage1", arm)
        for p in sorted(runs[0]["params"]["patiences"], reverse=True):
            found.append({"stage": 1, "arm": arm, "patience": p, "model": f"patience-{p}", "runs": runs})
    for arm, second in product(_arms(records, "stage2", baseline), _stage2_arms(records)):
        runs = _of(records, "stage2", arm, second)
        for handling in runs[0]["params"]["handlings"] if runs else []:
            p = longest(runs[0])
            case = {"stage": 2, "arm": arm, "stage2_arm": second, "patience": p, "handling": handling}
            found.append(case | {"model": f"{handling}-patience-{p}", "runs": runs})
    return found


def _arms(records: list[dict], notebook: str, baseline: str) -> list[str]:
    """Arms of a notebook in the order of the table."""
    pixels = {
        experiment(r): int(np.prod(r["conditions"]["imgsz"])) for r in records if r["notebook"] == notebook
    }
    return sorted(pixels, key=lambda arm: (arm != baseline, pixels[arm], arm))


def _stage2_arms(records: list[dict]) -> list[str]:
    """Arms of stage 2 in the order of the table: as-meant, then by name."""
    found = {stage2_arm(r) for r in records if r["notebook"] == "stage2"}
    return sorted(found, key=lambda arm: (arm != AS_MEANT, arm))


def _of(records: list[dict], notebook: str, arm: str, second: str = AS_MEANT) -> list[dict]:
    """Records of one arm (and arm of stage 2) in the order of their seeds, alike in all but the seed."""
    runs = [r for r in records if r["notebook"] == notebook and experiment(r) == arm]
    runs = [r for r in runs if stage2_arm(r) == second]
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
    keys = one["params"].keys() | other["params"].keys()
    unlike = sorted(k for k in keys - free if one["params"].get(k) != other["params"].get(k))
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
        return _named(case["arm"], found)
    for other in found:  # the longest patience comes first
        if other["stage"] == 1 and other["arm"] == baseline:
            return other
    raise Refusal(f"there is no record of the baseline arm {baseline}: run it, or name another baseline.")


def _named(arm: str, found: list[dict]) -> dict:
    """What every row of stage 2 from an arm is compared with: the named class, as-meant."""
    for other in found:
        mine = (other["arm"], other.get("stage2_arm"), other.get("handling"))
        if mine == (arm, AS_MEANT, "named"):
            return other
    raise Refusal(
        f"there is no record of stage 2 from {arm} that is {AS_MEANT} with the handling named, which its rows"
        " are compared with: run notebooks/stage2.ipynb with params/<profile>/stage2.yaml."
    )


def confirmatory(case: dict, base: dict, baseline: str) -> bool:
    """Whether a comparison belongs to the preregistered family (params/prereg.yaml).

    Every arm at its longest patience, the baseline at its shorter ones, and in stage 2 single_cls against
    named. Patience of other arms, the arm as-printed (it changes several values), the joint pool, other arms
    of stage 2 and runs whose size was cut are shown without a verdict: with eight seeds the rule can be met
    by six comparisons, 6 x 2 / 2^8 = .047, and not by more.
    """
    if case is base or case["arm"] == "as-printed" or CUT in case["arm"]:
        return False
    if case["stage"] == 2:
        return case["stage2_arm"] == AS_MEANT and case["handling"] == "single_cls"
    return case["arm"] == baseline or case["patience"] == base["patience"]


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
ARM |= {"stage2_arm", "handlings"}
LAYERS = ("differences", "resampled", "groups_n")


def compare(case: dict, base: dict, profile: str, weights: Weights) -> dict:
    """Paired difference in AP50 to the base: mean over seeds, and its interval over groups of the test set.

    p and verdict stay None here: they belong to the family. Without enough groups there are no bounds.
    `differences` (a seed), `resampled` (their mean on each resample) and `groups_n` are what `layers` takes.
    """
    empty = dict.fromkeys(("delta", "delta_low", "delta_high", "p", "verdict", *LAYERS))
    if case is base:
        return empty
    _refuse_unlike(base["runs"][0], case["runs"][0], ARM)
    pairs = _pairs(case, base)
    deltas = [_ap50(m, case["model"]) - _ap50(b, base["model"]) for m, b in pairs]
    groups_n = _test(profile, pairs[0][0]["run"])["group"].nunique()
    parts = [_resampled(m, case["model"], b, base["model"], profile, weights) for m, b in pairs]
    resampled = np.mean(parts, axis=0) if groups_n >= stats.GROUPS_MIN else np.array([])
    low, high = stats.interval(resampled, groups_n)
    seen = {"differences": deltas, "resampled": resampled, "groups_n": groups_n}
    return empty | seen | {"delta": float(np.mean(deltas)), "delta_low": low, "delta_high": high}


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
    test = _test(profile, mine["run"])
    drawn = weights(test)
    if drawn is None:
        return None
    frames = _predicted(profile, mine["run"], model), _predicted(profile, base["run"], base_model)
    return score.differences(*frames, read_frame(profile, mine["run"], "truth"), test, drawn)


def _test(profile: str, run: str) -> pd.DataFrame:
    """The test images of a run."""
    images = read_frame(profile, run, "images")
    return images[images["split"] == "test"].reset_index(drop=True)


def _predicted(profile: str, run: str, model: str) -> pd.DataFrame:
    """Predictions of one model of a run."""
    frame = read_frame(profile, run, "predictions")
    return frame[frame["model"] == model]


def verdict(compared: dict, margin: float, alpha: float) -> str:
    """The verdict of a comparison of the family, over seeds and groups together (`layers`)."""
    together = layers.interval(*(compared[key] for key in LAYERS))
    return stats.verdict(compared["differences"], together, margin, alpha, compared["p"])


def p_value(compared: dict) -> float:
    """The p of a comparison, over seeds and groups together, before Holm's adjustment."""
    return layers.p_value(*(compared[key] for key in LAYERS))
