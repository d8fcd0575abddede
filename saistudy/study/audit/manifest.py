"""A hash of every file of the results, as coreutils has it: in results/ `sha256sum -c SHA256SUMS` reads it.

It finds any altered byte. Whoever alters a figure can write the hashes again: then only recomputation tells.
"""

import subprocess
from pathlib import Path

from saistudy.paths import write_text
from saistudy.study.saved import sha256

NAME = "SHA256SUMS"
OWN = ("test-full.json",)  # of the tests, not of the study


def write(root: Path, profiles: list[str]) -> None:
    """Hash the files of these profiles, and those beside the folders of profiles, into the manifest."""
    before = read(root)
    kept = {name: value for name, value in before.items() if not _within(name, profiles)}
    now = {name: sha256(root / name) for name in files(root) if _within(name, profiles)}
    lines = [f"{value}  {name}" for name, value in sorted((kept | now).items())]
    write_text(root / NAME, "\n".join(lines) + "\n")


def read(root: Path) -> dict[str, str]:
    """File name below the results to hash; empty where there is no manifest."""
    path = root / NAME
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return {name: value for value, name in (line.split("  ", 1) for line in lines)}


def findings(root: Path, profiles: list[str]) -> list[str]:
    """Files that are not as the manifest has them, are missing, or are not in it."""
    told = {name: value for name, value in read(root).items() if _within(name, profiles)}
    there = {name for name in files(root) if _within(name, profiles)}
    found = [f"{name} is in no line of {NAME}" for name in sorted(there - told.keys())]
    found += [f"{name} is in {NAME} and not there" for name in sorted(told.keys() - there)]
    altered = sorted(name for name in told.keys() & there if sha256(root / name) != told[name])
    return found + [f"{name} is not the file that {NAME} tells of" for name in altered]


def files(root: Path) -> list[str]:
    """Files below the results that git keeps or would keep; outside git all but temporary ones."""
    words = ["git", "-C", str(root), "ls-files", "--cached", "--others", "--exclude-standard", "-z", "."]
    told = subprocess.run(words, capture_output=True, text=True)
    names = told.stdout.split("\0") if told.returncode == 0 else _walked(root)
    there = (name for name in dict.fromkeys(names) if name and (root / name).is_file())
    return sorted(name for name in there if name not in (NAME, *OWN))


def _walked(root: Path) -> list[str]:
    paths = (path for path in root.rglob("*") if not path.name.endswith((".part", ".failed.ipynb")))
    return [
        path.relative_to(root).as_posix() for path in paths if "lab" not in path.relative_to(root).parts[:1]
    ]


def _within(name: str, profiles: list[str]) -> bool:
    """Whether a file belongs to one of the profiles, or to none."""
    first, _, rest = name.partition("/")
    return not rest or first in profiles
