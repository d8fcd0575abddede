"""The GPUs of one machine, a run on each: Snakemake only counts them, a lock says which one is free.

The kernel drops the lock (flock) of a dead process, so a GPU whose run was killed is free at once.
"""

import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path

from saistudy import hardware
from saistudy.paths import Refusal
from saistudy.study import forecast, locks
from saistudy.training import stopping

VISIBLE = "CUDA_VISIBLE_DEVICES"
JOB = "SLURM_JOB_ID"  # environment: which job of the batch system this is, if it is one
NAME = re.compile(r"\d+|(GPU|MIG)-.+")  # an index or a UUID
PLACE = "SAISTUDY_SLOTS"  # environment: the folder of the locks, if not one in the temporary folder
LOOK_S = 1.0  # between two looks for a free GPU
WITHOUT_GPU = ("data", "ablation", "claims")  # notebooks that read files and records, and train nothing


def gpus() -> list[str]:
    """Names of the GPUs that this process may use: those of CUDA_VISIBLE_DEVICES, else all, by index.

    As CUDA reads it, the list ends before the first entry that names none (-1, NoDevFiles).
    """
    if (named := os.environ.get(VISIBLE)) is not None:
        return list(takewhile(NAME.fullmatch, (name.strip() for name in named.split(","))))
    return [str(index) for index in range(len(hardware.gpus()))]


def given() -> bool:
    """Whether a batch system gave this process its node, and with it what is in the node's memory."""
    return JOB in os.environ


def _chosen(names: list[str]) -> bool:
    """Whether the batch system chose this run's GPU: it keeps count itself, and left one to this job.

    Several are those of a job that executes a whole study. Where nothing is named and nvidia-smi lists
    nothing, its choice stands unseen.
    """
    return given() and (len(names) == 1 or not names and VISIBLE not in os.environ)


def node() -> str:
    """Name of this machine, as the batch system calls it."""
    return os.environ.get("SLURMD_NODENAME") or os.uname().nodename


def wanted_n(profile: str, notebook: str) -> int:
    """GPUs of a run, 0 or 1: `gpus_n` of the profile's study.yaml, none where nothing is trained or timed."""
    return 0 if notebook in WITHOUT_GPU else forecast.study(profile)["job"]["gpus_n"]


def jobs_n(profile: str) -> int:
    """Runs at a time on this machine: one a GPU where the profile trains on GPUs, else its `jobs_n`."""
    plan = forecast.study(profile)
    return max(plan["jobs_n"], len(gpus()) if plan["job"]["gpus_n"] else 0)


@contextmanager
def taken() -> Iterator[str | None]:
    """The GPU that this process has for itself while the block runs, and the only one that it sees.

    Waits where another run holds each of them. None where a batch system left one to this job.

    Raises:
        Refusal: there is no GPU.
        Failure: a stop was asked for, before one was free.
    """
    names = gpus()
    if _chosen(names):
        print(f"GPU {os.environ.get(VISIBLE, 'not named')} of {node()}, by the batch system", flush=True)
        yield None
        return
    name, descriptor = _wait(names)
    print(f"GPU {name} is this run's", flush=True)
    try:
        with hardware.exported(VISIBLE, name):
            yield name
    finally:
        os.close(descriptor)


def _wait(names: list[str]) -> tuple[str, int]:
    """A free GPU and the descriptor of its lock, taken."""
    if not names:
        raise Refusal(
            f"this run wants a GPU and nvidia-smi lists none, or {VISIBLE} names none: run it where one is,"
            " or set `gpus_n: 0` in the profile's study.yaml."
        )
    told = False
    while True:
        for name in names:
            _heed()  # before each: a lock that is held is tried for half a second
            if (descriptor := locks.take(_lock(name))) is not None:
                return name, descriptor
        if not told:
            print(f"each of {len(names)} GPU(s) is in the hands of another run: waiting", flush=True)
            told = True
        time.sleep(LOOK_S)


def _heed() -> None:
    """End the waiting where a stop is asked for."""
    from saistudy.study.run import Failure  # it takes a second, and only a run waits

    if stopping.asked():
        raise Failure("run not begun: a stop was asked for while it waited for a GPU", Failure.ASKED)


def _lock(name: str) -> Path:
    """The lock of a GPU, one for all checkouts of a user on the machine.

    In a job of a batch system one for that job: confined to its GPUs (cgroups), each may call its own 0.
    """
    name = f"{os.environ[JOB]}-{name}" if given() else name
    place = os.environ.get(PLACE) or Path(tempfile.gettempdir()) / f"saistudy-gpus-{os.getuid()}"
    return Path(place) / f"{name.replace('/', '_')}.lock"
