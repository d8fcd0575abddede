"""A target brought to the state of its source, and removed again: never what somebody else put there."""

import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from saistudy.data.staging import manifest, origin, pace, transfer
from saistudy.paths import Refusal

MARK = ".staging.json"  # says that the folder is ours: there before the first file, removed last


def must_be_ours(target: Path) -> None:
    """Refuse a target that is a link or a file, or holds anything but what `stage` put there.

    What Ultralytics leaves beside images while it trains on them is no reason.

    Raises:
        Refusal: one of these.
    """
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise Refusal(f"{target} is a link or a file: name a folder as target.")
    names = os.listdir(target) if target.exists() else []
    if MARK not in names and any(not transfer.is_part(name) for name in names):
        raise Refusal(f"{target} holds files that were not staged: name an empty folder.")
    if MARK in names and (stray := _stray(target)):
        raise Refusal(f"{target} holds {stray}, which was not staged: move it elsewhere, then run again.")


def _stray(target: Path) -> str | None:
    """A file that neither mark nor manifest names; None where there is none."""
    known = {MARK, manifest.NAME, *manifest.read(target), *marked(target).get("files", ())}
    for place, _, names in os.walk(target):
        for name in names:
            path = os.path.relpath(os.path.join(place, name), target)
            beside = transfer.is_part(name) or name.endswith(origin.LEFT_BY_TRAINING)
            if path not in known and not beside:
                return path
    return None


def mark(source: origin.Origin) -> bytes:
    """Contents of the mark: which source, and which files are about to stand here."""
    told = {"source": str(source.folder.resolve()), "files": sorted(source.stamps)}
    return json.dumps(told).encode() + b"\n"


def marked(target: Path) -> dict:
    """What the mark says; empty where there is none or it is not sound."""
    try:
        told = json.loads((target / MARK).read_bytes())
        return told if isinstance(told, dict) else {}
    except (OSError, ValueError):
        return {}


def fill(state: manifest.State, target: Path, threads_n: int, say: Callable[[str], None]) -> None:
    """Bring the target to the state of the source: what has to go out, others in, manifest last."""
    source, stamps = state.source, state.source.stamps
    if (former := marked(target).get("source")) not in (None, str(source.folder.resolve())):
        say(f"{target} held a copy of {former}: it is replaced")
    target.mkdir(exist_ok=True)
    _clean(target, {MARK, *stamps} - state.outdated.keys())
    transfer.write(target / MARK, mark(source))
    for folder in sorted({os.path.dirname(target / name) for name in stamps}):
        os.makedirs(folder, exist_ok=True)
    hashes = _copied(state, target, threads_n, say)
    for name, data in source.written.items():
        transfer.write(target / name, data, source.written_ns)
    hashes |= source.hashes
    files = {name: (one, hashes[name]) for name, one in stamps.items()}
    transfer.write(target / manifest.NAME, manifest.text(files))


def _copied(
    state: manifest.State, target: Path, threads_n: int, say: Callable[[str], None]
) -> dict[str, str]:
    """Hashes by name, after every missing file was copied; one that is there and not listed is read there."""
    wanted, missing, folder = state.source.copied, state.missing, os.fspath(state.source.folder)
    kept = {
        n: hashed for n, (one, hashed) in state.listed.items() if wanted.get(n) == one and n not in missing
    }
    hashes, to = dict(kept), os.fspath(target)

    def worker(number: int) -> Callable[[str], None]:
        memory = transfer.buffer()

        def act(name: str) -> None:
            copy = os.path.join(to, name)
            if name in missing:
                source = os.path.join(folder, name)
                hashes[name] = transfer.copy(source, copy, wanted[name], memory, number)
            else:
                hashes[name] = transfer.digest(copy, memory)

        return act

    jobs = [name for name in wanted if name not in kept]
    tell = pace.teller({name: wanted[name].size_bytes for name in jobs}, hashes, say)
    pace.drain(jobs, worker, threads_n, tell)
    return hashes


def _clean(target: Path, kept: set[str]) -> None:
    """Remove the manifest first, then every other file that is not to be kept, and empty folders."""
    (target / manifest.NAME).unlink(missing_ok=True)
    for place, _, names in os.walk(target, topdown=False):
        above = os.path.relpath(place, target)
        for name in names:
            if os.path.normpath(os.path.join(above, name)) not in kept:
                os.unlink(os.path.join(place, name))
        if place != os.fspath(target):
            with suppress(OSError):
                os.rmdir(place)


def remove(target: Path) -> None:
    """Remove a staged folder: the manifest first, the mark that says whose it is last."""
    (target / manifest.NAME).unlink(missing_ok=True)
    for entry in [entry for entry in os.scandir(target) if entry.name != MARK]:
        shutil.rmtree(entry.path) if entry.is_dir(follow_symlinks=False) else os.unlink(entry.path)
    shutil.rmtree(target)
