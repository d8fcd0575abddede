"""A folder staged to memory (`/dev/shm`) or anywhere: planned, copied in parallel, counted only when whole.

A file stands under its own name only when it is complete, with its source's modification time; the
manifest is written last. So a killed run is continued by running it again, and a source that has
changed since (other size or time) is copied again.
"""

import errno
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from saistudy.data.room import room
from saistudy.data.staging import manifest, mirror, origin, pace, transfer
from saistudy.paths import Refusal

PAGE_BYTES = 4096  # tmpfs gives memory in pages
FULL = (errno.ENOSPC, errno.EDQUOT)


def loader_bytes(batch: int, imgsz: int, workers: int, prefetch: int = 4) -> int:
    """Bytes that the data loaders' own batches may fill in /dev/shm while a training runs.

    Every worker holds `prefetch` batches of uint8 images there and one more is being used. In
    Ultralytics 8.4.190 (data/build.py, engine/trainer.py) `prefetch` is 4 in training; validation
    has twice the workers, half the prefetch and batches of twice the size, beside the training's.
    """
    train = (workers * prefetch + 1) * batch * 3 * imgsz**2
    validation = 2 * train
    return train + validation


def plan(source: Path, target: Path, loader_bytes: int = 0, reserve_bytes: int = 0) -> dict:
    """What staging a folder would take and whether it fits; nothing is written.

    bytes and files_n of the source; missing_n of them are not staged yet; needed_bytes: those in
    whole pages with the manifest, less what goes, with the loaders' (loader_bytes) and the reserve;
    free_bytes and free_files_n of the file system; free_memory_bytes under the control group's
    memory_limit_bytes (None: none); usable_bytes; seconds and threads_n from reading a sample; fits;
    sentence.

    Raises:
        Refusal: see `data.origin.read`; a target that holds links or files that were not staged.
    """
    origin.apart(source, target)
    mirror.must_be_ours(target)
    return _planned(manifest.state(source, target), target, loader_bytes, reserve_bytes)


def stage(
    source: Path,
    target: Path,
    loader_bytes: int = 0,
    reserve_bytes: int = 0,
    threads_n: int | None = None,
    wait_s: float = 600,
    say: Callable[[str], None] = print,
) -> Path:
    """`target`, holding what the source holds and nothing else, and its manifest.

    A data.yaml names the target. Killed and run again it continues. Another process that stages there
    is waited for `wait_s`. `threads_n` is chosen by the plan unless given; `say` gets a line now and
    then when it takes long.

    Raises:
        Refusal: as `plan`; it does not fit (before the first byte), the place filled up (all is given
            back), a file cannot be read or written or changes meanwhile (what is there is kept).
    """
    origin.apart(source, target)
    with transfer.owned(target, wait_s, say):
        mirror.must_be_ours(target)
        state = manifest.state(source, target)
        if state.current:
            return target
        planned = _planned(state, target, loader_bytes, reserve_bytes)
        if not planned["fits"]:
            raise Refusal(planned["sentence"])
        try:
            mirror.fill(state, target, threads_n or planned["threads_n"], say)
        except OSError as error:
            raise Refusal(_given_up(error, target, planned["needed_bytes"])) from error
    return target


def staged(target: Path) -> bool:
    """Whether a whole folder stands in `target`: every file of its manifest as staged, and no other."""
    try:
        listed = manifest.read(target)
        return bool(listed) and manifest.whole(origin.held(target), listed)
    except Refusal:
        return False


def differing(target: Path) -> list[str]:
    """Names of staged files whose bytes are not those of the manifest, missing ones too (reads everything).

    Raises:
        Refusal: there is no manifest to compare with.
    """
    listed, wrong = manifest.read(target), []
    if not listed:
        raise Refusal(f"{target} holds no sound {manifest.NAME}: stage it first.")

    def worker(number: int) -> Callable[[str], None]:
        memory = transfer.buffer()

        def act(name: str) -> None:
            with suppress(FileNotFoundError):
                if transfer.digest(target / name, memory) == listed[name][1]:
                    return
            wrong.append(name)

        return act

    pace.drain(listed, worker, pace.cores_n())
    return sorted(wrong)


