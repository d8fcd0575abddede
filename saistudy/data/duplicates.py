"""Images that stand more than once: byte for byte, or as another file of the same scene."""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import pandas as pd

from saistudy.data import index, photographs

PAIRS = (("train", "val"), ("train", "test"), ("val", "test"))


def scenes(rows: pd.DataFrame) -> pd.Series:
    """Cluster of near-identical images (photographs.cluster), on the index of the rows.

    Where no image has an event the groups are these clusters; else they are found, once per data set.
    """
    if filmed(rows):
        return pd.Series(_clusters(rows["phash"].to_numpy().tobytes()), index=rows.index)
    return rows["group"]


def filmed(rows: pd.DataFrame) -> bool:
    """Whether groups are cameras (their images have events) and not scenes found by their hashes."""
    return bool((rows["event"] != "").any())


@lru_cache(maxsize=2)
def _clusters(hashes: bytes) -> np.ndarray:
    return photographs.cluster(np.frombuffer(hashes, dtype=np.uint64))


def _kinds(rows: pd.DataFrame) -> dict[str, tuple[pd.Series, pd.Series]]:
    """For each kind, what its images share, and what must differ between two of them.

    A camera sees its own scene in every frame: there, near-identical are only images of several cameras.
    """
    own = rows["group"] if filmed(rows) else rows["sha256"]
    return {
        "byte-identical": (rows["sha256"], rows["image"]),
        "near-identical": (scenes(rows), own),
    }


def listed(rows: pd.DataFrame) -> pd.DataFrame:
    """What, image, split, line, text: every image of byte-identical or near-identical ones."""
    parts = [_listed(rows, what, *keys) for what, keys in _kinds(rows).items()]
    return pd.concat(parts, ignore_index=True)


def _listed(rows: pd.DataFrame, what: str, shared: pd.Series, own: pd.Series) -> pd.DataFrame:
    several = pd.DataFrame({"shared": shared, "own": own}).drop_duplicates()["shared"].value_counts()
    found = rows.loc[shared.isin(several.index[several > 1]), ["image", "split"]].sort_values("image")
    together = shared[found.index]
    table = pd.crosstab(together, found["split"]).reindex(columns=_splits(rows), fill_value=0)
    told = [_told(row) for row in table.itertuples()]
    text = together.map(dict(zip(table.index, told, strict=True)))
    return found.assign(what=what, line=0, text=text)[["what", "image", "split", "line", "text"]]


def _told(row: object) -> str:
    counts = [f"{n} in {split}" for split, n in row._asdict().items() if split != "Index" and n]
    return f"{row.Index[:12] if isinstance(row.Index, str) else row.Index}: {', '.join(counts)}"


def _splits(rows: pd.DataFrame) -> list[str]:
    return [split for split in index.SPLITS if (rows["split"] == split).any()]


def counted(rows: pd.DataFrame) -> Iterator[tuple[str, str, str, int, str]]:
    """About, what, where, n, effect of both kinds and of groups: within each split and across each pair."""
    splits = _splits(rows)
    pairs = [pair for pair in PAIRS if set(pair) <= set(splits)]
    all_n = rows["split"].value_counts()
    for what, keys in _kinds(rows).items():
        for split in splits:
            n = _with_relative(rows["split"], *keys, split, split)
            told = f"{_share(n, all_n[split], split)} have another like them: they count as one observation"
            yield "duplicates", what, split, n, told
        for one, other in pairs:
            n = _with_relative(rows["split"], *keys, one, other)
            yield "duplicates", what, f"{one} and {other}", n, _seen(n, all_n[other], one, other)
    for one, other in pairs:
        group, split = rows["group"], rows["split"]
        both = set(group[split == one]) & set(group[split == other])
        n = int((group.isin(both) & (split == other)).sum())
        yield "groups", "groups", f"{one} and {other}", len(both), _seen(n, all_n[other], one, other)


def _seen(n: int, all_n: int, one: str, other: str) -> str:
    return f"{_share(n, all_n, other)} have a relative in {one}: AP on them measures memory"


def _share(n: int, all_n: int, split: str) -> str:
    return f"{n} of {all_n} images of {split} ({n / all_n:.1%})"


def _with_relative(split: pd.Series, shared: pd.Series, own: pd.Series, one: str, other: str) -> int:
    """Images of split `other` that share `shared`, but not `own`, with an image of split `one`."""
    keys = pd.DataFrame({"shared": shared, "own": own})
    there = keys[split == one].drop_duplicates()
    different_n = keys.loc[split == other, "shared"].map(there["shared"].value_counts()).fillna(0)
    itself = pd.MultiIndex.from_frame(keys[split == other]).isin(pd.MultiIndex.from_frame(there))
    return int((different_n.to_numpy() > itself).sum())
