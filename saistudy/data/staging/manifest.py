"""What was staged at a target, and how that differs from its source now."""

import json
from pathlib import Path
from typing import NamedTuple

from saistudy.data.staging import origin
from saistudy.data.staging.transfer import HASH, Stamp
from saistudy.paths import Refusal

NAME = "manifest.json"
Files = dict[str, tuple[Stamp, str]]  # name to stamp and hash


class State(NamedTuple):
    """A source, a target's files and those of its manifest; what is missing there and what has to go."""

    source: origin.Origin
    here: dict[str, Stamp]
    listed: Files
    missing: dict[str, Stamp]
    outdated: dict[str, Stamp]
    current: bool


def state(folder: Path, target: Path) -> State:
    """How a target stands to its source: one walk through each, no file is read but data.yaml and lists.

    Raises:
        Refusal: see `origin.read` and `origin.held`; the source has a file of the manifest's name.
    """
    source, here, listed = origin.read(folder, target), origin.held(target), read(target)
    if source.copied.pop(NAME, None) and not read(folder):
        raise Refusal(f"{folder} has a {NAME} of its own, the name of a staged copy's: rename it.")
    wanted, hashes = source.stamps, source.hashes
    rewritten = {name for name, hashed in hashes.items() if name in listed and listed[name][1] != hashed}
    missing = {n: one for n, one in wanted.items() if here.get(n) != one or n in rewritten}
    outdated = {n: one for n, one in here.items() if n in missing or n not in wanted}
    current = not missing and listed.keys() == wanted.keys() and whole(here, listed)
    return State(source, here, listed, missing, outdated, current)


def read(target: Path) -> Files:
    """Stamp and hash of every file in a manifest; empty when there is none or it is not sound."""
    try:
        known = json.loads((target / NAME).read_bytes())
        listed = {name: (Stamp(*one[:2]), one[2]) for name, one in known["files"].items()}
        return listed if known["hash"] == HASH else {}
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        return {}


def text(files: Files) -> bytes:
    """A manifest: the hash's name, and by name [size in bytes, modification time in ns, hash]."""
    entries = {name: [*one, hashed] for name, (one, hashed) in sorted(files.items())}
    return json.dumps({"hash": HASH, "files": entries}).encode() + b"\n"


def whole(here: dict[str, Stamp], listed: Files) -> bool:
    """Whether what is here is what is listed, apart from what a training leaves beside it."""
    beside = {n for n in here if n == NAME or (n not in listed and n.endswith(origin.LEFT_BY_TRAINING))}
    return {n: one for n, one in here.items() if n not in beside} == {
        n: one for n, (one, _) in listed.items()
    }
