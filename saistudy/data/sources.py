"""Where a profile's data come from, and the tree that its notebooks train on."""

import fcntl
import hashlib
import json
import os
from contextlib import contextmanager
from pathlib import Path

from saistudy import params
from saistudy.data import fasdd, joint, keys, pyrosdis, shm, split, tree, twin, yolo
from saistudy.data.known import Known
from saistudy.paths import PARAMS, Refusal, work, write_json

READERS = {"fasdd_cv": fasdd, "pyro-sdis": pyrosdis}  # a further layout has its line here
# The study's own two, which every notebook knows, and what names them; a further layout: `variable`.
VARIABLES = {"fasdd_cv": "SAISTUDY_FASDD", "pyro-sdis": "SAISTUDY_PYROSDIS"}
# Science Data Bank record V9 and the data set card, both as read in November 2026.
WANTED = {
    "fasdd_cv": f"FASDD_CV.zip ({fasdd.ARCHIVE_BYTES:_} bytes, MD5 {fasdd.ARCHIVE_MD5}) of version V9 of"
    " doi:10.57760/sciencedb.j00104.00103",
    "pyro-sdis": f"the Hugging Face data set pyronear/pyro-sdis, revision {pyrosdis.REVISION}"
    f" (3_425_969_785 bytes in {len(pyrosdis.SHA256)} parquet shards, SHA-256 of the first"
    f" {min(pyrosdis.SHA256.items())[1]})",
}
FORMS = ("", "-positives-only", "-disjoint")
TREES = [name + form for name in (*READERS, joint.NAME) for form in FORMS]
# Twins of few pixels with large boxes, which a detector learns in a few epochs; else the published sizes.
SMALL = {
    "fasdd_cv": {"long_px": 320, "area_frac": 0.05},
    "pyro-sdis": {"size": (320, 180), "area_frac": 0.05},
}


def locate(profile: str, dataset: str) -> Path:
    """Path of a data set in its published format: the profile's twin, or what the environment names.

    Args:
        profile: demo (of the study's own two a synthetic twin, made if absent), mini or h200.
        dataset: a name in READERS.

    Raises:
        Refusal: there is no such data set, or the environment variable is not set, or names nothing.
    """
    if dataset not in READERS:
        raise Refusal(f"there is no data set '{dataset}': choose one of {', '.join(READERS)}.")
    if profile == "demo" and dataset in SMALL:
        return _twin(profile, dataset)
    name = variable(dataset)
    path = os.environ.get(name)
    if path and Path(path).exists():
        return Path(path)
    seen = f"{name} names {path}, which does not exist" if path else f"{name} is not set"
    wanted = WANTED.get(dataset) if profile == "h200" else None
    advice = f"download {wanted}, put it on a local disk" if wanted else "take any set laid out like it"
    raise Refusal(
        f"{seen}: profile {profile} needs {dataset} in its published format; {advice} and set {name}"
        " to it (nothing is downloaded)."
    )


def variable(dataset: str) -> str:
    """The environment variable that names a data set: SAISTUDY_ and its name, but for the study's own two."""
    return VARIABLES.get(dataset) or "SAISTUDY_" + dataset.upper().replace("-", "_")


def base(dataset: str) -> str:
    """The data set whose files a tree's name stands for: fasdd_cv of fasdd_cv-disjoint."""
    return dataset.removesuffix("-disjoint")


def _twin(profile: str, dataset: str) -> Path:
    """The profile's synthetic twin, written if absent or made with other parameters."""
    values = params.read("data", [PARAMS / profile / "data.yaml"], {})
    folder = work(profile) / "twin" / dataset
    style = {"faults": values["faults"]} | (SMALL[dataset] if values["twin_size"] == "small" else {})
    if dataset == "fasdd_cv":
        return twin.write_fasdd(folder, values["fasdd_n"], values["twin_seed"], **style)
    return twin.write_pyrosdis(
        folder, values["pyrosdis_n"], values["twin_seed"], values["cameras_n"], **style
    )


def planted(profile: str, dataset: str) -> set[tuple] | None:
    """Faults planted in a synthetic twin as (what, image, line); None for photographs."""
    path = locate(profile, dataset).parent / "faults.json"
    if not path.is_file():
        return None
    faults = json.loads(path.read_text(encoding="utf-8"))["faults"]
    return {(fault["what"], fault["image"], fault["line"]) for fault in faults}


def key(profile: str, dataset: str) -> str:
    """The source key of a profile's data set, however split; of the joint pool those of both, with a "+"."""
    parts = tuple(VARIABLES) if base(dataset) == joint.NAME else (base(dataset),)
    return "+".join(keys.of(locate(profile, part), part) for part in parts)


