"""Per-image predictions of one trained model, and the ground truth beside them."""

from pathlib import Path

import pandas as pd
from ultralytics import YOLO

from saistudy.evaluation.truth import BOX
from saistudy.training.rect import RectValidator, pin_torch, tensor_hw

CONF_MIN = 0.01  # below it a detection moves no operating point; AP50 changes in the fourth digit
MAX_DET = 100  # COCO's limit of detections an image


def predict(weights, tree, split: str, imgsz, batch: int, device: str, folder: Path) -> pd.DataFrame:
    """Detections of a model on one split of a tree.

    Args:
        weights: `.pt` file.
        tree: data.tree.Tree whose class table is the model's.
        split: train, val or test.
        imgsz: integer or [height, width] of the evaluation tensor, pixels.
        batch, device: Ultralytics' own.
        folder: scratch folder for the validator.

    Returns:
        Columns image, split, group, class (int), score (0 to 1), x1, y1, x2, y2 (pixels of the original
        image), after stock non-maximum suppression (IoU .7, several labels a box), score >= CONF_MIN.
    """
    validator = RectValidator(
        args={
            "model": str(weights),
            "data": str(tree.yaml),
            "split": split,
            "imgsz": max(tensor_hw(imgsz)),
            "batch": batch,
            "device": device,
            "conf": CONF_MIN,
            "max_det": MAX_DET,
            "single_cls": False,
            "plots": False,
            "workers": 4,
        },
        save_dir=folder,
        hw=tensor_hw(imgsz),
        keep=True,
    )
    validator.callbacks["on_val_start"].append(pin_torch)
    validator()
    return label(pd.DataFrame(validator.rows, columns=["image", "class", "score", *BOX]), tree.rows)


def label(rows: pd.DataFrame, index: pd.DataFrame) -> pd.DataFrame:
    """Detections with file paths replaced by image names, and each image's split and group beside them.

    Scores and boxes become float32 here, before any metric: what is saved is what was measured.
    """
    rows["image"] = [Path(file).name for file in rows["image"]]
    rows = rows.merge(index[["image", "split", "group"]], on="image", how="left", validate="many_to_one")
    rows = rows.astype({"score": "float32", **dict.fromkeys(BOX, "float32")})
    ordered = rows.sort_values(["image", "score"], ascending=[True, False], kind="stable")
    return ordered[["image", "split", "group", "class", "score", *BOX]].reset_index(drop=True)


def predict_models(
    models: dict[str, Path], tree, imgsz, batch: int, device: str, folder: Path
) -> pd.DataFrame:
    """Detections of several models on val and test, with a column `model`; equal weights are run once."""
    done: dict[Path, pd.DataFrame] = {}
    parts = []
    for name, weights in models.items():
        if weights not in done:
            splits = [predict(weights, tree, s, imgsz, batch, device, folder) for s in ("val", "test")]
            done[weights] = pd.concat(splits, ignore_index=True)
        parts.append(done[weights].assign(model=name))
    return pd.concat(parts, ignore_index=True)


def smoke_only(models: dict[str, Path], tree, imgsz, batch: int, device: str, folder: Path) -> pd.DataFrame:
    """Smoke detections of several models on the test split, smoke being class 0, with a column `model`.

    A model with one class outputs smoke as class 0, whatever it calls it (`single_cls` writes `item`);
    one with two has it where its names say `smoke`.
    """
    parts = []
    for name, weights in models.items():
        names = YOLO(weights).names
        smoke = 0 if len(names) == 1 else {v: k for k, v in names.items()}["smoke"]
        found = predict(weights, tree, "test", imgsz, batch, device, folder)
        parts.append(found[found["class"] == smoke].assign(model=name, **{"class": 0}))
    return pd.concat(parts, ignore_index=True)
