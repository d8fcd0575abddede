"""What holds between runs: stage 1 to stage 2, one data set under one name, tables, figures, the ledger."""

import json
from pathlib import Path

import pandas as pd

from saistudy import params
from saistudy.paths import PARAMS, results
from saistudy.study import agreement, claims, comparisons, described, figures, front, prereg, tables
from saistudy.study.audit.recomputed import differences


def parents(records: list[dict]) -> list[str]:
    """Each run of stage 2 starts from weights, tensor and data that the record of its stage 1 holds."""
    by_run, found = {record["run"]: record for record in records}, []
    for record in (r for r in records if r["notebook"] == "stage2"):
        parent = by_run.get(record["parent"]["run"])
        lines = ["its stage 1 has no record"] if parent is None else _inherited(record, parent)
        found += [f"{record['run']}: {line}" for line in lines]
    return found


def _inherited(record: dict, parent: dict) -> list[str]:
    first = max(parent["stops"], key=lambda stop: stop["patience"])
    seen = {"run": parent["run"], "run_id": parent["run_id"], "sha256": first["sha256"]}
    tested = next(d for d in record["data"]["others"] if d["name"] == parent["data"]["name"])
    sides = {
        "parent": (seen, record["parent"]),
        "conditions.imgsz": (parent["conditions"]["imgsz"], record["conditions"]["imgsz"]),
        "data.fingerprint": (parent["data"]["fingerprint"], tested["fingerprint"]),
    }
    return [line for where, pair in sides.items() for line in differences(*pair, where)]


def inputs(records: list[dict]) -> list[str]:
    """One name of a data set has one fingerprint, and all runs were made under the rule that stands."""
    seen: dict[tuple, tuple] = {}
    found = []
    for record in records:
        parts = [(record["params"].get("negatives", True), record["data"])]
        for key in [*parts, *((True, other) for other in record["data"]["others"])]:
            run, first = seen.setdefault((key[0], key[1]["name"]), (record["run"], key[1]["fingerprint"]))
            if first != key[1]["fingerprint"]:
                found.append(f"{record['run']}: {key[1]['name']} is not the data that {run} had")
        if record["prereg_sha256"] != prereg.digest():
            found.append(f"{record['run']}: it was made under another rule than params/prereg.yaml")
    return found


def made(profile: str) -> list[str]:
    """Tables and the frames of figures, generated again, are those that are kept, byte for byte."""
    values = params.read("ablation", [PARAMS / profile / "ablation.yaml"], {})
    frame = tables.of(profile)
    frames = figures.frames(profile, frame, values["resamples_n"], values["bootstrap_seed"])
    again = tables.texts(frame) | {f"figures/{name}.csv": figures.csv(one) for name, one in frames.items()}
    return _unlike(results(profile), again, "the records")


def described_only(profile: str, records: list[dict]) -> list[str]:
    """What a table says from records alone, where the predictions behind its differences are not at hand."""
    kept = pd.read_csv(results(profile) / "table.csv")
    found = []
    for case in comparisons.cases(records, prereg.read().baseline):
        told = described.columns(case)
        keys = [
            key for key in ("stage", "arm", "stage2_arm", "handling", "patience") if told[key] is not None
        ]
        row = kept[(kept[keys] == pd.Series({key: told[key] for key in keys})).all(axis=1)]
        for key in ("ap50", "ap50_sd", "ap50_95", "ap_small", "train_h", "images_per_s"):
            if len(row) != 1 or abs((told[key] or 0) - row[key].fillna(0).iloc[0]) > 1e-6:
                found.append(
                    f"table.csv: {key} of {told['arm']}, patience {told['patience']}, is {told[key]}"
                )
    return found


def ledger(settled: list) -> list[str]:
    """claims.csv and claims.md, generated again, are those that are kept, byte for byte."""
    return _unlike(results("demo").parent, claims.texts(settled), "the checks")


def front_page() -> list[str]:
    """The README shows the tables that are kept."""
    return (
        [] if front.page() == front.README.read_text(encoding="utf-8") else ["README.md shows other tables"]
    )


def band(profile: str, records: list[dict], told: dict | None) -> list[str]:
    """expected.json is the band of these records, or, where they were made anew, they lie in it."""
    if told is None:
        return [f"{agreement.NAME} is not there: python -m saistudy expect {profile}"]
    written = {row["run"]: row["written"] for row in told["runs"]}
    if written == {record["run"]: record["written"] for record in records}:
        again = json.loads(json.dumps(agreement.expected(records, agreement.tolerance_of(profile))))
        return [f"{agreement.NAME}: {line}" for line in differences(again, told)]
    rows = agreement.compare(records, told)
    outside = rows.loc[~rows["inside"].astype(bool), "run"].unique()
    return [f"{run} lies outside the band of {agreement.NAME}" for run in outside]


def _unlike(folder: Path, again: dict[str, str], source: str) -> list[str]:
    kept = {name: (folder / name).read_text(encoding="utf-8") for name in again if (folder / name).is_file()}
    return [f"{name} is not what {source} give" for name, text in again.items() if kept.get(name) != text]
