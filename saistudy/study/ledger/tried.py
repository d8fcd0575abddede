"""Checks of behaviour: what the pinned Ultralytics writes, draws, builds and starts, tried live on a CPU."""

import math

import yaml

from saistudy.paths import PARAMS
from saistudy.study.ledger import published
from saistudy.study.ledger.quantities import Finding
from saistudy.study.ledger.rows import Claim, Ledger
from saistudy.study.ledger.settings import PINNED, configuration
from saistudy.training import behaviour, drawn

SOURCE = "the pinned Ultralytics, tried live"
SHORT_EPOCHS_N = 12  # two more than close_mosaic leaves without mosaic


def _short() -> dict:
    save_period, close = configuration("1")["save_period"], configuration("finetune")["close_mosaic"]
    return behaviour.short_run(SHORT_EPOCHS_N, save_period, close)


def save_step(_: Claim, __: Ledger) -> Finding:
    """Epochs between two kept checkpoints."""
    saved = _short()["saved"]
    steps = {late - early for early, late in zip(saved, saved[1:], strict=False)}
    how = f"{PINNED}: a run of {SHORT_EPOCHS_N} epochs left " + ", ".join(f"epoch{i}.pt" for i in saved)
    return Finding(max(steps), how, "numbered from 0")


def epochs_without_mosaic(_: Claim, __: Ledger) -> Finding:
    """Epochs at the end of a run in which no mosaic is drawn."""
    mosaic = _short()["mosaic"]
    closed_n = next((i for i, p in enumerate(reversed(mosaic)) if p), len(mosaic))
    return Finding(
        closed_n, f"{PINNED}: a run of {SHORT_EPOCHS_N} epochs, mosaic read in each", "the last ones"
    )


def csv_header(_: Claim, __: Ledger) -> Finding:
    """The columns of results.csv."""
    return Finding(
        ", ".join(_short()["header"]), f"{PINNED}: results.csv of a short run", "a detection training"
    )


def best_by_map(_: Claim, __: Ledger) -> Finding:
    """Whether best.pt is chosen by a mean average precision and nothing else."""
    parts = behaviour.fitness_parts()
    how = f"{PINNED}: only {', '.join(parts)} moves the fitness"
    return Finding(all(part.startswith("mAP") for part in parts), how, "8.3 also counted a tenth of mAP50")


def parameters(claim: Claim, _: Ledger) -> Finding:
    """Parameters of a network in millions."""
    n = behaviour.parameters_n(claim.said["model"])
    return Finding(
        n / 1e6, f"{PINNED}: {claim.said['model']} built and counted, {n}", "80 classes, not fused"
    )


def hsv(_: Claim, __: Ledger) -> Finding:
    """How far hue, saturation and value really change."""
    train = configuration("finetune")
    reach = drawn.hsv_reach(*(train[key] for key in ("hsv_h", "hsv_s", "hsv_v")))
    how = f"{PINNED}: the largest change in {drawn.DRAWS_N} draws"
    return Finding(reach, how, "8 bits: hue is right to .006, the others to .01; hue of the circle")


def scale(_: Claim, __: Ledger) -> Finding:
    """How far an image is really scaled, to either side of 1."""
    low, high = drawn.scale_reach(configuration("finetune")["scale"])
    how = f"{PINNED}: {drawn.DRAWS_N} draws lie between {low:g} and {high:g}"
    return Finding(max(high - 1, 1 - low), how, "RandomPerspective alone, before mosaic's own crop")


def cached(_: Claim, __: Ledger) -> Finding:
    """Whether cache True holds every image in memory, and cache False none."""
    (held_n, all_n), (without_n, _n) = behaviour.cached_images(True), behaviour.cached_images(False)
    how = f"{PINNED}: {held_n} of {all_n} images held with cache, {without_n} without"
    return Finding(held_n == all_n and not without_n, how, "where Ultralytics finds memory enough")


def label_folder(_: Claim, __: Ledger) -> Finding:
    """Where Ultralytics looks for the labels of the images that the original's script copies."""
    folder = behaviour.label_folder(published.COPIED_TO["images"])
    how = f"{PINNED}: labels of images in {published.COPIED_TO['images']}"
    return Finding(folder, how, "the folder as in the original's script (saistudy.study.ledger.published)")


def workers(claim: Claim, _: Ledger) -> Finding:
    """Processes that a loader asked for so many workers starts."""
    n = behaviour.workers_started(int(claim.said["asked"]))
    return Finding(
        n, f"{PINNED}: processes counted below a loader", "a training caps them at the cores a GPU has"
    )


def cpu_step(claim: Claim, _: Ledger) -> Finding:
    """Whether two training steps of the CPU tier end with a finite loss."""
    tier = yaml.safe_load((PARAMS / "tiers.yaml").read_text())["cpu"]
    loss = behaviour.trial_step(f"{tier['model']}.yaml", tier["batch"], tier["imgsz"])
    how = f"{PINNED}: two steps of {tier['model']}, batch {tier['batch']}, {tier['imgsz']} px on noise"
    return Finding(math.isfinite(loss), how, "that it runs, not how well it learns")


CHECKS = {
    f.__name__: f
    for f in (
        *(save_step, epochs_without_mosaic, csv_header, best_by_map, parameters, hsv, scale, cached),
        *(label_folder, workers, cpu_step),
    )
}
