"""A profile's latest study, as it is known on the disk: does it live, which runs has it, what is asked of it?

Below work/<profile>/study/: `lock` is held by the process that attends the study and by Snakemake,
`state.json` says which study is or was the latest and how it ended, `runs.json` which runs it has, and each
start has a log and a stop file of its own, so that what was asked of one never meets another.
"""

import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from saistudy.paths import Refusal, work, write_json, write_text
from saistudy.study import forecast, locks
from saistudy.training import stopping

LOOK_S = 0.5  # between two looks whether it has ended


def folder(profile: str) -> Path:
    """Where the state of a profile's study stands."""
    return work(profile).absolute() / "study"


def holder(profile: str) -> dict | None:
    """Who works on the profile's study: pid, host, since (UTC); None where nobody does."""
    return locks.holder(folder(profile) / "lock")


def state(profile: str) -> dict | None:
    """The latest study of a profile, None before the first.

    id, host, pid and born (`locks.born`) of the process that attends it, child (Snakemake's pid), since (UTC)
    and since_s, log (path or None), ended (UTC) and status, both None until it ended by itself.
    """
    path = folder(profile) / "state.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def note(profile: str, **change) -> None:
    """Lay a change over the state."""
    write_json(folder(profile) / "state.json", (state(profile) or {}) | change)


def stop_file(profile: str, latest: dict) -> Path:
    """What asks the study of a state to stop, once it stands there."""
    return folder(profile) / f"{latest['id']}.stop"


def asked(profile: str, latest: dict) -> str:
    """What was asked of the study of a state: `stopping.EPOCH`, `NOW`, or ""."""
    path = stop_file(profile, latest)
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def note_runs(profile: str, runs: dict[str, forecast.Run]) -> None:
    """Keep which runs a study has, under which identity: the Snakefile says it as it reads the parameters.

    Whoever asks later needs neither the data's place nor the code as it was then.
    """
    identities = {name: run.identity for name, run in runs.items()}
    write_text(folder(profile) / "runs.json", json.dumps(identities, indent=1))


def runs(profile: str) -> dict[str, forecast.Run]:
    """The runs of the latest study in their order, name and identity alone; without one those of a plan.

    Raises:
        Refusal: there is no such profile.
    """
    path = folder(profile) / "runs.json"
    if not path.is_file():
        return forecast.runs(profile)
    identities = json.loads(path.read_text(encoding="utf-8"))
    return {name: forecast.Run(name, "", (), (), (), identity) for name, identity in identities.items()}


def runs_at_work(profile: str) -> dict[str, dict]:
    """Name of each run that a process executes now, and who."""
    held = {path.parent.name: locks.holder(path) for path in sorted(work(profile).glob("*/lock"))}
    return {name: who for name, who in held.items() if who and name != "study"}


def attended(latest: dict) -> bool:
    """Whether the process that attends a study lives, on this machine: that number, begun at that moment."""
    return locks.born(latest["pid"]) == latest["born"]


def orphaned(latest: dict) -> bool:
    """Whether the process that attended a study on this machine is gone; of others nothing is known.

    Machines that share the work folder may have one host name: the boot tells them apart.
    """
    boot = (latest["born"] or "").partition(" ")[0]
    return latest["host"] == os.uname().nodename and boot == locks.boot() and not attended(latest)


def refuse_second(profile: str) -> None:
    """One study of a profile at a time.

    Raises:
        Refusal: one runs.
    """
    if who := holder(profile):
        raise Refusal(
            f"a study of profile {profile} runs already, process {who['pid']} on {who['host']} since"
            f" {who['since']}: wait for its end (python -m saistudy status --profile {profile}), or end it"
            f" with python -m saistudy stop --profile {profile}."
        )


def ask(profile: str, at_once: bool) -> dict:
    """Ask the running study of a profile to stop; its state.

    Where the process that attends it was killed, Snakemake is told directly.

    Raises:
        Refusal: none runs.
    """
    latest = state(profile)
    if not latest or not holder(profile):
        left = [f"run {run} of process {who['pid']}" for run, who in runs_at_work(profile).items()]
        beside = f"{', '.join(left)} is not part of one: kill it by its number" if left else "nothing to stop"
        raise Refusal(f"no study of profile {profile} runs; {beside}.")
    if asked(profile, latest) != stopping.NOW:
        write_text(stop_file(profile, latest), stopping.NOW if at_once else stopping.EPOCH)
    if latest["child"] and orphaned(latest):
        with suppress(ProcessLookupError):
            os.kill(latest["child"], signal.SIGTERM)
    return latest


def await_end(profile: str) -> None:
    """Return once nobody works on the profile's study any more."""
    while holder(profile):
        time.sleep(LOOK_S)
