"""Where things stand. The ground floor: imports nothing of the project."""

import errno
import json
import os
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
PARAMS = ROOT / "params"


UNUSABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOSPC, errno.EDQUOT)


class Refusal(ValueError):
    """Bad input, said in one sentence: what was seen, what was expected, what to do."""


def results(profile: str) -> Path:
    """Folder of a profile's results: under `SAISTUDY_RESULTS` when that is set, else under `results/`.

    A notebook run interactively (Run All) sets it to `results/lab` in `params.check`: exploring never
    overwrites the study.
    """
    return Path(os.environ.get("SAISTUDY_RESULTS", ROOT / "results")) / profile


def work(profile: str) -> Path:
    """Folder of a profile's runs in progress, checkpoints, trees and stamps, below `SAISTUDY_WORK` if set."""
    return Path(os.environ.get("SAISTUDY_WORK", ROOT / "work")) / profile


def unusable(error: OSError) -> str | None:
    """The sentence of an error that says that a folder of work or results cannot be used; None of others."""
    if error.errno not in UNUSABLE or not isinstance(error.filename, str | os.PathLike):
        return None
    path, roots = Path(error.filename).absolute(), (work("").absolute(), results("").absolute())
    if not any(path == root or root in path.parents or path in root.parents for root in roots):
        return None
    return (
        f"{path} cannot be used ({error.strerror}): give the folder write permission and space, or name"
        " another root in SAISTUDY_WORK or SAISTUDY_RESULTS."
    )


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all: a temporary name in the same folder, then a rename.

    Raises:
        Refusal: the folder cannot be written to.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise Refusal(
            f"{path} cannot be written ({error.strerror}): give the folder write permission and space,"
            " or name another root in SAISTUDY_RESULTS or SAISTUDY_WORK."
        ) from error


def write_json(path: Path, value: object) -> None:
    """Write JSON whole or not at all; NaN and what JSON has no word for raise instead of becoming text."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False, sort_keys=True) + "\n")
