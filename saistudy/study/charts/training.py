"""Figures of training: learning curves, what each patience would have done, cost."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from saistudy.study import plots
from saistudy.study.charts import panels

LOST = {
    "val_ap50_95_lost": "AP50-95 on val given up",
    "test_ap50_lost": "AP50 on test given up\n(where weights were kept)",
    "epochs_saved": "epochs saved",
    "hours_saved": "hours saved",
    "lr_frac": "learning rate at the stop,\nfraction of its largest",
}


def learning(frame: pd.DataFrame, note: str) -> Figure:
    """Validation AP50-95 by epoch, a line a seed."""
    if frame.empty:
        return panels.blank(note, "no run of this stage")
    return plots.curves(frame, note).figure


def patience(frame: pd.DataFrame, note: str) -> Figure:
    """What each patience gives up and saves, and in what state of the schedule it stops, a line a run."""
    seen = frame[frame["known"] & (frame["patience"] > 0)]
    if seen.empty:
        return panels.blank(note, "no run whose patience can be replayed")
    seen = seen.assign(name=np.where(seen["stage"] == 2, "stage 2 " + seen["label"], seen["label"]))
    told = f"{note}\nhollow: stopped with mosaic still on; under the cosine schedule an early stop"
    told += " leaves the learning rate high, too"
    figure, axes = panels.panels(2, 3, told, (3.7, 2.6))
    for ax, (column, label) in zip(axes.flat, LOST.items(), strict=False):
        _runs(ax, seen, column, plots.style(seen["name"]))
        ax.set(ylabel=label, xlabel="patience, epochs", xlim=(0, seen["patience"].max() + 1))
        panels.whole_numbers(ax)
    _key(axes[1, 2], plots.style(seen["name"]))
    return figure


def _runs(ax, frame: pd.DataFrame, column: str, looks: dict[str, dict]) -> None:
    """A thin line a run, markers alone where only some patiences have a value; hollow: mosaic still on."""
    for (name, _), run in frame.groupby(["name", "seed"], sort=False):
        look, values = looks[name], run[column].astype(float)
        line = look["ls"] if values.notna().all() else ""
        ax.plot(run["patience"], values, color=look["color"], ls=line, lw=0.9)
        hollow = run["mosaic_open"].astype(bool)
        for part, face in ((hollow, "white"), (~hollow, look["color"])):
            dots = {"ls": "", "marker": look["marker"], "ms": 4, "mec": look["color"], "mfc": face}
            ax.plot(run["patience"][part], values[part], **dots)


def _key(ax, looks: dict[str, dict]) -> None:
    """The legend in a panel of its own."""
    for name, look in looks.items():
        ax.plot([], [], **look, ms=4, label=name)
    ax.axis("off")
    ax.legend(frameon=False, loc="center")


def cost(frame: pd.DataFrame, note: str) -> Figure:
    """AP50 by hours of training, a dot a run of stage 1."""
    if frame.empty:
        return panels.blank(note, "no run of stage 1")
    figure, axes = panels.panels(1, 1, note, (7, 3.4))
    ax = axes[0, 0]
    for arm, look in plots.style(frame["arm"]).items():
        mine = frame[frame["arm"] == arm]
        label = f"{arm}, {mine['pixels'].iloc[0]:,} px"
        ax.plot(mine["train_h"], mine["ap50"], ls="", color=look["color"], marker=look["marker"], label=label)
    devices = ", ".join(dict.fromkeys(frame["device"]))
    ax.set(xlabel=f"hours of training on {devices}", ylabel="AP50 on test")
    ax.set(xlim=(0, 1.08 * frame["train_h"].max()), ylim=(0, 1.08 * frame["ap50"].max()))
    ax.xaxis.set_major_locator(MaxNLocator(6))
    panels.beside(ax)
    return figure
