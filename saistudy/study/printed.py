"""An executed notebook as a page: prose and outputs without the code, its pictures as files."""

import base64
import hashlib
import html
import json
import re
from pathlib import Path

import nbformat
import pandas as pd
from nbconvert import HTMLExporter

from saistudy.paths import Refusal
from saistudy.study import pages

PICTURES = "pictures"
EMBEDDED = re.compile(r'src="data:image/(png|jpeg);base64,([^"]*)"')
SUFFIXES = {"png": "png", "jpeg": "jpg"}


def exporter() -> HTMLExporter:
    """nbconvert without inputs and prompts, and without the scripts that it would name by address (7.17)."""
    return HTMLExporter(
        template_name="basic",
        exclude_input=True,
        exclude_output_prompt=True,
        mathjax_url="",
        require_js_url="",
        jquery_url="",
    )


def body(path: Path, site: Path, place: str) -> str:
    """HTML of an executed notebook; its pictures are written into the site, equal ones once.

    Args:
        place: of the page in the site, which its pictures are named relative to.

    Raises:
        Refusal: the file is no notebook.
    """
    try:
        book = nbformat.read(path, as_version=4)
    except Exception as error:  # nbformat has a family of them
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        raise Refusal(f"{path} cannot be read as a notebook ({why}): run it again, or restore it.") from None
    _describe(book)
    text, _ = exporter().from_notebook_node(book)

    def out(found: re.Match) -> str:
        data = base64.b64decode(found[2])
        name = f"{PICTURES}/{hashlib.sha256(data).hexdigest()[:16]}.{SUFFIXES[found[1]]}"
        (site / PICTURES).mkdir(exist_ok=True)
        (site / name).write_bytes(data)
        return f'src="{pages.relative(name, place)}" loading="lazy"'

    return pages.scrolled(pages.linked(EMBEDDED.sub(out, text), {}))


def _describe(book) -> None:
    """Give each cell the latest heading above it as the text of its pictures."""
    heading = "figure"
    for cell in book.cells:
        if cell.cell_type == "markdown":
            heading = (re.findall(r"^#+ (.+)$", cell.source, re.M) or [heading])[-1]
        cell.metadata["alt"] = f"{heading}: figure"


def asked(record: dict) -> str:
    """HTML of a run's parameters, folded: the inputs that show them are left out."""
    told = {key: json.dumps(value, ensure_ascii=False) for key, value in record["params"].items()}
    rows = pd.DataFrame({"parameter": told.keys(), "value": told.values()})
    commit = record["environment"]["git"]["commit"]
    made = f"{record['written'][:10]}, {f'commit {commit[:12]}' if commit else 'made outside git'}"
    return f"<p>{html.escape(made)}</p><details><summary>Parameters</summary>{pages.table(rows)}</details>"
