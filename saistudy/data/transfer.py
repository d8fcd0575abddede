"""Files copied whole or not at all, into a folder that has one owner at a time."""

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from saistudy.paths import Refusal

CHUNK_BYTES = 1 << 20


def same(source: Path, copy: Path) -> bool:
    """Whether a copy stands there with the size and modification time of its source."""
    try:
        one, two = source.stat(), copy.stat()
    except OSError:
        return False
    return (one.st_size, one.st_mtime_ns) == (two.st_size, two.st_mtime_ns)


def copy(source: Path, target: Path) -> tuple[int, str]:
    """Bytes and hash of a staged file; hashed while copied, or read again when it is there."""
    if same(source, target):
        return target.stat().st_size, digest(target)
    part, stat = target.with_name(f".{target.name}.part"), source.stat()
    hashed, size = hashlib.blake2b(digest_size=16), 0
    with open(source, "rb") as reader, open(part, "wb", buffering=0) as writer:
        while chunk := reader.read(CHUNK_BYTES):
            view = memoryview(chunk)
            while view:
                view = view[writer.write(view) :]
            hashed.update(chunk)
            size += len(chunk)
    os.utime(part, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    os.replace(part, target)
    return size, hashed.hexdigest()


def digest(path: Path) -> str:
    """BLAKE2b of a file's bytes, 128 bits, as hex (it gives up Python's lock, so threads help)."""
    hashed = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as reader:
        while chunk := reader.read(CHUNK_BYTES):
            hashed.update(chunk)
    return hashed.hexdigest()


@contextmanager
def owned(target: Path, wait_s: float) -> Iterator[None]:
    """Hold the lock file beside the target; it names its owner's process and the time.

    The kernel drops the lock of a dead owner (flock), so that one is taken over at once.

    Raises:
        Refusal: its owner still lives after `wait_s`, or nothing can be written there.
    """
    lock = target.with_name(f".{target.name}.lock")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock.touch()
    except OSError as error:
        raise Refusal(
            f"{target.parent} cannot be written to ({error.strerror}): name another target."
        ) from error
    until = time.monotonic() + wait_s
    while (handle := _try(lock)) is None:
        if time.monotonic() > until:
            owner = lock.read_text(encoding="utf-8").split() if lock.exists() else []
            age = f"{time.time() - float(owner[1]):.0f} s" if len(owner) == 2 else "unknown time"
            raise Refusal(
                f"{target} is being staged by process {owner[0] if owner else 'unknown'} since"
                f" {age}: wait for it, or end it if it hangs."
            )
        time.sleep(0.05)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(handle)


def _try(lock: Path) -> int | None:
    """Handle of the lock file now held, or None while a living process holds it."""
    handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        current = os.stat(lock).st_ino == os.fstat(handle).st_ino
    except OSError:
        current = False
    if not current:
        os.close(handle)
        return None
    with suppress(OSError):  # a full file system: the lock itself needs no space
        os.ftruncate(handle, 0)
        os.write(handle, f"{os.getpid()} {time.time():.0f}".encode())
    return handle
