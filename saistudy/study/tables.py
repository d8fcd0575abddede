"""The comparison table of a profile, generated from its records and their predictions."""

from pathlib import Path

import numpy as np
import pandas as pd

from saistudy import params
from saistudy.evaluation import score, stats
from saistudy.paths import PARAMS, results, write_text
from saistudy.study import comparisons
from saistudy.study.comparisons import metric
from saistudy.study.forecast import AS_MEANT
from saistudy.study.record import read_records

HANDLING = {
    "named": "names {0: smoke}",
    "single_cls": "single_cls: True",
    "joint": "both classes, on FASDD's train images too",
}
STANDS_FOR = {"demo": " At this scale patience 1 and 3 stand for 10 and 30."}
MARK = {"better": "✓ better", "worse": "✓ worse", "equivalent": "✓ equivalent", "unresolved": "✗ unresolved"}


def rows(profile: str, baseline: str, margin: float, alpha: float, resamples_n: int, bootstrap_seed: int):
    """The table as a frame; columns named with their units, fractions 0 to 1.

    Args:
        baseline: the arm (at its longest patience) that stage 1 is compared with; stage 2 is compared
            with the `named` handling, as-meant, from the same arm.
        margin: smallest difference in AP50 that matters; alpha: error rate of the family, Holm-adjusted.
        resamples_n, bootstrap_seed: of the bootstrap over groups.
    """
    found = comparisons.cases(read_records(profile), baseline)
    weights = comparisons.Weights(resamples_n, bootstrap_seed)
    bases = [comparisons.base_of(case, found, baseline) for case in found]
    compared = [
        comparisons.compare(case, base, profile, weights) for case, base in zip(found, bases, strict=True)
    ]
    family = [
        c
        for c, case, base in zip(compared, found, bases, strict=True)
        if comparisons.confirmatory(case, base, baseline)
    ]
    adjusted = stats.holm([comparisons.p_value(c) for c in family]) if family else []
    for c, p in zip(family, adjusted, strict=True):
        c["p"] = float(p)
        c["verdict"] = comparisons.verdict(c, margin, alpha)
    columns = [_columns(case) | c for case, c in zip(found, compared, strict=True)]
    frame = pd.DataFrame(columns).drop(columns=list(comparisons.LAYERS))
    frame.insert(0, "number", range(1, len(frame) + 1))
    return frame


def _columns(case: dict) -> dict:
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
    asked = case["runs"][0]["params"].get("question", "")
    if case["stage"] == 1:
        return asked
    return f"stage 2 with {HANDLING[case['handling']]}" + (f"; {asked}" if asked else "")


def _on_fasdd(record: dict, case: dict, name: str) -> float | None:
    """AP50 of a class on the test split of stage 1: of stage 1 its own, of stage 2 what it kept.

    None where the model lacks the class; older records of stage 2 hold smoke alone.
    """
    if case["stage"] == 1:
        return metric(record, case["model"]).get("ap50_by_class", {}).get(name)
    kept = next((row for row in record.get("retention", []) if row["model"] == case["handling"]), {})
    return kept.get(f"ap50_{name}")


def _mean(values: list) -> float | None:
    """Mean, or None where any value is missing."""
    return None if None in values else float(np.mean(values))


def _sd(values: list) -> float | None:
    """Standard deviation over seeds (n - 1), None below two."""
    return float(np.std(values, ddof=1)) if len(values) > 1 and None not in values else None


def markdown(frame: pd.DataFrame) -> str:
    """The table for readers: at most three digits, intervals in brackets, `-` where there is no value."""
    head = "# | arm | patience | tensor h x w | question | AP50 (± sd over seeds) | AP50-95 | AP small"
    head += " | AP50 group-disjoint | FASDD AP50 fire / smoke | Δ AP50 [95 % paired, by group] | evidence"
    head += " | epochs | hours | images/s"
    lines = [f"| {head} |", "|" + "---|" * (head.count("|") + 1)]
    lines += ["| " + " | ".join(_cells(row)) + " |" for row in frame.to_dict("records")]
    return "\n".join([_caption(frame), "", *lines, ""])


