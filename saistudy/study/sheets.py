"""Sheets of pictures with their boxes, and what stands above them, as one figure without pyplot.

pyplot's figures would be shown a second time by the inline backend, and kept for ever by nobody's wish.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from saistudy.data.photographs import END, START
from saistudy.study.plots import COLOURS

COLUMNS_N = 4
CELL_PX = (300, 210)  # width and height of a picture's place
LONG_PX = 1000  # width of a single picture
REDUCED = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}
GREY = np.full((2, 2, 3), 225, np.uint8)  # in place of a picture that is not here


@dataclass(frozen=True)
class Cell:
    """A picture: size in px, true and predicted boxes as `looking.boxes` has them, what stands above it."""

    image: str
    size: tuple[int, int]
    true: list
    predicted: list
    title: str


def figure(rows_n: int, columns_n: int = COLUMNS_N, above_px: int = 0, cell: tuple = CELL_PX):
    """A figure of rows of pictures' places, and a row `above_px` high over all of them; (figure, top, axes).

    `top` is None without one.
    """
    width, height = cell[0] * columns_n, cell[1] * rows_n + above_px
    drawn = Figure(figsize=(width / 100, height / 100), dpi=100)
    FigureCanvasAgg(drawn)
    share = above_px / height
    top = drawn.add_axes((0.06, 1 - share + 0.3 * share, 0.88, 0.56 * share)) if above_px else None
    down, gap = (1 - share) / rows_n, 16 / height
    places = [
        (
            column / columns_n + 0.003,
            1 - share - (row + 1) * down + 0.002,
            1 / columns_n - 0.006,
            down - gap - 0.002,
        )
        for row in range(rows_n)
        for column in range(columns_n)
    ]
    return drawn, top, [drawn.add_axes(place) for place in places]


def fill(axes: list, cells: list[Cell], read: Callable[[str], bytes] | None) -> None:
    """Draw a picture on each of the axes: truth blue, predictions orange; axes left over stay empty."""
    for ax in axes:
        ax.axis("off")
    for ax, cell in zip(axes, cells, strict=False):
        width, height = cell.size
        box_px = ax.get_window_extent()
        ax.imshow(_pixels(read, cell, box_px.width), extent=(0, width, height, 0), aspect="equal")
        ax.set_title(cell.title, fontsize=7, pad=2)
        for box in cell.true:
            _box(ax, box, COLOURS[0], height, below=True)
        for box in cell.predicted:
            _box(ax, box, COLOURS[1], height, below=False)


def _box(ax, box: tuple, colour: str, height: int, below: bool) -> None:
    """A box with its words at its foot or its head, inside where there is no room outside."""
    x1, y1, x2, y2, words = box
    ax.plot([x1, x2, x2, x1, x1], [y1, y1, y2, y2, y1], color=colour, lw=1.3)
    outside = y2 < 0.92 * height if below else y1 > 0.08 * height
    look = {"boxstyle": "square,pad=0.1", "fc": colour, "ec": "none", "alpha": 0.8}
    va = "top" if below == outside else "bottom"
    if words:
        ax.text(x1, y2 if below else y1, words, fontsize=7, color="white", va=va, bbox=look, clip_on=True)


def _pixels(read: Callable[[str], bytes] | None, cell: Cell, width_px: float) -> np.ndarray:
    """The picture in about the size in which it is shown, RGB; grey where it is not here.

    JPEG decodes to a half, a quarter or an eighth of its sides at once: 3840 x 2160 px to an eighth in 30 ms
    instead of 63 (2026-11-28, CPU).
    """
    if read is None:
        return GREY
    data = read(cell.image)
    flag = next((REDUCED[n] for n in (8, 4, 2) if max(cell.size) / n >= width_px), cv2.IMREAD_COLOR)
    shown = cv2.imdecode(np.frombuffer(data + END if data[:2] == START else data, np.uint8), flag)
    if shown is None:
        return GREY
    ratio = width_px / shown.shape[1]
    return (
        cv2.resize(shown, None, fx=ratio, fy=ratio, interpolation=cv2.INTER_AREA) if ratio < 1 else shown
    )[..., ::-1]


def jpeg(drawn: Figure) -> bytes:
    """The figure as JPEG: as PNG, photographs would make a notebook of several MB."""
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="jpeg", pil_kwargs={"quality": 85})
    return buffer.getvalue()


def by_threshold(ax, curve: pd.DataFrame, cut: float, chosen: float, note: str) -> None:
    """Precision and recall by threshold, the threshold that is looked at, and the one from val."""
    for name, colour, line in (("precision", COLOURS[0], "-"), ("recall", COLOURS[1], "--")):
        ax.plot(curve["threshold"], curve[name], color=colour, ls=line, label=name)
    ax.axvline(cut, color="black", lw=1.5, label="looked at")
    ax.axvline(chosen, color=COLOURS[2], ls=":", lw=1.5, label="chosen on val")
    ax.set(xlabel="threshold", ylim=(-0.03, 1.03), xlim=(0, 1))
    _finish(ax, note)


def by_time(ax, frames: pd.DataFrame, cut: float, shown: pd.DataFrame, note: str) -> None:
    """The largest score of each frame of a camera in the order of time; filled where there is smoke.

    By number, not by clock: the frames of an event stand 30 s apart and its neighbours days.
    """
    x, score = np.arange(len(frames)), frames["score"].fillna(0).to_numpy(float)
    positive = frames["positive"].to_numpy(bool)
    ax.vlines(x, 0, score, color="0.8", lw=1)
    ax.plot(x[positive], score[positive], "o", color=COLOURS[0], ms=5, label="with smoke")
    ax.plot(x[~positive], score[~positive], "o", mfc="white", color=COLOURS[0], ms=5, label="without")
    ax.axhline(cut, color=COLOURS[2], ls=":", lw=1.5, label="threshold")
    ax.axvspan(shown.index[0] - 0.4, shown.index[-1] + 0.4, color="0.93", zorder=0)
    most = max(cut, score.max(initial=0))
    ax.set(xlabel="frame, in time", ylabel="largest score", ylim=(-0.03 * most, 1.1 * most))
    ax.set_xlim(-0.6, len(frames) - 0.4)
    ax.xaxis.get_major_locator().set_params(integer=True)
    _finish(ax, note)


def _finish(ax, note: str) -> None:
    ax.set_title(note, fontsize=9, loc="left")
    ax.tick_params(labelsize=8)
    ax.legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1, 1), ncols=4, borderaxespad=0.2)
