"""What is compared with what: the cases of a profile, their bases, and the family of the rule."""

from itertools import product

import numpy as np
import pandas as pd

from saistudy.evaluation import score, stats
from saistudy.paths import Refusal
from saistudy.study.forecast import AS_MEANT
from saistudy.study.prereg import LONGEST, NAMED, Comparison, Rule
from saistudy.study.record import model_name

CUT, OTHER_SEEDS = ", cut to ", ", other seeds"
NOISE = "the same configuration, other seeds: the noise floor"


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
    comes first, the other arms by the pixels of their tensor. Of stage 2 the named class, as-meant, has a row
    for each patience, everything else one at its longest.
    """
    found = []
    for arm in _arms(records, "stage1", baseline):
        runs = _of(records, "stage1", arm)
        found += [_case(runs, p, {"stage": 1, "arm": arm}) for p in _falling(runs)]
    for arm, second in product(_arms(records, "stage2", baseline), _stage2_arms(records)):
        runs = _of(records, "stage2", arm, second)
        for handling in runs[0]["params"]["handlings"] if runs else []:
            told = {"stage": 2, "arm": arm, "stage2_arm": second, "handling": handling}
            every = (second, handling) == (AS_MEANT, NAMED)
            found += [_case(runs, p, told) for p in _falling(runs)[: None if every else 1]]
    return found


def _falling(runs: list[dict]) -> list[int]:
    """The patiences of an arm's runs, the longest first."""
    return sorted(runs[0]["params"]["patiences"], reverse=True)


def _case(runs: list[dict], patience: int, told: dict) -> dict:
    """A case: `told`, its patience and all that its runs have, its runs, and the model that it reads."""
    model = model_name(told.get("handling", ""), {"patience": patience})
    return told | {"patience": patience, "patiences": _falling(runs), "model": model, "runs": runs}


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
        refuse_unlike(runs[0], run, {"seed"})
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


def refuse_unlike(one: dict, other: dict, free: set[str]) -> None:
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
        if mine == (arm, AS_MEANT, NAMED):  # the longest patience comes first
            return other
    raise Refusal(
        f"there is no record of stage 2 from {arm} that is {AS_MEANT} with the handling named, which its rows"
        " are compared with: run notebooks/stage2.ipynb with params/<profile>/stage2.yaml."
    )


def confirmatory(case: dict, base: dict, rule: Rule) -> bool:
    """Whether a comparison belongs to the preregistered family (params/prereg.yaml).

    Stage 2 as-meant only. A run whose size was cut has another name than its arm, and so is in no family.
    """
    if case is base or case.get("stage2_arm", AS_MEANT) != AS_MEANT:
        return False
    mine = (case["stage"], case["arm"], case.get("handling"))
    members = [c for c in rule.family if (c.stage, c.arm, c.handling) == mine]
    return any(_at(case, base, c) for c in members)


def _at(case: dict, base: dict, member: Comparison) -> bool:
    """Whether a case stands at the patience of a member of the family: its base's, or the shortest."""
    if member.patience == LONGEST:
        return case["patience"] == base["patience"]
    return case["patience"] == min(case["patiences"]) < base["patience"]


def noise_floor(base: dict) -> list[dict]:
    """The baseline against itself: every second seed against the one before it, no seed in two pairs.

    What such a row shows is what seeds alone do, at the same tensor, schedule and patience; an arm whose
    difference is no larger shows nothing. Empty below two seeds. `others` are the runs that `runs` are
    compared with, one by one.
    """
    first, second = base["runs"][::2], base["runs"][1::2]
    if not second:
        return []
    named = {"arm": f"{base['arm']}{OTHER_SEEDS}", "question": NOISE}
    return [base | named | {"runs": second, "others": first[: len(second)]}]


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
