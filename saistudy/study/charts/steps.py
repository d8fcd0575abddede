"""The steps of a gate: their losses with the two means that are compared, and where their seconds went."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from saistudy.study.plots import COLOURS

PARTS = {"step_s": "step", "transfer_s": "transfer", "wait_s": "waiting for the loader"}


def draw(rows: pd.DataFrame, losses: list[float], mean_n: int, warmup_n: int, note: str):
    """Losses by step with the first and last mean; time of each batch by part, a line where it is steady.

    Args:
        rows: of training.sanity.Steps.
        losses: one per step, each the mean over its batches.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
    figure.suptitle(note, fontsize="medium")
    steps = np.arange(1, len(losses) + 1)
    left.plot(steps, losses, ".-", color=COLOURS[0], lw=0.8, ms=4, label="one step")
    for label, part in (("first", slice(0, mean_n)), ("last", slice(-mean_n, None))):
        mean = float(np.mean(losses[part]))
        colour = COLOURS[1] if label == "first" else COLOURS[2]
        left.hlines(mean, steps[part][0], steps[part][-1], color=colour, lw=3, label=f"{label} {mean_n}")
    left.set(xlabel="step", ylabel="loss of an image", ylim=(0, None))
    left.legend(frameon=False, fontsize="small")
    bands = [1000 * rows[part] for part in PARTS]
    right.stackplot(rows["batch"], *bands, labels=list(PARTS.values()), colors=COLOURS[:3], step="mid")
    right.axvline(warmup_n + 0.5, color="black", ls="--", lw=1, label="steady from here on")
    tall_ms = 1000 * float(rows[list(PARTS)].sum(axis=1).quantile(0.95))  # the first batch may be far above
    right.set(xlabel="batch", ylabel="ms", ylim=(0, 1.6 * tall_ms), xlim=(0.5, len(rows) + 0.5))
    right.legend(frameon=False, fontsize="small", ncols=2)
    return figure
