"""Source code as text: a notebook's cells, the names a cell assigns, code without its looks."""

import ast
import json
from functools import cache
from pathlib import Path

from saistudy.paths import ROOT


def code_cells(path: Path) -> list[tuple[str, list[str]]]:
    """Source and tags of each code cell of a notebook file, in order."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [
        ("".join(cell["source"]), cell["metadata"].get("tags", []))
        for cell in cells
        if cell["cell_type"] == "code"
    ]


def assigned(code: str) -> dict[str, ast.expr | None]:
    """Names that a cell assigns at its top level, with the expression assigned last."""
    try:
        body = ast.parse(code).body
    except SyntaxError:  # a magic: such a cell sets no parameter
        return {}
    names: dict[str, ast.expr | None] = {}
    for node in body:
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        if isinstance(node, ast.Assign | ast.AnnAssign):
            names |= {target.id: node.value for target in targets if isinstance(target, ast.Name)}
    return names


def _without_docstrings(tree: ast.Module) -> ast.Module:
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(tree):
        if isinstance(node, kinds) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return tree


@cache  # the runs of a study share their code: 20 identities took 23 s without (2026-11-28, profiled, CPU)
def bare(code: str, docstrings: bool = True) -> str:
    """Code without comments and layout, so that only a change of what it does changes it.

    Written with `ast.unparse`: unlike `ast.dump`, whose form changed in 3.12 and 3.13, it gives
    nearly the same text on every supported Python. A cell with a magic is returned as it stands.
    """
    try:
        tree = ast.parse(code)
    except SyntaxError:
        return code
    return ast.unparse(tree if docstrings else _without_docstrings(tree))


def notebook_code(path: Path) -> list[str]:
    """The bare code of each cell but the parameters, which a run's values stand for."""
    return [bare(code) for code, tags in code_cells(path) if "parameters" not in tags]


def package_code(root: Path = ROOT, study: bool = False) -> dict[str, str]:
    """File name to bare code, docstrings left out, of the modules that act on a run's numbers.

    Those are data/, training/, evaluation/ and the ground floor; `study/` only for a notebook
    whose result is the conclusions themselves.
    """
    package = root / "saistudy"
    rooms = ["data", "training", "evaluation"] + (["study"] if study else [])
    files = [file for room in rooms for file in (package / room).rglob("*.py")]
    files += [file for file in package.glob("*.py") if file.name != "__main__.py"]
    return {
        file.relative_to(package).as_posix(): bare(file.read_text(encoding="utf-8"), False)
        for file in sorted(files)
    }
