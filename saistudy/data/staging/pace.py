"""How fast files can be read where they lie, how many threads that wants, and how far the work is."""

import os
import random
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from queue import Empty, SimpleQueue
from statistics import median
from typing import NamedTuple, TypeVar

from saistudy.data.staging import transfer

Job = TypeVar("Job")
THREADS_MAX = 32
SAMPLE_N, SAMPLE_S, SAMPLE_BYTES = 48, 0.5, 8 << 20
# One core: 2,000 cached files of 530 KB read, hashed with xxh3, written to tmpfs and renamed at 1.9 GB/s;
# empty files the same way in 60 us each.
COPY_BYTES_PER_S, FILE_S = 1.9e9, 60e-6
LINE_EVERY_S = 5.0


class Pace(NamedTuple):
    """Threads to copy with, and the seconds that it will take about."""

    threads_n: int
    seconds: float


def cores_n() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def measured(files: dict[str, int]) -> Pace:
    """Threads and seconds for copying files (path to bytes), from reading a few dozen of them.

    A third of the sample is read twice, one file at a time: what the first reading takes longer is
    waiting, for a disk or a network (see `threads_n`). The others are read once by so many threads: that
    rate bounds the seconds where the source's bandwidth does. Bounded to about a second.
    """
    if not files:
        return Pace(1, 0.0)
    sample = _spread(sorted(files), SAMPLE_N)
    memory, until, waits = transfer.buffer(), time.monotonic() + SAMPLE_S, []
    for path in sample[::3]:
        first, _ = _read(path, memory)
        second, size = _read(path, memory)
        waits.append(max(0.0, first - second) / _work(1, size))
        if time.monotonic() > until:
            break
    chosen = min(threads_n(waits, cores_n()), len(files))
    work = _work(len(files), sum(files.values()))
    reading = _pooled([path for i, path in enumerate(sample) if i % 3], chosen)
    return Pace(chosen, work * max(1 / min(cores_n(), chosen), reading))


def threads_n(waits: list[float], cores_n: int) -> int:
    """Threads that keep the cores busy: cores x (2 + waiting / work), at most 32.

    Cores x (1 + waiting / work) is Goetz, Java Concurrency in Practice, 8.2; the second thread a core
    works while the first one is in Python (measured on 2 cores, cached: 4 threads are 1.15 times as fast
    as 2). The median of the files: one reading that the machine interrupted counts for nothing.

    Args:
        waits: a file's waiting relative to the work of one core on it, one or more.
    """
    return min(round(cores_n * (2 + median(waits))), THREADS_MAX)


def _spread(paths: list[str], n: int) -> list[str]:
    """At most n paths evenly over the list, from a place that differs each time: these are then cached."""
    step = max(1.0, len(paths) / n)
    start = random.random() * step
    return [paths[int(i)] for k in range(n) if (i := start + k * step) < len(paths)] or paths[:1]


def _work(files_n: int, size_bytes: int) -> float:
    """Seconds of one core to copy cached files."""
    return files_n * FILE_S + size_bytes / COPY_BYTES_PER_S


def _read(path: str, memory: memoryview) -> tuple[float, int]:
    """Seconds and bytes of reading a file, its beginning if it is large."""
    started, size = time.perf_counter(), 0
    reader = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while size < SAMPLE_BYTES and (read := os.readv(reader, [memory])):
            size += read
    finally:
        os.close(reader)
    return time.perf_counter() - started, size


def _pooled(paths: list[str], threads_n: int) -> float:
    """Seconds of reading with so many threads, relative to one core's work of copying the same."""
    sizes: list[int] = []
    started = time.perf_counter()

    def worker(number: int) -> Callable[[str], None]:
        memory = transfer.buffer()

        def act(path: str) -> None:
            if time.perf_counter() - started < SAMPLE_S:
                sizes.append(_read(path, memory)[1])

        return act

    drain(paths, worker, threads_n)
    return (time.perf_counter() - started) / _work(len(sizes), sum(sizes)) if sizes else 0.0


def drain(
    jobs: Iterable[Job],
    worker: Callable[[int], Callable[[Job], None]],
    threads_n: int,
    tell: Callable[[], None] = lambda: None,
) -> None:
    """Do every job in threads that share one queue; the first error stops all of them and is raised.

    Args:
        worker: called once in each thread with its number; gives the function that does a job.
        tell: called every half second meanwhile.
    """
    queue: SimpleQueue[Job] = SimpleQueue()
    for job in jobs:
        queue.put(job)
    failed: list[BaseException] = []

    def work(number: int) -> None:
        try:
            act = worker(number)
            while not failed:
                act(queue.get_nowait())
        except Empty:
            pass
        except BaseException as error:
            failed.append(error)

    with ThreadPoolExecutor(threads_n) as pool:
        try:
            running = [pool.submit(work, number) for number in range(threads_n)]
            while wait(running, timeout=0.5).not_done:
                tell()
        except BaseException as error:
            failed.insert(0, error)
    if failed:
        raise failed[0]


def teller(sizes: dict[str, int], done: dict[str, str], say: Callable[[str], None]) -> Callable[[], None]:
    """A function that says how many of the files (name to bytes) are done, at most every five seconds."""
    started = last = time.monotonic()
    total = sum(sizes.values())

    def tell() -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < LINE_EVERY_S:
            return
        last, names = now, [name for name in list(done) if name in sizes]
        size = sum(sizes[name] for name in names)
        rate = size / (now - started)
        left = f"{(total - size) / rate:.0f} s left" if rate else "no byte yet"
        gib = f"{size / 2**30:.2f} of {total / 2**30:.2f} GiB"
        say(f"{len(names)} of {len(sizes)} files, {gib}, {rate / 2**30:.2f} GiB/s, {left}")

    return tell


def drop(files: Iterable[Path]) -> None:
    """Take files out of the page cache; dirty pages are written first, for only clean ones can go."""
    for file in files:
        handle = os.open(file, os.O_RDONLY)
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def fetched_bytes() -> int | None:
    """Bytes that this process and its ended children have had fetched from block devices so far (proc(5)).

    Nothing counts that was in the page cache, in a tmpfs or on a network disk: the difference around a read
    tells how cold it was, for Linux keeps pages that it was told to drop; a program's own pages count, too.
    None where the kernel does not count.
    """
    try:
        told = Path("/proc/self/io").read_text()
    except OSError:
        return None
    return int(told.partition("\nread_bytes: ")[2].split()[0])