def release(target: Path, wait_s: float = 600) -> None:
    """Give the memory back: remove what was staged; nothing happens when nothing is there.

    Raises:
        Refusal: the folder was not made by `stage`, or cannot be removed.
    """
    if not os.path.lexists(target):
        return
    with transfer.owned(target, wait_s):
        mirror.must_be_ours(target)
        try:
            mirror.remove(target)
        except OSError as error:
            raise Refusal(
                f"{error.filename} cannot be removed ({error.strerror}): mend that first."
            ) from error


def _planned(state: manifest.State, target: Path, loader_bytes: int, reserve_bytes: int) -> dict:
    """What `plan` gives, from the state of the target."""
    there, source = room(target), state.source
    stamps, missing = source.stamps, state.missing
    pages = _pages(size for size, _ in missing.values()) - _pages(size for size, _ in state.outdated.values())
    if not state.current:
        sure = {name: (one, "0" * 32) for name, one in stamps.items()}
        pages += _pages([len(manifest.text(sure)), len(mirror.mark(source))])
    needed = max(0, pages) + loader_bytes + reserve_bytes
    sizes = {os.path.join(source.folder, n): size for n, (size, _) in missing.items() if n in source.copied}
    threads_n, seconds = _pace(sizes)
    added_n = len(missing) - len(state.outdated) + len({os.path.dirname(name) for name in missing}) + 3
    fits_n = there.free_files_n is None or added_n <= there.free_files_n
    known = {"bytes": sum(size for size, _ in stamps.values()), "files_n": len(stamps)}
    known |= {"missing_n": len(missing), "needed_bytes": needed, "loader_bytes": loader_bytes}
    known |= {"reserve_bytes": reserve_bytes, **there._asdict(), "threads_n": threads_n, "seconds": seconds}
    known |= {"fits": needed <= there.usable_bytes and fits_n}
    return known | {"sentence": _sentence(target, known, pages)}


def _pace(sizes: dict[str, int]) -> pace.Pace:
    try:
        return pace.measured(sizes)
    except OSError as error:
        raise Refusal(f"{error.filename} cannot be read ({error.strerror}): mend that first.") from error


def _sentence(target: Path, known: dict, pages: int) -> str:
    files_n = "any number of" if known["free_files_n"] is None else known["free_files_n"]
    advice = "free some, lower workers or batch, or train from disk"
    return (
        f"{target} {'has' if known['fits'] else 'lacks'} room: {gib(known['needed_bytes'])} are needed"
        f" ({gib(max(0, pages))} for {known['missing_n']} of {known['files_n']} files,"
        f" {gib(known['loader_bytes'])} for the data loaders, {gib(known['reserve_bytes'])} reserve),"
        f" {gib(known['usable_bytes'])} and {files_n} files can be added ({gib(known['free_bytes'])} free"
        f" there, {gib(known['free_memory_bytes'])} of memory); about {known['seconds']:.1f} s with"
        f" {known['threads_n']} thread(s){'.' if known['fits'] else f': {advice}.'}"
    )


def _pages(sizes: Iterable[int]) -> int:
    """Bytes that files of these sizes fill, whole pages each."""
    return sum(-(-size // PAGE_BYTES) for size in sizes) * PAGE_BYTES


def gib(n: int) -> str:
    """Bytes in words: GiB, below an eighth of one MiB."""
    return f"{n / 2**30:.2f} GiB" if n >= 2**27 else f"{n / 2**20:.2f} MiB"


def _given_up(error: OSError, target: Path, needed_bytes: int) -> str:
    """Why a target could not be filled; one that is full is given back."""
    why = f"{target} could not be filled ({error.strerror}"
    if error.errno not in FULL:
        return f"{why}: {error.filename or target}): mend that and run again; what is there is kept."
    with suppress(OSError):
        mirror.remove(target)
    given = "part of it could not be given back" if target.exists() else "all of it was given back"
    usable = gib(room(target).usable_bytes)
    return f"{why}), {given}: {gib(needed_bytes)} were needed, {usable} can be used now."
