"""Boxes as text and as arrays. Pure: text and arrays in, text and arrays out.

A label array is float64 (N, 5): class, xc, yc, w, h; the last four are fractions of the image.
"""

import math
import re
from collections import Counter
from collections.abc import Collection
from typing import NamedTuple

import numpy as np

ROUNDING = 1e-6  # a published coordinate has six decimals, so an edge xc +- w/2 is known to 7.5e-7
INVISIBLE = 5e-7  # a side below this is written as 0.000000
TEXT_N = 120  # characters of a refused line that are kept as evidence
LINES_N = 20  # lines of one file that are told for one reason: a broken file may have millions
# Findings that leave the image in: the first two drop their line.
KEPT = frozenset({"zero-area", "duplicate", "clipped", "bom", "crlf"})


class Finding(NamedTuple):
    """What is odd about a line: its number from 1, the reason, and the line as it stands."""

    line: int
    reason: str
    text: str


def parse(
    text: str, classes: Collection[int] = (0, 1), size: tuple[int, int] | None = None
) -> tuple[np.ndarray, list[Finding]]:
    """Label array float64 (N, 5) of the sound lines, and Findings about the others.

    With `size` (width, height in px) a box that leaves the image by at most one pixel is clipped, as
    the published FASDD labels need; beyond that, or without `size`, it is refused. Refused: columns,
    not-a-number, class, range; Ultralytics 8.4 ignores the whole image for these, so a caller must
    not keep the rest. Dropped: zero-area, duplicate. Noted: clipped, and once a file bom and crlf.
    Of each reason the first LINES_N lines are told.
    """
    slack = (1 / size[0], 1 / size[1]) if size else (0.0, 0.0)
    rows: dict[tuple, tuple] = {}
    findings, told = _encoding(text), Counter()
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text.removeprefix("\ufeff")), start=1):
        if not line.strip():
            continue
        row, reason = _row(line, classes, slack)
        key = row and tuple(round(value, 6) for value in row)
        if key in rows:
            reason = "duplicate"
        elif row:
            rows[key] = row
        told[reason] += 1
        if reason and told[reason] <= LINES_N:
            findings.append(Finding(number, reason, line[:TEXT_N]))
    return np.array(list(rows.values()), dtype=np.float64).reshape(-1, 5), findings


def _encoding(text: str) -> list[Finding]:
    """What is odd about the file as a whole, told of its first line."""
    first = re.split(r"[\r\n]", text[: TEXT_N + 1].removeprefix("\ufeff"), maxsplit=1)[0]
    seen = {"bom": text.startswith("\ufeff"), "crlf": "\r" in text}
    return [Finding(1, reason, first) for reason, found in seen.items() if found]


def _row(line: str, classes: Collection[int], slack: tuple[float, float]) -> tuple[tuple | None, str | None]:
    """Five numbers of a line, None where it makes no box; and what is odd about it, None where nothing is."""
    fields = line.split()
    if len(fields) != 5:
        return None, "columns"
    try:
        label, xc, yc, w, h = (float(field.replace("_", "?")) for field in fields)
    except ValueError:
        return None, "not-a-number"
    if not all(map(math.isfinite, (label, xc, yc, w, h))):
        return None, "not-a-number"
    if label not in classes:
        return None, "class"
    across, down = _clip(xc, w, slack[0]), _clip(yc, h, slack[1])
    if across is None or down is None:
        return None, "range"
    if min(across[1], down[1]) < INVISIBLE:
        return None, "zero-area"
    clipped = (across, down) != ((xc, w), (yc, h))
    return (label, across[0], down[0], across[1], down[1]), "clipped" if clipped else None


def _clip(centre: float, side: float, slack: float) -> tuple[float, float] | None:
    """Centre and side inside [0, 1]; None for a negative side or an overflow above the slack."""
    low, high = centre - side / 2, centre + side / 2
    overflow = max(-low, high - 1)
    if side < 0 or overflow > slack + ROUNDING:
        return None
    if overflow <= ROUNDING:
        return centre, side
    low, high = max(low, 0.0), min(high, 1.0)
    return (low + high) / 2, max(high - low, 0.0)


def format(array: np.ndarray) -> str:
    """YOLO text of a label array (N, 5): six decimals, a newline after each line, "" when empty."""
    lines = (f"{label:.0f} {x:.6f} {y:.6f} {w:.6f} {h:.6f}\n" for label, x, y, w, h in array.tolist())
    return "".join(lines)


def to_xyxy_px(array: np.ndarray, width: int, height: int) -> np.ndarray:
    """Corners float64 (N, 4) x1, y1, x2, y2 in px of a label array (N, 5)."""
    boxes = np.asarray(array, dtype=np.float64).reshape(-1, 5)
    half = boxes[:, 3:5] / 2
    corners = np.concatenate([boxes[:, 1:3] - half, boxes[:, 1:3] + half], axis=1)
    return corners * np.array([width, height, width, height], dtype=np.float64)
