"""Whose lines a figure draws: the cases of the table at the patience that their runs were trained with."""

import pandas as pd

from saistudy.study import comparisons
from saistudy.study.forecast import AS_MEANT

KEYS = ["stage", "arm", "stage2_arm", "handling", "label"]


def longest(records: list[dict], table: pd.DataFrame) -> list[dict]:
    """The cases of `comparisons.cases` at their longest patience, in the table's order, each with a `label`.

    Args:
        table: of `tables.of`; its first row of stage 1 is of the baseline.
    """
    baseline = table.loc[table["stage"] == 1, "arm"].iloc[0]
    found = comparisons.cases(records, baseline)
    found = [c for c in found if c["patience"] == comparisons.longest(c["runs"][0])]
    starts_n = len({c["arm"] for c in found if c["stage"] == 2})
    return [case | {"label": label(case, several=starts_n > 1)} for case in found]


def label(case: dict, several: bool) -> str:
    """What a legend calls a case: the arm, or after stage 2 the class handling.

    Args:
        several: stage 2 starts from more than one arm, so that the start must be told, too.
    """
    if case["stage"] == 1:
        return case["arm"]
    second = "" if case["stage2_arm"] == AS_MEANT else f"{case['stage2_arm']} "
    return f"{second}{case['handling']}" + (f" from {case['arm']}" if several else "")


def keys(case: dict) -> dict:
    """The columns by which a frame tells cases apart; None where stage 1 has no such thing."""
    return {key: case.get(key) for key in KEYS}


def runs(found: list[dict]):
    """Pairs (case, record) of every seed of every case."""
    return [(case, record) for case in found for record in case["runs"]]
