"""One file of a run to take away: what is in its results folder, and its weights, each with its hash.

A .tar.gz and no .zip: every Linux machine unpacks it, and rights and long names need no thought. It holds no
time, user or order of a disk: equal inputs give equal bytes under the same Python and zlib.
"""

import gzip
import io
import os
import tarfile
from contextlib import suppress
from pathlib import Path

from saistudy.paths import ROOT, Refusal, results, work
from saistudy.study.record import read_record
from saistudy.study.saved import sha256, shown

SUMS = "SHA256SUMS"
LEFT_OUT = (".failed.ipynb", ".running.ipynb")


def write(profile: str, run: str, output: Path | None = None) -> Path:
    """Pack a run, whole or not at all; where it was written.

    Args:
        output: without it work/<profile>/bundles/<run>.tar.gz.

    Raises:
        Refusal: there is no such record, something that it lists is missing or has another hash, or the file
            cannot be written.
    """
    files = collect(profile, run)
    output = output or work(profile) / "bundles" / f"{run}.tar.gz"
    part = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            _pack(file, f"{profile}-{run}", files)
        os.replace(part, output)
    except OSError as error:
        raise Refusal(
            f"{output} cannot be written ({error.strerror}): give it space and write permission,"
            " or name another file with --output."
        ) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return output


def collect(profile: str, run: str) -> dict[str, Path]:
    """Name in the bundle to file, sorted: the run's results, its weights and the model.md beside them.

    Raises:
        Refusal: there is no such record, or something that it lists is missing or has another hash.
    """
    folder, record = results(profile) / run, read_record(profile, run)
    kept = [path for path in folder.rglob("*") if path.is_file() and not _left_out(path)]
    files = {path.relative_to(folder).as_posix(): path for path in kept}
    if "run.ipynb" not in files:
        raise Refusal(f"{shown(folder / 'run.ipynb')} does not exist beside its record: run {run} again.")
    for row in record.get("predictions", []):
        _check(folder / row["file"], row["sha256"], run)
    for stop in record.get("stops", []):
        weights = _weights(profile, run, stop["weights"])
        _check(weights, stop["sha256"], run)
        place = f"{stop['model'].rpartition('patience-')[0].rstrip('-')}/weights".lstrip("/")
        files[f"{place}/{weights.name}"] = weights
        if (card := weights.with_name("model.md")).is_file():
            files[f"{place}/{card.name}"] = card
    return dict(sorted(files.items()))


def _left_out(path: Path) -> bool:
    return path.name.startswith(".") or path.name.endswith(LEFT_OUT)


def _weights(profile: str, run: str, named: str) -> Path:
    """Weights in this machine's work folder, or where the record names them."""
    below = Path(named.partition(f"/{run}/")[2])
    places = [work(profile).absolute() / run / below, ROOT / named]
    return next((path for path in places if path.is_file()), places[0])


def _check(path: Path, expected: str, run: str) -> None:
    if not path.is_file():
        raise Refusal(
            f"{shown(path)}, which the record of {run} names, is not on this machine:"
            f" pack {run} where it was trained, or run it here."
        )
    if (seen := sha256(path)) != expected:
        raise Refusal(
            f"{shown(path)} has sha256 {seen[:12]}, the record of {run} says {expected[:12]}: it belongs to"
            f" another training; run {run} again."
        )


def _pack(file, top: str, files: dict[str, Path]) -> None:
    """Write the archive: a folder `top`, its files in order, and SHA256SUMS of them all in front."""
    sums = "".join(f"{sha256(path)}  {name}\n" for name, path in files.items()).encode()
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=file, compresslevel=6, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        archive.addfile(_entry(f"{top}/{SUMS}", len(sums)), io.BytesIO(sums))
        for name, path in files.items():
            with path.open("rb") as content:
                archive.addfile(_entry(f"{top}/{name}", path.stat().st_size), content)


def _entry(name: str, size_bytes: int) -> tarfile.TarInfo:
    """A file of nobody and of no time, readable by all."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size_bytes, 0o644
    return entry
