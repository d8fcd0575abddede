"""Before and after a run on a node of a cluster: its images in the node's own memory, and that given back.

/dev/shm is a node's own, so what `setup-shm` staged on one is on no other. Each run stages what it reads:
one at a time, by manifest, so the second finds it there. The last to leave the node gives the memory back.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from saistudy import hardware
from saistudy.data import shm, sources, store
from saistudy.paths import Refusal, work
from saistudy.study import slots

READ = {"stage2": ["fasdd_cv", "pyro-sdis"], "finetune": ["fasdd_cv"]}  # stage1: its own `dataset`
SHM = "SAISTUDY_SHM"  # environment: see sources.staging_target
USERS = ".users.lock"  # held together by all runs of a profile on a node


@contextmanager
def staged(notebook: str, values: dict) -> Iterator[None]:
    """The trees that a run reads in this node's memory while the block runs; without a batch system nothing.

    Where they do not fit, or the memory is another user's, the run reads from the disk, and a line says so.
    A run that was killed gives nothing back: the next that ends on that node does.

    Args:
        values: the run's parameters.
    """
    if not slots.given():
        yield
        return
    profile = values["profile"]
    handle = _entered(profile)
    if handle is None:  # nothing staged is seen: who staged it may give it back at any time
        with hardware.exported(SHM, str(work(profile).absolute() / "unstaged")):
            yield
        return
    with _shared(profile, handle, _read(notebook, values)):
        yield


def _entered(profile: str) -> int | None:
    """Descriptor of the file that the runs on this node hold together; None where it is not ours to hold."""
    users = sources.staging_target(profile, USERS)
    try:
        users.parent.mkdir(parents=True, exist_ok=True)
        return os.open(users, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        print(
            f"images are read from the disk: {users} cannot be held ({error.strerror}), as when another user"
            " staged there; name a folder of your own in memory in SAISTUDY_SHM.",
            flush=True,
        )
        return None


@contextmanager
def _shared(profile: str, handle: int, datasets: list[str]) -> Iterator[None]:
    """Data sets staged while the block runs; the last to leave gives the memory back."""
    try:
        fcntl.flock(handle, fcntl.LOCK_SH)  # waits while the last one before gives back
        for dataset in datasets:
            _stage(profile, dataset)
        yield
    finally:
        with suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _release(profile)
        os.close(handle)


def _read(notebook: str, values: dict) -> list[str]:
    """Data sets that a run reads in the form in which they are staged: as published, with negatives."""
    own = values.get("dataset", "fasdd_cv")
    if values.get("data") or not values.get("negatives", True) or own not in sources.READERS:
        return []
    return [own] if notebook == "stage1" else READ.get(notebook, [])


def _stage(profile: str, dataset: str) -> None:
    target = sources.staging_target(profile, dataset)
    try:
        shm.stage(sources.build(profile, dataset).folder, target, *sources.beside(profile))
        print(f"{dataset}: staged in {target} of {slots.node()}", flush=True)
    except Refusal as refusal:
        print(f"{dataset} is read from the disk: {refusal}", flush=True)


def _release(profile: str) -> None:
    """Give back what the profile holds in this node's memory; only the last run on it may.

    What hinders that is said, and is no fault of the run.
    """
    try:
        for dataset in sources.TREES:
            shm.release(sources.staging_target(profile, dataset))
        store.release(sources.stores(profile)[0])
    except Refusal as refusal:
        print(f"not given back: {refusal}", flush=True)
        return
    print(f"the memory of {slots.node()} is given back: the last run on it ends", flush=True)
