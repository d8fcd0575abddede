"""The machine: what it lacks, how it is kept quiet and repeatable, what it is.

Standard library only: `python3 saistudy/hardware.py` runs it before anything is installed, on
whatever Python there is, to say what to install.
"""

from __future__ import annotations

import atexit
import ctypes
import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ((3, 11), (3, 14))  # from, below: requires-python of pyproject.toml
# Debian package of what a bare machine may lack; the libraries are those that cv2 links to (ldd)
MODULES = {"venv": "python3-venv", "ensurepip": "python3-venv"}
LIBRARIES = {
    "libGL.so.1": "libgl1",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libgthread-2.0.so.0": "libglib2.0-0",
    "libxcb.so.1": "libxcb1",
}
PACKAGES = ("torch", "ultralytics", "numpy", "opencv-python", "papermill")
THREADS = ("OMP", "MKL", "OPENBLAS", "NUMEXPR", "VECLIB_MAXIMUM")


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def missing(linux: bool = sys.platform.startswith("linux")) -> list[str]:
    """Debian packages that this machine lacks, each once, in a fixed order."""
    lacks = [program for program in ("git", "make") if shutil.which(program) is None]
    lacks += [deb for name, deb in MODULES.items() if importlib.util.find_spec(name) is None]
    lacks += [deb for name, deb in LIBRARIES.items() if linux and not _loads(name)]
    return list(dict.fromkeys(lacks))


def complaint(version: tuple[int, int], lacks: list[str]) -> str:
    """The one line to act on, empty when nothing is missing."""
    if not PYTHONS[0] <= version < PYTHONS[1]:
        seen = ".".join(str(part) for part in version)
        return f"Python {seen} found, 3.11 to 3.13 needed: make PYTHON=/path/to/python3.11"
    return f"apt-get install -y {' '.join(lacks)}" if lacks else ""


def gpus() -> list[dict]:
    """Name, driver and memory (GiB) of each GPU that nvidia-smi lists; empty without one."""
    ask = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total"]
    try:
        told = subprocess.run(
            [*ask, "--format=csv,noheader,nounits"], capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    rows = [line.split(", ") for line in told.stdout.splitlines()] if told.returncode == 0 else []
    return [{"name": row[0], "driver": row[1], "memory_gib": round(float(row[2]) / 1024, 2)} for row in rows]


def pin_threads() -> None:
    """One thread everywhere and, without a GPU, AVX2 kernels: before torch and numpy are imported.

    On a CPU the losses of a training differ between 1, 2 and 4 threads and between AVX2 and other
    kernels (measured: 1e-5 relative after 3 epochs, visible after 40), so that a result would
    depend on the core count. oneDNN and MKL choose their kernels apart from ATen: docs.pytorch.org,
    ATEN_CPU_CAPABILITY; oneDNN, ONEDNN_MAX_CPU_ISA; MKL, MKL_CBWR. What the user set stays.
    """
    for library in THREADS:
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1")
    if platform.machine() in ("x86_64", "AMD64") and (hidden or not gpus()):
        os.environ.setdefault("ATEN_CPU_CAPABILITY", "avx2")
        os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")
        os.environ.setdefault("MKL_CBWR", "AVX2")


def quiet() -> None:
    """No network, no installing, no banner, settings of our own: before Ultralytics is imported.

    PYTEST_CURRENT_TEST would make Ultralytics believe that it is tested and switch callbacks off.
    In a kernel MPLBACKEND is already the inline one; elsewhere figures need no display.
    """
    from saistudy.paths import work

    os.environ["YOLO_OFFLINE"] = "true"
    os.environ["YOLO_AUTOINSTALL"] = "false"
    os.environ.setdefault("YOLO_VERBOSE", "False")
    if not os.environ.get("YOLO_CONFIG_DIR"):
        os.environ["YOLO_CONFIG_DIR"] = str(_config_folder(work("ultralytics") / str(os.getpid())))
    os.environ.setdefault("MPLBACKEND", "Agg")
    os.environ.pop("PYTEST_CURRENT_TEST", None)


@contextmanager
def exported(name: str, value: str) -> Iterator[None]:
    """An environment variable for this process and its children while the block runs; then as before."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name) if before is None else os.environ.update({name: before})


def _config_folder(folder: Path) -> Path:
    """A settings folder for Ultralytics that goes with this process: two at once would share one file.

    It holds a font under the name that Ultralytics would fetch (Arial.ttf): matplotlib's own.
    """
    inner = folder / "Ultralytics"
    inner.mkdir(parents=True, exist_ok=True)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    if found := importlib.util.find_spec("matplotlib"):
        fonts = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf"
        shutil.copy(fonts / "DejaVuSans.ttf", inner / "Arial.ttf")
    return folder


def _git(*words: str) -> str | None:
    try:
        told = subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True)
    except OSError:
        return None
    return told.stdout.strip() if told.returncode == 0 else None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _version(package: str) -> str | None:
    from importlib import metadata  # absent in 3.7, where this file still has to say so

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _shm() -> dict | None:
    if not os.path.isdir("/dev/shm"):
        return None
    usage = shutil.disk_usage("/dev/shm")
    return {"free": round(usage.free / 2**30, 2), "total": round(usage.total / 2**30, 2)}


def environment() -> dict:
    """What a record says of the machine and the code; sizes in GiB, None for what is not there.

    `cores_n` are the cores this process may use, `git.commit` is None outside a git checkout.
    `git.dirty` leaves out results/ and the README, which a study itself rewrites.
    """
    status = _git("status", "--porcelain", "--", ".", ":!results", ":!README.md")
    lock = ROOT / "requirements.lock"
    pages_n, page_bytes = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    cores = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))(0)
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores_n": len(cores),
        "ram_gib": round(pages_n * page_bytes / 2**30, 2),
        "shm_gib": _shm(),
        "gpus": gpus() or None,
        "versions": {package: _version(package) for package in PACKAGES},
        "git": {
            "commit": _git("rev-parse", "HEAD"),
            "dirty": None if status is None else bool(status),
        },
        "lock_sha256": hashlib.sha256(lock.read_bytes()).hexdigest() if lock.exists() else None,
    }


if __name__ == "__main__":
    line = complaint(sys.version_info[:2], missing())
    if line:
        print(line)
        sys.exit(1)
