"""What a rate does not tell: where a step's seconds go, what compiling costs, what BatchNorm sees."""

import math
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
    """How often BatchNorm updates its running statistics in one forward and backward pass.

    {network, layers_n, plain, checkpointed}: the latter two say how many updates in how many layers.
    """
    words = []
    for checkpointed in (False, True):
        stepper, _ = _gradient(bench, base.but({"checkpointed": checkpointed}))
        updates = checkpointing.updates(stepper.network)
        words.append(", ".join(f"{n} in {updates.count(n)}" for n in sorted(set(updates))))
    return {"network": bench.name, "layers_n": len(updates), "plain": words[0], "checkpointed": words[1]}


def same_gradient(bench: Bench, base: Setting, backend: str) -> list[dict]:
    """How far each factor's gradient is from the plain one, on the same weights and the same batch.

    Rows of network, factor, apart (norm of the difference over the norm of the plain gradient), note.
    """
    _, plain = _gradient(bench, base)
    rows = []
    for factor, changes in settings.step_factors(backend).items():
        possible, why = settings.applicable(changes, bench.gpu, bench.compiles)
        row = {"network": bench.name, "factor": factor, "apart": None, "note": "; ".join(why.values())}
        try:
            if possible:
                row["apart"] = float((_gradient(bench, base.but(possible))[1] - plain).norm() / plain.norm())
        except FAILURES as error:
            row["note"] = not_measured(error)
        rows.append(row)
        release(bench)
    return [row if row["apart"] is None or math.isfinite(row["apart"]) else _overflowed(row) for row in rows]


def _overflowed(row: dict) -> dict:
    return row | {"apart": None, "note": "the gradient was not finite: a scaler would skip this step"}


def _gradient(bench: Bench, setting: Setting) -> tuple[steps.Stepper, torch.Tensor]:
    """A stepper after one forward and backward pass, and its gradient, (parameters,) float32; not scaled."""
    stepper = steps.Stepper(bench.name, bench.sizes, setting, bench.device)
    batch = stepper.take(networks.batch_of(bench.name, bench.sizes, setting.batch, bench.device))
    for part in networks.parts(batch, setting.accumulate):
        (stepper.loss(part) / setting.accumulate).backward()
    own = [one.grad.flatten() for one in stepper.network.parameters() if one.grad is not None]
    return stepper, torch.cat(own)


def step_s(bench: Bench, setting: Setting) -> float:
    """Seconds of a plain step after the first: what an estimate of the time is made of."""
    trial = Trial(bench, setting)
    started = time.perf_counter()
    trial.stepper.run([trial.batch])
    trial.stepper.wait()
    return time.perf_counter() - started
