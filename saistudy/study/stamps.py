"""Which runs are done: a stamp each in the work folder, named by the identity of the run."""

import json
from pathlib import Path

from saistudy.paths import results, work, write_text
from saistudy.study.forecast import Run


def folder(profile: str) -> Path:
    """Where the stamps of finished runs stand: in the git-ignored work folder."""
    return work(profile) / "stamps"


def of(profile: str, run: Run) -> Path:
    """The file that says a run is done: named by its identity."""
    return folder(profile) / f"{run.name}.{run.identity}"


def done(profile: str, run: Run) -> bool:
    """Whether a run is done: its stamp stands, and its folder still holds the record of that very run."""
    try:
        record = json.loads((results(profile) / run.name / "record.json").read_text())
    except (OSError, ValueError):
        return False
    return of(profile, run).exists() and record.get("run_id") == run.identity


def drop_stale(profile: str, runs: dict[str, Run]) -> None:
    """Remove stamps of runs whose results were replaced or removed by hand."""
    for run in runs.values():
        if not done(profile, run):
            of(profile, run).unlink(missing_ok=True)


def write(path: Path) -> None:
    """Say that a run is done, and that no other identity of it is: results hold one run of a name."""
    name = path.name.rpartition(".")[0]
    for old in path.parent.glob(f"{name}.*"):
        old.unlink()
    write_text(path, "")
