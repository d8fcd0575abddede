"""What is odd about an indexed data set, as a table. Judges nothing and refuses nothing."""

from collections.abc import Iterator

import pandas as pd

from saistudy.data import fasdd, index

PUBLISHED = {fasdd.NAME: fasdd.PUBLISHED}
COLUMNS = ["what", "where", "n", "effect"]


def findings(dataset: index.Dataset, coco: pd.DataFrame | None = None) -> pd.DataFrame:
    """One row a finding: what, where (split or splits), n (int), effect (what it changes).

    Published counts (only when as many images came in as FASDD_CV has: 95,314), quarantine by
    reason, images without boxes, byte-identical images, groups and near-identical images on both
    sides of a split, and, given `fasdd.coco(source)`, where the COCO files disagree. A finding of
    n = 0 says that the search was made.
    """
    found = [
        *_published(dataset),
        *_quarantine(dataset.quarantine),
        *_negatives(dataset.rows),
        *_copies(dataset.rows),
        *_shared(dataset),
        *(_coco(dataset, coco) if coco is not None else ()),
    ]
    return pd.DataFrame(found, columns=COLUMNS)


def _published(dataset: index.Dataset) -> Iterator[tuple]:
    """Images in (kept and refused) against the authors' table; silent about other collections."""
    splits = pd.concat([dataset.rows["split"], index.refused(dataset.quarantine)["split"]])
    expected = PUBLISHED.get(dataset.name, {})
    if len(splits) != sum(expected.values()):
        return
    for split, published_n in expected.items():
        seen_n = int((splits == split).sum())
        verdict = "agrees with" if seen_n == published_n else "differs from"
        yield "published count", split, seen_n, f"{verdict} the published {published_n}"


def _quarantine(quarantine: pd.DataFrame) -> Iterator[tuple]:
    images = index.refused(quarantine)
    for (reason, split), group in images.groupby(["reason", "split"]):
        yield f"refused: {reason}", split, len(group), "images left out"
    notes = quarantine[quarantine["reason"].isin(index.KEPT)]
    effects = {"repeated-name": "renamed and kept", "undated": "kept as one event of the camera"}
    for (reason, split), group in notes.groupby(["reason", "split"]):
        yield (
            f"noted: {reason}",
            split,
            len(group),
            effects.get(reason, "lines dropped, image kept"),
        )


def _negatives(rows: pd.DataFrame) -> Iterator[tuple]:
    empty = rows["boxes"].map(len) == 0
    for split in index.SPLITS:
        held = rows["split"] == split
        empty_n, all_n = int((held & empty).sum()), int(held.sum())
        left = f"{all_n - empty_n} of {all_n}"
        effect = f"deleting them would leave {left} images and hide false alarms"
        yield "images without boxes", split, empty_n, effect


def _copies(rows: pd.DataFrame) -> Iterator[tuple]:
    """Surplus copies inside each split, and images whose bytes stand in an earlier split too."""
    for split in index.SPLITS:
        n = int(rows.loc[rows["split"] == split, "sha256"].duplicated().sum())
        yield "byte-identical images", split, n, "counted more than once"
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        n = _in_both(rows["sha256"], rows["split"], one, other)
        yield "byte-identical images", f"{one} and {other}", n, f"images of {other} seen in {one}"


def _shared(dataset: index.Dataset) -> Iterator[tuple]:
    """Groups on both sides of train and test; the same for near-identical pictures."""
    rows = dataset.rows
    keys = {"groups": rows["group"]}
    if dataset.name != fasdd.NAME:  # there the group is this very cluster
        near = index.cluster(rows["phash"].to_numpy())
        keys["near-identical images"] = pd.Series(near, index=rows.index)
    test_n = int((rows["split"] == "test").sum())
    for what, key in keys.items():
        split = rows["split"]
        both = set(key[split == "train"]) & set(key[split == "test"])
        seen_n = _in_both(key, split, "train", "test")
        n = len(both) if what == "groups" else seen_n
        effect = f"{seen_n} of {test_n} test images have a relative in train"
        yield what, "train and test", n, effect


def _in_both(key: pd.Series, split: pd.Series, one: str, other: str) -> int:
    """Images of split `other` whose key also stands in split `one`."""
    return int(key[split == other].isin(set(key[split == one])).sum())


def _coco(dataset: index.Dataset, coco: pd.DataFrame) -> Iterator[tuple]:
    """Disagreements of the COCO files with the lists, the YOLO labels and the pixels."""
    rows = dataset.rows.assign(boxes_n=dataset.rows["boxes"].map(len))
    gone = index.refused(dataset.quarantine)["image"]
    coco = coco[~coco["image"].isin(gone)]
    both = rows.merge(coco, on="image", how="outer", suffixes=("", "_coco"), indicator=True)
    paired = both[both["_merge"] == "both"]
    size = (paired["width"] != paired["width_coco"]) | (paired["height"] != paired["height_coco"])
    for what, frame, effect in (
        ("COCO: not there", both[both["_merge"] == "left_only"], "the lists decide"),
        ("COCO: not in the lists", both[both["_merge"] == "right_only"], "the lists decide"),
        ("COCO: other split", paired[paired["split"] != paired["split_coco"]], "the lists decide"),
        ("COCO: other size", paired[size], "sizes are taken from the pixels"),
        (
            "COCO: other number of boxes",
            paired[paired["boxes_n"] != paired["boxes_n_coco"]],
            "the YOLO labels decide",
        ),
    ):
        yield what, "all", len(frame), effect
