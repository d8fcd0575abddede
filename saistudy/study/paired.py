"""Paired differences in AP50: one a seed, and their mean on every resample of the test set."""

import numpy as np
import pandas as pd

from saistudy.evaluation import layers, metrics, stats
from saistudy.paths import Refusal
from saistudy.study.comparisons import Weights, metric, refuse_unlike
from saistudy.study.fixed import holds_fixed
from saistudy.study.record import predicted
from saistudy.study.saved import read_frame

# What may differ between an arm and the baseline: what an arm file can hold, and the seed.
ARM = {"arm", "question", "change", "seed", "negatives", "engine", "effective"}
ARM |= {"stage2_arm", "handlings"}
LAYERS = ("differences", "resampled", "groups_n")
SHOWN = ("delta", "delta_low", "delta_high", "holds_fixed", "p", "p_equivalent", "verdict")


class Tested:
    """What the runs of a profile found on their test images; every model is read and matched once."""

    def __init__(self, profile: str, weights: Weights):
        self.profile, self.weights = profile, weights
        self.sets: list[tuple[pd.DataFrame, pd.DataFrame]] = []
        self.of_run, self.resampled = {}, {}

    def images(self, run: str) -> pd.DataFrame:
        """The test images of a run."""
        return self.sets[self._set(run)][0]

    def ap50(self, record: dict, model: str, run: str) -> np.ndarray:
        """AP50 of a model of a record on each resample of the test images of `run`, (R,)."""
        key = (record["run"], model, self._set(run))
        if key not in self.resampled:
            test, boxes = self.sets[key[2]]
            found = predicted(self.profile, record["run"], model, record["conditions"]["imgsz"])
            matches = metrics.match(boxes, _on(test, found), test)
            self.resampled[key] = metrics.ap50_resampled(matches, boxes, test["image"], self.weights(test))
        return self.resampled[key]

    def _set(self, run: str) -> int:
        """Position of a run's test set: runs with the same images and truth share one."""
        if run not in self.of_run:
            images = read_frame(self.profile, run, "images")
            test = images[images["split"] == "test"].reset_index(drop=True)
            mine = test, _on(test, read_frame(self.profile, run, "truth"))
            same = (i for i, other in enumerate(self.sets) if all(map(pd.DataFrame.equals, other, mine)))
            self.of_run[run] = next(same, len(self.sets))
            self.sets += [mine] if self.of_run[run] == len(self.sets) else []
        return self.of_run[run]


def _on(test: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of the test images."""
    return frame[frame["image"].isin(test["image"])].reset_index(drop=True)


def compare(case: dict, base: dict, tested: Tested) -> dict:
    """Paired difference in AP50 to the base: mean over seeds, and its interval over groups of the test set.

    p, p_equivalent and verdict stay None here: they belong to the family. Without enough groups there are no
    bounds. `differences` (a seed), `resampled` (their mean on each resample) and `groups_n` are what `layers`
    takes.
    """
    empty = dict.fromkeys((*SHOWN, *LAYERS))
    if case is base:
        return empty
    refuse_unlike(base["runs"][0], case["runs"][0], ARM)
    pairs, models = pairs_of(case, base), (case["model"], base["model"])
    deltas = [_ap50(mine, models[0]) - _ap50(other, models[1]) for mine, other in pairs]
    groups_n = tested.images(pairs[0][0]["run"])["group"].nunique()
    parts = [_resampled(pair, models, tested) for pair in pairs] if groups_n >= stats.GROUPS_MIN else []
    resampled = np.mean(parts, axis=0) if parts else np.array([])
    low, high = stats.interval(resampled, groups_n)
    seen = {"differences": deltas, "resampled": resampled, "groups_n": groups_n}
    told = {"delta": float(np.mean(deltas)), "delta_low": low, "delta_high": high}
    return empty | seen | told | {"holds_fixed": holds_fixed(case, base, pairs, tested.images)}


def pairs_of(case: dict, base: dict) -> list[tuple[dict, dict]]:
    """Records of both cases with the same seed; of the noise floor the pairs that it names."""
    if "others" in case:
        return list(zip(case["runs"], case["others"], strict=True))
    of_base = {r["params"]["seed"]: r for r in base["runs"]}
    pairs = [(r, of_base[r["params"]["seed"]]) for r in case["runs"] if r["params"]["seed"] in of_base]
    if not pairs:
        raise Refusal(f"arms {case['arm']} and {base['arm']} share no seed: train both with the same seeds.")
    return pairs


def _ap50(record: dict, model: str) -> float:
    """AP50 of a model on the published test images; no value counts as none found, which is an error."""
    return metric(record, model)["ap50"]


def _resampled(pair: tuple[dict, dict], models: tuple[str, str], tested: Tested) -> np.ndarray:
    """Differences in AP50 of a pair on resamples of the test images of its first run, (R,)."""
    mine, base = (tested.ap50(r, model, pair[0]["run"]) for r, model in zip(pair, models, strict=True))
    return mine - base


def judge(family: list[dict], margin: float, alpha: float) -> None:
    """Give each comparison of the family its p, p_equivalent and verdict, over seeds and groups together.

    Both p are Holm-adjusted, each over the whole family: at most alpha of families hold a wrong "better" or
    "worse", and at most alpha a wrong "equivalent" (counted on simulated truth in tests/test_layers.py).
    """
    seen = [[c[key] for key in LAYERS] for c in family]
    p = stats.holm([layers.p_value(*one) for one in seen])
    p_equivalent = stats.holm([layers.p_equivalent(*one, margin) for one in seen])
    for c, one, *adjusted in zip(family, seen, p, p_equivalent, strict=True):
        c["p"], c["p_equivalent"] = map(float, adjusted)
        c["verdict"] = stats.verdict(one[0], layers.interval(*one), margin, alpha, *adjusted)
