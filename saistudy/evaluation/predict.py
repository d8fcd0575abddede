"""Per-image predictions of one trained model, and the ground truth beside them."""

from pathlib import Path

import pandas as pd
from ultralytics import YOLO

from saistudy.evaluation.truth import BOX
from saistudy.paths import Refusal
from saistudy.training.rect import RectValidator, pin_torch, tensor_hw

CONF_MIN = 0.01  # below it a detection moves no operating point; AP50 changes in the fourth digit
PER_CLASS_MAX = 100  # COCO's limit of detections an image and class (pycocotools, maxDets)
MAX_DET = 30_000  # Ultralytics cuts an image's classes together: at its max_nms nothing is cut before us
ITEM, SMOKE = "item", "smoke"  # what `single_cls` calls the class of a model, and what it was trained as


def predict(weights, tree, split: str, imgsz, batch: int, device: str, folder: Path) -> pd.DataFrame:
    """Detections of a model on one split of a tree.

    Args:
        weights: `.pt` file.
        tree: data.tree.Tree, whose class table may be another than the model's.
        split: train, val or test.
        imgsz: integer or [height, width] of the evaluation tensor, pixels.
        batch, device: Ultralytics' own.
        folder: scratch folder for the validator.

    Returns:
        Columns image, split, group, class (int, of the tree's table), score (0 to 1), x1, y1, x2, y2 (pixels
        of the original image), after stock non-maximum suppression (IoU .7, several labels a box), score >=
        CONF_MIN, the best PER_CLASS_MAX of an image and class. Classes that the tree lacks are left out.

    Raises:
        Refusal: the model has no class of the tree.
    """
    numbers = _numbers(weights, tree.names)
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
    found = pd.DataFrame(validator.rows, columns=["image", "class", "score", *BOX])
    return label(renumbered(found, numbers), tree.rows)


def classes(weights, names: dict[int, str]) -> list[str]:
    """The classes of a table that a model can output, in the order of the table."""
    return [names[number] for number in sorted(_numbers(weights, names).values())]


def _numbers(weights, names: dict[int, str]) -> dict[int, int]:
    """The table's number of each class of a model that the table has."""
    own = YOLO(weights).names
    if not (found := shared(own, names)):
        seen, wanted = (", ".join(table.values()) for table in (own, names))
        raise Refusal(f"{weights} detects {seen}, nothing of {wanted}: test it on data of its own classes.")
    return found


def shared(model: dict[int, str], names: dict[int, str]) -> dict[int, int]:
    """Number in a class table of each class of a model that the table has too, by its number in the model.

    Ultralytics compares numbers, never names (8.4.190): a model {0: fire, 1: smoke} on data {0: smoke} would
    be scored by its fire. Names are compared without case and outer space, as Ultralytics does when it loads
    weights. The class `item` of a `single_cls` model is the one class of the table, or else its smoke.
    """
    table = {_plain(word): number for number, word in names.items()}
    table.setdefault(ITEM, next(iter(names)) if len(names) == 1 else table.get(SMOKE))
    return {k: table[_plain(word)] for k, word in model.items() if table.get(_plain(word)) is not None}


def _plain(name: object) -> str:
    return str(name).strip().casefold()


def renumbered(found: pd.DataFrame, numbers: dict[int, int]) -> pd.DataFrame:
    """Detections with the class numbers of a table, without those of classes that it lacks."""
    kept = found[found["class"].isin(list(numbers))]
    return kept.assign(**{"class": kept["class"].map(numbers).astype(int)}).reset_index(drop=True)


def label(rows: pd.DataFrame, index: pd.DataFrame) -> pd.DataFrame:
    """Detections with file paths replaced by image names, and each image's split and group beside them.

    Scores and boxes become float32 here, before any metric: what is saved is what was measured.
    """
    rows["image"] = [Path(file).name for file in rows["image"]]
    rows = rows.merge(index[["image", "split", "group"]], on="image", how="left", validate="many_to_one")
    rows = rows.astype({"score": "float32", **dict.fromkeys(BOX, "float32")})
    ordered = rows.sort_values(["image", "score"], ascending=[True, False], kind="stable")
    ordered = ordered[ordered.groupby(["image", "class"]).cumcount() < PER_CLASS_MAX]
    return ordered[["image", "split", "group", "class", "score", *BOX]].reset_index(drop=True)


def tensor_name(imgsz) -> str:
    """What an evaluation size is called in file names: `96x160`, height x width in pixels."""
    return "{}x{}".format(*tensor_hw(imgsz))


def at_sizes(
    models: dict[str, Path], tree, sizes: list, batch: int, device: str, folder: Path
) -> dict[str, pd.DataFrame]:
    """Detections on test at each evaluation size, by `tensor_name`; columns as `predict_models` has them."""
    how = (batch, device, folder)
    return {tensor_name(size): predict_models(models, tree, size, *how, splits=["test"]) for size in sizes}


def predict_models(
    models: dict[str, Path], tree, imgsz, batch: int, device: str, folder: Path, splits=("val", "test")
) -> pd.DataFrame:
    """Detections of several models on splits of a tree, with a column `model`; equal weights are run once."""
    done: dict[Path, pd.DataFrame] = {}
    parts = []
    for name, weights in models.items():
        if weights not in done:
            found = [predict(weights, tree, s, imgsz, batch, device, folder) for s in splits]
            done[weights] = pd.concat(found, ignore_index=True)
        parts.append(done[weights].assign(model=name))
    return pd.concat(parts, ignore_index=True)
