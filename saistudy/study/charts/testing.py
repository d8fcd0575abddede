"""Figures of testing: by size of object, by threshold, by comparison, by size of tensor."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from saistudy.study import plots
from saistudy.study.charts import panels

AREAS = {"area_px2": "side of a square of the box's area, px", "area_frac": "share of the image, %"}
OPEN_END = 1e10  # COCO's upper edge of "large"


def ap_by_size(frame: pd.DataFrame, note: str) -> Figure:
    """AP50 by the size of the object: a dot a seed, a short line at their mean, boxes of truth below."""
    if frame.empty:
        return panels.blank(note, "no record holds average precision by size of the object")
    stages = sorted(frame["stage"].unique())
    figure, axes = panels.panels(len(stages), len(AREAS), note, (5.2, 3.0))
    for row, stage in zip(axes, stages, strict=True):
        for ax, (measure, label) in zip(row, AREAS.items(), strict=True):
            _bins(ax, frame[(frame["stage"] == stage) & (frame["measure"] == measure)])
            ax.set(xlabel=label, ylabel=f"AP50 on test, stage {stage}", ylim=(-0.03, 1.03))
        panels.beside(row[-1])
    return figure


def _bins(ax, frame: pd.DataFrame) -> None:
    """One measure of one stage: the bins beside each other, in each the cases beside each other."""
    edges = frame[["low", "high", "boxes_n"]].drop_duplicates(["low", "high"]).reset_index(drop=True)
    looks = plots.style(frame["label"])
    for i, (label, look) in enumerate(looks.items()):
        mine = frame[frame["label"] == label].merge(edges.reset_index(), on=["low", "high"])
        x = mine["index"] + 0.8 * ((i + 0.5) / len(looks) - 0.5)
        ax.plot(x, mine["ap50"], ls="", ms=4, color=look["color"], marker=look["marker"], label=label)
        means = mine.assign(x=x).groupby("x")["ap50"].mean()
        ax.hlines(means, means.index - 0.3 / len(looks), means.index + 0.3 / len(looks), color=look["color"])
    ax.set_xticks(range(len(edges)), [_bin(row, frame["measure"].iloc[0]) for row in edges.itertuples()])
    ax.set_xlim(-0.5, len(edges) - 0.5)
    for x in range(1, len(edges)):
        ax.axvline(x - 0.5, color="0.85", lw=0.8)


def _bin(row, measure: str) -> str:
    """A bin's edges, areas as the side of a square, and its boxes."""
    if measure == "area_frac":
        return f"{100 * row.low:g} to {100 * row.high:g}\nn={row.boxes_n}"
    low, high = np.sqrt([row.low, row.high])
    return (
        f"{low:g} and more\nn={row.boxes_n}"
        if row.high >= OPEN_END
        else f"{low:g} to {high:g}\nn={row.boxes_n}"
    )


def precision_recall(frame: pd.DataFrame, note: str) -> Figure:
    """Precision by recall at IoU .5, a panel a stage; bands where there are groups enough."""
    if frame.empty:
        return panels.blank(note, "no test image with a box")
    stages = sorted(frame["stage"].unique())
    figure, axes = panels.panels(1, len(stages), note, (5.2, 3.6))
    for ax, stage in zip(axes[0], stages, strict=True):
        mine = frame[frame["stage"] == stage]
        _lines(ax, mine, "recall", "precision")
        ax.set(xlabel="recall", ylabel="precision, mean of classes", xlim=(0, 1), ylim=(0, 1.02))
        ax.set_title(f"stage {stage}: {_band(mine)}", fontsize="small")
    return figure


def _lines(ax, frame: pd.DataFrame, x: str, y: str, **how) -> None:
    """A line a case with its band, the legend below the panel."""
    looks = plots.style(frame["label"])
    for label, look in looks.items():
        mine = frame[frame["label"] == label]
        ax.plot(mine[x], mine[y], color=look["color"], ls=look["ls"], lw=1.6, label=label, **how)
        band = {"color": look["color"], "alpha": 0.13, "lw": 0}
        if mine["low"].notna().any():
            step = how.get("drawstyle", "").removeprefix("steps-") or None
            ax.fill_between(mine[x], mine["low"].astype(float), mine["high"].astype(float), step=step, **band)
    ax.legend(frameon=False, fontsize="small", ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.18))


def _band(frame: pd.DataFrame) -> str:
    """What the bands are, or why there are none."""
    groups_n = frame["groups_n"].max()
    if frame["low"].isna().all():
        return f"no band, too few groups ({groups_n})"
    return f"band: 95 % over {groups_n} groups, point by point"


