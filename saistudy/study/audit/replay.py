"""What an executed notebook shows, computed again by its own cells from the record and the files beside it.

A cell tagged `audit` shows what a record holds. Here it is executed again, with the record in place of the
run, and what it shows must be what is kept. Figures are left out: their frames are saved and compared.
"""

import ast
import json
from types import SimpleNamespace

import pandas as pd
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

from saistudy.paths import results
from saistudy.study import claims, figures, tables
from saistudy.study.audit.executed import trained
from saistudy.study.record import model_name, read_record, read_records
from saistudy.study.transcript import plain

SHOWN = "audit"
CHECK = ["what", "seen", "expected", "agrees", "source"]
COLUMNS_MAX = 20  # what pandas takes in a kernel; in a terminal it cuts a frame to the width of the window
TEXTS = ("text/plain", "text/html", "text/markdown")


def findings(book, names: dict) -> list[str]:
    """Cells tagged `audit` whose outputs are not those that they give now.

    Args:
        names: what the cells find under their names; see `names_of`.
    """
    InteractiveShell.instance()  # without a shell `display` shows nothing
    found = []
    for at, cell in enumerate(book.cells):
        if SHOWN in cell.metadata.get("tags", []):
            now, kept = _again(cell.source, names), _kept(cell.outputs)
            if now != kept:
                found.append(f"cell {at} `{cell.source.splitlines()[-1].strip()}` shows {_first(kept, now)}")
    return found


def _again(code: str, names: dict) -> list[str]:
    """Texts that a cell gives: what it prints, then each object that it displays."""
    with capture_output() as seen, pd.option_context("display.max_columns", COLUMNS_MAX):
        exec(compile(code, "<cell>", "exec"), names)  # the code is that of the notebook's blob
    shown = [json.dumps(_texts(output.data)) for output in seen.outputs]
    return [plain(text) for text in ([seen.stdout] if seen.stdout else []) + shown]


def _kept(outputs: list) -> list[str]:
    """The same of the outputs of an executed cell."""
    printed = "".join(out.text for out in outputs if out.output_type == "stream" and out.name == "stdout")
    shown = [json.dumps(_texts(out.data)) for out in outputs if out.output_type != "stream"]
    return ([printed] if printed else []) + shown


def _texts(data: dict) -> dict[str, str]:
    return {kind: "".join(data[kind]) for kind in TEXTS if kind in data}


def _first(kept: list[str], now: list[str]) -> str:
    """The first place at which two lists of texts differ, both sides of it."""
    if len(kept) != len(now):
        return f"{len(kept)} outputs where there are {len(now)} now"
    one, other = next(pair for pair in zip(kept, now, strict=True) if pair[0] != pair[1])
    at = next((i for i, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), 0)
    start = max(0, at - 20)
    return f"{one[start : at + 20]!r} where {other[start : at + 20]!r} is computed"


def names_of(profile: str, record: dict, book, settled: list | None = None) -> dict:
    """What the cells of a notebook find under their names: its imports, and the record in place of the run.

    Args:
        settled: the claims as they are settled now, of which `claims` shows its tables.
    """
    found: dict = {}
    exec(compile(_imports(book), "<imports>", "exec"), found)
    found |= {"p": SimpleNamespace(**record["params"]), "machine": record["environment"]}
    found |= {key: record[key] for key in ("metrics", "sizes", "retention") if key in record}
    found["checks"] = [{key: row[key] for key in CHECK} for row in record.get("checks", [])]
    if record["notebook"] == "claims":
        return found | {"settled": settled, "table": claims.table(settled)}
    return found | MAKERS.get(record["notebook"], lambda *_: {})(profile, record)


def _imports(book) -> ast.Module:
    """The import statements of a notebook's cells."""
    cells = [ast.parse(cell.source) for cell in book.cells if cell.cell_type == "code"]
    nodes = [node for cell in cells for node in cell.body if isinstance(node, ast.Import | ast.ImportFrom)]
    return ast.Module(body=nodes, type_ignores=[])


