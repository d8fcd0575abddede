"""How much room a folder has: its file system, and for tmpfs the memory behind it."""

import os
from pathlib import Path
from typing import NamedTuple

NO_LIMIT_BYTES = 2**60  # cgroup v1 writes "no limit" as a number just under 2**63


class Room(NamedTuple):
    """Bytes free in a folder, memory still allowed and its limit (None: none), what may be filled.

    free_files_n: how many files the file system can still hold, None where it sets no number.
    """

    free_bytes: int
    free_memory_bytes: int
    memory_limit_bytes: int | None
    usable_bytes: int
    free_files_n: int | None


def room(folder: Path, root: Path = Path("/")) -> Room:
    """Room in a folder, which may not exist yet.

    Free memory is the least of what the kernel calls available and what each cgroup still allows. A
    tmpfs is memory: there `usable_bytes` is no more than that. `root` is where /proc and /sys lie.
    """
    while not folder.exists():
        folder = folder.parent
    stats = os.statvfs(folder)
    free = stats.f_bavail * stats.f_frsize
    limits = memory_limits(root)
    limit = min((limit for limit, _ in limits), default=None)
    available = _field(root / "proc/meminfo", "MemAvailable:") * 1024
    memory = min([available, *(max(0, limit - used) for limit, used in limits)])
    usable = min(free, memory) if file_system(folder, root) in {"tmpfs", "ramfs"} else free
    return Room(free, memory, limit, usable, stats.f_favail if stats.f_files else None)


def file_system(folder: Path, root: Path = Path("/")) -> str:
    """Type of the file system that holds a folder, from the longest mount point above it."""
    best, kind = "", ""
    where = str(folder.resolve()) + "/"
    for line in (root / "proc/mounts").read_text().splitlines():
        point, fs = line.split()[1:3]
        point = point.replace("\\040", " ").rstrip("/") + "/"
        if where.startswith(point) and len(point) >= len(best):
            best, kind = point, fs
    return kind


def memory_limits(root: Path = Path("/")) -> list[tuple[int, int]]:
    """Limit and use in bytes of every control group above this process that has a limit (v1, v2).

    The page cache of ordinary files is not counted as used, the kernel gives it back; files in
    tmpfs are (kernel documentation, cgroup-v2 `memory.stat`: shmem sits on the anonymous lists).
    """
    found = []
    for line in (root / "proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        names = ("memory.max", "memory.current")
        top = root / "sys/fs/cgroup"
        if controllers:
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
            top = top / "memory"
        if controllers and "memory" not in controllers.split(","):
            continue
        inner = top / path.lstrip("/")
        for group in [inner, *inner.parents]:
            if group == top.parent:
                break
            found += _limit(group, *names)
    return found


def _limit(group: Path, limit_name: str, use_name: str) -> list[tuple[int, int]]:
    try:
        limit = (group / limit_name).read_text().strip()
        use = int((group / use_name).read_text())
    except (OSError, ValueError):
        return []
    if limit == "max" or int(limit) >= NO_LIMIT_BYTES:
        return []
    stat = group / "memory.stat"
    prefix = "total_" if limit_name.endswith("in_bytes") else ""
    cache = sum(_field(stat, f"{prefix}{kind}_file") for kind in ("active", "inactive"))
    return [(int(limit), max(0, use - cache))]


def _field(path: Path, name: str) -> int:
    """Number behind a name in a file of `name number` lines; 0 when it is not there."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.split()[:1] == [name]), 0)
