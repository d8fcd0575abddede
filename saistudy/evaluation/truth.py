"""Ground truth of a split as frames, in pixels; no torch."""

import numpy as np
import pandas as pd

from saistudy.data.boxes import to_xyxy_px

BOX = ["x1", "y1", "x2", "y2"]
TAKEN = r"_(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d)(?:_\d+)?\.\w+$"  # <camera>_<time>.jpg


def truth(index: pd.DataFrame, split: str) -> pd.DataFrame:
    """Ground truth of a split: image, split, group, class, x1, y1, x2, y2 in pixels; a row per box."""
    parts = [_boxes(row) for row in index[index["split"] == split].itertuples()]
    columns = ["image", "split", "group", "class", *BOX]
    return pd.concat(
        [pd.DataFrame(columns=columns), *[p for p in parts if len(p)]], ignore_index=True
    ).astype({"class": int, **dict.fromkeys(BOX, float)})


def _boxes(row) -> pd.DataFrame:
    """The boxes of one index row as a frame."""
    boxes = np.asarray(row.boxes, dtype=float).reshape(-1, 5)
    frame = pd.DataFrame(to_xyxy_px(boxes, row.width, row.height), columns=BOX)
    frame.insert(0, "class", boxes[:, 0].astype(int))
    for i, column in enumerate(("image", "split", "group")):
        frame.insert(i, column, getattr(row, column))
    return frame


def images(index: pd.DataFrame, split: str) -> pd.DataFrame:
    """Every image of a split, those without boxes too: image, split, group, event, width, height, time."""
    rows = index[index["split"] == split].reset_index(drop=True)
    return rows[["image", "split", "group", "event", "width", "height"]].assign(time=times(rows["image"]))


def times(images: pd.Series) -> pd.Series:
    """When each image was taken, by its name as in PyroSDIS: datetime64, NaT where the name does not say."""
    found = images.astype(str).str.extract(TAKEN, expand=False)
    return pd.to_datetime(found, format="%Y-%m-%dT%H-%M-%S", errors="coerce")


def val_and_test(index: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Ground truth and images of val and test, in the order of `predict_models`.

    The images have a column `seen`: whether their group has an image in another split, so that whoever has
    no index can still tell which test images are group-disjoint.
    """
    splits = ("val", "test")
    both = pd.concat([images(index, s) for s in splits], ignore_index=True)
    sides = index.groupby("group")["split"].nunique()
    return (
        pd.concat([truth(index, s) for s in splits], ignore_index=True),
        both.assign(seen=both["group"].map(sides).fillna(1).to_numpy() > 1),
    )
