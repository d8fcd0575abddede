"""Checks against what is published of the data, of hardware and PyTorch, and of the original repository."""

import math
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from saistudy.data import fasdd, shm
from saistudy.paths import PARAMS
from saistudy.study.ledger import published
from saistudy.study.ledger.quantities import Finding
from saistudy.study.ledger.rows import Claim, Ledger

SOURCE = "published facts of data, hardware, PyTorch and the original repository"
COUNTS = "published counts of FASDD_CV (saistudy.data.fasdd, version V9)"
ORIGINAL = "the original repository (saistudy.study.ledger.published)"
GB = 1e9


def _images_n(positive: bool, splits: tuple[str, ...]) -> int:
    """Images of FASDD_CV with boxes, or without, in some splits."""
    kinds = [n for kind, n in fasdd.CATEGORIES.items() if bool(fasdd.CLASSES[kind]) == positive]
    return sum(n[split] for n in kinds for split in splits)


def images_with_boxes(claim: Claim, _: Ledger) -> Finding:
    """Images of FASDD_CV with boxes in the splits that the claim names."""
    splits = tuple(claim.said["splits"].split())
    return Finding(_images_n(True, splits), COUNTS, f"images with boxes, {' + '.join(splits)}")


def splits_with_boxes(_: Claim, __: Ledger) -> Finding:
    """Images of FASDD_CV with boxes: of train, and of all splits."""
    counts = _images_n(True, ("train",)), _images_n(True, tuple(fasdd.PUBLISHED))
    return Finding(counts, COUNTS, "images with boxes: of train, and of all three splits; both are right")


def images_without_boxes(claim: Claim, _: Ledger) -> Finding:
    """Images of FASDD_CV without boxes in the splits of the claim: a published category, no faults."""
    splits = tuple(claim.said["splits"].split())
    why = "all of the category neitherFireNorSmoke, without boxes on purpose"
    return Finding(_images_n(False, splits), COUNTS, why)


def classes(_: Claim, __: Ledger) -> Finding:
    """Classes of FASDD_CV."""
    names = ", ".join(f"{key} {name}" for key, name in fasdd.NAMES.items())
    return Finding(len(fasdd.NAMES), f"class table of FASDD_CV: {names}", "saistudy.data.fasdd")


def archive_gb(claim: Claim, _: Ledger) -> Finding:
    """GB of the images with boxes of some splits, by their share of the archive's bytes.

    The archive as a whole is the upper bound: JPEGs do not shrink in a zip.
    """
    images_n, all_n = _images_n(True, tuple(claim.said["splits"].split())), sum(fasdd.PUBLISHED.values())
    share = fasdd.ARCHIVE_BYTES / GB * images_n / all_n
    how = f"FASDD_CV.zip: {fasdd.ARCHIVE_BYTES / GB:.2f} GB for {all_n} images and all annotations"
    why = f"{images_n} images as their share; the upper bound is the whole archive"
    return Finding(share, how, why, low=0.0, high=fasdd.ARCHIVE_BYTES / GB)


def images_and_loader_gb(claim: Claim, _: Ledger) -> Finding:
    """GB that images and loaders may hold in /dev/shm at most, at the size and workers of the claim."""
    f = claim.figures()
    loader = shm.loader_bytes(int(f["batch"]), int(f["imgsz"]), int(f["workers"])) / GB
    images = fasdd.ARCHIVE_BYTES / GB
    how = f"images {images:.1f} GB (the whole archive) and loaders {loader:.1f} GB (shm.loader_bytes) at most"
    return Finding(images + loader, how, f"batch {f['batch']:g}, {f['imgsz']:g} px, {f['workers']:g} workers")


def listed_lines(claim: Claim, ledger: Ledger) -> Finding:
    """Lines that `ls -la FOLDER | wc -l` prints for as many files as stage 1 has train images."""
    files_n = 7
    with TemporaryDirectory() as folder:
        for i in range(files_n):
            (Path(folder) / f"{i}.jpg").touch()
        told = subprocess.run(["ls", "-la", folder], capture_output=True, text=True, check=True)
    more_n = len(told.stdout.splitlines()) - files_n
    images_n = images_with_boxes(claim, ledger).value
    how = f"tried with {files_n} files: {more_n} lines more (the total, . and ..)"
    return Finding(images_n + more_n, how, f"with {images_n} files")


