"""How far a profile's study is: every run done, at work, stopped, failed, killed or waiting."""

import csv
import json
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import yaml

from saistudy.paths import Refusal, results, work
from saistudy.study import begun, forecast, stamps
from saistudy.study.kernel import GRACE_S
from saistudy.study.run import Failure
from saistudy.study.saved import shown
from saistudy.training.stopping import NOW
from saistudy.wording import clock

STATES = ["running", "failed", "killed", "stopped", "waiting", "done"]


@dataclass(frozen=True)
class Epochs:
    """How far a training is: its folder's name, epochs kept and asked for, seconds an epoch (None before the
    first), seconds since the latest was kept, and whether it is finished."""

    name: str
    kept_n: int
    asked_n: int
    epoch_s: float | None
    since_s: float
    finished: bool

    @property
    def trained(self) -> bool:
        """Whether no epoch of it is left."""
        return self.finished or self.kept_n >= self.asked_n

    @property
    def to_go_s(self) -> float:
        """Seconds until all epochs are trained at that pace; it may stop earlier."""
        return max(0.0, (self.asked_n - self.kept_n) * (self.epoch_s or 0) - self.since_s)

    @property
    def epoch_to_go_s(self) -> float:
        """Seconds until the epoch in progress is kept."""
        return max(0.0, (self.epoch_s or 0) - self.since_s)


def epochs(profile: str, run: str) -> Epochs | None:
    """The latest training in a run's work folder, None where there is none."""
    tried = (work(profile) / run).glob("*/attempts.json")
    latest = max(tried, key=lambda path: path.stat().st_mtime, default=None)
    if latest is None or not (latest.parent / "args.yaml").is_file():
        return None
    asked_n = yaml.safe_load((latest.parent / "args.yaml").read_text())["epochs"]
    table = latest.parent / "results.csv"
    rows = list(csv.DictReader(table.read_text().splitlines())) if table.is_file() else []
    epoch_s = float(rows[-1]["time"]) / len(rows) if rows else None
    since_s = time.time() - max(path.stat().st_mtime for path in (latest, table) if path.is_file())
    done = (latest.parent / "fit.json").is_file()
    return Epochs(latest.parent.name, len(rows), asked_n, epoch_s, since_s, done)


def at_work(profile: str, run: str) -> str:
    """What a run that is being executed does: its epoch and the time to go, as far as it trains."""
    seen = epochs(profile, run)
    if seen is None:
        return "at work, no training yet"
    name = "" if seen.name == "train" else f"{seen.name}, "
    if seen.trained:
        return f"{name}{seen.kept_n} epochs trained, its model is tested"
    pace = f", at most {clock(seen.to_go_s)} to go" if seen.epoch_s else ""
    return f"{name}epoch {seen.kept_n + 1} of {seen.asked_n}{pace}"


def of_run(profile: str, run: forecast.Run, held: dict, said: dict) -> tuple[str, str]:
    """State of a run (one of `STATES`) and a note: the epoch, the sentence of a failure, what is kept.

    Args:
        held: `begun.runs_at_work`; said: run to its last line in the log.
    """
    if run.name in held:
        last = f" | {said[run.name]}" if said.get(run.name) else ""
        return "running", at_work(profile, run.name) + last
    if stamps.done(profile, run):
        return "done", ""
    seen = epochs(profile, run.name)
    kept = f"{seen.name}: {seen.kept_n} of {seen.asked_n} epochs kept" if seen else "nothing kept"
    if list((work(profile) / run.name).glob("*.running.ipynb")):
        return "killed", f"without a word; {kept}"
    failed = results(profile) / run.name / "run.failed.ipynb"
    if not failed.is_file():
        return "waiting", ""
    sentence, status = _failure(failed)
    if status == Failure.ASKED or ": stopped by " in sentence:  # not by its status: 138 has two meanings
        return "stopped", kept
    return "failed", f"{sentence}; see {shown(failed)}"


def _failure(path: Path) -> tuple[str, int]:
    """Sentence and exit status that a failed notebook holds."""
    with suppress(ValueError, KeyError, OSError):
        told = json.loads(path.read_text(encoding="utf-8"))["metadata"]["failure"]
        return told["sentence"], told["status"]
    return "it did not reach its end", 1


