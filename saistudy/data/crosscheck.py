"""The COCO files of FASDD_CV: what they say, and where the lists, the labels and the pixels say otherwise."""

import json
from collections.abc import Iterator

import numpy as np
import pandas as pd

from saistudy.data import boxes, index
from saistudy.data.archives import COCO, Archive
from saistudy.paths import Refusal

SAID = ["split", "image", "width", "height", "boxes"]
COLUMNS = ["what", "image", "split", "line", "text"]
SLACK_PX = 1.0  # the labels' own overflow of the image, and COCO files in whole pixels


def said(archive: Archive, split: str) -> list[tuple]:
    """Rows (SAID) of one COCO file; see `fasdd.coco`.

    Raises:
        Refusal: it is missing or is not what it should be.
    """
    path = f"{COCO}/{split}.json"
    try:
        content = json.loads(archive.read(path))
        owned: dict[int, list] = {}
        for box in content["annotations"]:
            owned.setdefault(box["image_id"], []).append([box["category_id"], *box["bbox"]])
        rows = []
        for image in content["images"]:
            size = int(image["width"]), int(image["height"])
            rows.append((split, str(image["file_name"]), *size, _array(owned.pop(image["id"], []))))
        return rows + [(split, f"image_id {owner}", 0, 0, _array(own)) for owner, own in owned.items()]
    except (OSError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise Refusal(
            f"{path} cannot be read as COCO ({error!r}): images with id, file_name, width, height"
            " and annotations with image_id, category_id, bbox were expected, so unpack FASDD_CV again."
        ) from error


def _array(own: list[list]) -> np.ndarray:
    array = np.array(own, dtype=np.float64) if own else np.empty((0, 5))
    if array.ndim != 2 or array.shape[1] != 5 or not np.isfinite(array).all():
        raise ValueError(f"boxes {own[:3]}")
    return array


def disagreements(dataset: index.Dataset, coco: pd.DataFrame) -> pd.DataFrame:
    """COLUMNS, a row an image and kind: coco-missing, -unlisted, -split, -size, -boxes, -class, -box.

    Compared are the images that were kept, as published (not after a new split). Sizes are held against
    the pixels as shown; boxes are matched one to one, and differ where a corner is off by more than a pixel
    beyond the six decimals of a label. Where the numbers of boxes differ, lines of the kinds that our parser
    drops (zero-area, duplicate) do not count.
    """
    gone = index.refused(dataset.quarantine)
    known = set(dataset.rows["image"]) | set(gone.loc[gone["split"] != "", "image"])
    rows = dataset.rows[["image", "split", "width", "height", "boxes"]]
    paired = rows.merge(coco, on="image", suffixes=("", "_coco"))
    found = [
        *_rows("coco-missing", rows[~rows["image"].isin(set(coco["image"]))], "in no COCO file"),
        *_rows("coco-unlisted", coco[~coco["image"].isin(known)], "in no list"),
        *_splits(paired[paired["split"] != paired["split_coco"]]),
        *_sizes(paired),
        *_boxes(paired),
    ]
    return pd.DataFrame(found, columns=COLUMNS).astype({"line": "int64"})


def _rows(what: str, frame: pd.DataFrame, text: str) -> Iterator[tuple]:
    return ((what, *place, 0, text) for place in zip(frame["image"], frame["split"], strict=True))


def _splits(other: pd.DataFrame) -> Iterator[tuple]:
    for row in other.itertuples():
        yield "coco-split", row.image, row.split, 0, f"{row.split_coco} in COCO"


def _sizes(paired: pd.DataFrame) -> Iterator[tuple]:
    same = (paired["width"] == paired["width_coco"]) & (paired["height"] == paired["height_coco"])
    for row in paired[~same].itertuples():
        text = f"{row.width_coco}x{row.height_coco} px in COCO, {row.width}x{row.height} px shown"
        yield "coco-size", row.image, row.split, 0, text


def _boxes(paired: pd.DataFrame) -> Iterator[tuple]:
    size = paired[["width", "height"]].to_numpy(np.float64)
    owner, ours = _flat(paired["boxes"])
    ours[:, 1:] = _corners(ours, centred=True) * np.tile(size[owner], 2)
    owner_coco, theirs = _flat(paired["boxes_coco"])
    keep = ~_spare(owner_coco, theirs, size, paired)
    owner_coco, theirs = owner_coco[keep], theirs[keep]
    theirs[:, 1:] = _corners(theirs, centred=False)
    ours_n, theirs_n = (np.bincount(who, minlength=len(paired)) for who in (owner, owner_coco))
    for at in np.flatnonzero(ours_n != theirs_n):
        row = paired.iloc[at]
        yield "coco-boxes", row["image"], row["split"], 0, f"{theirs_n[at]} boxes in COCO, {ours_n[at]} here"
    equal = ours_n == theirs_n
    near_px = SLACK_PX + boxes.ROUNDING * size.max(axis=1)
    for at in _suspects(owner, ours, owner_coco, theirs, equal, near_px):
        row = paired.iloc[at]
        mine, said_so = (slice(*np.searchsorted(who, [at, at + 1])) for who in (owner, owner_coco))
        for what, text in _matched(ours[mine], theirs[said_so], near_px[at]):
            yield what, row["image"], row["split"], 0, text


def _flat(column: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers (M,) and the stacked copies (M, 5) of a column of arrays (N, 5)."""
    owner = np.repeat(np.arange(len(column)), [len(array) for array in column])
    return owner, np.concatenate([np.empty((0, 5)), *column])


def _corners(array: np.ndarray, centred: bool) -> np.ndarray:
    """x1, y1, x2, y2 (M, 4) of class, x, y, w, h (M, 5), whose x, y are the centre or the first corner."""
    first = array[:, 1:3] - array[:, 3:5] / 2 if centred else array[:, 1:3]
    return np.concatenate([first, first + array[:, 3:5]], axis=1)


def _spare(owner: np.ndarray, theirs: np.ndarray, size: np.ndarray, paired: pd.DataFrame) -> np.ndarray:
    """COCO boxes (M,) of the kinds that the parser drops, in images where the numbers differ."""
    repeated = pd.DataFrame(theirs).assign(owner=owner).duplicated().to_numpy()
    invisible = (theirs[:, 3:5] < boxes.INVISIBLE * size[owner]).any(axis=1)
    unequal = paired["boxes"].map(len).to_numpy() != paired["boxes_coco"].map(len).to_numpy()
    return (repeated | invisible) & unequal[owner]


def _suspects(owner, ours, owner_coco, theirs, equal, near_px) -> np.ndarray:
    """Row numbers whose boxes do not pair off in the order of class and left border."""
    sides = []
    for who, array in ((owner, ours), (owner_coco, theirs)):
        who, array = who[equal[who]], array[equal[who]]
        order = np.lexsort((array[:, 1], array[:, 0], who))
        sides.append((who[order], array[order]))
    (who, one), (_, other) = sides
    apart = np.abs(one[:, 1:] - other[:, 1:]).max(axis=1, initial=0) > near_px[who]
    return np.unique(who[apart | (one[:, 0] != other[:, 0])])


def _matched(ours: np.ndarray, theirs: np.ndarray, near_px: float) -> Iterator[tuple[str, str]]:
    """Kind and text of what differs after pairing: the same boxes first, then by overlap, the best first."""
    off_px = np.abs(ours[:, None, 1:] - theirs[None, :, 1:]).max(axis=2)
    near, same = off_px <= near_px, ours[:, None, 0] == theirs[None, :, 0]
    score = _iou(ours[:, 1:], theirs[:, 1:]) + 2 * near + 4 * (near & same)
    moved_px, other = [], []
    for _ in ours:
        i, j = np.unravel_index(score.argmax(), score.shape)
        score[i], score[:, j] = -1, -1
        if not near[i, j]:
            moved_px.append(off_px[i, j])
        elif not same[i, j]:
            other.append(f"class {theirs[j, 0]:.0f} in COCO, {ours[i, 0]:.0f} here")
    if moved_px:
        yield "coco-box", f"{len(moved_px)} of {len(ours)} boxes differ, by up to {max(moved_px):.1f} px"
    if other:
        yield "coco-class", f"{len(other)} of {len(ours)} boxes, the first {other[0]}"


def _iou(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Overlap over union, (N, M)."""
    low = np.maximum(ours[:, None, :2], theirs[None, :, :2])
    high = np.minimum(ours[:, None, 2:], theirs[None, :, 2:])
    shared = (high - low).clip(0).prod(axis=2)
    areas = [(corners[:, 2:] - corners[:, :2]).clip(0).prod(axis=1) for corners in (ours, theirs)]
    return shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-12)
