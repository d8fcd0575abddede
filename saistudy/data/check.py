"""What is odd about an indexed data set, as tables. Judges nothing and refuses nothing."""

from collections.abc import Iterator
from itertools import chain, islice, zip_longest
from pathlib import Path

import pandas as pd

from saistudy.data import crosscheck, duplicates, fasdd, index, kinds, photographs, pyrosdis
from saistudy.paths import Refusal

COLUMNS = ["about", "what", "where", "n", "effect"]


def listing(dataset: index.Dataset, coco: pd.DataFrame | None = None) -> pd.DataFrame:
    """Every single finding: what, image, split, line (0: the image as a whole), text.

    The quarantine, and given `fasdd.coco(source)` where the COCO files disagree (crosscheck), and every image
    of byte-identical and near-identical ones.
    """
    noted = dataset.quarantine.rename(columns={"reason": "what"})[crosscheck.COLUMNS]
    said = [crosscheck.disagreements(dataset, coco)] if coco is not None else []
    parts = [part for part in (noted, *said, duplicates.listed(dataset.rows)) if len(part)]
    return pd.concat(parts or [noted], ignore_index=True)


def findings(
    dataset: index.Dataset,
    coco: pd.DataFrame | None = None,
    source: Path | None = None,
    found: pd.DataFrame | None = None,
    kept: Path | None = None,
) -> pd.DataFrame:
    """The summary: about, what, where (split or splits), n (int), effect (what it changes).

    n of boxes, images, lists and coco counts rows of `listing`; of duplicates, images with another like them;
    of groups, groups; n = 0 says that the search was made. Published counts, names and checksums only of what
    claims to be a published data set (`fasdd.claims`, `pyrosdis.claims`); `source` is what was read.
    `found` is the `listing`, where it is at hand; `kept` remembers checksums (`index.digest`).
    """
    found = listing(dataset, coco) if found is None else found
    reader = "fasdd" if dataset.name.startswith(fasdd.NAME) else "yolo"
    reader = "pyrosdis" if duplicates.filmed(dataset.rows) else reader
    kinds_of = kinds.searched(reader, coco is not None, set(found["what"]))
    rows = [
        *chain.from_iterable(_kind(dataset, found, *kind) for kind in kinds_of),
        *duplicates.counted(dataset.rows),
        *_negatives(dataset),
    ]
    rows += [("published", *row) for row in _published(dataset, source, kept)]
    return pd.DataFrame(rows, columns=COLUMNS)


def _published(dataset: index.Dataset, source: Path | None, kept: Path | None) -> list[index.Told]:
    if fasdd.claims(dataset, source):
        return fasdd.published(dataset, source, kept)
    if source is not None and pyrosdis.claims(dataset):
        return pyrosdis.published(dataset, source, kept)
    told = "other than the published data set has: its counts, names and checksums are not asked for"
    return [("published", "all", dataset.images_n, told)]


def _kind(
    dataset: index.Dataset, found: pd.DataFrame, about: str, what: str, meaning: str
) -> Iterator[tuple]:
    """A row for each split where a kind was found, or one that says that it was not."""
    own = found[found["what"] == what]
    if own.empty:
        yield about, what, "all", 0, meaning
    for split in [split for split in (*index.SPLITS, "") if (own["split"] == split).any()]:
        here = own[own["split"] == split]
        images_n, all_n = here["image"].nunique(), _images_n(dataset, split)
        yield about, what, split or "no split", len(here), f"{images_n} of {all_n} images: {meaning}"


def _images_n(dataset: index.Dataset, split: str) -> int:
    """Images that came in under a split; under none, all of them."""
    gone = index.refused(dataset.quarantine)
    both = pd.concat([dataset.rows["split"], gone["split"]])
    return int((both == split).sum()) if split else dataset.images_n


def negatives(dataset: index.Dataset) -> pd.DataFrame:
    """Images without boxes, and what deleting them would change.

    Columns: split; kind, "beside a positive" where the same event (without events: the same group) holds an
    image with boxes, else "alone", and "all"; category, of FASDD's names, "" otherwise; n; left_n and
    left_frac, images of the split that deleting these n would leave; effect, in words.
    """
    empty, all_n, found = _empty(dataset.rows), dataset.rows["split"].value_counts(), []
    for split in [split for split in index.SPLITS if split in all_n]:
        own = empty[empty["split"] == split]
        found.append(_deleted(split, "all", "", len(own), all_n[split], len(own)))
        for name in ("beside a positive", "alone"):
            counts = own.loc[own["kind"] == name, "category"].value_counts().sort_index()
            found += [
                _deleted(split, name, category, n, all_n[split], len(own))
                for category, n in (counts.items() if len(counts) else [("", 0)])
            ]
    return pd.DataFrame(found)


def _empty(rows: pd.DataFrame) -> pd.DataFrame:
    """Image, split, kind and category of the images without boxes."""
    positive = rows["boxes"].map(len) > 0
    place = rows["event"].where(rows["event"] != "", rows["group"])
    beside = place.isin(set(place[positive]))
    kind = beside.map({True: "beside a positive", False: "alone"})
    empty = rows[["image", "split"]].assign(kind=kind, category=rows["image"].map(fasdd.category))
    return empty[~positive]


def _deleted(split: str, kind: str, category: str, n: int, all_n: int, negatives_n: int) -> dict:
    left_n = int(all_n - n)
    told = f"deleting them would leave {left_n} of {all_n} images ({left_n / all_n:.1%})"
    if n and n == negatives_n:
        never = "training would never see an empty scene"
        told += ", and " + (never if split == "train" else "the false-alarm rate could not be measured")
    counts = {"n": int(n), "left_n": left_n, "left_frac": left_n / all_n}
    return {"split": split, "kind": kind, "category": category, **counts, "effect": told}


def _negatives(dataset: index.Dataset) -> Iterator[tuple]:
    table = negatives(dataset)
    names = {"all": "images without boxes"}
    for row in table.itertuples():
        what = names.get(row.kind, f"without boxes, {row.kind}")
        yield "negatives", what, f"{row.split} {row.category}".strip(), row.n, row.effect


def examples(dataset: index.Dataset, found: pd.DataFrame, about: str, n: int) -> list[str]:
    """Names of at most n images worth showing of a `listing`, one of each kind in turn; all of them decode.

    `about` is a topic of `findings` or a single kind of the listing.
    """
    queues = _candidates(dataset, found, about)
    turns = (image for turn in zip_longest(*queues) for image in turn if image is not None)
    return list(islice((image for image in dict.fromkeys(turns) if _decodes(dataset, image)), n))


def _candidates(dataset: index.Dataset, found: pd.DataFrame, about: str) -> list[list[str]]:
    """Images by kind; relatives stand next to each other."""
    if about == "negatives":
        return [list(own["image"]) for _, own in _empty(dataset.rows).groupby(["kind", "category"])]
    if about == "groups":
        rows = dataset.rows
        split_n = rows.groupby("group")["split"].transform("nunique")
        return [list(rows[split_n > 1].drop_duplicates(["group", "split"]).sort_values("group")["image"])]
    own = found[(found["what"] == about) | (found["what"].map(kinds.about) == about)]
    own = own[~own["what"].isin(kinds.DARK)].sort_values("text", kind="stable")
    return [list(images) for _, images in own.groupby("what")["image"]]


def _decodes(dataset: index.Dataset, image: str) -> bool:
    try:
        photographs.describe(dataset.read(image), image)
    except (Refusal, OSError, KeyError):
        return False
    return True
