"""Each accelerator against a base, A B A B in one process: rates in pairs, memory, the first step."""

import gc
import itertools
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from saistudy.training import jpegs, networks, settings, steps
from saistudy.training.networks import CLASSIFIER, Sizes
from saistudy.training.settings import FAILURES, Setting, not_measured


@dataclass(frozen=True)
class Bench:
    """What all measurements of a network share.

    files: stored images and labels that the classifier reads, None feeds one generated batch again and
    again. A pass is steps_n steps, or epochs_n epochs of the files.
    """

    name: str
    sizes: Sizes
    device: str
    passes_n: int
    steps_n: int
    epochs_n: int = 2
    files: tuple | None = None
    compiles: bool = False

    @property
    def gpu(self) -> bool:
        """Whether it runs on a GPU."""
        return self.device != "cpu"

    def steps_in(self, setting: Setting) -> int:
        """Steps of one pass."""
        return self.steps_n if self.files is None else self.epochs_n * (len(self.files[0]) // setting.batch)


class Trial:
    """A setting made ready: its network stepped once, its feed built."""

    def __init__(self, bench: Bench, setting: Setting):
        self.bench, self.setting = bench, setting
        self.batch = networks.batch_of(bench.name, bench.sizes, setting.batch, bench.device)
        self.stepper = steps.Stepper(bench.name, bench.sizes, setting, bench.device)
        started = time.perf_counter()
        self.stepper.step(self.stepper.take(self.batch))
        self.stepper.wait()
        self.first_step_s = time.perf_counter() - started
        started = time.perf_counter()
        self.data = self._data()
        self.build_s = time.perf_counter() - started
        self.peaks: list[int] = []

    def _data(self) -> jpegs.Jpegs | None:
        if self.bench.files is None:
            return None
        paths, labels = self.bench.files
        return jpegs.Jpegs(paths, labels, self.bench.sizes.side_px, self.setting.cached)

    def batches(self) -> Iterable[dict]:
        """The batches of one pass."""
        if self.data is None:
            return itertools.repeat(self.batch, self.bench.steps_n)
        s = self.setting
        feed = jpegs.loader(self.data, s.batch, s.workers, s.prefetch, s.persistent, s.pinned)
        return ({"img": img, "cls": label} for img, label in jpegs.epochs(feed, self.bench.epochs_n))

    def images_per_s(self) -> float:
        """Images/s of one pass, the start of its feed included.

        On a GPU the allocator is emptied and one step taken before: blocks that the other side of a pair left
        would have to be given back within the pass, where memory is short.
        """
        if self.bench.gpu:
            torch.cuda.empty_cache()
            self.stepper.step(self.stepper.take(self.batch))
        steps_per_s, peak = steps.rate(self.stepper, self.batches())
        self.peaks += [] if peak is None else [peak]
        return steps_per_s * self.setting.batch

    def kept_bytes(self) -> int:
        """See steps.kept_bytes."""
        return steps.kept_bytes(self.stepper, self.batch)

    def seconds(self) -> dict[str, float]:
        """See steps.seconds; of one pass."""
        return steps.seconds(self.stepper, self.batches())


def pair(bench: Bench, factor: str, base: Setting, changes: dict) -> dict:
    """A row: a factor against its base, passes in turn A B A B.

    network, factor, batch, base_batch, changes, left_out (switch to reason), note (why there are no figures,
    else empty), base_images_per_s and images_per_s (one a pass), ratios (paired), and of either side
    first_step_s, build_s (the cache), kept_bytes (counted, see Kept), peak_bytes (the GPU's, else None).
    """
    possible, left_out = settings.applicable(changes, bench.gpu, bench.compiles)
    other = base.but(possible)
    row = {"network": bench.name, "factor": factor, "base_batch": base.batch, "batch": other.batch}
    row |= {"changes": possible, "left_out": left_out}
    needed = settings.applicable(vars(base), bench.gpu, bench.compiles)[1]
    if needed or not possible:
        return row | _nothing("; ".join(dict.fromkeys([*needed.values(), *left_out.values()])))
    try:
        return row | _measured(Trial(bench, base), Trial(bench, other))
    except FAILURES as error:
        return row | _nothing(not_measured(error))
    finally:
        release(bench)


def _measured(base: Trial, other: Trial) -> dict:
    rates: list[tuple[float, float]] = []
    for _ in range(base.bench.passes_n):
        rates.append((base.images_per_s(), other.images_per_s()))
    found = {"base_images_per_s": [a for a, _ in rates], "images_per_s": [b for _, b in rates]}
    found |= {"ratios": [b / a for a, b in rates], "note": ""}
    for prefix, trial in (("base_", base), ("", other)):
        found |= {prefix + "first_step_s": trial.first_step_s, prefix + "build_s": trial.build_s}
        found |= {prefix + "kept_bytes": trial.kept_bytes()}
        found |= {prefix + "peak_bytes": max(trial.peaks, default=None)}
    return found


FIGURES = ("first_step_s", "build_s", "kept_bytes", "peak_bytes")


def _nothing(note: str) -> dict:
    """The figures of a row that could not be measured."""
    found = {"base_images_per_s": [], "images_per_s": [], "ratios": [], "note": note}
    return found | {prefix + key: None for prefix in ("base_", "") for key in FIGURES}


def release(bench: Bench) -> None:
    """Give back what the last networks held on the GPU, and forget what was compiled."""
    if bench.compiles:
        torch.compiler.reset()
    if bench.gpu:
        gc.collect()
        torch.cuda.empty_cache()


def factors_of(bench: Bench, backend: str, workers: int) -> dict[str, tuple[dict, dict]]:
    """Every factor of a network: name to (what its base has, what it changes). Only the classifier is fed."""
    found = {name: ({}, changes) for name, changes in settings.step_factors(backend).items()}
    return found | (settings.feed_factors(workers, bench.gpu) if bench.name == CLASSIFIER else {})


def together(bench: Bench, combined: list[str], backend: str, workers: int) -> dict:
    """What the factors of `combined` that this network has change, all at once."""
    found = factors_of(bench, backend, workers)
    return {key: value for name in combined if name in found for key, value in found[name][1].items()}


def all_factors(bench: Bench, base: Setting, combined: list[str], backend: str, workers: int, say: Callable):
    """Rows of `pair` for every factor of a network, and for all of `combined` at once.

    Args:
        say: told every row.
    """
    found, rows = factors_of(bench, backend, workers), []
    every = found | {"combined": ({}, together(bench, combined, backend, workers))}
    for name, (own_base, changes) in every.items():
        row = pair(bench, name, base.but(own_base), changes)
        rows.append(row | {"of": [one for one in combined if one in found] if name == "combined" else []})
        say(rows[-1])
    return rows


def all_recipes(bench: Bench, base: Setting, backend: str, modern_batch: int, say: Callable) -> list[dict]:
    """Rows of `pair` for the four hardware recipes against a plain training at the seed's batch.

    One more, "checkpointing at half the batch", sets the second recipe against itself without it.
    """
    found = settings.recipes(backend, bench.gpu, base.batch, modern_batch)
    small = settings.applicable(found["GPU below 4 GB"] | {"checkpointed": False}, bench.gpu, bench.compiles)[
        0
    ]
    cases = [(name, base, changes) for name, changes in found.items()]
    cases.append(("checkpointing at half the batch", base.but(small), {"checkpointed": True}))
    rows = []
    for name, own_base, changes in cases:
        rows.append(pair(bench, name, own_base, changes) | {"of": []})
        say(rows[-1])
    return rows
