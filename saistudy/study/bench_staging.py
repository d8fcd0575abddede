"""Staging against `cp -r`: the same files to the same place in turn, cached and from disk; and the clock."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from saistudy import hardware, paths
from saistudy.data import shm
from saistudy.data.room import room
from saistudy.data.staging import pace
from saistudy.paths import Refusal

FOLDERS_N = 4


def measure(
    files_n: int = 4000,
    file_bytes: int = 550_000,
    passes_n: int = 4,
    work: Path | None = None,
    target: Path = Path("/dev/shm"),
) -> dict:
    """Seconds of copying files with `cp -r` and of staging them, A B A B, first cached, then from disk.

    ratio_to_cp: median seconds of cp / of staging (larger is better), ratio_to_cp_cold likewise with
    the files dropped from the page cache before each pass of either; spread: least and largest ratio
    of two passes one after the other; seconds: every pass; fetched_frac: median share of the bytes that
    really came from a disk (None where the kernel does not count); threads_n: what a plan chose before
    each staging, in the same state of the cache; files_n; bytes; environment.

    Raises:
        Refusal: the target has no room for the files, or cp failed.
    """
    free, needed = room(target).usable_bytes, files_n * (file_bytes + 2 * shm.PAGE_BYTES)
    if free < needed:
        raise Refusal(
            f"{target} has {free:_} bytes free, {needed:_} are needed: name another, or fewer files."
        )
    base = work or paths.work("bench")
    base.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=base) as here, tempfile.TemporaryDirectory(dir=target) as there:
        files = _made(Path(here) / "files", files_n, file_bytes)
        passes = {
            kind: _passes(Path(here) / "files", Path(there) / "copy", passes_n, ready)
            for kind, ready in (("warm", lambda: _warm(files)), ("cold", lambda: pace.drop(files)))
        }
    return _summary(passes, files_n * file_bytes) | {"files_n": files_n, "bytes": files_n * file_bytes}


def _made(folder: Path, files_n: int, file_bytes: int) -> list[Path]:
    """Files of random bytes in a few folders, on disk when this returns."""
    files = [folder / f"{i % FOLDERS_N}" / f"{i:06d}.jpg" for i in range(files_n)]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(os.urandom(file_bytes))
    pace.drop(files)
    return files


def _warm(files: list[Path]) -> None:
    for file in files:
        file.read_bytes()


def _passes(source: Path, target: Path, passes_n: int, cache: Callable[[], None]) -> dict[str, list]:
    """Seconds of each pass, bytes that each fetched, threads that a plan chooses.

    `cache` puts the page cache in its state.
    """
    fetched, threads_n = {"cp": [], "stage": []}, []
    ways = {
        "cp": lambda: _counted(fetched["cp"], _cp, source, target),
        "stage": lambda: _counted(fetched["stage"], shm.stage, source, target),
    }

    def ready(name: str) -> None:
        """Away with the copy of the other way."""
        shm.release(target) if name == "cp" else shutil.rmtree(target)
        cache()
        if name == "stage":
            threads_n.append(shm.plan(source, target)["threads_n"])
            cache()

    return in_turn(ways, passes_n, ready) | {"fetched": fetched, "threads_n": threads_n}


def _counted(fetched: list[int], act: Callable, *arguments) -> None:
    """Call, and append the bytes that came from a block device for it, where the kernel counts them."""
    before = pace.fetched_bytes()
    act(*arguments)
    if before is not None:
        fetched.append(pace.fetched_bytes() - before)


def _cp(source: Path, target: Path) -> None:
    done = subprocess.run(["cp", "-r", source, target], capture_output=True, text=True)
    if done.returncode:
        raise Refusal(f"cp -r failed ({done.stderr.strip()}): nothing to compare with.")


def in_turn(ways: dict[str, Callable], passes_n: int, ready: Callable) -> dict[str, list[float]]:
    """Seconds of each pass of each way, in the order A B A B; `ready` is given its name before each."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(passes_n):
        for name, way in ways.items():
            ready(name)
            seconds[name].append(clock(way))
    return seconds


def clock(act: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def ratio(plain: list[float], own: list[float]) -> tuple[float, list[float]]:
    """Median of plain over median of own, and the least and largest of two passes one after the other."""
    pairs = [one / other for one, other in zip(plain, own, strict=True)]
    return median(plain) / median(own), [min(pairs), max(pairs)]


def environment() -> dict:
    """What a rate depends on: cpu, cores_n, ram_gib, platform."""
    known = hardware.environment()
    return {key: known[key] for key in ("cpu", "cores_n", "ram_gib", "platform")}


def _summary(passes: dict[str, dict], size: int) -> dict:
    ratios = {kind: ratio(found["cp"], found["stage"]) for kind, found in passes.items()}
    return {
        "ratio_to_cp": ratios["warm"][0],
        "ratio_to_cp_cold": ratios["cold"][0],
        "spread": {kind: spread for kind, (_, spread) in ratios.items()},
        "seconds": {f"{name}, {k}": p[name] for k, p in passes.items() for name in ("cp", "stage")},
        "fetched_frac": {
            f"{name}, {kind}": median(seen) / size if seen else None
            for kind, found in passes.items()
            for name, seen in found["fetched"].items()
        },
        "threads_n": {kind: found["threads_n"] for kind, found in passes.items()},
        "environment": environment(),
    }


def sentences(result: dict) -> str:
    """The result for a person: what was copied where, then a line for each state of the cache."""
    machine, gb = result["environment"], result["bytes"] / 1e9
    lines = [
        f"{result['files_n']} files, {gb:.2f} GB, on {machine['cores_n']} cores of {machine['cpu']}:"
        " staging with hashes against cp -r, passes in turn"
    ]
    for kind, key in (("warm", "ratio_to_cp"), ("cold", "ratio_to_cp_cold")):
        rates = {name: gb / median(result["seconds"][f"{name}, {kind}"]) for name in ("cp", "stage")}
        least, largest = result["spread"][kind]
        threads = sorted(set(result["threads_n"][kind]))
        lines.append(
            f"{kind}: {result[key]:.2f} times as fast ({least:.2f} to {largest:.2f} pass by pass),"
            f" {rates['stage']:.2f} against {rates['cp']:.2f} GB/s, threads: {', '.join(map(str, threads))},"
            f" from the disk: {_share(result, f'stage, {kind}')} against {_share(result, f'cp, {kind}')}"
        )
    return "\n".join(lines)


def _share(result: dict, way: str) -> str:
    """Share of the bytes that came from the disk, in percent."""
    found = result["fetched_frac"][way]
    return "not counted" if found is None else f"{found:.0%}"
