"""Who is at work: a file that a process holds, and that is free again however the process ends.

The kernel drops the lock (flock) of a dead process, so neither kill -9 nor a reboot nor another process
that got the same number can look like work in progress.
"""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from saistudy.paths import Refusal

TRIES_N, PAUSE_S = 5, 0.1  # `holder` takes the lock itself for a moment


def take(path: Path) -> int | None:
    """Descriptor of a file that this process holds from now until it is closed; None where another does.

    The file says who: pid, host, since (UTC).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    for _ in range(TRIES_N):
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.write(descriptor, json.dumps(_who()).encode())
            return descriptor
        time.sleep(PAUSE_S)
    os.close(descriptor)
    return None


def _who() -> dict:
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": clock(time.time())}


def born(pid: int) -> str | None:
    """What tells a process from all others: the machine's boot and the tick at which it began; None if dead.

    Not its time of day: psutil reckons that from the clock, which is set while a study runs (seen 2026-11-28:
    by 25 s, and a living process looked like another one). proc(5), fields 3 and 22.
    """
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else f"{boot()} {fields[18]}"


def boot() -> str:
    """What tells this machine, since it was started, from all others; "" where the kernel does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def clock(seconds: float) -> str:
    """A moment (seconds since 1970) as people read it, in UTC."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


def holder(path: Path) -> dict | None:
    """Who holds the file: pid, host, since; None where nobody does."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        return _read(descriptor)
    finally:
        os.close(descriptor)


def _read(descriptor: int) -> dict:
    """What the holder wrote; it writes right after it got the lock."""
    for _ in range(TRIES_N):
        with suppress(ValueError):
            return json.loads(os.pread(descriptor, 4096, 0))
        time.sleep(PAUSE_S)
    return {"pid": None, "host": socket.gethostname(), "since": "just now"}


@contextmanager
def alone(path: Path, what: str) -> Iterator[None]:
    """Nobody else does `what` while the block runs.

    Raises:
        Refusal: somebody does.
    """
    descriptor = take(path)
    if descriptor is None:
        who = holder(path) or _who()
        raise Refusal(
            f"{what} is in the hands of process {who['pid']} on {who['host']} since {who['since']}:"
            " wait for its end, or stop it."
        )
    try:
        yield
    finally:
        os.close(descriptor)
