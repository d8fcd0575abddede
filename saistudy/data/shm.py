"""A tree staged to memory (`/dev/shm`): planned, copied in parallel, counted only when whole.

A file stands under its own name only when it is complete, with its source's modification time; the
manifest is written last. So a killed run is continued by running it again, and a source that has
changed since (other size or time) is copied again.
"""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

from saistudy.data import transfer
from saistudy.data.room import room
from saistudy.paths import Refusal, write_json, write_text

MANIFEST, MARK = "manifest.json", ".staging.json"
TOP = ("index.parquet", "quarantine.csv", "tree.json")
PAGE_BYTES = 4096  # tmpfs gives memory in pages
LEFT_BY_TRAINING = {".npy", ".cache"}  # Ultralytics' caches: not part of the tree, would skew speed


def loader_bytes(batch: int, imgsz: int, workers: int, prefetch: int = 4) -> int:
    """Bytes that the data loaders' own batches may fill in /dev/shm while a training runs.

    Every worker holds `prefetch` batches of uint8 images there and one more is being used. In
    Ultralytics 8.4.190 (data/build.py, engine/trainer.py) `prefetch` is 4 in training; validation
    has twice the workers, half the prefetch and batches of twice the size, beside the training's.
    """
    train = (workers * prefetch + 1) * batch * 3 * imgsz**2
    validation = 2 * train
    return train + validation


