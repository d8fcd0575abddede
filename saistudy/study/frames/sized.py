"""Frames of average precision by size: of the object, and of the tensor that a model is tested at."""

import pandas as pd

from saistudy.study import comparisons
from saistudy.study.frames import cases

AP_BY_SIZE = [*cases.KEYS, "seed", "measure", "low", "high", "ap50", "boxes_n"]
EVAL = ["eval_h_px", "eval_w_px"]
SIZES = [
    *cases.KEYS,
    "seed",
    "train_h_px",
    "train_w_px",
    *EVAL,
    "ap50",
    "ap50_95",
    "ap_small",
    "boxes_small_n",
]


def ap_by_size(found: list[dict]) -> pd.DataFrame:
    """AP50 in each bin of `sizes.by_size` on the published test images, a row a bin and seed.

    Records from before there were bins give no rows.
    """
    rows = []
    for case, record in cases.runs(found):
        what = cases.keys(case) | {"seed": record["params"]["seed"]}
        bins = comparisons.metric(record, case["model"]).get("ap_by_size", [])
        rows += [what | {key: value for key, value in row.items() if key != "ap50_95"} for row in bins]
    return pd.DataFrame(rows, columns=AP_BY_SIZE).astype({"low": float, "high": float})


def sizes(found: list[dict]) -> pd.DataFrame:
    """Every model at every evaluation size, a row each; records without that matrix give none."""
    rows = []
    for case, record in cases.runs(found):
        height, width = record["conditions"]["imgsz"]
        what = cases.keys(case) | {"seed": record["params"]["seed"]}
        what |= {"train_h_px": height, "train_w_px": width}
        mine = [row for row in record.get("sizes", []) if row["model"] == case["model"]]
        rows += [what | row | dict(zip(EVAL, row["imgsz"], strict=True)) for row in mine]
    return pd.DataFrame(rows, columns=SIZES)
