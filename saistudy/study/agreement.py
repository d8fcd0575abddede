"""Whether fresh results lie inside the band of the committed ones: `results/<profile>/expected.json`."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from scipy import stats

from saistudy.paths import PARAMS, ROOT, Refusal, write_json
from saistudy.study.record import read_records

NAME = "expected.json"
SEEDS_MIN = 3  # for a band of one more seed: with two, Student's t is 12.7
COUNTS = ("images_n", "groups_n", "boxes_n")


def path_of(profile: str, root: Path = ROOT) -> Path:
    """The committed band of a profile; a study that writes its results elsewhere is compared with it, too."""
    return root / "results" / profile / NAME


def expected(records: list[dict], tolerance: float) -> dict:
    """The band of AP50 in which a rerun of each run is expected, and in which a further seed of its arm is.

    Args:
        records: of one profile's trainings.
        tolerance: largest difference between two executions of one run that counts as the same.

    Returns:
        tolerance; runs: run, model, subset, counts, written (of the record), ap50, low, high; seeds: a row
        per arm, model and test set with three seeds or more: its mean +- t(.975, n - 1) s sqrt(1 + 1/n),
        where one more seed lies in 95 of 100 cases (Student's prediction interval), and never less than the
        tolerance.
    """
    runs = [_run(record, row, tolerance) for record in records for row in record["metrics"]]
    groups: dict[tuple, list] = {}
    for record in records:
        for row in record["metrics"]:
            groups.setdefault((_arm(record), row["model"], row["subset"]), []).append(row["ap50"])
    seeds = [_seeds(key, values, tolerance) for key, values in sorted(groups.items())]
    return {"tolerance": tolerance, "runs": runs, "seeds": [row for row in seeds if row]}


def _run(record: dict, row: dict, tolerance: float) -> dict:
    band = dict.fromkeys(("low", "high"))
    if row["ap50"] is not None:
        band = {"low": row["ap50"] - tolerance, "high": row["ap50"] + tolerance}
    told = {"run": record["run"], "written": record["written"], "ap50": row["ap50"]}
    return told | {key: row.get(key) for key in ("model", "subset", *COUNTS)} | band


def _arm(record: dict) -> str:
    """A run's name without its seed."""
    return record["run"].rpartition("-s")[0]


def _seeds(key: tuple, values: list, tolerance: float) -> dict | None:
    n = len(values)
    if n < SEEDS_MIN or None in values:
        return None
    half = stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) * np.sqrt(1 + 1 / n)
    mean, half = float(np.mean(values)), max(float(half), tolerance)
    named = dict(zip(("arm", "model", "subset"), key, strict=True))
    return named | {"seeds_n": n, "mean": mean, "low": mean - half, "high": mean + half}


def compare(fresh: list[dict], band: dict) -> pd.DataFrame:
    """AP50 of every run, model and test set beside its band: run, model, subset, low, high, now, inside.

    A run whose counts of images or boxes differ is outside whatever its AP50: it was other data. A seed
    that the band does not know is held to the band of its arm; rows without a band are left out.
    """
    runs = {(row["run"], row["model"], row["subset"]): row for row in band["runs"]}
    arms = {(row["arm"], row["model"], row["subset"]): row for row in band["seeds"]}
    rows = []
    for record in fresh:
        for row in record["metrics"]:
            rest = row["model"], row["subset"]
            told = runs.get((record["run"], *rest)) or arms.get((_arm(record), *rest))
            if told is not None:
                rows.append(_compared(record, row, told))
    return pd.DataFrame(rows, columns=["run", "model", "subset", "low", "high", "now", "inside"])


def _compared(record: dict, row: dict, told: dict) -> dict:
    """One comparison; two missing values agree, one missing value does not."""
    same_data = all(row.get(key) == told[key] for key in COUNTS if key in told)
    bounds = told["low"], told["high"]
    close = row["ap50"] is None if None in bounds else row["ap50"] is not None and _in(row["ap50"], *bounds)
    named = {"run": record["run"], "model": row["model"], "subset": row["subset"]}
    return named | {"low": bounds[0], "high": bounds[1], "now": row["ap50"], "inside": same_data and close}


def _in(value: float, low: float, high: float) -> bool:
    rounding = 1e-12  # low and high are sums
    return low - rounding <= value <= high + rounding


def tolerance_of(profile: str) -> float:
    """Largest difference in AP50 between two executions of one run that counts as the same (study.yaml)."""
    return yaml.safe_load((PARAMS / profile / "study.yaml").read_text())["tolerance"]["ap50"]


def read(profile: str, root: Path = ROOT) -> dict | None:
    """The committed band; None where there is none yet."""
    path = path_of(profile, root)
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def write(profile: str) -> None:
    """Hold the results at hand as what a rerun is expected to give."""
    write_json(path_of(profile), expected(read_records(profile), tolerance_of(profile)))


def sentence(profile: str) -> str:
    """What the comparison says, in a sentence; the rows outside follow it.

    Raises:
        Refusal: a figure lies outside.
    """
    band = read(profile)
    rows = compare(read_records(profile), band or {"runs": [], "seeds": []})
    if rows.empty:
        return (
            f"{profile}: {NAME} holds no band of these runs; `python -m saistudy expect {profile}` makes one."
        )
    outside = rows[~rows["inside"].astype(bool)]
    said = f"{len(rows) - len(outside)} of {len(rows)} AP50 figures lie in the band of {NAME}"
    said += f" (+-{band['tolerance']} of the same run)"
    if outside.empty:
        return f"{profile}: {said}."
    raise Refusal(
        f"{profile}: {said}; outside are {', '.join(outside['run'] + ' ' + outside['model'])}:"
        " compare environment and conditions in both records.\n" + outside.to_string(index=False)
    )
