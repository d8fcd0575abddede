"""The images that a run was made of as one table to browse, and where their pixels are on this machine."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from saistudy.data import fasdd, sources, tree
from saistudy.data.boxes import to_xyxy_px
from saistudy.evaluation.truth import BOX
from saistudy.paths import Refusal, work
from saistudy.study import looking, views
from saistudy.study.record import read_record
from saistudy.study.saved import read_frame

COLUMNS = ["image", "split", "kind", "group", "event", "width", "height", "boxes_n", "finding"]
NONE = "-"  # finding of an image of which nothing was noted


@dataclass(frozen=True)
class Catalogue:
    """What can be browsed.

    rows: COLUMNS, by image. note: what is missing, in a sentence, or "". boxes: image to its true boxes, as
    `looking.boxes` has them. read: image to its bytes, None where the pictures are not here.
    """

    rows: pd.DataFrame
    note: str
    boxes: Callable[[str], list]
    read: Callable[[str], bytes] | None


@lru_cache(maxsize=4)
def of(profile: str, run: str) -> Catalogue:
    """The images of the tree that a run was trained on; where it is not here, those of val and test as saved.

    The tree is any finished one of the record's fingerprint; the demo's is built when it is not there.
    """
    told = read_record(profile, run)
    found = _tree(profile, told["data"])
    if found is None and profile == "demo":
        built = sources.build(profile, told["data"]["name"], told["params"].get("negatives", True))
        found = built if built.fingerprint == told["data"]["fingerprint"] else None
    return _saved(profile, run, told["data"]) if found is None else _of(found)


def _tree(profile: str, data: dict) -> tree.Tree | None:
    """A finished tree of the same images and labels: staged, or in the work folder."""
    staged = sources.staging_target(Path(profile).name, data["name"])
    folders = [staged, *sorted((work(profile) / "trees").glob("*"))]
    for folder in folders:
        try:
            if json.loads((folder / tree.DONE).read_text())["fingerprint"] == data["fingerprint"]:
                return tree.load(folder)
        except (OSError, ValueError, KeyError, Refusal):
            continue
    return None


def _of(found: tree.Tree) -> Catalogue:
    rows, at = found.rows, dict(zip(found.rows["image"], range(len(found.rows)), strict=True))

    def boxes(image: str) -> list:
        row = rows.iloc[at[image]]
        frame = pd.DataFrame(to_xyxy_px(row["boxes"], row["width"], row["height"]), columns=BOX)
        return looking.worded(frame.assign(**{"class": row["boxes"][:, 0].astype(int)}), found.names)

    counted = rows.assign(boxes_n=rows["boxes"].map(len), finding=_findings(found.folder, rows["image"]))
    return Catalogue(_kinds(counted), "", boxes, views.reader(found))


def _findings(folder: Path, images: pd.Series) -> np.ndarray:
    """What reading noted of each image that stayed: reasons of the quarantine, NONE without one."""
    noted = pd.read_csv(folder / "quarantine.csv", dtype=str)[["image", "reason"]].drop_duplicates()
    noted = noted.sort_values(["image", "reason"]).groupby("image")["reason"].agg(", ".join)
    return images.map(noted).fillna(NONE).to_numpy()


def _kinds(rows: pd.DataFrame) -> pd.DataFrame:
    """`rows` with the kind: FASDD's category by the image's name, else whether there is a box."""
    plain = np.where(rows["boxes_n"] > 0, "with boxes", "without boxes")
    kind = [fasdd.category(image) or other for image, other in zip(rows["image"], plain, strict=True)]
    return rows.assign(kind=kind)[COLUMNS].sort_values("image", ignore_index=True)


def _saved(profile: str, run: str, data: dict) -> Catalogue:
    """What the run itself saved: images of val and test without pixels."""
    images, truth = (read_frame(profile, run, frame) for frame in ("images", "truth"))
    places, name = truth.groupby("image").indices, data["name"]
    rows = images.assign(boxes_n=images["image"].map(truth["image"].value_counts()).fillna(0).astype(int))
    known = [sources.base(name)] if sources.base(name) in sources.READERS else sources.VARIABLES
    variable, place = " and ".join(map(sources.variable, known)), Path(profile).name
    note = (
        f"The pictures of {name} as {run} saw them are not on this machine, so boxes are drawn on grey, and"
        f" of val and test alone: set {variable} and execute notebooks/data.ipynb with profile {place}."
    )
    names, none = {int(number): word for number, word in data["names"].items()}, np.array([], dtype=int)

    def boxes(image: str) -> list:
        return looking.worded(truth.iloc[places.get(image, none)], names)

    return Catalogue(_kinds(rows.assign(finding=NONE)), note, boxes, None)


def choose(
    rows: pd.DataFrame, split: str = "", kind: str = "", group: str = "", finding: str = ""
) -> pd.DataFrame:
    """Rows of a split, kind and finding whose group begins with a text; "" takes any."""
    chosen = rows["group"].str.startswith(group) if group else pd.Series(True, rows.index)
    for column, value in (("split", split), ("kind", kind), ("finding", finding)):
        chosen &= (rows[column] == value) if value else True
    return rows[chosen]
