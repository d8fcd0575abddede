"""A notebook's parameters, checked before a kernel starts and inside it; a run's identity."""

import ast
import hashlib
import json
import math
import os
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from types import SimpleNamespace

import yaml
from pydantic import ValidationError

from saistudy.cells import assigned, code_cells, notebook_code, package_code
from saistudy.paths import NOTEBOOKS, PARAMS, ROOT, Refusal
from saistudy.schema import MODELS
from saistudy.wording import hint, near, number, seen, sentence

PREREGISTERED = ("stage1", "stage2", "ablation")
LOOKS = ("explore",)  # writes nothing: by hand, too, it looks at the study's own results


def _known(notebook: str | Path) -> str:
    """The notebook's name, when there is a model for it."""
    name = Path(notebook).stem
    if name not in MODELS:
        raise Refusal(f"unknown notebook '{name}'{near(name, {key: key for key in MODELS})}")
    return name


def source(notebook: str | Path) -> Path:
    """Path of a notebook given by name (stem in `notebooks/`) or by a path ending in .ipynb.

    Raises:
        Refusal: no parameters model has that name, or there is no such file.
    """
    path = Path(notebook)
    path = path if path.suffix == ".ipynb" else NOTEBOOKS / f"{notebook}.ipynb"
    _known(path)
    if not path.is_file():
        raise Refusal(f"{path} is missing: name a notebook of {NOTEBOOKS} or a path to one.")
    return path


def _leaves(value: object, where: str) -> Iterator[tuple[str, object]]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        if isinstance(item, dict | list):
            yield from _leaves(item, f"{where}.{key}")
        else:
            yield f"{where}.{key}", item


def _wrong(field: str, value: object) -> str | None:
    """What is wrong with one value inside `train`, `change` or `effective`, if anything."""
    if not isinstance(value, None | bool | int | float | str):
        return f"{seen(value)}, plain text, numbers and lists were expected."
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value}: write a finite number."
    if field != "effective" and number(value) is not None:
        return f"{seen(value)}, a number was expected{hint(value)}"
    return None


def _refuse_inside(notebook: str, values: dict) -> None:
    for field in ("train", "change", "effective"):
        for where, value in _leaves(values.get(field, {}), field):
            if wrong := _wrong(field, value):
                raise Refusal(f"{notebook}: {where} is {wrong}")


def validate(notebook: str | Path, values: dict) -> dict:
    """The values as the notebook's model holds them: every field, a float as float.

    Raises:
        Refusal: an unknown, missing or ill-typed parameter, or a number written as text.
    """
    name = _known(notebook)
    try:
        valid = MODELS[name].model_validate(values).model_dump()
    except ValidationError as problem:
        errors = sorted(problem.errors(), key=lambda error: error["type"] != "extra_forbidden")
        raise Refusal(f"{name}: {sentence(list(MODELS[name].model_fields), errors[0], values)}") from None
    _refuse_inside(name, valid)
    return valid


def defaults(notebook: str | Path) -> dict:
    """Values of the notebook's one cell tagged `parameters`: plain literals.

    Raises:
        Refusal: no such cell, several, or a value that is not a literal.
    """
    path = source(notebook)
    cells = [code for code, tags in code_cells(path) if "parameters" in tags]
    if len(cells) != 1:
        raise Refusal(f"{path.name} has {len(cells)} cells tagged 'parameters'; give it exactly one.")
    values = {}
    for name, value in assigned(cells[0]).items():
        try:
            values[name] = ast.literal_eval(value)
        except (ValueError, TypeError):
            raise Refusal(
                f"{path.name}: the default of {name} is not a literal (number, text, list, dict)."
            ) from None
    return values


def _mapping(path: Path) -> dict:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Refusal(f"{path} cannot be read as YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(values, dict):
        raise Refusal(f"{path} holds {seen(values)}, lines of the form 'name: value' were expected.")
    return values


def read(notebook: str | Path, files: list[Path], overrides: dict) -> dict:
    """Validated values: the notebook's defaults, the YAML files in order, then overrides.

    Whatever comes later replaces a top-level key as a whole, as Papermill's `-f` and `-p` do.

    Raises:
        Refusal: see `validate`; a file that is missing or no mapping.
    """
    values = defaults(notebook)
    for path in files:
        values |= _mapping(Path(path))
    return validate(notebook, values | overrides)


def check(notebook: str, namespace: dict) -> SimpleNamespace:
    """The validated parameters of the running notebook, as attributes.

    The first cell after the parameters calls it with `globals()`. IPython's `In` tells which names
    the parameters cell and Papermill's injected one (first line `# Parameters`) assigned. Without
    an injected cell somebody explores by hand: results go to `results/lab`, weights to `work/lab`,
    and a training shows a live table of its epochs; a notebook of LOOKS only reads.

    Raises:
        Refusal: see `validate`.
    """
    if not any(namespace["In"]):  # nbval executes without history: only parameters are assigned yet
        return SimpleNamespace(**validate(notebook, _plain(namespace)))
    cells = list(takewhile(lambda code: "params.check(" not in code, namespace["In"]))
    names = sorted({name for code in cells for name in assigned(code)})
    if notebook not in LOOKS and not any(code.startswith("# Parameters") for code in cells):
        os.environ.setdefault("SAISTUDY_RESULTS", str(ROOT / "results" / "lab"))
        os.environ.setdefault("SAISTUDY_WORK", str(ROOT / "work" / "lab"))
        os.environ["SAISTUDY_LIVE"] = "1"
    return SimpleNamespace(**validate(notebook, {name: namespace[name] for name in names}))


def _plain(namespace: dict) -> dict:
    """Values that a parameters cell can have assigned, IPython's own left out."""
    kinds = bool | int | float | str | list | dict
    own = {"In", "Out"}
    return {k: v for k, v in namespace.items() if k[0] != "_" and k not in own and isinstance(v, kinds)}


def identity(notebook: str | Path, values: dict, inputs: dict) -> str:
    """16 hex digits that change when anything that can move the run's numbers changes.

    They hash the values, the notebook's and the package's code without comments and layout, the
    lock, `inputs`: what the run reads (source keys of data, identities of earlier runs), and the rule
    that was fixed before, for tables refuse runs that were made under another.

    Raises:
        Refusal: see `validate`.
    """
    what = {
        "notebook": notebook_code(source(notebook)),
        "values": validate(notebook, values),
        "code": package_code(study=Path(notebook).stem in ("ablation", "claims")),
        "lock": hashlib.sha256((ROOT / "requirements.lock").read_bytes()).hexdigest(),
        "inputs": inputs,
    }
    if Path(notebook).stem in PREREGISTERED:
        what["prereg"] = hashlib.sha256((PARAMS / "prereg.yaml").read_bytes()).hexdigest()
    text = json.dumps(what, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
