"""What a study will cost before anything is spent, from the throughput that its study.yaml states."""

import shutil
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from saistudy.data import joint, shm, sources
from saistudy.paths import ROOT
from saistudy.study import forecast

POOLED = list(sources.VARIABLES)  # what the joint pool is made of


def trainings(profile: str, full: bool = False, price_per_h: float | None = None) -> dict:
    """Images, hours, money and bytes of a profile's trainings, from the throughput in its study.yaml.

    Hours are epochs x images / images_per_s, where the throughput of an arm is the stated one divided by
    its pixels relative to 896 x 896. Nothing stops early in an estimate: it is an upper bound at that rate.
    A run of stage 2 trains once per class handling, joint on the train images of both data sets. The
    downloads and every tree lie on the disk, the joint one too; only the other two are staged. A row's key
    is notebook, arm and arm of stage 2; price_per_h in US dollars, None: study.yaml's.
    """
    plan = forecast.study(profile, full)
    cost = plan["forecast"]
    rows = [*_stage1(profile, plan, cost), *_stage2(profile, plan, cost)]
    hours = sum(row["hours"] * row["seeds_n"] for row in rows)
    staged_gib = sum(cost["tree_gib"][name] for name in POOLED)
    kept_gib = sum(row["seeds_n"] for row in rows) * cost["run_gib"]
    arms = [forecast.merged(profile, "stage1", arm) for arm in plan["arms"]]
    return {
        "rows": rows,
        "seeds_n": len(plan["seeds"]),
        "hours": hours,
        "money": hours * (cost["price_per_h"] if price_per_h is None else price_per_h),
        "shm_gib": staged_gib,
        "loader_gib": max(map(_loader_gib, arms)),
        "store_gib": max(_store_gib(arm, cost) for arm in arms),
        "disk_gib": staged_gib + sum(cost["tree_gib"].values()) + kept_gib,
        "source": cost["source"],
    }


def _stage1(profile: str, plan: dict, cost: dict) -> Iterator[dict]:
    """A row for each arm of stage 1."""
    for arm, seeds in forecast.seeds_by_arm(plan).items():
        row = _row(f"stage 1, {arm}", _train(forecast.merged(profile, "stage1", arm)), cost, ["fasdd_cv"])
        yield row | {"seeds_n": len(seeds), "key": ("stage1", arm, None)}


def _stage2(profile: str, plan: dict, cost: dict) -> Iterator[dict]:
    """A row for each arm of stage 2, at the tensor of the arm of stage 1 that it goes on from."""
    for arm, second in product(plan["stage2_from"], plan["stage2_arms"]):
        values = forecast.merged(profile, "stage2", second)
        train = {"imgsz": _train(forecast.merged(profile, "stage1", arm))["imgsz"]} | _train(values)
        read = [POOLED if handling == joint.NAME else ["pyro-sdis"] for handling in values["handlings"]]
        name = f"stage 2{'' if second == forecast.AS_MEANT else f' {second}'}, {arm}"
        row = _row(name, train, cost, sum(read, []))
        yield row | {"seeds_n": len(plan["seeds"]), "key": ("stage2", arm, second)}


def _train(values: dict) -> dict:
    """Ultralytics' arguments of a training, its arm's change laid over them."""
    return values["train"] | values["change"]


def _loader_gib(values: dict) -> float:
    """What the loaders of a training may put into /dev/shm, GiB; prefetch is Ultralytics' own 4."""
    train = _train(values)
    return shm.loader_bytes(train["batch"], side_px(train["imgsz"]), train["workers"]) / 2**30


def _store_gib(values: dict, cost: dict) -> float:
    """What the decoded train images of stage 1 fill at most, GiB: each the whole tensor."""
    train = _train(values)
    images_n = cost["train_images_n"]["fasdd_cv"] if values["input"] != "stock" else 0
    return images_n * 3 * side_px(train["imgsz"]) ** 2 / 2**30


def side_px(imgsz) -> int:
    """Side in pixels of the square with the area of an imgsz."""
    height, width = imgsz if isinstance(imgsz, list) else (imgsz, imgsz)
    return round((height * width) ** 0.5)


def _row(name: str, train: dict, cost: dict, datasets: list[str]) -> dict:
    """Hours of a run that reads the train images of these data sets in every epoch."""
    rate = cost["images_per_s"] * cost["pixels_n"] / side_px(train["imgsz"]) ** 2
    images_n = sum(cost["train_images_n"][dataset] for dataset in datasets)
    return {"run": name, "hours": train["epochs"] * images_n / rate / 3600}


def sentences(profile: str, full: bool = False, price_per_h: float | None = None) -> str:
    """The forecast as text: one line per training, then the sums beside what this machine has free."""
    cost = trainings(profile, full, price_per_h)
    shape = "{run:<23} {minutes:7.1f} min a seed, {seeds_n} of them"
    lines = [f"training alone, by a rate that stands in study.yaml ({cost['source']}):"]
    lines += [shape.format(minutes=60 * row["hours"], **row) for row in cost["rows"]]
    free = {name: shutil.disk_usage(path).free / 2**30 for name, path in _places().items()}
    lines += [
        f"{cost['seeds_n']} seed(s): {cost['hours']:.1f} hours at that rate, {cost['money']:.0f} US dollars;"
        " fewer where a run stops early",
        f"/dev/shm: {cost['shm_gib']:.1f} GiB of images and {cost['loader_gib']:.1f} GiB for the loader"
        f" at the largest arm (free: {free['shm']:.1f}); decoded images, there or on the disk:"
        f" {cost['store_gib']:.1f} GiB at most",
        f"disk: {cost['disk_gib']:.1f} GiB (free: {free['disk']:.1f})",
    ]
    return "\n".join(lines)


def _places() -> dict[str, Path]:
    """Existing folders whose free space a study uses."""
    shm = Path("/dev/shm")
    return {"shm": shm if shm.is_dir() else ROOT, "disk": ROOT}
