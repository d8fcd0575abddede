"""Checks of settings: what a trainer of the pinned Ultralytics acts with when set up as a seed prints it."""

import math
from functools import cache

import yaml

from saistudy.data import pyrosdis
from saistudy.paths import PARAMS
from saistudy.study.ledger.quantities import Finding
from saistudy.study.ledger.rows import Claim, Ledger
from saistudy.training import behaviour, drawn

SOURCE = "a trainer of the pinned Ultralytics, set up as printed"
PINNED = f"Ultralytics {behaviour.VERSION}, tried live"


def file(name: str) -> dict:
    """A parameter file of profile h200, where the seeds' configurations stand value by value."""
    return yaml.safe_load((PARAMS / "h200" / f"{name}.yaml").read_text())


def configuration(stage: str) -> dict:
    """Ultralytics' arguments as a seed prints them: stage 1, stage 2 (both of 000), or finetune (004)."""
    if stage == "finetune":
        given = file("finetune")
        return given["train"] | {"patience": max(given["patiences"])}
    first, arm = ("stage1", "arms/as-printed") if stage == "1" else ("stage2", "stage2-arms/as-written")
    given = file(first)
    train = given["train"] | file(arm)["change"] | {"patience": max(given["patiences"])}
    return train if stage == "1" else train | {"single_cls": True, "imgsz": file("stage1")["train"]["imgsz"]}


def iterations_n() -> int:
    """Optimizer steps of stage 2 as printed on the published train split of PyroSDIS."""
    train = configuration("2")
    return math.ceil(pyrosdis.PUBLISHED["train"] / train["batch"]) * train["epochs"]


@cache
def conditions(stage: str) -> dict:
    """What a trainer set up with that configuration acts with."""
    return behaviour.conditions_of(configuration(stage), iterations_n() if stage == "2" else None)


def acts(claim: Claim, _: Ledger) -> Finding:
    """The values that act in a trainer set up with the seed's configuration as printed."""
    stage, keys = claim.said["stage"], claim.said["keys"].split()
    seen = conditions(stage)
    values = tuple(_side(seen[key]) for key in keys)
    defaults = [behaviour.default(key) == _side(seen[key]) for key in keys]
    how = f"{PINNED}: a trainer set up with params/h200 as printed, read back"
    why = "Ultralytics' default" if all(defaults) else "not Ultralytics' default"
    why = claim.said.get("why", why)
    return Finding(values if len(values) > 1 else values[0], how, why)


def _side(value: object) -> object:
    """The side of a square tensor, anything else as it is."""
    return value[0] if isinstance(value, list) and len(set(value)) == 1 else value


def tensor(_: Claim, __: Ledger) -> Finding:
    """The tensor that stock Ultralytics trains for the printed imgsz."""
    seen = conditions("1")["imgsz"]
    how = f"{PINNED}: imgsz {configuration('1')['imgsz']} as printed, read back from the trainer"
    return Finding(f"[{seen[0]},{seen[1]}]", how, "a list is replaced by its largest side")


def single_class(_: Claim, __: Ledger) -> Finding:
    """Whether stage 2 as printed trains one class."""
    names = conditions("2")["names"]
    why = f"but its name becomes '{names['0']}': stage 1's row for smoke, matched by name, is not taken over"
    return Finding(len(names) == 1, f"{PINNED}: a trainer set up with stage 2 as printed", why)


def chosen_rate(_: Claim, __: Ledger) -> Finding:
    """The learning rate that optimizer auto takes for stage 2 as printed."""
    seen = conditions("2")
    how = f"{PINNED}: optimizer auto for {iterations_n()} iterations takes {seen['optimizer']}"
    return Finding(seen["lr0"], how, "the seed names no optimizer for stage 2, so lr0 is ignored")


def chosen_optimizer(_: Claim, __: Ledger) -> Finding:
    """The optimizer that is taken for stage 2 as printed."""
    how = f"{PINNED}: optimizer auto for {iterations_n()} iterations"
    return Finding(
        conditions("2")["optimizer"], how, "neither SGD nor its lr0 is what stage 2 gets as printed"
    )


def copy_paste(_: Claim, __: Ledger) -> Finding:
    """The copy-paste that acts: 0 where an image with boxes alone comes out as it went in."""
    train, boxes_n = configuration("1"), 20
    after_n = [drawn.instances_after_copy_paste(p, boxes_n) for p in (train["copy_paste"], 1.0)]
    acting = train["copy_paste"] if max(after_n) > boxes_n else 0.0
    how = f"{PINNED}: {boxes_n} boxes stay {after_n[0]} at {train['copy_paste']} and {after_n[1]} at 1.0"
    return Finding(acting, how, "box labels without polygons; the arithmetic of the middle is right")


def default(claim: Claim, _: Ledger) -> Finding:
    """Ultralytics' default of an argument."""
    key = claim.said["key"]
    return Finding(behaviour.default(key), f"{PINNED}: default of {key}", "unless an argument says otherwise")


CHECKS = {
    f.__name__: f for f in (acts, tensor, single_class, chosen_rate, chosen_optimizer, copy_paste, default)
}
