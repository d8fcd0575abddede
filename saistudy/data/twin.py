"""Synthetic twins of the two data sets, in the formats in which these are published.

The pictures are painted; folders, names, lists, labels, sizes and proportions are the published ones, so
the code that reads a twin reads a download. Every artefact says `provenance: synthetic`; `faults.json`
lists what was planted for the data check to find.
"""

import fcntl
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

from saistudy.data.painted import (
    casting,
    faults,
    footage,
    layouts,
    lookalikes,
    placing,
    plumes,
    scenes,
    writing,
)
from saistudy.paths import Refusal, write_json

PLANTED = ("none", "published", "all")
AREA_FASDD = 0.02  # median box area as a share of the image: assumed, no count is published
AREA_PYRO = 0.0017  # the same of pyro-sdis, measured by its readers on about 107 images


def write_fasdd(
    folder: Path,
    images_n: int,
    seed: int,
    area_frac: float = AREA_FASDD,
    long_px: int | None = None,
    faults: str = "published",
) -> Path:
    """Folder `FASDD_CV` under `folder`: painted images in FASDD's published layout.

    `area_frac` is the median box area as a share of the image, `long_px` an upper bound of the longer
    side. `faults`: none, published (the known flaws of the real set: copies, runs of frames, a few boxes)
    or all (stress faults, too). The same arguments give the same bytes, whatever the number of threads; a
    complete twin made with the same arguments is left as it is, another one is replaced.
    `folder/provenance.json` says that it is synthetic and what made it, `folder/faults.json` what is
    planted: what, image, split, line (0: the whole image), twin.

    Raises:
        Refusal: too few images, another word for faults, or a FASDD_CV stands there that is no twin.
    """
    _enough(images_n, 24, "images")
    made_from = {"images_n": images_n, "seed": seed, "area_frac": area_frac, "long_px": long_px}
    return _whole(Path(folder), "FASDD_CV", made_from | {"planted": _known(faults)}, writing.fasdd)


def write_pyrosdis(
    folder: Path,
    images_n: int,
    seed: int,
    cameras_n: int = 30,
    size: tuple[int, int] = (1280, 720),
    area_frac: float = AREA_PYRO,
    faults: str = "published",
) -> Path:
    """Folder `pyro-sdis` under `folder`: painted camera events in PyroSDIS's published layout.

    `size` is width and height in pixels. Otherwise as `write_fasdd`; splits in `faults.json` are the
    published two.

    Raises:
        Refusal: too few cameras or images for them, another word for faults, or a pyro-sdis stands there
            that is no twin.
    """
    _enough(cameras_n, 2, "cameras")
    _enough(images_n, 9 * cameras_n, "images")
    made_from = {"images_n": images_n, "seed": seed, "cameras_n": cameras_n, "size": list(size)}
    made_from |= {"area_frac": area_frac, "planted": _known(faults)}
    return _whole(Path(folder), "pyro-sdis", made_from, writing.pyrosdis)


def _enough(n: int, least_n: int, what: str) -> None:
    if n < least_n:
        raise Refusal(f"A twin of {n} {what} was asked for: ask for at least {least_n}.")


def _known(planted: str) -> str:
    if planted not in PLANTED:
        raise Refusal(f"Faults {planted!r} were asked of a twin: choose one of {', '.join(PLANTED)}.")
    return planted


def _whole(folder: Path, name: str, made_from: dict, write: Callable[..., list[tuple]]) -> Path:
    """Write `folder/name` beside its place, mark it synthetic, rename it: one writer at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    mark, listing = folder / "provenance.json", folder / "faults.json"
    target, part = folder / name, folder / f".{name}.part"
    entry = made_from | {"generator": _generator(), "complete": True}
    with open(folder / ".twin.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = json.loads(mark.read_text(encoding="utf-8")) if mark.exists() else {}
        if target.exists() and listing.exists() and known.get(name) == entry:
            return target
        if target.exists() and name not in known:
            raise Refusal(
                f"{target} is no synthetic twin (no provenance.json beside it names it), so it is"
                " not replaced: name an empty folder."
            )
        shutil.rmtree(part, ignore_errors=True)
        planted = write(part, **made_from)
        known |= {"provenance": "synthetic"}
        write_json(mark, known | {name: entry | {"complete": False}})
        shutil.rmtree(target, ignore_errors=True)
        part.rename(target)
        faults.save(listing, name, planted)
        write_json(mark, known | {name: entry})
    return target


def _generator() -> str:
    """Hash of the code that decides what a twin's bytes are."""
    modules = (plumes, scenes, lookalikes, placing, footage, layouts, faults, casting, writing)
    paths = [*(module.__file__ for module in modules), __file__]
    return hashlib.sha256(b"".join(Path(path).read_bytes() for path in paths)).hexdigest()[:12]
