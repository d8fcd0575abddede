"""What a folder holds that can be staged: its files in one walk, and the texts that name its place."""

import os
from pathlib import Path
from typing import NamedTuple

import xxhash
import yaml

from saistudy.data.staging.transfer import Stamp, stamp
from saistudy.paths import Refusal

DESCRIPTION = "data.yaml"
DONE, BEGUN = "tree.json", "tree.begun"  # data.tree's, which takes a second to import
SPLITS = ("train", "val", "validation", "test", "minival")  # Ultralytics 8.4.190, check_det_dataset
LEFT_BY_TRAINING = (".npy", ".cache")  # Ultralytics' caches: no part of a data set, would skew speed


class Origin(NamedTuple):
    """A folder's files to copy (name to stamp), and those to write with the target's place in them."""

    folder: Path
    copied: dict[str, Stamp]
    written: dict[str, bytes]
    written_ns: int

    @property
    def stamps(self) -> dict[str, Stamp]:
        """Every file's stamp as it will be at the target."""
        return self.copied | {n: Stamp(len(text), self.written_ns) for n, text in self.written.items()}

    @property
    def hashes(self) -> dict[str, str]:
        """Hashes of the written files."""
        return {name: xxhash.xxh3_128(text).hexdigest() for name, text in self.written.items()}


def read(folder: Path, target: Path) -> Origin:
    """What is to be staged: one of our trees, a YOLO data set with its data.yaml at the top, or any folder.

    Hidden files are left out, and where there is a data.yaml what Ultralytics left beside the images.
    A link is followed (a folder once): its contents are copied.

    Raises:
        Refusal: no folder, an unfinished tree, nothing in it, one inside the other, what is neither
            file nor folder, a data.yaml that names places outside.
    """
    apart(folder, target)
    if not folder.is_dir():
        raise Refusal(f"{folder} is no folder: name the one that holds the files.")
    if (folder / BEGUN).exists() and not (folder / DONE).exists():
        raise Refusal(f"{folder} is no finished tree ({BEGUN}, but no {DONE}): build it first.")
    files = _walked(folder, target)
    files.pop(BEGUN, None)
    if not files:
        raise Refusal(f"{folder} holds no files: name the folder that holds them.")
    if DESCRIPTION not in files:
        return Origin(folder, files, {}, 0)
    kept = {name: one for name, one in files.items() if not name.endswith(LEFT_BY_TRAINING)}
    written = _written(Path(os.path.abspath(folder)), str(target.resolve()))
    copied = {name: one for name, one in kept.items() if name not in written}
    return Origin(folder, copied, written, files[DESCRIPTION].mtime_ns)


def apart(folder: Path, target: Path) -> None:
    """Nothing, if neither folder lies in the other and the target is no link.

    Raises:
        Refusal: one of these.
    """
    inside, outside = folder.resolve(), target.resolve()
    if target.is_symlink():
        raise Refusal(f"{target} is a link to {outside}: name that folder itself as target.")
    if inside.is_relative_to(outside) or outside.is_relative_to(inside):
        raise Refusal(f"{target} and the source {folder} overlap: name a target outside of it.")


def held(target: Path) -> dict[str, Stamp]:
    """Stamps of the files at a target, hidden ones left out; empty when there is none.

    Raises:
        Refusal: a link or what is neither file nor folder stands there.
    """
    return _walked(target, None) if target.exists() else {}


def _walked(folder: Path, target: Path | None) -> dict[str, Stamp]:
    """Stamp of every file below a folder by its name from there; with a target given, links are followed."""
    found: dict[str, Stamp] = {}
    followed: set[str] = set()
    waiting = [("", str(folder))]
    try:
        while waiting:
            above, place = waiting.pop()
            with os.scandir(place) as entries:
                for entry in entries:
                    if entry.is_symlink():
                        _linked(entry, target, followed)
                    if entry.name[0] == ".":
                        continue
                    if entry.is_dir():
                        waiting.append((f"{above}{entry.name}/", entry.path))
                    elif entry.is_file():
                        found[above + entry.name] = stamp(entry.stat())
                    else:
                        raise Refusal(f"{entry.path} is neither a file nor a folder: mend or remove it.")
    except OSError as error:
        raise Refusal(f"{error.filename} cannot be read ({error.strerror}): mend that first.") from error
    return found