def companion_date(_: Claim, __: Ledger) -> Finding:
    """The date of the document that reports the measurements which the seed quotes (2.33 it/s, 56.6 GB)."""
    where = f"{ORIGINAL}: the companion document of commit 56ebfad"
    return Finding(
        published.COMPANION_DATE,
        where,
        "it holds the measurements that the seed quotes, so that the seed is no older",
    )


def splits_in_memory(_: Claim, __: Ledger) -> Finding:
    """Splits that the original's data file reads from /dev/shm."""
    held = [name for name, folder in published.SPLIT_FOLDERS.items() if folder.startswith("/dev/shm/")]
    return Finding(" ".join(held), f"{ORIGINAL}: fasdd_stage1_shm.yaml", "read, not run")


def benchmark_difference(_: Claim, __: Ledger) -> Finding:
    """Largest difference of AP50 between the benchmarks that the original labels with two resolutions."""
    values = published.BENCHMARKS.values()
    how = f"{ORIGINAL}: benchmark_results.json of {' and '.join(published.BENCHMARKS)}"
    why = "equal to the last digit although the label differs: both files show one evaluation"
    return Finding(max(values) - min(values), how, why)


def commit_hours(_: Claim, __: Ledger) -> Finding:
    """Hours between two commits around the original's whole training: an upper bound of its length."""
    hours = (published.ENDED - published.STARTED).total_seconds() / 3600
    how = f"{ORIGINAL}: commit times {published.STARTED:%H:%M} and {published.ENDED:%H:%M} UTC"
    return Finding(hours, how, "both stages lie between them", low=0.0, high=hours)


def h100(claim: Claim, _: Ledger) -> Finding:
    """A figure of the H100 as its maker publishes it."""
    what = claim.said["what"]
    where = "NVIDIA's white paper and data sheet, H100 SXM5"
    return Finding(published.H100[what], where, claim.said.get("why", "published, not measured"))


def requirement(claim: Claim, _: Ledger) -> Finding:
    """The least that a feature of PyTorch needs: a version, or a GPU of some capability."""
    least, where = published.REQUIREMENTS[claim.said["what"]]
    return Finding(least, where, claim.said.get("why", "published, not tried with an older one"))


def reduction(claim: Claim, ledger: Ledger) -> Finding:
    """Percent from the estimate of the companion document down to the seed's own total."""
    total, before = ledger[claim.against[0]], published.ESTIMATE_H
    how = f"from {before:g} h ({ORIGINAL}: the companion document) to {total.quantity} h"
    why = "arithmetic on hours that stay unmeasured"
    return Finding(100 * (1 - float(total.quantity) / before), f"{how} ({total.id}, L{total.line})", why)


def linear_rule(_: Claim, __: Ledger) -> Finding:
    """Exponent of the batch in the linear scaling rule of learning rates."""
    batch, rate = published.LINEAR_RULE
    exponent = math.log(rate) / math.log(batch)
    return Finding(
        exponent, "Goyal et al. 2017, arXiv 1706.02677, section 2.1", "which the seed cites (L635)"
    )


def share_followed(claim: Claim, _: Ledger) -> Finding:
    """Percent of four parameters of its plan that the seed's printed configuration follows."""
    files = {name: PARAMS / "h200" / f"{name}.yaml" for name in ("stage1", "stage2", "arms/as-printed")}
    stage1, stage2, printed = (yaml.safe_load(path.read_text()) for path in files.values())
    f, train = claim.figures(), stage1["train"] | printed["change"]
    followed = {
        "epochs": f["epochs_low"] <= train["epochs"] <= f["epochs_high"],
        "patience of stage 1": max(stage1["patiences"]) == f["patience1"],
        "patience of stage 2": max(stage2["patiences"]) == f["patience2"],
        "imgsz": train["imgsz"] == f["imgsz"],
    }
    not_followed = ", ".join(name for name, same in followed.items() if not same) or "none"
    share = 100 * sum(followed.values()) / len(followed)
    how = f"params/h200 (configuration as printed) against L28-31; not followed: {not_followed}"
    return Finding(share, how, "the four parameters that the seed compares with its plan", within=True)


CHECKS = {
    f.__name__: f
    for f in (
        *(
            images_with_boxes,
            splits_with_boxes,
            images_without_boxes,
            classes,
            archive_gb,
        ),
        *(
            images_and_loader_gb,
            listed_lines,
            companion_date,
            splits_in_memory,
            benchmark_difference,
            commit_hours,
            h100,
        ),
        *(requirement, reduction, linear_rule, share_followed),
    )
}
