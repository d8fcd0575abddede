"""model.md beside a run's weights: data, classes, tensor, threshold, licence, for readers and for `predict`.

The head between the lines `---` is YAML, as model cards of the Hugging Face hub have it.
"""

import json
from pathlib import Path

import yaml

from saistudy.paths import ROOT, Refusal, write_text
from saistudy.study.saved import sha256, shown

NAME = "model.md"
LICENCE = "AGPL-3.0"  # of Ultralytics, whose networks these are, and of this project
DATA_LICENCES = {
    "fasdd_cv": "FASDD_CV, CC BY-SA 4.0, doi:10.57760/sciencedb.j00104.00103",
    "pyro-sdis": "PyroSDIS, Apache-2.0, Hugging Face data set pyronear/pyro-sdis",
}
FIGURES = ("threshold", "precision", "recall", "f1", "ap50", "images_n")
BODY = """\
# {run}

Detects {classes} on pictures letterboxed to {height} x {width} px (height x width); start: {start}.

{warning}Trained on {data}, fingerprint {fingerprint}. The threshold was chosen on val of
{chosen_on} where F1 of {chosen_for} is largest, and used as it was on {reported}, of which the
figures below are; pictures of other cameras may need another one.

| weights | threshold | precision | recall | F1 | AP50 | images |
|---|---|---|---|---|---|---|
{rows}

Licence of the weights: {licence}, that of Ultralytics. Data: {data_licence}.

    python -m saistudy predict {file} PICTURES
"""


def write(run: str, params: dict, trees: list, fits: dict, metrics: list[dict], more: dict) -> None:
    """Write the card of each training of a run beside its weights.

    Args:
        params: the run's validated parameters.
        trees: the tree that it was tested on, first.
        fits: model prefix to training.finished.Fit.
        metrics: rows of score.rows.
        more: further parts of the record: `handlings` where not all was trained on the first tree, and
            `reported`.
    """
    start = params.get("weights") or params.get("model") or f"stage 1 {params.get('arm')}-s{params['seed']}"
    for prefix, fit in fits.items():
        used = more.get("handlings", {}).get(prefix) or vars(trees[0])
        card = {
            "run": f"{params['profile']} {run}",
            "licence": LICENCE,
            "classes": {int(number): name for number, name in fit.conditions["names"].items()},
            "imgsz": list(fit.conditions["imgsz"]),
            "data": {key: used[key] for key in ("name", "provenance", "fingerprint")},
            "chosen_on": trees[0].name,
            "chosen_for": list(trees[0].names.values()),
            "reported": more.get("reported", "test"),
            "start": shown(Path(start)),
            "weights": {stop["weights"].name: _weights(prefix, stop, metrics) for stop in fit.stops},
        }
        write_text(fit.stops[-1]["weights"].with_name(NAME), text(card))


def _weights(prefix: str, stop: dict, metrics: list[dict]) -> dict:
    """Hash of a file, its threshold, and its figures on the images as published."""
    model = f"{prefix}-patience-{stop['patience']}".lstrip("-")
    first = next((row for row in metrics if row["model"] in _called(model, stop["weights"])), {})
    return {"model": model, "sha256": stop["sha256"]} | {key: first.get(key) for key in FIGURES}


def _called(model: str, file) -> set[str]:
    """Names that metrics have for a model; of a fine-tuning they know best.pt alone, as `best`."""
    return {model, "best"} if Path(file).name == "best.pt" else {model}


def text(card: dict) -> str:
    """The card as Markdown with its head."""
    data, synthetic = card["data"], card["data"]["provenance"] == "synthetic"
    told = {
        "classes": " and ".join(card["classes"].values()),
        "warning": "SYNTHETIC pictures were trained on: it says nothing about fires.\n" if synthetic else "",
        "data": f"{data['name']} ({data['provenance']})",
        "data_licence": _data_licence(card),
        "chosen_for": " and ".join(card["chosen_for"]),
        "rows": "\n".join(_row(name, one) for name, one in card["weights"].items()),
        "file": [*card["weights"]][-1],
    }
    height, width = card["imgsz"]
    told |= {"height": height, "width": width, "fingerprint": data["fingerprint"][:16]}
    told |= {key: card[key] for key in ("run", "start", "licence", "chosen_on", "reported")}
    return f"---\n{yaml.safe_dump(card, sort_keys=False)}---\n{BODY.format(**told)}"


def _data_licence(card: dict) -> str:
    """Whose the pictures are; that of the publishers in the profile alone that asserts their data sets."""
    name = card["data"]["name"]
    if card["data"]["provenance"] == "synthetic":
        return "synthetic pictures of this project"
    published = DATA_LICENCES if card["run"].startswith("h200 ") else {}
    known = [told for key, told in published.items() if key in name or name.startswith("joint")]
    return "; ".join(known) or "that of the pictures that were given"


def _row(name: str, one: dict) -> str:
    figures = [one[key] for key in ("threshold", "precision", "recall", "f1", "ap50")]
    cells = ["-" if value is None else f"{value:.3f}" for value in figures]
    return "| " + " | ".join([name, *cells, str(one["images_n"] or "-")]) + " |"


def threshold(weights: Path) -> tuple[float, str]:
    """The threshold of a weights file, and where it stands: in the model.md beside it, or in a record.

    A record is one of `results/` or beside the weights, and names the file by its hash.

    Raises:
        Refusal: none of them knows this file.
    """
    mine = sha256(weights)
    card = _head(weights.with_name(NAME)).get("weights", {}).get(weights.name, {})
    if card.get("sha256") == mine and card.get("threshold") is not None:
        return float(card["threshold"]), shown(weights.absolute().with_name(NAME))
    beside = [folder / "record.json" for folder in weights.absolute().parents[:3]]
    for path in [*beside, *sorted((ROOT / "results").glob("*/*/record.json"))]:
        if path.is_file() and (found := _recorded(json.loads(path.read_text()), mine)) is not None:
            return found, shown(path)
    raise Refusal(
        f"no {NAME} beside {weights} and no record in results/ names a threshold for it (sha256 {mine[:12]}):"
        " give one with --conf, such as --conf 0.25."
    )


def _head(path: Path) -> dict:
    """The YAML between the first two lines `---` of a card, {} where there is none."""
    if not path.is_file():
        return {}
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8").split("---\n")[1]) or {}
    except (IndexError, UnicodeDecodeError, yaml.YAMLError):
        raise Refusal(
            f"{path} has no head that can be read: remove it, or give a threshold with --conf."
        ) from None


def _recorded(record: dict, mine: str) -> float | None:
    """The threshold of the model of this hash, None where the record has none."""
    stops = [stop for stop in record.get("stops", []) if stop["sha256"] == mine]
    names = set().union(*(_called(stop["model"], stop["weights"]) for stop in stops))
    rows = record["metrics"] if names else []  # other notebooks than those that train have others
    return next((row["threshold"] for row in rows if row["model"] in names), None)