def _linked(entry: os.DirEntry, target: Path | None, followed: set[str]) -> None:
    """Refuse a link in a target, and in a source one that leads round in a circle or to the target."""
    if target is None:
        raise Refusal(f"{entry.path} is a link, and nothing is written or counted through one: remove it.")
    if entry.is_dir() and entry.name[0] != ".":
        real = os.path.realpath(entry.path)
        if real in followed:
            raise Refusal(f"{entry.path} links to {real}, which was linked to before: leave one of them.")
        followed.add(real)
        apart(Path(real), target)


def _written(folder: Path, target: str) -> dict[str, bytes]:
    """The texts that name the folder, data.yaml and image lists with absolute paths, naming the target."""
    known = _description(folder / DESCRIPTION)
    base = _base(folder, known)
    texts: dict[str, bytes] = {}
    for split in [split for split in SPLITS if known.get(split)]:
        entries = known[split] if isinstance(known[split], list) else [known[split]]
        moved = [_moved(str(entry), base, folder, target) for entry in entries]
        known[split] = moved if isinstance(known[split], list) else moved[0]
        texts |= _lists([_place(str(entry), base) for entry in entries], folder, target)
    at_target = os.path.normpath(os.path.join(target, base.relative_to(folder)))
    text = yaml.safe_dump(known | {"path": at_target}, sort_keys=False, allow_unicode=True)
    return texts | {DESCRIPTION: text.encode()}


def _description(path: Path) -> dict:
    try:
        known = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Refusal(f"{path} is no YAML ({str(error).splitlines()[0]}): mend it.") from error
    if not isinstance(known, dict):
        raise Refusal(f"{path} holds no keys and values: write `train`, `val` and `names` there.")
    return known


def _base(folder: Path, known: dict) -> Path:
    """What the entries of a data.yaml are relative to: its `path` below the folder, else the folder itself.

    Raises:
        Refusal: `path` names another place and the training images are not below the folder.
    """
    stated = folder / str(known.get("path") or ".")
    name = _name(stated, folder) if stated.is_dir() else None
    if name is not None:
        return folder / name
    train = known.get("train") or ""
    entries = [str(entry) for entry in (train if isinstance(train, list) else [train])]
    if not all(_place(entry, folder).exists() for entry in entries):
        raise Refusal(
            f"{folder / DESCRIPTION}: its `path` is {known['path']}, and `train` ({train}) is not in"
            f" {folder}: name the folder that holds the images, or mend `path`."
        )
    return folder


def _name(path: Path, folder: Path) -> str | None:
    """A path as named from the folder, whichever way links are taken; None outside of it."""
    for plain, top in ((os.path.abspath(path), folder), (os.path.realpath(path), folder.resolve())):
        if Path(plain).is_relative_to(top):
            return Path(plain).relative_to(top).as_posix()
    return None


def _place(entry: str, base: Path) -> Path:
    """Where Ultralytics looks for an entry: one level less up when nothing is there."""
    place = base / entry
    return base / entry[3:] if entry.startswith("../") and not place.exists() else place


def _moved(entry: str, base: Path, folder: Path, target: str) -> str:
    """An absolute path of the folder at the target; a relative one as it is, which must stay inside."""
    name = _name(_place(entry, base), folder)
    if name is None:
        raise Refusal(
            f"{folder} names {entry}, which is outside of it and would not be staged: name it from inside,"
            " or name the folder that holds both."
        )
    return os.path.join(target, name) if os.path.isabs(entry) else entry


def _lists(paths: list[Path], folder: Path, target: str) -> dict[str, bytes]:
    """Image lists (text files, a path a line) that hold absolute paths, naming the target."""
    texts = {}
    for path in [path for path in paths if path.suffix == ".txt" and path.is_file()]:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        if any(os.path.isabs(line) for line in lines):
            moved = [_moved(ln, folder, folder, target) if os.path.isabs(ln) else ln for ln in lines]
            texts[_name(path, folder)] = ("\n".join(moved) + "\n").encode()
    return texts
