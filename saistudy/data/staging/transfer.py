"""Files copied whole or not at all, into a folder that has one owner at a time."""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import xxhash

from saistudy.paths import Refusal

HASH = "xxh3-128"
CHUNK_BYTES = 1 << 20
CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Stamp(NamedTuple):
    """What tells a file from a changed one without reading it."""

    size_bytes: int
    mtime_ns: int


def stamp(found: os.stat_result) -> Stamp:
    """The stamp in what stat says."""
    return Stamp(found.st_size, found.st_mtime_ns)


def buffer() -> memoryview:
    """Memory that one thread copies and hashes all its files through."""
    return memoryview(bytearray(CHUNK_BYTES))


def part(path: str | Path, number: int) -> str:
    """Temporary name beside a path, one for each thread: no longer than any name may be."""
    return os.path.join(os.path.dirname(path), f".{number}.part")


def is_part(name: str) -> bool:
    """Whether a name is a temporary one, left by a killed attempt when nobody is at work."""
    return name.startswith(".") and name.endswith(".part") and name[1:-5].isdigit()


def copy(source: str, target: str, seen: Stamp, memory: memoryview, number: int = 0) -> str:
    """Hash of a file as hex, taken while it is copied; it gets its name and its source's time when whole.

    Args:
        seen: the source's stamp from before; it is compared with the one after the last byte.
        memory: see `buffer`.
        number: of the thread, for its temporary name.

    Raises:
        Refusal: the source changed meanwhile; nothing is left behind.
    """
    temporary = part(target, number)
    reader = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        writer = os.open(temporary, CREATE, 0o644)
        try:
            hashed = _pour(reader, writer, memory)
            if stamp(os.fstat(reader)) != seen or os.fstat(writer).st_size != seen.size_bytes:
                raise Refusal(f"{source} changed while it was staged: let it be finished, then run again.")
            os.utime(writer, ns=(seen.mtime_ns, seen.mtime_ns))
        finally:
            os.close(writer)
        os.rename(temporary, target)
    except BaseException as error:
        with suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = source
        raise
    finally:
        os.close(reader)
    return hashed


def _pour(reader: int, writer: int, memory: memoryview) -> str:
    hashed = xxhash.xxh3_128()
    while size := os.readv(reader, [memory]):
        chunk = memory[:size]
        hashed.update(chunk)
        while chunk:
            chunk = chunk[os.write(writer, chunk) :]
    return hashed.hexdigest()


def digest(path: str | Path, memory: memoryview) -> str:
    """XXH3 of a file's bytes, 128 bits, as hex (it gives up Python's lock, so threads help)."""
    hashed, reader = xxhash.xxh3_128(), os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while size := os.readv(reader, [memory]):
            hashed.update(memory[:size])
    finally:
        os.close(reader)
    return hashed.hexdigest()


def write(path: Path, data: bytes, mtime_ns: int | None = None) -> None:
    """Write a file whole or not at all; its bytes and its name are on the disk when this returns."""
    temporary = part(path, 0)
    writer = os.open(temporary, CREATE, 0o644)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(writer, rest) :]
        if mtime_ns is not None:
            os.utime(writer, ns=(mtime_ns, mtime_ns))
        os.fsync(writer)
    finally:
        os.close(writer)
    os.rename(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def owned(target: Path, wait_s: float, say: Callable[[str], None] = print) -> Iterator[None]:
    """Hold the lock file beside the target; it names its owner's process and host and the time.

    The kernel drops the lock of a dead owner (flock), so that one is taken over at once.

    Raises:
        Refusal: its owner still lives after `wait_s`, or nothing can be written there.
    """
    lock = target.with_name(f".{target.name}.lock")
    until, told = time.monotonic() + wait_s, False
    while (handle := _held(lock)) is None:
        owner = f"{target} is being staged by {_owner(lock)}"
        if time.monotonic() > until:
            raise Refusal(f"{owner}: wait for it, or end it if it hangs.")
        if not told and time.monotonic() > until - wait_s + 1:
            say(f"{owner}: waiting up to {wait_s:.0f} s")
            told = True
        time.sleep(0.05)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(handle)


def _owner(lock: Path) -> str:
    try:
        process, host, since = lock.read_text(encoding="utf-8").split()
        return f"process {process} on {host} since {max(0, time.time() - float(since)):.0f} s"
    except (OSError, ValueError):
        return "a process that did not leave its name"


def _held(lock: Path) -> int | None:
    """Handle of the lock file now held, or None while a living process holds it."""
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise Refusal(
            f"{lock} cannot be written ({error.strerror}): name another target, or remove that file."
        ) from error
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
        os.write(handle, f"{os.getpid()} {os.uname().nodename} {time.time():.0f}".encode())
    return handle
