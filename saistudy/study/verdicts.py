"""Measured figures against thresholds: lines that hold, fail or do not apply, and GO or NO-GO.

The lines are those of seed document 003 (L8, L27-L29) and two of ours: the fall of the loss against its
chance, and GPU memory. The verdict is arithmetic: GO only if every line that applies holds. The seed set
0.00 % beside 85 % and said GO.
"""

import math
from typing import NamedTuple

import pandas as pd


class Line(NamedTuple):
    """A line of the gate: what is measured, its unit, the threshold's name in gate.yaml, how they compare."""

    what: str
    unit: str
    limit: str
    relation: str


LINES = {
    "loader": Line("rate of the loader alone", "images/s", "loader_images_per_s_min", "at least"),
    "loss": Line("fall of the loss, first to last mean", "", "loss_fall_min", "at least"),
    "chance": Line("that fall, over its standard error", "", "loss_fall_se_min", "at least"),
    "time": Line("the test, with building", "min", "minutes_max", "at most"),
    "util": Line("GPU utilisation, steady part", "fraction", "gpu_util_min", "at least"),
    "memory": Line("GPU memory reserved, of the card's", "fraction", "gpu_memory_frac_max", "at most"),
}


class Seen(NamedTuple):
    """A measured figure, or None and why; `applies` is False where this machine cannot have it."""

    value: float | None
    why: str = ""
    applies: bool = True


def gpu(value, device: str) -> Seen:
    """A figure of the GPU: not applicable on a CPU; measured, or not although there is one.

    Args:
        value: a number, or a text that says why there is none (telemetry.Lacking), or None.
    """
    if device.lower().startswith("cpu"):
        return Seen(None, "not applicable: no GPU", False)
    if isinstance(value, str | None):
        return Seen(None, f"not measured: {value or 'nothing was read'}")
    return Seen(float(value))


def judge(seen: dict[str, Seen], limit: dict) -> list[dict]:
    """A row per line: line, what, seen, unit, relation, threshold, holds, why.

    `holds` is None where the line does not apply. Where it applies and was not measured, or is no number, it
    does not hold: a broken instrument passes nothing.
    """
    rows = []
    for name, line in LINES.items():
        one, threshold = seen[name], limit[line.limit]
        value = one.value if one.value is not None and math.isfinite(one.value) else None
        why = one.why or ("" if value is not None else f"no finite number: {one.value}")
        row = {"line": name, "what": line.what, "seen": value, "unit": line.unit}
        row |= {"relation": line.relation, "threshold": threshold}
        rows.append(row | {"holds": _holds(value, line.relation, threshold, one.applies), "why": why})
    return rows


def _holds(value: float | None, relation: str, threshold: float, applies: bool) -> bool | None:
    if not applies:
        return None
    if value is None:
        return False
    return bool(value >= threshold if relation == "at least" else value <= threshold)


def verdict(rows: list[dict]) -> dict:
    """GO if every row that applies holds and there is one; how many those are, and which are the others.

    A dictionary: verdict ("GO" or "NO-GO"), rests_on_n, lines_n, failed and not_applicable (names), sentence.
    """
    applied = [row for row in rows if row["holds"] is not None]
    failed = [row["line"] for row in applied if not row["holds"]]
    absent = [row["line"] for row in rows if row["holds"] is None]
    word = "GO" if applied and not failed else "NO-GO"
    told = f"{word}, resting on {len(applied)} of {len(rows)} lines"
    told += f"; failed: {', '.join(failed)}" if failed else ""
    told += f"; not applicable: {', '.join(absent)}" if absent else ""
    counts = {"rests_on_n": len(applied), "lines_n": len(rows)}
    return {"verdict": word, **counts, "failed": failed, "not_applicable": absent, "sentence": told}


def table(rows: list[dict]) -> pd.DataFrame:
    """The rows as a notebook shows them: six digits, `-` for none, and holds, fails or does not apply."""
    words = {True: "holds", False: "fails", None: "does not apply"}
    shown = [
        row | {"seen": "-" if row["seen"] is None else f"{row['seen']:.6g}", "holds": words[row["holds"]]}
        for row in rows
    ]
    return pd.DataFrame(shown).set_index("line")
