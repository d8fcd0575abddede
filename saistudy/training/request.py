"""What a training is asked to be: refused before anything is written, or known by a digest."""

import hashlib
import json
from pathlib import Path

import torch
import ultralytics

from saistudy.paths import Refusal

FIXED = {"time": None, "val": True, "save": True, "resume": False}  # else no stop can be read off the csv


def refuse(weights, expected: str, patiences, train: dict) -> dict[str, str]:
    """What a training begins with, {weights, pretrained}: the sha256 of files, else names.

    Args:
        expected: sha256 of the weights, empty where any will do.

    Raises:
        Refusal: it cannot be trained; nothing is written yet.
    """
    begins = {"weights": refuse_weights(weights, expected), "pretrained": str(train.get("pretrained", ""))}
    if isinstance(train.get("pretrained"), str | Path):
        begins["pretrained"] = refuse_weights(train["pretrained"])
    refuse_settings(train, patiences)
    refuse_device(train.get("device", "cpu"))
    return begins


def digest(begins: dict[str, str], data, identity: str, **more) -> str:
    """16 hex digits that change when another training is asked for: weights, data, settings, versions.

    A tree is known by its tree.json (fingerprint of its images and labels), any other data by its yaml;
    `identity` stands for what only the caller knows, such as the code (params.identity).

    Args:
        begins: what `refuse` returned.
    """
    tree = Path(data).parent / "tree.json"
    what = {
        **begins,
        "data": _known(tree if tree.is_file() else Path(data)),
        "identity": identity,
        "versions": [ultralytics.__version__, torch.__version__],
        **more,
    }
    return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()[:16]


def sha256(path: Path) -> str:
    """Hex sha256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _known(path: Path) -> str:
    """The sha256 of a file; the name itself where Ultralytics knows it (yolov8n.yaml)."""
    return sha256(path) if path.is_file() else str(path)


def refuse_device(device) -> None:
    """Raise Refusal where a GPU is asked for that is not there."""
    if str(device) != "cpu" and not torch.cuda.is_available():
        raise Refusal(
            f"device {device} was asked for, but torch {torch.__version__} sees no CUDA GPU here: run profile"
            " demo or mini on a CPU, or install a driver that this torch works with."
        )


def refuse_settings(train: dict, patiences) -> None:
    """Raise Refusal where epochs would not all be validated and saved under one fixed schedule.

    `patience` 0 means never to Ultralytics; beside other patiences it has no place in ascending order.
    """
    if sorted(set(patiences)) != list(patiences) or (0 in patiences and len(patiences) > 1):
        raise Refusal(f"patiences {list(patiences)} were given, ascending numbers above 0 were expected.")
    for key, value in FIXED.items():
        if train.get(key, value) != value:
            raise Refusal(
                f"{key} {train[key]} was asked for, {value} was expected: the stops are read off epochs that"
                f" were all validated and saved under a schedule fixed by `epochs`; leave {key} out."
            )


def refuse_weights(weights, expected: str = "") -> str:
    """The sha256 of a weights file or model yaml, or the name of a yaml that Ultralytics has.

    Raises:
        Refusal: a weights file is missing (Ultralytics would download it) or has another hash.
    """
    path = Path(weights)
    if path.suffix in (".yaml", ".yml"):
        return _known(path)
    if not path.is_file():
        raise Refusal(
            f"weights {path} do not exist: name a file that does, or a model yaml such as yolov8s.yaml"
            " for random weights (nothing is downloaded)."
        )
    seen = sha256(path)
    if expected and seen != expected:
        raise Refusal(
            f"weights {path} have the sha256 {seen}, {expected} was expected: fetch the right file,"
            " or correct weights_sha256."
        )
    return seen
