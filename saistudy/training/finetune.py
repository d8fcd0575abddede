"""Seed document 004's fine-tuning: what is trained on the machine at hand, and the result file."""

import os
import random
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import yaml
from ultralytics import YOLO
from ultralytics.utils import DEFAULT_CFG

from saistudy.data.boxes import to_xyxy_px
from saistudy.data.tree import Tree
from saistudy.paths import PARAMS, ROOT, Refusal
from saistudy.training import cutouts, memory
from saistudy.training.finished import DONE, Fit
from saistudy.training.fit import BEGUN
from saistudy.training.paste import FEATHER_PX, SCALES, Paste, pasted
from saistudy.training.rect import tensor_hw
from saistudy.training.request import refuse_weights
from saistudy.training.resume import SETTINGS

MODEL = "yolov8m.yaml"  # seed 004, L157
FAST_MODEL = "yolov8s.yaml"  # L38
FAST_SHARE = 5  # of the epochs; L95 says "fewer" without a number: 10 of 50 is ours
# parameters that a training does not depend on: another value of them goes on with the same one
AROUND = {"resume": True, "validate_only": False, "export": "", "tensorboard": True, "tensorboard_port": 6006}
SHOWN_PX = 320  # the shorter side from which on an example has all of its faded edge
SIZES = "nsmlx"  # YOLOv8's networks by size
METRICS = ("mAP50", "mAP50-95", "precision", "recall")


def settle(p, total_gib: float) -> dict:
    """What is trained: {tier, model, patience, and Ultralytics' arguments}; a later layer wins.

    The layers: `train` as given; with `auto_scale` model, batch and imgsz of the tier; the values of
    `preset`; with `fast` no larger a network than yolov8s and a fifth of the epochs, of those without mosaic
    and of the warm-up; a `model` that is named; where `auto_scale` found no GPU, the CPU, which has no AMP. A
    batch that is to be sought ("auto") stays so. `nbs` is raised to the batch, for stock scales the weight
    decay by batch / nbs (8.4.190).

    Args:
        p: parameters of the notebook `finetune` (schema.Finetune).
        total_gib: memory of the GPU as `hardware.gpus` counts it, 0 for none.

    Raises:
        Refusal: as `memory.tier`.
    """
    sized = memory.tier(total_gib, p.tier)
    chosen = {"model": MODEL, "patience": max(p.patiences)} | p.train
    if p.auto_scale:
        chosen |= {"model": f"{sized['model']}.yaml", "batch": sized["batch"], "imgsz": sized["imgsz"]}
    if p.train.get("batch") == memory.AUTO:
        chosen["batch"] = memory.AUTO
    if p.preset:
        chosen |= presets()[p.preset]
    if p.fast:
        chosen |= _fast(chosen)
    if p.model:
        chosen["model"] = p.model
    if p.auto_scale and sized["tier"] == "cpu":
        chosen["device"] = "cpu"
    batch = chosen.setdefault("batch", DEFAULT_CFG.batch)
    if isinstance(batch, int):
        chosen["nbs"] = max(chosen.get("nbs", DEFAULT_CFG.nbs), batch)
    if str(chosen.setdefault("device", 0 if total_gib else "cpu")) == "cpu":
        chosen["amp"] = False  # as Ultralytics would by itself
    return {"tier": sized["tier"], **chosen}


def presets() -> dict[str, dict]:
    """Named sets of values, of which seed 004 has one: params/presets.yaml."""
    return yaml.safe_load((PARAMS / "presets.yaml").read_text(encoding="utf-8"))


