"""An executed notebook as a transcript: what was computed, without when and where."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat

from saistudy.paths import ROOT

DROPPED = ("papermill", "execution", "widgets")
WIDGET = "application/vnd.jupyter.widget-view+json"


def _folders() -> Iterator[tuple[Path, str]]:
    """Folders of this machine and what stands for them, the most particular first."""
    for name, sign in (("SAISTUDY_WORK", "./work"), ("SAISTUDY_RESULTS", "./results")):
        if name in os.environ:
            yield Path(os.environ[name]).absolute(), sign
    yield ROOT, "."
    yield Path.home(), "~"


def plain(text: str) -> str:
    """Text without what differs between two machines or two moments, and nothing else.

    Absolute paths of the repository become `.`, of the home `~`; a kernel's temporary file
    `ipykernel/<hash of the cell>.py`; a Python address `at 0x0`. Other hexadecimal stays.
    """
    for folder, sign in _folders():
        if len(folder.parts) > 1:
            text = re.sub(rf"(?<![\w.~-]){re.escape(str(folder))}(?![\w-])", sign, text)
    text = text.replace("\x1b[K", "")  # a bar's "erase to the end of the line"
    # tried where a word begins and nowhere inside it: a picture of 1 MB in HTML is one word
    text = re.sub(r"(?<![^\s\"'])[^\s\"']*/ipykernel_\d+/", "ipykernel/", text)
    return re.sub(r"\bat 0x[0-9a-f]+", "at 0x0", text)


def _plain_output(output: dict) -> dict:
    for field in ("text", "evalue"):
        if field in output:
            output[field] = plain(output[field])
    if "traceback" in output:
        output["traceback"] = [plain(line) for line in output["traceback"]]
    data = output.get("data", {})
    data.pop(WIDGET, None)
    for kind, value in data.items():
        if kind.startswith("text/") and isinstance(value, str):
            data[kind] = plain(value)
    return output


def normalise(notebook: nbformat.NotebookNode, name: str) -> nbformat.NotebookNode:
    """The notebook with what was computed and nothing of when and where; same results, same bytes.

    Gone are timings, widget state, Papermill's metadata but for the parameters, and the kernel's
    version; absolute paths become `.` and `~`, addresses `0x0`; ids are `<name>-<i>`. Source,
    tags, execution counts and figures stay as they are. A second pass changes nothing.
    """
    given = notebook.metadata.get("papermill", {}).get("parameters", {})
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
            "papermill": {"parameters": given},
        }
    )
    for index, cell in enumerate(notebook.cells):
        cell.id = f"{name}-{index}"
        kept = {key: value for key, value in cell.metadata.items() if key not in DROPPED and value != []}
        cell.metadata = nbformat.from_dict(kept)
        if cell.cell_type == "code":
            cell.outputs = [_plain_output(output) for output in cell.outputs]
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook
