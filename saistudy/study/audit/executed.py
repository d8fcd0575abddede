"""An executed notebook against its source and its record: order, errors, source, parameters, epoch lines.

Each function returns findings, sentences that say what is wrong; none where nothing is.
"""

import ast
import json
import subprocess
from functools import cache
from pathlib import Path

import nbformat
import yaml

from saistudy.cells import assigned
from saistudy.paths import ROOT
from saistudy.study.record import blob
from saistudy.training import progress

INJECTED = "injected-parameters"


def read(path: Path) -> nbformat.NotebookNode:
    """An executed notebook; a missing or broken file raises OSError or ValueError."""
    return nbformat.v4.reads(path.read_text(encoding="utf-8"))  # read() would validate, in half a second


def order(book) -> list[str]:
    """Code cells are numbered 1 to n in their order, and none ended in an error."""
    code = [cell for cell in book.cells if cell.cell_type == "code" and cell.source.strip()]
    counts = [cell.execution_count for cell in code]
    found = []
    if counts != list(range(1, len(code) + 1)):
        found.append(f"its cells were executed as {counts}, 1 to {len(code)} was expected")
    errors = [out.ename for cell in code for out in cell.outputs if out.output_type == "error"]
    return found + [f"a cell ended in {name}" for name in errors]


def source(book, record: dict) -> list[str]:
    """Cells are those of the notebook whose blob the record holds, the injected parameters beside."""
    told = record["source"]
    text = stored(told["file"], told["blob"])
    if text is None:
        return [f"{told['file']} as it was (blob {told['blob'][:12]}) is not in the history"]
    theirs = [_plain(cell) for cell in json.loads(text)["cells"]]
    mine = [_plain(cell) for cell in book.cells if INJECTED not in cell.metadata.get("tags", [])]
    if len(mine) != len(theirs):
        return [f"it has {len(mine)} cells, {told['file']} of that blob has {len(theirs)}"]
    unlike = [at for at, pair in enumerate(zip(mine, theirs, strict=True)) if pair[0] != pair[1]]
    return [f"its cells {unlike} are not those of {told['file']} of that blob"] if unlike else []


def _plain(cell) -> tuple:
    """Kind, source and tags of a cell."""
    return cell["cell_type"], "".join(cell["source"]), sorted(cell["metadata"].get("tags", []))


@cache
def stored(file: str, name: str) -> str | None:
    """Text of a file by its blob: as it stands in the project, or from git; None where neither has it."""
    path = ROOT / file
    if path.is_file() and blob(path.read_bytes()) == name:
        return path.read_text(encoding="utf-8")
    told = subprocess.run(["git", "-C", ROOT, "cat-file", "blob", name], capture_output=True)
    return told.stdout.decode() if told.returncode == 0 else None


@cache
def history() -> frozenset[str] | None:
    """Blobs of every notebook in the history of this commit; None outside git or in a shallow clone."""
    git = ["git", "-C", str(ROOT)]
    shallow = subprocess.run([*git, "rev-parse", "--is-shallow-repository"], capture_output=True, text=True)
    if shallow.stdout.strip() != "false":
        return None
    words = [*git, "log", "--format=", "--raw", "--no-abbrev", "--no-renames", "HEAD", "--", "notebooks"]
    lines = subprocess.run(words, capture_output=True, text=True).stdout.splitlines()
    return frozenset(line.split()[3] for line in lines)


def committed(record: dict) -> list[str]:
    """The blob is in the history, where there is one."""
    known, told = history(), record["source"]
    if known is None or told["blob"] in known:
        return []
    return [f"{told['file']} as it was (blob {told['blob'][:12]}) was never committed"]


def parameters(book, record: dict) -> list[str]:
    """Parameters as injected, over the defaults, are those of the record."""
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    tagged = [
        cell for tag in ("parameters", INJECTED) for cell in cells if tag in cell.metadata.get("tags", [])
    ]
    values = {}
    for cell in tagged:
        values |= {name: ast.literal_eval(node) for name, node in assigned(cell.source).items()}
    given = book.metadata.get("papermill", {}).get("parameters", {})
    return _unlike("its cells assign", values, record["params"]) + _unlike(
        "Papermill gave", given, {key: record["params"].get(key) for key in given}
    )


def _unlike(who: str, seen: dict, told: dict) -> list[str]:
    seen = json.loads(json.dumps(seen))
    keys = sorted(key for key in seen.keys() | told.keys() if seen.get(key) != told.get(key))
    return [f"{who} {key} = {seen.get(key)}, its record says {told.get(key)}" for key in keys]


def epoch_lines(book, folder: Path, record: dict) -> list[str]:
    """Each epoch line that it shows follows from an epochs.csv beside it, and the last of each is shown."""
    shown = [line for line in _printed(book) if line.startswith("epoch ")]
    told = {prefix: _lines(folder / prefix, ran) for prefix, ran in trained(record).items()}
    expected = {line for lines in told.values() for line in lines}
    found = [
        f"it shows '{line}', which is in no epochs.csv of the run" for line in shown if line not in expected
    ]
    return found + [
        f"it does not show the last epoch of {prefix or 'the run'}: '{lines[-1]}'"
        for prefix, lines in told.items()
        if lines[-1] not in shown
    ]


def _printed(book) -> list[str]:
    streams = [
        out.text for cell in book.cells if cell.cell_type == "code" for out in cell.outputs if "text" in out
    ]
    return [line for text in streams for line in text.splitlines()]


def trained(record: dict) -> dict[str, dict]:
    """Conditions of each training of a run by the subfolder of its tables."""
    if "handlings" in record:
        return {handling: told["conditions"] for handling, told in record["handlings"].items()}
    return {"": record["conditions"]} if record.get("conditions") else {}


def _lines(folder: Path, ran: dict) -> list[str]:
    return progress.lines(progress.table(folder / "epochs.csv", ran["epochs"], ran["images_n"]))


def arguments(folder: Path, record: dict) -> list[str]:
    """args.yaml, Ultralytics' own, holds what was requested, save where it keeps something of its own."""
    asked = record["params"].get("train", {}) | record["params"].get("change", {})
    asked = {key: value for key, value in asked.items() if key not in ("imgsz", "batch", "device")}
    found = []
    for prefix in trained(record):
        told = yaml.safe_load((folder / prefix / "args.yaml").read_text(encoding="utf-8"))
        keys = sorted(key for key, value in asked.items() if told.get(key) != value)
        found += [f"args.yaml says {key} = {told.get(key)}, {asked[key]} was requested" for key in keys]
    return found