def _caption(frame: pd.DataFrame) -> str:
    """What the figures are, said before them."""
    data = "SYNTHETIC twin data" if "synthetic" in set(frame["provenance"]) else "published-format data"
    devices = ", ".join(sorted(set(frame["device"])))
    start = ", ".join(sorted(set(frame.loc[frame["stage"] == 1, "weights"])))
    random = " (random weights)" if start.endswith(".yaml") else ""
    profile = frame["profile"].iloc[0]
    return (
        f"Profile **{profile}** on {data}, trained on {devices}; stage 1 starts from {start}"
        f"{random}.{STANDS_FOR.get(profile, '')} ± is the standard deviation"
        " over seeds; [ ] the paired 95 % interval of the difference to the base row, resampled by group"
        f" (video run or camera), [-] below {stats.GROUPS_MIN} groups; after stage 2 FASDD AP50 is what"
        " it kept of stage 1; evidence counts the seeds, ✓ only if"
        " the rule of params/prereg.yaml is met."
    )


def _cells(row: dict) -> list[str]:
    """One table row as text."""
    second = f" {row['stage2_arm']}" if row["stage2_arm"] not in (None, AS_MEANT) else ""
    arm = row["arm"] if row["stage"] == 1 else f"stage 2{second} from {row['arm']}"
    sd = f" ± {row['ap50_sd']:.3f}" if _is(row["ap50_sd"]) else ""
    early = f" ({row['stopped_early_n']} of {row['runs_n']} early)"
    return [
        str(row["number"]),
        arm,
        str(row["patience"]),
        f"{row['tensor_h_px']} x {row['tensor_w_px']}",
        row["question"] + (f" (declared: {row['declared']})" if row["declared"] else ""),
        _show(row["ap50"]) + sd,
        _show(row["ap50_95"]),
        _show(row["ap_small"]) + (f" (n={row['boxes_small_n']:.0f})" if _is(row["boxes_small_n"]) else ""),
        f"{_show(row['ap50_group_disjoint'])} (n={row['disjoint_images_n']})",
        _both(row["fasdd_ap50_fire"], row["fasdd_ap50_smoke"]),
        _delta(row),
        f"n={row['runs_n']} {_mark(row)}",
        f"{row['epochs_n']:.1f}{early}",
        f"{row['train_h']:.3f}",
        f"{row['images_per_s']:.0f}",
    ]


def _mark(row: dict) -> str:
    """The verdict's mark; rows without one say why."""
    if _is(row["verdict"]):
        return MARK[row["verdict"]]
    return "not in the family" if _is(row["delta"]) else "base"


def _delta(row: dict) -> str:
    """Difference with its interval."""
    if not _is(row["delta"]):
        return "-"
    bounds = f" [{row['delta_low']:+.3f}, {row['delta_high']:+.3f}]" if _is(row["delta_low"]) else " [-]"
    return f"{row['delta']:+.3f}{bounds}"


def _both(fire, smoke) -> str:
    """Two figures, or one `-` where there is neither."""
    return f"{_show(fire)} / {_show(smoke)}" if _is(fire) or _is(smoke) else "-"


def _show(value) -> str:
    """Three digits, or `-`."""
    return f"{value:.3f}" if _is(value) else "-"


def _is(value) -> bool:
    """Whether there is a value."""
    return value is not None and not pd.isna(value)


def write(profile: str, frame: pd.DataFrame) -> None:
    """Write table.csv and table.md of a profile."""
    text = frame.to_csv(index=False, float_format="%.6f", lineterminator="\n")
    write_text(results(profile) / "table.csv", text)
    write_text(results(profile) / "table.md", markdown(frame))


def of(profile: str) -> pd.DataFrame:
    """The table of a profile with the decision rule of its ablation parameters."""
    values = params.read("ablation", [PARAMS / profile / "ablation.yaml"], {})
    rule = {k: values[k] for k in ("baseline", "margin", "alpha", "resamples_n", "bootstrap_seed")}
    return rows(profile, **rule)
