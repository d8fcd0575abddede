"""A run's checkpoints: folders that hold all it needs to go on, committed by a rename, known by hash.

A checkpoint is a folder named by the epoch it was taken after. It is filled under another name,
its files and their hashes are forced to disk, then one rename makes it exist: a kill at any moment
leaves the one before. Two generations are kept.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import xxhash

from saistudy.paths import Refusal

FOLDER = "checkpoints"  # below the run's
KEPT_N = 2
HASHES = "hashes.json"
CHUNK_BYTES = 1 << 20


def commit(root: Path, number: int, fill: Callable[[Path], None]) -> Path:
    """The folder of the checkpoint taken after epoch `number` (from 1), once `fill` has filled it.

    Raises:
        Refusal: no space or no permission; earlier checkpoints are as they were.
    """
    target = publish(root / f"epoch-{number:05d}", fill)
    _prune(target)
    return target


def _prune(latest: Path) -> None:
    """Keep the latest and the one before it; of a later epoch there are only damaged ones."""
    others = sorted(path for path in latest.parent.glob("epoch-*") if path != latest)
    earlier = [path for path in others if epoch(path) < epoch(latest)]
    for path in set(others) - set(earlier[1 - KEPT_N :]):
        shutil.rmtree(path)


def publish(target: Path, fill: Callable[[Path], None]) -> Path:
    """The folder `target`, once `fill` has written its files: whole, hashed and on the disk, or not there.

    Raises:
        Refusal: no space or no permission.
    """
    with _folder(target) as part:
        fill(part)
    return target


def newest(*roots: Path | None) -> Path | None:
    """The latest checkpoint in any of the folders whose every file has its hash, if there is one."""
    known = [path for root in roots if root for path in root.glob("epoch-*")]
    return next((path for path in sorted(known, key=epoch, reverse=True) if whole(path)), None)


def epoch(checkpoint: Path) -> int:
    """The epoch after which a checkpoint was taken, from 1."""
    return int(checkpoint.name.rpartition("-")[2])


def whole(folder: Path) -> bool:
    """Whether a committed folder's files are exactly those of its list, each with its xxh3 hash."""
    try:
        known = json.loads((folder / HASHES).read_text(encoding="utf-8"))
        return known == _hashes(folder)
    except (OSError, ValueError):
        return False


def mirror(folder: Path, place: Path) -> None:
    """Copy a committed folder to a second place, and read it back there before it counts.

    Raises:
        Refusal: no space or no permission, or what was read back differs.
    """
    target = place / folder.name
    if whole(target):
        return
    with _folder(target) as part:
        shutil.copytree(folder, part, dirs_exist_ok=True, ignore=shutil.ignore_patterns(HASHES))
        if _hashes(part) != json.loads((folder / HASHES).read_text(encoding="utf-8")):
            raise Refusal(f"{target} reads back other bytes than were written: look at that disk.")
    _prune(target)


@contextmanager
def _folder(target: Path) -> Iterator[Path]:
    """A folder to fill; with the block's end it stands under its name, whole and on the disk."""
    part = target.with_name(f".{target.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        yield part
        (part / HASHES).write_text(json.dumps(_hashes(part), indent=1), encoding="utf-8")
        for path in [*part.rglob("*"), part]:
            _force(path)
        shutil.rmtree(target, ignore_errors=True)
        os.rename(part, target)
        _force(target.parent)
    except (OSError, RuntimeError) as error:  # torch.save's own is a RuntimeError
        shutil.rmtree(part, ignore_errors=True)
        why = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise Refusal(
            f"{target} cannot be written ({why}): give it space and write permission"
            " and start the same command again; the checkpoint before it is kept."
        ) from error


def _hashes(folder: Path) -> dict[str, str]:
    """Path below the folder -> xxh3-128 of each file, read anew."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != HASHES)
    return {path.relative_to(folder).as_posix(): _hash(path) for path in files}


def _hash(path: Path) -> str:
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _force(path: Path) -> None:
    """Have the kernel write a file or a folder's entries to the disk (fsync)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
