"""What the figures share: panels under one note, an empty figure that says why, a legend beside the data."""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator


def blank(note: str, why: str) -> Figure:
    """A figure that says why it has nothing to show."""
    figure, ax = plt.subplots(figsize=(7, 1.3), layout="constrained")
    ax.text(0.5, 0.5, why, ha="center", va="center", wrap=True)
    ax.axis("off")
    figure.suptitle(note, fontsize="medium")
    return figure


def panels(rows: int, columns: int, note: str, size: tuple[float, float], **shared):
    """Figure and its axes (rows, columns), the note above; size of one panel in inches."""
    whole = size[0] * columns, size[1] * rows + 0.6
    figure, axes = plt.subplots(rows, columns, figsize=whole, squeeze=False, layout="constrained", **shared)
    figure.suptitle(note, fontsize="medium")
    return figure, axes


def beside(ax) -> None:
    """The legend to the right of the axes."""
    ax.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))


def whole_numbers(ax) -> None:
    """Ticks of the x axis at whole numbers: epochs."""
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
