"""Plots that notebooks draw from what they just saw, each labelled with its profile; `charts` compares runs.

Colours are Okabe and Ito's, which colour-blind readers can tell apart (jfly.uni-koeln.de/color, 2002).
"""

import io

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Image, display
from matplotlib.ticker import MaxNLocator

from saistudy.data.photographs import END

COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
LINES, MARKERS = ["-", "--", "-.", ":"], ["o", "s", "^", "D", "v", "P", "X"]
AP, AP50 = "metrics/mAP50-95(B)", "metrics/mAP50(B)"


def style(labels) -> dict[str, dict]:
    """Label to colour, line and marker, in order of first appearance: told apart without colour, too."""
    names = list(dict.fromkeys(labels))
    return {
        name: {
            "color": COLOURS[i % len(COLOURS)],
            "ls": LINES[i % len(LINES)],
            "marker": MARKERS[i % len(MARKERS)],
        }
        for i, name in enumerate(names)
    }


def curves(frame: pd.DataFrame, note: str, ax=None):
    """Validation AP50-95 by epoch: a colour and line per arm, one line per seed.

    Args:
        frame: of `frames.training.curve`, several below one another.
        note: what the figures are (profile, synthetic or not, n).
    """
    ax = ax or plt.subplots(figsize=(7, 3.5), layout="constrained")[1]
    for arm, look in style(frame["arm"]).items():
        for i, (_, seed) in enumerate(frame[frame["arm"] == arm].groupby("seed")):
            line = look | {"marker": None, "lw": 1.1, "label": None if i else arm}
            ax.plot(seed["epoch"], seed["ap50_95"], **line)
    ax.set(xlabel="epoch", ylabel="AP50-95 on val", title=note, ylim=(0, None))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    return ax


def stops(frame: pd.DataFrame, marks: dict[str, int], note: str, ax=None):
    """One run's validation curve with the epoch at which each patience stops."""
    ax = ax or plt.subplots(figsize=(7, 3))[1]
    ax.plot(frame["epoch"], frame[AP50], color=COLOURS[0], marker="o", ms=3, label="AP50")
    ax.plot(frame["epoch"], frame[AP], color=COLOURS[1], marker="s", ms=3, label="AP50-95")
    for colour, (name, epoch) in zip(COLOURS[2:], marks.items(), strict=False):
        ax.axvline(epoch, color=colour, ls="--", lw=1.5, label=name)
    ax.set(xlabel="epoch", ylabel="on val", title=note)
    ax.legend(frameon=False)
    return ax


def gallery(read, rows: list[tuple[str, list, list]], note: str, titles: dict | None = None) -> None:
    """Display pictures with true boxes (blue) and predicted ones (orange, with score), four in a row.

    As JPEG: as PNG, photographs would make an executed notebook of several MB.

    Args:
        read: image name to its JPEG bytes.
        rows: (image, true boxes, predicted boxes with a score last); boxes x1, y1, x2, y2 in pixels.
        titles: image name to what stands above it; without one the name itself.
    """
    columns = 4
    lines = max(1, -(-len(rows) // columns))
    size = 2.6 * columns, 2.2 * lines
    figure, axes = plt.subplots(lines, columns, figsize=size, squeeze=False, dpi=100)
    for ax in axes.flat:
        ax.axis("off")
    for ax, (image, true, predicted) in zip(axes.flat, rows, strict=False):
        ax.imshow(_decoded(read(image)))
        ax.set_title((titles or {}).get(image, image), fontsize=6)
        for box in true:
            _box(ax, box, COLOURS[0])
        for *box, value in predicted:
            _box(ax, box, COLOURS[1])
            ax.text(box[0], box[1], f"{value:.2f}", color=COLOURS[1], fontsize=6, va="bottom")
    figure.suptitle(note, fontsize=9)
    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="jpeg", bbox_inches="tight", pil_kwargs={"quality": 80})
    plt.close(figure)
    display(Image(buffer.getvalue(), format="jpeg"))


def _decoded(data: bytes) -> np.ndarray:
    """The picture as Ultralytics decodes it, RGB; OpenCV shows no JPEG without its end marker."""
    return cv2.imdecode(np.frombuffer(data + END, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def _box(ax, box, colour: str) -> None:
    """Draw one box."""
    x1, y1, x2, y2 = box
    ax.add_patch(plt.Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, ec=colour, lw=1.3))


def bars(values: dict[str, list[float]], label: str, note: str, ax=None):
    """Medians as bars with every single measurement as a dot."""
    ax = ax or plt.subplots(figsize=(6, 2.6))[1]
    for x, seen in enumerate(values.values()):
        ax.bar(x, pd.Series(seen).median(), color=COLOURS[x % len(COLOURS)], alpha=0.6)
        ax.plot([x] * len(seen), seen, ".", color="black", ms=4)
    ax.set(xticks=range(len(values)), xticklabels=list(values), ylabel=label, title=note)
    return ax


def seconds(frame: pd.DataFrame, note: str, axes=None):
    """Where each epoch's seconds went, and beside it images/s while training and GPU utilisation.

    Args:
        frame: a telemetry.csv (training.telemetry.attach).
    """
    left, right = axes if axes is not None else plt.subplots(1, 2, figsize=(10, 3), layout="constrained")[1]
    parts = ["compute_s", "wait_s", "val_s", "save_s", "lost_s"]
    for part, colour, low in zip(parts, COLOURS, _below(frame[parts]), strict=False):
        left.bar(
            frame["epoch"], frame[part], bottom=low, color=colour, label=part.removesuffix("_s"), width=0.9
        )
    left.set(xlabel="epoch", ylabel="seconds", title=note)
    left.legend(frameon=False, fontsize="small", ncols=len(parts), loc="upper left", bbox_to_anchor=(0, -0.2))
    right.plot(frame["epoch"], frame["images_per_s"], color=COLOURS[0], marker=".")
    right.set(xlabel="epoch", ylabel="images/s while training (blue)", ylim=(0, None))
    if frame["gpu_util"].notna().any():
        other = right.twinx()
        other.plot(frame["epoch"], frame["gpu_util"], color=COLOURS[1], marker="s", ms=3)
        other.set(ylabel="GPU utilisation (red)", ylim=(0, 1))
    return left, right


def _below(parts: pd.DataFrame) -> list[pd.Series]:
    """Where each part's bars begin when they stand on those of the parts before it."""
    tops = parts.cumsum(axis="columns")
    return [tops[part] - parts[part] for part in parts]
