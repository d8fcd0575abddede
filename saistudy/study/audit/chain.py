"""What holds between runs: stage 1 to stage 2, one data set under one name, tables, figures, the ledger."""

from pathlib import Path

from saistudy.paths import ROOT, results
from saistudy.study import claims, figures, front, prereg, tables
from saistudy.study.audit.recomputed import differences


def parents(records: list[dict]) -> list[str]:
    """Each run of stage 2 starts from weights, tensor and data that the record of its stage 1 holds."""
    by_run, found = {record["run"]: record for record in records}, []
    for record in (r for r in records if r["notebook"] == "stage2"):
        parent = by_run.get(record["parent"]["run"])
        if parent is None:
            found.append(f"{record['run']}: its stage 1, {record['parent']['run']}, has no record")
        else:
            found += [f"{record['run']}: {line}" for line in _inherited(record, parent)]
    return found


def _inherited(record: dict, parent: dict) -> list[str]:
    first = max(parent["stops"], key=lambda stop: stop["patience"])
    seen = {"run": parent["run"], "run_id": parent["run_id"], "sha256": first["sha256"]}
    found = list(differences(seen, record["parent"], "parent"))
    found += differences(parent["conditions"]["imgsz"], record["conditions"]["imgsz"], "conditions.imgsz")
    tested = next(d for d in record["data"]["others"] if d["name"] == parent["data"]["name"])
    return found + list(differences(parent["data"]["fingerprint"], tested["fingerprint"], "fingerprint"))


def data(records: list[dict]) -> list[str]:
    """One name of a data set, one fingerprint; and one rule for all."""
    seen: dict[tuple, tuple] = {}
    found = []
    for record in records:
        negatives = record["params"].get("negatives", True)
        for told in (record["data"], *record["data"]["others"]):
            key = told["name"], negatives if told is record["data"] else True
            first = seen.setdefault(key, (record["run"], told["fingerprint"]))
            if first[1] != told["fingerprint"]:
                found.append(f"{record['run']}: {told['name']} is not what {first[0]} was trained on")
        if record["prereg_sha256"] != prereg.digest():
            found.append(
                f"{record['run']}: the rule of params/prereg.yaml is not the one that it was made under"
            )
    return found


def made(profile: str) -> list[str]:
    """Tables and the frames of figures, generated again, are those that are kept, byte for byte."""
    folder, frame = results(profile), tables.of(profile)
    again = {"table.csv": tables.csv(frame), "table.md": tables.markdown(frame)}
    rule = tables.rule(profile)
    frames = figures.frames(profile, frame, rule["resamples_n"], rule["bootstrap_seed"])
    again |= {f"figures/{name}.csv": figures.csv(one) for name, one in frames.items()}
    found = [
        f"{name} is not what the records give" for name, text in again.items() if _text(folder / name) != text
    ]
    return found


def ledger(settled: list) -> list[str]:
    """claims.csv and claims.md, generated again, are those that are kept, byte for byte."""
    folder = results("demo").parent
    again = claims.texts(settled)
    return [
        f"{name} is not what the checks give" for name, text in again.items() if _text(folder / name) != text
    ]


def page() -> list[str]:
    """The README shows the tables that are kept."""
    shown = front.page()
    return (
        [] if shown == (ROOT / "README.md").read_text(encoding="utf-8") else ["README.md shows other tables"]
    )


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None