def alarms_per_day(frame: pd.DataFrame, note: str) -> Figure:
    """Share of images with smoke that raise an alarm by the false alarms allowed, after stage 2."""
    if frame.empty:
        return panels.blank(
            note, "no run whose test images include some without boxes: no rate of false alarms"
        )
    figure, axes = panels.panels(1, 1, note, (7, 3.9))
    ax, first = axes[0, 0], frame.iloc[0]
    _lines(ax, frame, "false_alarms_per_day", "recall", drawstyle="steps-post")
    ax.set(xscale="log", ylim=(0, 1.02), ylabel="recall, images with a box")
    ax.set_xlabel(f"false alarms a camera and day, at {first['frames_per_day']:,g} frames a day")
    ticks = np.geomspace(*frame["false_alarms_per_day"].agg(["min", "max"]), 5)
    ax.set_xticks(ticks, [f"{tick:,.3g}" if tick < 1000 else f"{tick:,.0f}" for tick in ticks])
    ax.xaxis.set_minor_locator(NullLocator())
    step = first["frames_per_day"] / first["negatives_n"]
    told = f"{first['negatives_n']} images without boxes: a single false alarm counts {step:,.4g} a day"
    ax.set_title(f"{told}\n{first['positives_n']} images with boxes; {_band(frame)}", fontsize="small")
    return figure


def forest(frame: pd.DataFrame, note: str) -> Figure:
    """Paired differences in AP50 to the base row with their intervals, and what may be said of each."""
    if frame.empty:
        return panels.blank(note, "nothing is compared")
    figure, axes = panels.panels(1, 1, note, (9.5, 0.33 * len(frame) + 0.5))
    ax, y = axes[0, 0], np.arange(len(frame))[::-1]
    ax.hlines(
        y, frame["delta_low"].astype(float), frame["delta_high"].astype(float), color=plots.COLOURS[0], lw=2
    )
    ax.plot(frame["delta"], y, "o", color=plots.COLOURS[0])
    ax.axvline(0, color="black", lw=0.8)
    ax.set_yticks(y, frame["label"], fontsize="small")
    ax.xaxis.set_major_locator(MaxNLocator(5))  # more numbers of this length would run into each other
    right = ax.secondary_yaxis("right")
    right.set_yticks(y, [_verdict(row) for row in frame.to_dict("records")], fontsize="small")
    right.tick_params(length=0)
    ax.set(
        xlabel="difference in AP50 to the base row; line: paired 95 % over groups",
        ylim=(-0.6, len(frame) - 0.4),
    )
    return figure


def _verdict(row: dict) -> str:
    """What may be said of a comparison."""
    said = row["verdict"] if pd.notna(row["verdict"]) else "not in the family"
    return said if pd.notna(row["delta_low"]) else f"{said}; too few groups"


def sizes(frame: pd.DataFrame, note: str) -> Figure:
    """Mean AP50 over seeds: rows trained at, columns tested at, height x width; outlined where they agree."""
    if frame.empty:
        return panels.blank(note, "no run was evaluated at several sizes")
    stages = sorted(frame["stage"].unique())
    figure, axes = panels.panels(len(stages), 1, note, (7, 3.0))
    for ax, stage in zip(axes[:, 0], stages, strict=True):
        shown = _heat(ax, frame[frame["stage"] == stage])
        ax.set(xlabel="tested at, px", ylabel=f"stage {stage}, trained at, px")
        figure.colorbar(shown, ax=ax, label="AP50 on test")
    return figure


def _heat(ax, frame: pd.DataFrame):
    """One heat map with its numbers."""
    frame = frame.assign(at=_tensor(frame, "train"), tested=_tensor(frame, "eval"))
    frame["row"] = frame["label"] + "\n" + frame["at"]
    areas = (
        (frame["eval_h_px"] * frame["eval_w_px"]).groupby(frame["tested"]).first().sort_values(kind="stable")
    )
    means = frame.pivot_table(index="row", columns="tested", values="ap50", aggfunc="mean", sort=False)
    means = means.reindex(columns=areas.index)
    shown = ax.imshow(means, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    ax.set_xticks(range(len(means.columns)), means.columns)
    ax.set_yticks(range(len(means)), means.index)
    for (y, x), value in np.ndenumerate(means.to_numpy()):
        if pd.notna(value):
            ax.text(x, y, f"{value:.3f}", ha="center", va="center", color="black" if value > 0.5 else "white")
        if means.index[y].endswith("\n" + means.columns[x]):
            ax.add_patch(plt.Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, fill=False, ec="white", lw=2))
    return shown


def _tensor(frame: pd.DataFrame, which: str) -> pd.Series:
    return frame[f"{which}_h_px"].astype(str) + " x " + frame[f"{which}_w_px"].astype(str)