def plan(tree_folder: Path, target: Path, loader_bytes: int = 0, reserve_bytes: int = 0) -> dict:
    """What staging would take and whether it fits; nothing is written.

    bytes and files_n of the tree; needed_bytes: what is not staged yet, in whole pages, with the
    loaders' and the reserve; free_bytes of the file system; memory_limit_bytes of the control
    group (None: none); usable_bytes; fits; sentence.

    Raises:
        Refusal: no finished tree, target inside the source or the other way round.
    """
    sources = _sources(tree_folder, target)
    there = room(target)
    missing = [s for name, s in sources.items() if not transfer.same(s, target / name)]
    pages = sum(-(-source.stat().st_size // PAGE_BYTES) * PAGE_BYTES for source in missing)
    needed = pages + loader_bytes + reserve_bytes
    fits = needed <= there.usable_bytes
    sentence = (
        f"{target} {'has' if fits else 'lacks'} room: {_gib(needed)} are needed ({_gib(pages)} for"
        f" {len(missing)} of {len(sources)} files, {_gib(loader_bytes)} for the data loaders,"
        f" {_gib(reserve_bytes)} reserve), {_gib(there.usable_bytes)} can be used"
        f"{'.' if fits else ': free some, lower workers or batch, or train from disk.'}"
    )
    size = sum(source.stat().st_size for source in sources.values())
    sizes = {"bytes": size, "files_n": len(sources), "needed_bytes": needed, **there._asdict()}
    return sizes | {"fits": fits, "sentence": sentence}


def stage(
    tree_folder: Path,
    target: Path,
    loader_bytes: int = 0,
    reserve_bytes: int = 0,
    threads_n: int = 8,
    wait_s: float = 600,
) -> Path:
    """`target`, holding the whole tree with a `data.yaml` that names it, and its manifest.

    Killed and run again it continues. Another process that stages there is waited for `wait_s`.

    Raises:
        Refusal: it does not fit (before the first byte), the place filled up (all is given back),
            the target is inside the source or holds something else.
    """
    with transfer.owned(target, wait_s):
        _must_be_ours(target)
        sources = _sources(tree_folder, target)
        changed = {name: s for name, s in sources.items() if not transfer.same(s, target / name)}
        if not changed and _is_current(tree_folder, target, sources):
            return target
        estimate = plan(tree_folder, target, loader_bytes, reserve_bytes)
        if not estimate["fits"]:
            raise Refusal(estimate["sentence"])
        try:
            _fill(tree_folder, target, sources, threads_n)
        except (OSError, Refusal) as error:
            _remove(target)
            reason = getattr(error, "strerror", None) or "the manifest could not be written"
            raise Refusal(
                f"{target} could not be filled ({reason}), all of it was given back:"
                f" {_gib(estimate['needed_bytes'])} were needed,"
                f" {_gib(room(target).usable_bytes)} can be used now."
            ) from error
    return target


def staged(target: Path) -> bool:
    """Whether a whole tree stands in `target`: manifest there, every file with its size."""
    try:
        files = json.loads((target / MANIFEST).read_text(encoding="utf-8"))["files"]
        return all((target / name).stat().st_size == size for name, (size, _) in files.items())
    except (OSError, ValueError):
        return False


def differing(target: Path) -> list[str]:
    """Names of staged files whose bytes are no longer those of the manifest (reads everything)."""
    files = json.loads((target / MANIFEST).read_text(encoding="utf-8"))["files"]
    return [name for name, (_, digest) in files.items() if transfer.digest(target / name) != digest]


def release(target: Path, wait_s: float = 600) -> None:
    """Give the memory back: remove what was staged; nothing happens when nothing is there.

    Raises:
        Refusal: the folder was not made by `stage`.
    """
    if target.exists():
        with transfer.owned(target, wait_s):
            _must_be_ours(target)
            _remove(target)


def _must_be_ours(target: Path) -> None:
    names = {path.name for path in target.iterdir()} if target.exists() else set()
    if any(name[0] != "." for name in names) and not names & {MANIFEST, MARK}:
        raise Refusal(f"{target} holds files that were not staged: name an empty folder.")


def _gib(n: int) -> str:
    return f"{n / 2**30:.2f} GiB" if n >= 2**27 else f"{n / 2**20:.2f} MiB"


def _sources(tree_folder: Path, target: Path) -> dict[str, Path]:
    """Files of a finished tree by name, `data.yaml` left out: it is written anew."""
    inside, outside = tree_folder.resolve(), target.resolve()
    if inside.is_relative_to(outside) or outside.is_relative_to(inside):
        raise Refusal(f"{target} and the tree {tree_folder} overlap: name a target outside of it.")
    if not ((tree_folder / "tree.json").is_file() and (tree_folder / "data.yaml").is_file()):
        raise Refusal(f"{tree_folder} holds no finished tree (no tree.json and data.yaml): build it first.")
    found = [tree_folder / name for name in TOP if (tree_folder / name).is_file()]
    for folder in ("images", "labels"):
        found += [p for p in (tree_folder / folder).rglob("*") if p.is_file()]
    kept = [p for p in found if p.suffix not in LEFT_BY_TRAINING and not p.name.startswith(".")]
    return {p.relative_to(tree_folder).as_posix(): p for p in sorted(kept)}


def _is_current(tree_folder: Path, target: Path, sources: dict[str, Path]) -> bool:
    if not staged(target):
        return False
    listed = set(json.loads((target / MANIFEST).read_text(encoding="utf-8"))["files"])
    text = (target / "data.yaml").read_text(encoding="utf-8")
    return listed == {*sources, "data.yaml"} and text == _described(tree_folder, target)


def _described(tree_folder: Path, target: Path) -> str:
    """The tree's data.yaml with `path` naming the target."""
    known = yaml.safe_load((tree_folder / "data.yaml").read_text(encoding="utf-8"))
    return yaml.safe_dump(known | {"path": str(target.resolve())}, sort_keys=False)


def _fill(tree_folder: Path, target: Path, sources: dict[str, Path], threads_n: int) -> None:
    """Bring the target to the state of the source: extra files out, others in, manifest last."""
    (target / MANIFEST).unlink(missing_ok=True)
    write_json(target / MARK, {"source": str(tree_folder.resolve())})
    for path in [p for p in target.rglob("*") if p.is_file()]:
        if path.relative_to(target).as_posix() not in {*sources, MARK}:
            path.unlink()
    for folder in {(target / name).parent for name in sources}:
        folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(threads_n) as pool:
        jobs = {name: pool.submit(transfer.copy, s, target / name) for name, s in sources.items()}
        try:
            files = {name: job.result() for name, job in jobs.items()}
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    write_text(target / "data.yaml", _described(tree_folder, target))
    size = (target / "data.yaml").stat().st_size
    files["data.yaml"] = (size, transfer.digest(target / "data.yaml"))
    write_json(target / MANIFEST, {"hash": "blake2b-128", "files": files})


def _remove(target: Path) -> None:
    """Remove a staged folder: the manifest first, the mark that says whose it is last."""
    target.mkdir(exist_ok=True)
    (target / MANIFEST).unlink(missing_ok=True)
    for path in [path for path in target.iterdir() if path.name != MARK]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.rmtree(target)