def read(profile: str, dataset: str):
    """The Dataset of a profile; `<name>-disjoint` is the same re-split by whole groups.

    `joint` is FASDD's train split and PyroSDIS, of `joint-disjoint` PyroSDIS alone is re-split. What was
    found out about a file is kept in the work folder, so an unchanged one is not read again.

    Raises:
        Refusal: the profile is h200 and the data are not the published ones.
    """
    name = base(dataset)
    if name == joint.NAME:
        return joint.pool(read(profile, "fasdd_cv"), read(profile, "pyro-sdis" + dataset.removeprefix(name)))
    source, reader = locate(profile, name), READERS[name]
    found = reader.read(source, Known(work(profile) / "known" / f"{name}.parquet"))
    if profile == "h200" and name in VARIABLES:
        reader.assert_published(source, found, digests(profile))
    return split.disjoint(found) if dataset != name else found


def digests(profile: str) -> Path:
    """Where the checksums of a profile's downloads are remembered (`index.digest`): 12 GB take a while."""
    return work(profile) / "known" / "digests.json"


def build(profile: str, dataset: str, negatives: bool = True) -> tree.Tree:
    """The tree on disk, built once in the profile's work folder and again when its source changes.

    Args:
        dataset: a name in READERS or joint, or any with -disjoint.
        negatives: False leaves images without boxes out.
    """
    folder = work(profile) / "trees" / _name(dataset, negatives)
    with locked(folder.with_suffix(".lock")):
        wanted = key(profile, dataset)
        if _built(folder) != wanted:
            (folder / "source.json").unlink(missing_ok=True)
            tree.build(read(profile, dataset), folder, negatives=negatives)
            write_json(folder / "source.json", {"source_key": wanted})
    return tree.load(folder)


def prepare(profile: str, dataset: str, negatives: bool = True) -> tree.Tree:
    """The tree to train on: its staged copy where there is one of the same content, else the one on disk."""
    built = build(profile, dataset, negatives)
    staged = staging_target(profile, _name(dataset, negatives))
    if shm.staged(staged) and tree.load(staged).fingerprint == built.fingerprint:
        return tree.load(staged)
    return built


def named(profile: str, data_yaml: str) -> tuple[tree.Tree, str]:
    """The tree of any YOLO data.yaml, or of the profile's FASDD where none is named; and its key.

    Raises:
        Refusal: see yolo.read and tree.build.
    """
    if not data_yaml:
        return prepare(profile, "fasdd_cv"), key(profile, "fasdd_cv")
    found = yolo.read(Path(data_yaml), Known(work(profile) / "known" / "yolo.parquet"))
    where = hashlib.sha256(os.path.abspath(data_yaml).encode()).hexdigest()[:8]
    folder = work(profile) / "trees" / f"yolo-{found.name}-{where}"
    with locked(folder.with_suffix(".lock")):
        tree.build(found, folder)
    built = tree.load(folder)
    return built, built.fingerprint


def _name(dataset: str, negatives: bool) -> str:
    """Folder name of a tree."""
    return dataset if negatives else f"{dataset}-positives-only"


def staging_target(profile: str, name: str) -> Path:
    """Where a tree is staged: below the `target` of the profile's setup-shm parameters."""
    values = params.read("setup-shm", [PARAMS / profile / "setup-shm.yaml"], {})
    return Path(os.environ.get("SAISTUDY_SHM", values["target"])) / "saistudy" / profile / name


def stores(profile: str) -> list[Path]:
    """Where decoded images of a profile may stand, the first that has room: memory, then the work folder.

    A file that was read once lies in the page cache: a local disk then serves as fast (measured: 0.99 times).
    """
    return [staging_target(profile, "stores"), work(profile) / "stores"]


def to_stage(profile: str, action: str, source: Path | None, target: Path | None) -> dict[Path, Path]:
    """What a `stage` command speaks of: target by source folder.

    A given target stands alone (its source matters to plan and run); else the profile's trees: of plan those
    that were built, of run the two that the study starts with, of the other actions any.

    Raises:
        Refusal: a plan before anything was built.
    """
    if target is not None:
        return {source or target: target}
    folders = {name: work(profile) / "trees" / name for name in TREES}
    if action == "run":
        folders = {name: build(profile, name).folder for name in VARIABLES}
    elif action == "plan":
        folders = {name: folder for name, folder in folders.items() if (folder / tree.DONE).is_file()}
        if not folders:
            raise Refusal(
                f"no tree of profile {profile} was built yet: run the data notebook or `stage run`."
            )
    return {folder: staging_target(profile, name) for name, folder in folders.items()}


def beside(profile: str, values: dict | None = None) -> tuple[int, int]:
    """Bytes that loaders will put beside staged images, and the reserve: by `values`, else the profile's."""
    p = values or params.read("setup-shm", [PARAMS / profile / "setup-shm.yaml"], {})
    loader_bytes = shm.loader_bytes(p["batch"], p["imgsz"], p["workers"], p["prefetch"])
    return loader_bytes, int(p["reserve_gib"] * 2**30)


def _built(folder: Path) -> str | None:
    """The source key that a finished tree was built from."""
    try:
        return json.loads((folder / "source.json").read_text())["source_key"]
    except (OSError, ValueError, KeyError):
        return None


@contextmanager
def locked(path: Path):
    """Hold an exclusive lock: two notebooks that need the same tree build it once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
