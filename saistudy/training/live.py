"""A training watched in JupyterLab: what happens now, and below it a table of epochs with a plot.

Both are displays that are updated in place, so that a cell of hours stays as tall as one of minutes. Under
Papermill nobody looks, and a training prints a line per epoch instead (training.progress).
"""

import base64
import io
import math
import time

import pandas as pd
from IPython.display import display
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

PAUSE_S = 1.0  # between two updates inside an epoch
BOX = "max-height: 17em; overflow: auto; display: inline-block; vertical-align: top; margin-right: 1em"


class View:
    """The two displays of one training."""

    def __init__(self):
        self.shown, self.looked_s = {}, 0.0

    def now(self, sentence: str, pause_s: float = 0.0) -> None:
        """Say what happens now, unless something was said less than `pause_s` ago."""
        if time.monotonic() - self.looked_s >= pause_s:
            self.looked_s = time.monotonic()
            self._show("now", {"text/html": f"<p>{sentence}</p>", "text/plain": sentence})

    def epochs(self, table: pd.DataFrame, lines: list[str]) -> None:
        """Show the epochs so far.

        Args:
            table: of `progress.table`, a row an epoch.
            lines: the same as text, for where there is no HTML.
        """
        text = "\n".join(lines)
        self._show("epochs", {"text/html": as_html(table), "text/plain": text})

    def _show(self, name: str, bundle: dict) -> None:
        if handle := self.shown.get(name):
            handle.update(bundle, raw=True)
        else:
            self.shown[name] = display(bundle, raw=True, display_id=True)


def as_html(table: pd.DataFrame) -> str:
    """The epochs, the latest on top, in a box that scrolls, and beside it their curves as a picture."""
    rows = table[::-1].round(3).to_html(index=False, border=0)
    image = base64.b64encode(curves(table)).decode()
    picture = f'<img alt="losses and AP by epoch" src="data:image/png;base64,{image}">'
    return f'<div style="{BOX}">{rows}</div>{picture}'


def curves(table: pd.DataFrame) -> bytes:
    """A PNG of 560 x 230 px: losses by epoch on the left, AP on val on the right.

    Drawn without pyplot, whose figures the inline backend would show once more below the cell.
    """
    figure = Figure(figsize=(5.6, 2.3), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    epochs = range(1, len(table) + 1)
    for ax, names in ((left, ["loss", "val loss"]), (right, ["val AP50", "AP50-95"])):
        for name in names:
            ax.plot(epochs, table[name], ".-", lw=1.2, ms=3, label=name)
        ax.set_xlabel("epoch")
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.legend(frameon=False, fontsize="small")
    top = min(table[["loss", "val loss"]].max().max(), 2 * table["loss"].max())
    if math.isfinite(top):  # losses on val may be a hundredfold in the first epochs, or none at all
        left.set_ylim(0, 1.05 * top)
    right.set_ylim(0, 1)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
