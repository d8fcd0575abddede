"""Whether fresh results lie inside the tolerance of the committed ones."""

import json
import subprocess

import pandas as pd
import yaml

from saistudy.paths import PARAMS, ROOT, Refusal
from saistudy.study.record import read_records


def committed(profile: str) -> list[dict]:
    """Records of a profile's trainings in the last commit; empty outside git or where none is committed."""
    folder = f"results/{profile}"
    names = _git("ls-tree", "-r", "--name-only", "HEAD", folder).split()
    paths = [name for name in names if name.endswith("/record.json")]
    records = [json.loads(_git("show", f"HEAD:{path}")) for path in paths]
    return [r for r in records if r["notebook"] in ("stage1", "stage2")]


def _git(*words: str) -> str:
    """Output of git in the project, empty when it fails."""
    told = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True)
    return told.stdout if told.returncode == 0 else ""


def compare(fresh: list[dict], kept: list[dict], tolerance: float) -> pd.DataFrame:
    """AP50 of every run, model and test set that both have: run, model, subset, committed, now, inside.

    A run whose counts of images or boxes differ is outside whatever its AP50: it was other data.
    """
    before = {_key(r, m): m for r in kept for m in r["metrics"]}
    rows = []
    for record in fresh:
        for metric in record["metrics"]:
            old = before.get(_key(record, metric))
            if old is not None:
                rows.append(_row(record, metric, old, tolerance))
    return pd.DataFrame(rows, columns=["run", "model", "subset", "committed", "now", "inside"])


def _key(record: dict, metric: dict) -> tuple:
    return record["run"], metric["model"], metric["subset"]


def _row(record: dict, metric: dict, old: dict, tolerance: float) -> dict:
    """One comparison; two missing values agree, one missing value does not."""
    same_data = all(metric.get(k) == old.get(k) for k in ("images_n", "groups_n", "boxes_n"))
    pair = (old["ap50"], metric["ap50"])
    close = pair[0] == pair[1] if None in pair else abs(pair[0] - pair[1]) <= tolerance
    return {
        "run": record["run"],
        "model": metric["model"],
        "subset": metric["subset"],
        "committed": old["ap50"],
        "now": metric["ap50"],
        "inside": same_data and close,
    }


def tolerance_of(profile: str) -> float:
    """Largest difference in AP50 between two executions of one run that counts as the same (study.yaml)."""
    return yaml.safe_load((PARAMS / profile / "study.yaml").read_text())["tolerance"]["ap50"]


def sentence(profile: str) -> str:
    """What the comparison says, in a sentence; the rows outside follow it.

    Raises:
        Refusal: a figure lies outside.
    """
    tolerance = tolerance_of(profile)
    rows = compare(read_records(profile), committed(profile), tolerance)
    if rows.empty:
        return f"{profile}: the last commit holds no results of this profile to compare with."
    outside = rows[~rows["inside"].astype(bool)]
    said = (
        f"{len(rows) - len(outside)} of {len(rows)} AP50 figures lie within {tolerance} of the committed ones"
    )
    if outside.empty:
        return f"{profile}: {said}."
    raise Refusal(
        f"{profile}: {said}; outside are {', '.join(outside['run'] + ' ' + outside['model'])}:"
        " compare environment and conditions in both records.\n" + outside.to_string(index=False)
    )
