"""The columns of the table that describe a case: what ran, and its mean result over seeds."""

from pathlib import Path

import numpy as np

from saistudy.evaluation import score
from saistudy.study.comparisons import metric

HANDLING = {
    "named": "names {0: smoke}",
    "single_cls": "single_cls: True",
    "joint": "both classes, on FASDD's train images too",
}


def columns(case: dict) -> dict:
    """The columns that describe a case and its mean result over seeds."""
    runs, first = case["runs"], case["runs"][0]
    found = [metric(r, case["model"]) for r in runs]
    disjoint = [metric(r, case["model"], score.DISJOINT) for r in runs]
    stops = [next(s for s in r["stops"] if s["model"] == case["model"]) for r in runs]
    return {
        "profile": first["profile"],
        "provenance": first["data"]["provenance"],
        "weights": Path(first["params"].get("weights", "stage 1")).name,
        "stage": case["stage"],
        "arm": case["arm"],
        "stage2_arm": case.get("stage2_arm"),
        "handling": case.get("handling"),
        "patience": case["patience"],
        "tensor_h_px": first["conditions"]["imgsz"][0],
        "tensor_w_px": first["conditions"]["imgsz"][1],
        "question": _question(case),
        "ap50": _mean([m["ap50"] for m in found]),
        "ap50_sd": _sd([m["ap50"] for m in found]),
        "ap50_95": _mean([m.get("ap50_95") for m in found]),
        "ap_small": _mean([m.get("ap_small") for m in found]),
        "boxes_small_n": found[0].get("boxes_small_n"),
        "ap50_group_disjoint": _mean([m["ap50"] for m in disjoint]),
        "disjoint_images_n": disjoint[0]["images_n"],
        "fasdd_ap50_fire": _mean([_on_fasdd(r, case, "fire") for r in runs]),
        "fasdd_ap50_smoke": _mean([_on_fasdd(r, case, "smoke") for r in runs]),
        "epochs_n": _mean([s["epochs_n"] for s in stops]),
        "stopped_early_n": sum(s["stopped_early"] for s in stops),
        "train_h": _mean([s["train_s"] / 3600 for s in stops]),
        "images_per_s": _mean([s["images_per_s"] for s in stops]),
        "device": first["cost"]["device"],
        "runs_n": len(runs),
        "declared": "; ".join(f"{d['key']} {d['requested']} -> {d['value']}" for d in first["declared"]),
    }


def _question(case: dict) -> str:
    """What a row asks: of stage 2 the class handling, and of its arm what that changes."""
    asked = case.get("question") or case["runs"][0]["params"].get("question", "")
    if case["stage"] == 1:
        return asked
    return f"stage 2 with {HANDLING[case['handling']]}" + (f"; {asked}" if asked else "")


def _on_fasdd(record: dict, case: dict, name: str) -> float | None:
    """AP50 of a class on the test split of stage 1: of stage 1 its own, of stage 2 what it kept.

    None where the model lacks the class, and at a shorter patience, which nobody tested there; older records
    of stage 2 hold smoke alone.
    """
    if case["stage"] == 1:
        return metric(record, case["model"]).get("ap50_by_class", {}).get(name)
    if case["patience"] < max(case["patiences"]):
        return None
    kept = next((row for row in record.get("retention", []) if row["model"] == case["handling"]), {})
    return kept.get(f"ap50_{name}")


def _mean(values: list) -> float | None:
    """Mean, or None where any value is missing."""
    return None if None in values else float(np.mean(values))


def _sd(values: list) -> float | None:
    """Standard deviation over seeds (n - 1), None below two."""
    return float(np.std(values, ddof=1)) if len(values) > 1 and None not in values else None