def _fast(chosen: dict) -> dict:
    told = vars(DEFAULT_CFG) | chosen
    smaller = min(chosen["model"], FAST_MODEL, key=lambda model: SIZES.index(model[len("yolov8")]))
    return {
        "model": smaller,
        "epochs": max(1, told["epochs"] // FAST_SHARE),
        "close_mosaic": told["close_mosaic"] // FAST_SHARE,
        "warmup_epochs": told["warmup_epochs"] / FAST_SHARE,
    }


def refuse_begun(folder: Path, resume: bool) -> None:
    """Raise Refusal where an unfinished training stands and was not asked to go on, lest it be lost."""
    if not resume and (folder / BEGUN).is_file() and not (folder / DONE).is_file():
        raise Refusal(
            f"an unfinished training stands in {folder} and resume is False: set resume to True to go on with"
            " it, remove the folder, or name another output."
        )


def weights(model: str, sha256: str, folder: Path) -> Path:
    """A copy in `folder` of the weights file that `validate_only` evaluates: an export lies beside it.

    Raises:
        Refusal: it is none, is missing, or has another hash than `sha256` (empty accepts any).
    """
    if Path(model).suffix != ".pt":
        raise Refusal(f"validate_only evaluates trained weights, model is '{model}': name a .pt file there.")
    refuse_weights(model, sha256)
    folder.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copy(model, folder))


def tensor(weights: Path) -> list[int]:
    """Height and width in px that a model was trained at, from its checkpoint."""
    return list(tensor_hw(YOLO(weights).overrides["imgsz"]))


def paste(p, tree: Tree, folder: Path) -> Paste | None:
    """What is pasted while training, None where nothing can be; says which.

    A folder that is not given is the training split's own: its objects, and its images without boxes, linked
    into `folder`.

    Raises:
        Refusal: the ratio is not above 0.
    """
    if not p.dynamic_synthetic:
        return None
    own = _backgrounds(tree, folder) if not p.backgrounds_dir else Path(p.backgrounds_dir)
    if own is None:
        print("nothing is pasted: train has no image without boxes, and backgrounds_dir names no other")
        return None
    annotated = Path(p.annotated_dir) if p.annotated_dir else tree.folder / "images" / "train"
    return Paste(own, annotated, p.synthetic_ratio)


def examples(paste: Paste, names: dict[int, str], seed: int, n: int = 4) -> dict[str, tuple[bytes, list]]:
    """Some of what is pasted while training, at full size: name to its JPEG and boxes (x1, y1, x2, y2 px).

    Python's `random`, which pasting draws from, is left as it was.
    """
    objects = cutouts.cutouts(
        paste.annotated_dir, names, cv2.IMREAD_COLOR, FEATHER_PX / (SCALES[0] * SHOWN_PX)
    )
    files = cutouts.backgrounds(paste.backgrounds_dir, cv2.IMREAD_COLOR)[:n]
    state, found = random.getstate(), {}
    random.seed(seed)
    for i, file in enumerate(files):
        image, _, xywh = pasted(cv2.imread(str(file)), objects)
        corners = to_xyxy_px(np.c_[np.zeros(len(xywh)), xywh], *image.shape[1::-1])
        found[f"{i}: on {file.name}"] = cv2.imencode(".jpg", image)[1].tobytes(), corners.tolist()
    random.setstate(state)
    return found


def _backgrounds(tree: Tree, folder: Path) -> Path | None:
    """A folder of links to the training images without boxes, None where there is none."""
    rows = tree.rows[(tree.rows["split"] == "train") & (tree.rows["boxes"].map(len) == 0)]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for image in rows["image"]:
        os.symlink(tree.folder / "images" / "train" / image, folder / image)
    return folder if len(rows) else None


def result(run: Fit, tensorboard_url: str | None, settings: dict) -> dict:
    """The content of training_result.json with the fields of seed 004 (L225-237).

    Metrics are Ultralytics' own on val in the epoch of best.pt, paths relative to the project where the run
    lies inside, and `config` is what the last attempt trained with.
    """
    csv = pd.read_csv(run.folder / "results.csv")
    stop = run.stops[-1]
    best = csv[csv["epoch"] == stop["best_epoch"]].iloc[0]
    reached = {key: run.attempts[-1][key] for key in SETTINGS if key in settings}
    place = run.folder.relative_to(ROOT) if run.folder.is_relative_to(ROOT) else run.folder
    return {
        "best_model_path": str(place / "weights" / "best.pt"),
        "last_model_path": str(place / "weights" / "last.pt"),
        "metrics": {name: float(best[f"metrics/{name}(B)"]) for name in METRICS},
        "training_time_minutes": round(run.cost["train_s"] / 60, 2),
        "epochs_completed": stop["epochs_n"],
        "tensorboard_url": tensorboard_url,
        "config": settings | reached,
    }