def _tree(told: dict) -> SimpleNamespace:
    return SimpleNamespace(name=told["name"], provenance=told["provenance"], fingerprint=told["fingerprint"])


def _run(record: dict, prefix: str) -> SimpleNamespace:
    """The training of a prefix, as `fit` left it."""
    stops = [stop for stop in record["stops"] if stop["model"] == model_name(prefix, stop)]
    own = record["handlings"][prefix] if "handlings" in record else record
    told = {key: own[key] for key in ("conditions", "cost", "declared")}
    told |= {key: record[key][prefix] for key in ("attempts", "telemetry")}
    return SimpleNamespace(stops=stops, **told)


def _stage1(profile: str, record: dict) -> dict:
    return {
        "tree": _tree(record["data"]),
        "run": _run(record, ""),
        "counts": pd.DataFrame(**record["counts"]),
        "timed": record["latency"],
    }


def _stage2(profile: str, record: dict) -> dict:
    order = record["params"]["handlings"]
    return {
        "parent": read_record(profile, record["parent"]["run"]),
        "trees": {handling: _tree(record["handlings"][handling]) for handling in order},
        "runs": {handling: _run(record, handling) for handling in order},
        "counts": {handling: pd.DataFrame(**record["counts"][handling]) for handling in order},
        "operation": {handling: record["operation"][handling] for handling in order},
    }


def _finetune(profile: str, record: dict) -> dict:
    settled = record["settled"]
    chosen = ("tier", "model", "patience")
    return {
        "tree": _tree(record["data"]),
        "run": _run(record, "") if trained(record) else None,
        "counts": pd.DataFrame(**record["counts"]),
        "settled": settled,
        "settings": {key: value for key, value in settled.items() if key not in chosen},
        "patience": settled["patience"],
        "exported": record["export"],
        "reported": record["reported"],
    }


def _ablation(profile: str, record: dict) -> dict:
    """Table, pairs and frames of figures, from the records of the profile."""
    how = record["params"]["resamples_n"], record["params"]["bootstrap_seed"]
    table = tables.rows(profile, *how)
    return {
        "records": read_records(profile),
        "table": table,
        "others": tables.pairs(profile, record["params"]["pairs"], *how),
        "drawn": figures.frames(profile, table, *how),
    }


def _data(profile: str, record: dict) -> dict:
    """Findings from their csv, and the small frames that the record keeps."""
    listed = pd.read_csv(results(profile) / record["run"] / "findings.csv", keep_default_na=False)
    found = {name: pd.DataFrame(**frame) for name, frame in record["shown"].items()}
    for name, told, key in (("first", "fasdd_cv", "findings"), ("second", "pyro-sdis", "findings2")):
        found[name] = _tree(record["data"][told])
        found[key] = listed[listed["dataset"] == told].drop(columns="dataset")
    return found | {"accepted": record["metrics"][0]["accepted"]}


def _setup(profile: str, record: dict) -> dict:
    """The passes of every condition, the plans and the memory that the record keeps."""
    seen, told = record["metrics"], record["memory"]
    rates = {one["condition"]: one["images_per_s"] for one in seen}
    loaders = min(record["params"]["workers"], record["environment"]["cores_n"])
    return {
        **{"seen": seen, "rates": rates, "loaders": loaders, "plans": record["plans"]},
        "places": [name for name in rates if not name.startswith("workers ")],
        "counts": [name for name in rates if name.startswith("workers ")],
        "built": {name: _tree(tree) for name, tree in record["data"].items()},
        "seconds": record["cost"]["staging_s"],
        "again_s": record["cost"]["again_s"],
        **{"before": told["before"], "after": told["staged"], "in_memory": told["in_memory"]},
        "pages_mib": told["pages_mib"],
        "loader_bytes": record["plans"]["fasdd_cv"]["loader_bytes"],
        "whole": [{key: row[key] for key in CHECK} for row in record["whole"]],
    }


MAKERS = {"stage1": _stage1, "stage2": _stage2, "finetune": _finetune, "ablation": _ablation}
MAKERS |= {"data": _data, "setup-shm": _setup}
