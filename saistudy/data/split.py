"""Splits by whole groups: no image has a relative on the other side."""

import hashlib
import math
from dataclasses import replace

import pandas as pd

from saistudy.data import photographs
from saistudy.data.index import Dataset
from saistudy.paths import Refusal

# Shares of the images that test and val hold. FASDD's own are floor(n / 6) of each category.
HELD_FRAC = {"fasdd_cv": (1 / 6, 1 / 6)}
OTHERS_FRAC = (0.1, 0.1)
OVERSHOOT = 2  # times its share, beyond which no group may carry a split


def disjoint(dataset: Dataset, fractions: tuple[float, float] | None = None) -> Dataset:
    """The same images under the name "<name>-disjoint", split by whole groups.

    Groups in the order of the sha256 of their names fill test, then val, until each holds its share
    (`fractions` of the images: FASDD's as published, else 10 % each); the rest is train. Groups that share a
    cluster of near-identical images (photographs.cluster) go together: so do cameras with one view between
    them, of which the published PyroSDIS has 58 pictures. A group that would carry a split beyond twice its
    share is passed over, so one giant group stays in train. Refused images keep the split that they had.

    Raises:
        Refusal: fewer than three groups, or shares that leave nothing.
    """
    rows = dataset.rows.copy()
    test_frac, val_frac = fractions or HELD_FRAC.get(dataset.name, OTHERS_FRAC)
    if min(test_frac, val_frac) <= 0 or test_frac + val_frac >= 1:
        raise Refusal(
            f"shares of {test_frac} for test and {val_frac} for val: both above 0 and less than 1 together"
            " were expected, so name others."
        )
    group = _joined(rows)
    images_n = group.value_counts().to_dict()
    if len(images_n) < 3:
        raise Refusal(
            f"{dataset.name}: its {rows['group'].nunique()} groups are only {len(images_n)} where those with"
            " near-identical images are one, and at least 3 were expected: add cameras or scenes."
        )
    test = _held(images_n, test_frac * len(rows), left_n=2)
    rest = {name: n for name, n in images_n.items() if name not in test}
    val = _held(rest, val_frac * len(rows), left_n=1)
    rows["split"] = ["test" if name in test else "val" if name in val else "train" for name in group]
    return replace(dataset, name=f"{dataset.name}-disjoint", rows=rows)


def _held(images_n: dict[str, int], target_n: float, left_n: int) -> set[str]:
    return cut(images_n, target_n, left_n, OVERSHOOT * target_n)


def cut(images_n: dict[str, int], target_n: float, left_n: int = 1, most_n: float = math.inf) -> set[str]:
    """Groups, in the order of the sha256 of their names, that reach `target_n` images together.

    A group that would carry them beyond `most_n` is passed over; where all would, the smallest is taken. At
    least one is taken and at least `left_n` stay.

    Raises:
        Refusal: there are not more than `left_n` groups.
    """
    if len(images_n) <= left_n:
        raise Refusal(
            f"{len(images_n)} group(s) ({', '.join(sorted(images_n)[:5])}) found where at least"
            f" {left_n + 1} were expected: no split by whole groups exists, so add cameras or scenes."
        )
    order = sorted(images_n, key=lambda group: hashlib.sha256(group.encode()).hexdigest())
    taken: set[str] = set()
    held_n = 0
    for group in order:
        if taken and (held_n >= target_n or len(order) - len(taken) <= left_n):
            break
        if held_n + images_n[group] <= most_n:
            taken.add(group)
            held_n += images_n[group]
    return taken or {min(order, key=images_n.__getitem__)}


def _joined(rows: pd.DataFrame) -> pd.Series:
    """Name of each row's group; groups that share near-identical images have the first of their names."""
    from scipy.sparse import coo_array  # here: scipy takes most of a second, and a plan splits nothing
    from scipy.sparse.csgraph import connected_components

    group, names = pd.factorize(rows["group"], sort=True)
    near = photographs.cluster(rows["phash"].to_numpy())
    nodes_n = len(names) + len(rows)
    graph = coo_array(([True] * len(rows), (group, near + len(names))), shape=(nodes_n, nodes_n))
    joined = connected_components(graph, directed=False)[1][: len(names)]
    first = pd.Series(names).groupby(joined).transform("first")
    return pd.Series(first.to_numpy()[group], index=rows.index)
