"""A study at work: one at a time of a profile, noted as it begins and ends; detached from the terminal."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from saistudy.paths import ROOT, Refusal, write_text
from saistudy.study import locks
from saistudy.study.begun import folder, note, refuse_second, runs_at_work, state, stop_file
from saistudy.training import stopping

LOOK_S = 0.5  # between two looks for a stop
BEGIN_S = 60  # what a detached study may take to begin: it imports little, but disks can be slow
STUCK_S = 120  # see _hurry


def attend(profile: str, command: list[str], log: Path | None) -> int:
    """Run the command that executes a study's runs, then compare and seal; the exit status.

    The lock is passed on to the command: as long as either of them lives, no other study of that profile
    begins, and `status` does not call it ended.

    Raises:
        Refusal: a study of that profile runs already.
    """
    while (held := locks.take(folder(profile) / "lock")) is None:
        refuse_second(profile)
    begun = {"id": log.stem if log else _stamp(), "log": log and str(log)}
    stop = stop_file(profile, begun)
    with _signals(stop):
        note(profile, **begun, **_self(), child=None, ended=None, status=None)
        environment = os.environ | {stopping.PLACE: str(stop)}
        child = subprocess.Popen(command, env=environment, pass_fds=[held], cwd=ROOT)
        note(profile, child=child.pid)
        status = _wait(profile, child, stop) or _conclude(profile)
    note(profile, ended=locks.clock(time.time()), status=status)
    os.close(held)
    if status and stop.exists():
        print(f"study {profile}: stopped as was asked; the same command goes on", flush=True)
    return status


def _stamp() -> str:
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{os.getpid()}"


def _self() -> dict:
    pid, now_s = os.getpid(), time.time()
    who = {"pid": pid, "born": locks.born(pid), "host": os.uname().nodename}
    return who | {"since_s": now_s, "since": locks.clock(now_s)}


@contextmanager
def _signals(stop: Path) -> Iterator[None]:
    """Ctrl-C reaches the command by itself, which answers it; SIGTERM asks it to stop at once."""

    def terminate(*_):
        write_text(stop, stopping.NOW)

    before = signal.signal(signal.SIGINT, lambda *_: None), signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
            signal.signal(number, handler)


def _wait(profile: str, child: subprocess.Popen, stop: Path) -> int:
    """Exit status of the command; where a stop is asked for, Snakemake is told to begin nothing more.

    At SIGTERM it waits for the runs in progress; those see the stop file themselves.
    """
    told_s = None
    while True:
        with suppress(subprocess.TimeoutExpired):
            status = child.wait(LOOK_S)
            return 128 - status if status < 0 else status
        if told_s is None and stop.exists():
            told_s = time.monotonic()
            child.terminate()
        elif told_s is not None:
            _hurry(profile, child, told_s)


def _hurry(profile: str, child: subprocess.Popen, told_s: float) -> None:
    """Kill a Snakemake that hangs though no run is left.

    Its handler of SIGTERM takes a lock that the same thread may hold (9.27.1, job_scheduler.py,
    exit_gracefully): then it would never end.
    """
    if time.monotonic() - told_s > STUCK_S and not runs_at_work(profile):
        child.kill()


def _conclude(profile: str) -> int:
    """What follows the runs: the README and how close the results are, which may disagree; the hashes."""
    python = [sys.executable, "-m", "saistudy"]
    subprocess.run([*python, "compare", "--profile", profile], check=False, cwd=ROOT)
    return subprocess.run([*python, "seal", profile], check=False, cwd=ROOT).returncode


def detach(profile: str, command: list[str]) -> Path:
    """Begin a study in a session of its own, which no closed terminal ends; the path of its log.

    Raises:
        Refusal: one of that profile runs already, or it did not begin.
    """
    refuse_second(profile)
    log = folder(profile) / f"{_stamp()}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, "-m", "saistudy", "study", "--profile", profile, "--log", str(log)]
    with log.open("wb") as console:
        process = subprocess.Popen(
            [*words, "--", *command],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=ROOT,
        )
    _await_begin(profile, process, log)
    return log


def _await_begin(profile: str, process: subprocess.Popen, log: Path) -> None:
    """Return once the process has noted itself."""
    until = time.monotonic() + BEGIN_S
    while time.monotonic() < until and process.poll() is None:
        if (latest := state(profile) or {}).get("pid") == process.pid and latest["child"]:
            return
        time.sleep(0.1)
    if (latest := state(profile) or {}).get("pid") != process.pid or not latest["child"]:
        process.kill()  # later than that it would begin unseen
        said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise Refusal(f"the study did not begin: {said[-1] if said else 'it said nothing'} (log: {log}).")