def rows(profile: str) -> list[tuple[str, str, str]]:
    """Run, state and note of every run of a profile's latest study.

    Raises:
        Refusal: there is no such profile.
    """
    held, said = begun.runs_at_work(profile), last_lines((begun.state(profile) or {}).get("log"))
    found = [(name, *of_run(profile, run, held, said)) for name, run in begun.runs(profile).items()]
    return sorted(found, key=lambda row: STATES.index(row[1]))


def last_lines(log: str | None) -> dict[str, str]:
    """Run to the latest line that it said in a log, which begins with its name in brackets."""
    lines = Path(log).read_text(encoding="utf-8", errors="replace").splitlines() if log else []
    parts = (line[1:].split("] ", 1) for line in lines if line.startswith("[") and "] " in line)
    return dict(parts)


def sentences(profile: str) -> str:
    """The study and its runs: a line each for what runs, failed or was cut off, one for the others.

    Raises:
        Refusal: there is no such profile.
    """
    forecast.study(profile)
    lines = [study(profile)]
    try:
        found = rows(profile)
    except Refusal as refusal:  # none was begun, and a plan would need the data
        return f"{lines[0]}, and what it would run cannot be told: {refusal}"
    for state in STATES:
        mine = [(name, note) for name, kind, note in found if kind == state]
        if state in ("waiting", "done") and mine:
            lines.append(f"{state:<8} {len(mine)}: {', '.join(name for name, _ in mine)}")
        elif mine:
            lines += [f"{state:<8} {name}: {note}" for name, note in mine]
    return "\n".join(lines)


def study(profile: str) -> str:
    """Whether a study of a profile runs, since when, or how the latest one ended."""
    latest, who = begun.state(profile), begun.holder(profile)
    if latest is None:
        return f"study {profile}: none was begun here with make study"
    log = f"; log {shown(Path(latest['log']))}" if latest["log"] else ", in a terminal"
    if who:
        return f"study {profile}: {_going(profile, latest)}{log}"
    if latest["ended"] is None:
        return (
            f"study {profile}: killed, or the machine went down: process {latest['pid']}, begun"
            f" {latest['since']}, is gone and noted no end; the same make study goes on{log}"
        )
    how = f"ended with exit status {latest['status']}"
    if not latest["status"]:
        how = "finished"
    elif begun.asked(profile, latest):
        how = "stopped as was asked, the same make study goes on"
    return f"study {profile}: {how}; ended {latest['ended']}, begun {latest['since']}{log}"


def _going(profile: str, latest: dict) -> str:
    """What there is to say of a study whose lock is held."""
    ago = clock(time.time() - latest["since_s"])
    told = {"epoch": "stopping with the epoch", "now": "stopping at once"}
    text = f"{told.get(begun.asked(profile, latest), 'running')} since {latest['since']} ({ago} ago)"
    if begun.orphaned(latest):
        return f"process {latest['pid']}, which attended it, was killed; what it began goes on, {text}"
    return f"{text}, process {latest['pid']} on {latest['host']}"


def stopping(profile: str) -> list[str]:
    """What a stop that was asked for waits for: a headline, and a line for each run at work."""
    if begun.asked(profile, begun.state(profile)) == NOW:
        return [
            f"study {profile} stops at once: epochs in progress are dropped, a cell has {GRACE_S} s to end"
        ]
    return [f"study {profile} stops with the epoch in progress and waits for", *_waits_for(profile)]


def _waits_for(profile: str) -> list[str]:
    found = []
    for run in begun.runs_at_work(profile):
        seen = epochs(profile, run)
        if seen is None or seen.trained:
            found.append(f"{run}: trains nothing now, it goes on to its end or to its next training")
        elif seen.epoch_s is None:
            found.append(f"{run}: the first of {seen.asked_n} epochs, of unknown length")
        else:
            pace = f"an epoch takes about {seen.epoch_s:.0f} s, {seen.epoch_to_go_s:.0f} s of them are left"
            found.append(f"{run}: epoch {seen.kept_n + 1} of {seen.asked_n}; {pace}")
    return [f"  {line}" for line in found] or ["  Snakemake alone: no run is at work"]
