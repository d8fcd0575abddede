"""A copy of the project's code, notebooks and parameters, to be edited or executed by itself."""

import shutil
from pathlib import Path

from saistudy.paths import ROOT


def project(folder: Path, *more: str) -> Path:
    """The copy in a folder; `more` names further folders and files."""
    for name in ("saistudy", "notebooks", "params", "requirements.lock", *more):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder
