"""Plots of the throughput study: paired ratios, parts of a step, differences in accuracy."""

import matplotlib.pyplot as plt
import numpy as np

from saistudy.study.plots import COLOURS


def ratios(rows: list[dict], note: str):
    """A panel per network: the paired ratio of each factor, every pass a dot, the base at 1; logarithmic."""
    networks = list(dict.fromkeys(row["network"] for row in rows if row["ratios"]))
    most = max(sum(row["network"] == name and bool(row["ratios"]) for row in rows) for name in networks)
    size = (5 * len(networks), 0.8 + 0.28 * most)
    figure, axes = plt.subplots(1, len(networks), figsize=size, squeeze=False, layout="constrained")
    for ax, name in zip(axes.flat, networks, strict=True):
        mine = [row for row in rows if row["network"] == name and row["ratios"]]
        for y, row in enumerate(mine):
            low, high = min(row["ratios"]), max(row["ratios"])
            colour = COLOURS[2] if low > 1 else COLOURS[1] if high < 1 else COLOURS[6]
            ax.plot([low, high], [y, y], color=colour, lw=2)
            ax.plot(row["ratios"], [y] * len(row["ratios"]), ".", color=colour)
        ax.axvline(1, color="grey", lw=0.8)
        ax.set(xscale="log", yticks=range(len(mine)), yticklabels=[row["factor"] for row in mine])
        ax.set(xlabel="images/s over the base's, paired", title=name)
        ticks = [0.1, 0.2, 0.5, 1, 2, 5, 10]
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.minorticks_off()
        reach = [value for row in mine for value in row["ratios"]]
        ax.set_xlim(min(0.5, 0.8 * min(reach)), max(2, 1.25 * max(reach)))
        ax.invert_yaxis()
    figure.suptitle(note, fontsize=9)
    return axes


def parts(rows: list[dict], names: tuple[str, ...], note: str, ax=None):
    """Share of a step that each part takes, a bar per network and setting."""
    rows = [row for row in rows if row["step"]]
    ax = ax or plt.subplots(figsize=(7, 0.9 + 0.35 * len(rows)), layout="constrained")[1]
    seen = np.array([[row[part] for part in names] for row in rows])
    shares = seen / seen.sum(axis=1, keepdims=True)
    left = shares.cumsum(axis=1) - shares
    labels = [f"{row['network']}, {row['setting']}" for row in rows]
    for i, part in enumerate(names):
        ax.barh(labels, shares[:, i], left=left[:, i], color=COLOURS[i], label=part)
    ax.invert_yaxis()
    ax.set(xlabel="share of a step's seconds", xlim=(0, 1), title=note)
    ax.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    return ax


def differences(rows: list[dict], margin: float, note: str, ax=None):
    """Difference in accuracy of each switch with its 95 % interval, the seeds as dots; the margin dashed."""
    rows = [row for row in rows if row["differences"]]
    ax = ax or plt.subplots(figsize=(7, 0.9 + 0.3 * len(rows)), layout="constrained")[1]
    for y, row in enumerate(rows):
        if row["low"] is not None:
            ax.plot([100 * row["low"], 100 * row["high"]], [y, y], color=COLOURS[0], lw=2)
        ax.plot([100 * one for one in row["differences"]], [y] * len(row["differences"]), "k.", ms=4)
    ax.axvline(0, color="grey", lw=0.8)
    ax.axvline(-100 * margin, color=COLOURS[1], ls="--", lw=1, label="-margin")
    ax.set(yticks=range(len(rows)), yticklabels=[row["switch"] for row in rows], title=note)
    ax.set(xlabel="accuracy less the base's, percent points")
    ax.invert_yaxis()
    ax.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    return ax
