"""The joint pool of both stages: what stage 2 trains on, and the train images of stage 1 beside them."""

import os

import pandas as pd

from saistudy.data import index
from saistudy.paths import Refusal

NAME = "joint"


def name(first: str, second: str) -> str:
    """Name of the pool of two data sets: joint, or joint-disjoint where the second is re-split by groups.

    Raises:
        Refusal: the first is re-split, whose test images the published train split, which is pooled, holds.
    """
    if first.endswith("-disjoint"):
        raise Refusal(
            f"stage 1 was trained on {first}, whose test images the joint pool would train on, for it takes"
            " the published split: leave `joint` out of `handlings`, or start from a published split."
        )
    return f"{NAME}-disjoint" if second.endswith("-disjoint") else NAME


def pool(first: index.Dataset, second: index.Dataset) -> index.Dataset:
    """The train images of `first` and all of `second`, on the class table of `first`.

    Val and test are those of `second`, image by image under its names, so that a model trained on the pool
    is chosen and tested on what the others are; val and test of `first` stay out, so that what is forgotten
    of it can be measured. Boxes of `second` get the number that `first` has for the name of their class. An
    image of `first` whose stem one of `second` has, in any case, gets _2, _3 before its suffix.

    Raises:
        Refusal: see `name`; `second` has a class that `first` lacks.
    """
    taken = {os.path.splitext(image)[0].casefold() for image in _images(second)}
    renamed = {image: index.free(image, taken) for image in _images(first, "train")}
    rows = [_train(first.rows, renamed), _renumbered(second, first.names)]
    notes = [_train(first.quarantine, renamed), second.quarantine]
    rows = pd.concat(rows).sort_values("image", ignore_index=True)
    quarantine = pd.concat(notes, ignore_index=True)
    theirs, kept = {new: old for old, new in renamed.items()}, set(rows["image"])

    def read(image: str) -> bytes:
        return first.read(theirs[image]) if image in theirs else second.read(image)

    stored = [renamed.get(image) for image in first.storage or first.rows["image"]]
    stored += second.storage or second.rows["image"].tolist()
    return index.Dataset(
        name(first.name, second.name),
        rows,
        quarantine,
        len(rows) + len(index.refused(quarantine)),
        first.names,
        "synthetic" if "synthetic" in (first.provenance, second.provenance) else first.provenance,
        read,
        tuple(image for image in stored if image in kept),
    )


def _images(dataset: index.Dataset, split: str | None = None) -> list[str]:
    """Images of a data set (of one split): those in its rows, then those that were only noted."""
    frames = [dataset.rows, dataset.quarantine]
    frames = [frame if split is None else frame[frame["split"] == split] for frame in frames]
    return [*dict.fromkeys(image for frame in frames for image in frame["image"].sort_values())]


def _train(frame: pd.DataFrame, renamed: dict[str, str]) -> pd.DataFrame:
    """What a frame says of the train split, under the names of the pool."""
    train = frame[frame["split"] == "train"]
    return train.assign(image=train["image"].map(renamed))


def _renumbered(dataset: index.Dataset, names: dict[int, str]) -> pd.DataFrame:
    """Rows whose boxes carry the numbers that a class table has for their names."""
    numbers = {word: number for number, word in names.items()}
    if strange := sorted(set(dataset.names.values()) - set(numbers)):
        raise Refusal(
            f"{dataset.name} has the class {', '.join(strange)}, {', '.join(sorted(numbers))} were expected:"
            " only classes of both data sets can be pooled."
        )
    boxes = [array.copy() for array in dataset.rows["boxes"]]
    for array in boxes:
        array[:, 0] = [numbers[dataset.names[int(label)]] for label in array[:, 0]]
    return dataset.rows.assign(boxes=pd.Series(boxes, index=dataset.rows.index, dtype=object))
