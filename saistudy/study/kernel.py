"""The kernel of a run: what it inherits, how its lines reach the console, how it is stopped."""

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread

from jupyter_client import AsyncKernelManager

from saistudy import hardware
from saistudy.paths import ROOT
from saistudy.training import stopping

GRACE_S = 10  # what an interrupted cell may take before its kernel is killed
LOOK_S = 0.5  # between two looks for a stop that is asked for at once
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Console:
    """Whole lines of a notebook's stdout, each with the run's name before it, as they come.

    Papermill writes to it as to a file (`stdout_file`). Of what a bar overwrites by carriage
    returns only the last state before the newline is shown.
    """

    def __init__(self, name: str):
        self.name, self.rest = name, ""

    def write(self, text: str) -> None:
        """Shows the lines that `text` completes and keeps the rest."""
        *lines, rest = (self.rest + text).split("\n")
        self.rest = rest[rest.rstrip("\r").rfind("\r") + 1 :]
        for line in lines:
            if plain := ESCAPES.sub("", line.rstrip("\r").rpartition("\r")[2]).rstrip():
                print(f"[{self.name}] {plain}", flush=True)

    def flush(self) -> None:
        """Nothing: lines are shown when they are whole."""


@contextmanager
def environ() -> Iterator[None]:
    """The process environment as the kernel shall inherit it; restored afterwards."""
    before = dict(os.environ)
    paths = [str(ROOT), *filter(None, [before.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    for name in {"SAISTUDY_WORK", "SAISTUDY_RESULTS"} & set(before):  # the kernel has another cwd
        os.environ[name] = os.path.abspath(before[name])
    hardware.quiet()
    hardware.pin_threads()
    os.environ.pop("SAISTUDY_LIVE", None)  # of a notebook by hand that starts a run
    os.environ.pop("MPLBACKEND", None)  # the kernel's inline backend yields to any other
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


class Signals:
    """Passes SIGTERM, SIGINT and SIGUSR1 (which batch systems send ahead of a time limit) on to the
    kernel as an interrupt, which a cell sees as KeyboardInterrupt; kills the kernel at a second one
    or after the grace period. A stop that is asked for at once comes as SIGTERM."""

    CAUGHT = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGALRM)

    def __init__(self):
        self.kernels: list[AsyncKernelManager] = []
        self.seen: int | None = None

    def manager(self) -> type[AsyncKernelManager]:
        """A kernel manager class whose instances are known here; its sockets are encrypted."""
        known = self.kernels

        class Manager(AsyncKernelManager):
            def __init__(self, **traits):
                super().__init__(transport_encryption="auto", **traits)
                known.append(self)

        return Manager

    def _to_kernel(self, number: int) -> bool:
        groups = [getattr(kernel.provisioner, "pgid", None) for kernel in self.kernels]
        for group in filter(None, groups):
            with suppress(ProcessLookupError):
                os.killpg(group, number)
        return any(groups)

    def _handle(self, number: int, frame: object) -> None:
        again, self.seen = self.seen is not None, self.seen or number
        if not self._to_kernel(signal.SIGKILL if again else signal.SIGINT):
            raise KeyboardInterrupt
        if not again:
            signal.alarm(GRACE_S)

    @contextmanager
    def passed_on(self) -> Iterator[None]:
        """Catches the signals; in the main thread only, as Python wants it."""
        before, done = {number: signal.signal(number, self._handle) for number in self.CAUGHT}, Event()
        Thread(target=_terminate_when_asked, args=(done,), daemon=True).start()
        try:
            yield
        finally:
            done.set()
            signal.alarm(0)
            for number, handler in before.items():
                signal.signal(number, handler)


def _terminate_when_asked(done: Event) -> None:
    """Send this process SIGTERM as soon as a stop is asked for that drops the epoch, unless done before."""
    while not done.wait(LOOK_S):
        if stopping.asked() == stopping.NOW:
            os.kill(os.getpid(), signal.SIGTERM)
            return
