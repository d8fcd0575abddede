"""The lines of a study's log, as far as they stand, or as they come."""

import time
from collections.abc import Iterator
from pathlib import Path

from saistudy.paths import Refusal
from saistudy.study import begun
from saistudy.wording import near

LOOK_S = 0.3  # between two looks at the log


def path(profile: str) -> Path:
    """The log of a profile's latest study.

    Raises:
        Refusal: there is none, for no study was begun, or its lines went to a terminal.
    """
    latest = begun.state(profile)
    if latest is None:
        raise Refusal(f"no study of profile {profile} was begun here: begin one with make study DETACH=1.")
    if latest["log"] is None:
        raise Refusal(
            f"the latest study of profile {profile} has its lines in the terminal it was begun in:"
            " with DETACH=1 they go to a log."
        )
    return Path(latest["log"])


def lines(profile: str, run: str | None, follow: bool) -> Iterator[str]:
    """The log's lines, whole ones, without their newline.

    Args:
        run: only what this run said (its name in brackets comes first).
        follow: wait for more until the study has ended.

    Raises:
        Refusal: there is no log, or no such run.
    """
    known = {name: name for name in begun.runs(profile)} if run else {}
    if run and run not in known:
        raise Refusal(f"the study of profile {profile} has no run '{run}'{near(run, known)}")
    for line in _all(path(profile), profile, follow):
        if run is None or line.startswith(f"[{run}] "):
            yield line


def _all(log: Path, profile: str, follow: bool) -> Iterator[str]:
    rest = ""
    with log.open(encoding="utf-8", errors="replace") as file:
        while True:
            over = not follow or begun.holder(profile) is None  # asked before reading: nothing is missed
            *whole, rest = (rest + file.read()).split("\n")
            yield from whole
            if over:
                break
            time.sleep(LOOK_S)
    yield from filter(None, [rest])
