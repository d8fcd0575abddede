"""What a rate does not tell: where a step's seconds go, what compiling costs, what BatchNorm sees."""

import os
import time
from pathlib import Path

import torch

from saistudy.training import checkpointing, networks, settings, steps
from saistudy.training.accelerators import Bench, Trial, release
from saistudy.training.settings import FAILURES, Setting, not_measured


def where(bench: Bench, base: Setting, changes: dict) -> list[dict]:
    """Where a step's seconds go, base and with changes: rows of network, setting, steps.seconds, note."""
    rows = []
    for label, changed in (("base", {}), ("combined", changes)):
        possible = settings.applicable(changed, bench.gpu, bench.compiles)[0]
        row = {"network": bench.name, "setting": label, "changes": possible, "note": ""}
        try:
            seen = Trial(bench, base.but(possible)).seconds()
        except FAILURES as error:
            seen = dict.fromkeys([*steps.PARTS, "step"])
            row["note"] = not_measured(error)
        rows.append(row | seen)
        release(bench)
    return rows


def compile_twice(bench: Bench, base: Setting, backend: str, folder: Path) -> dict:
    """Seconds of the first step of a compiled network with an empty cache on the disk, and once more.

    The second time torch has forgotten the network (torch.compiler.reset), and only inductor's cache in
    `folder` (TORCHINDUCTOR_CACHE_DIR) is left. {network, plain_s, first_s, again_s, note}.
    """
    row = {"network": bench.name, "backend": backend, "note": ""}
    if not bench.compiles:
        _, why = settings.applicable({"compiled": backend}, bench.gpu, False)
        return row | dict.fromkeys(["plain_s", "first_s", "again_s"]) | {"note": why["compiled"]}
    before = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
    try:
        found = {"plain_s": _first_s(bench, base)}
        compiled = base.but({"compiled": backend})
        return row | found | {"first_s": _first_s(bench, compiled), "again_s": _first_s(bench, compiled)}
    except FAILURES as error:
        return row | dict.fromkeys(["plain_s", "first_s", "again_s"]) | {"note": not_measured(error)}
    finally:
        os.environ.pop("TORCHINDUCTOR_CACHE_DIR")
        os.environ |= {} if before is None else {"TORCHINDUCTOR_CACHE_DIR": before}


def _first_s(bench: Bench, setting: Setting) -> float:
    release(bench)
    return Trial(bench, setting).first_step_s


def batch_norm(bench: Bench, base: Setting) -> dict:
    """How often BatchNorm updates in one step, plain and checkpointed, and how far apart the gradients are.

    {network, layers_n, plain and checkpointed (updates a layer: in how many layers), gradients_apart: their
    largest difference over the largest gradient}. In float32, on the same weights and the same batch.
    """
    updates, gradients = [], []
    batch = networks.batch_of(bench.name, bench.sizes, base.batch, bench.device)
    for checkpointed in (False, True):
        setting = base.but({"checkpointed": checkpointed})
        stepper = steps.Stepper(bench.name, bench.sizes, setting, bench.device)
        stepper.loss(stepper.take(batch)).backward()
        updates.append(checkpointing.updates(stepper.network))
        seen = [own.grad for own in stepper.network.parameters() if own.grad is not None]
        gradients.append(torch.cat([one.flatten() for one in seen]))
    words = [", ".join(f"{n} in {u.count(n)}" for n in sorted(set(u))) for u in updates]
    apart = (gradients[0] - gradients[1]).abs().max() / gradients[0].abs().max()
    row = {"network": bench.name, "layers_n": len(updates[0]), "plain": words[0], "checkpointed": words[1]}
    return row | {"gradients_apart": float(apart)}


def step_s(bench: Bench, setting: Setting) -> float:
    """Seconds of a plain step after the first: what an estimate of the time is made of."""
    trial = Trial(bench, setting)
    started = time.perf_counter()
    trial.stepper.run([trial.batch])
    trial.stepper.wait()
    return time.perf_counter() - started
