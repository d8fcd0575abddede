"""Shared fixtures: the real photographs, where they are at hand."""

import os
from pathlib import Path

import pytest

from saistudy.paths import ROOT

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def real() -> Path:
    """Folder with real photographs in both published formats (`FASDD_CV/`, `pyro-sdis/`)."""
    folder = Path(os.environ.get("SAISTUDY_REAL", ROOT.parent / "shared" / "data"))
    if not (folder / "FASDD_CV").is_dir():
        pytest.skip(
            f"no real photographs: name a folder with FASDD_CV/ and pyro-sdis/ in SAISTUDY_REAL ({folder})"
        )
    return folder
