"""A small tmpfs to be filled: for root, and whoever may not mount skips."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def tmpfs(place: Path, options: str) -> Iterator[Path]:
    """The new folder with a tmpfs on it; `options` are mount's, as `size=1m`."""
    place.mkdir()
    try:
        told = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True, text=True
        )
    except FileNotFoundError:
        pytest.skip("no mount command: a small tmpfs cannot be made")
    if told.returncode:
        pytest.skip(f"a small tmpfs cannot be mounted here ({told.stderr.strip()}): run as root")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)
