"""What this process and its workers hold in memory."""

import os
from contextlib import suppress
from pathlib import Path

import psutil


def _processes() -> list[psutil.Process]:
    """This process and all below it."""
    return [psutil.Process(), *psutil.Process().children(recursive=True)]


def resident_bytes() -> int:
    """Proportional set size of this process and all below it: shared pages counted once."""
    return sum(process.memory_full_info().pss for process in _processes())


def shared_bytes() -> int:
    """Bytes of nameless files in /dev/shm that these processes hold: the loader's batches, each once.

    PyTorch unlinks such a file as soon as it is open, so only its descriptors tell (proc(5)).
    """
    sizes = {}
    for process in _processes():
        for descriptor in Path(f"/proc/{process.pid}/fd").iterdir():
            with suppress(OSError):
                name = os.readlink(descriptor)
                if name.startswith("/dev/shm/") and name.endswith("(deleted)"):
                    status = os.stat(descriptor)
                    sizes[status.st_ino] = status.st_blocks * 512
    return sum(sizes.values())
