"""The comparison table of a profile, generated from its records and their predictions."""

import numpy as np
import pandas as pd

from saistudy import params
from saistudy.evaluation import score, stats
from saistudy.paths import PARAMS, ROOT, Refusal, results, write_text
from saistudy.study.record import read_frame, read_records

HANDLING = {"named": "names {0: smoke}", "single_cls": "single_cls: True"}
MARK = {
    "better": "✓ better",
    "worse": "✓ worse",
    "equivalent": "✓ equivalent",
    "unresolved": "✗ unresolved",
}


def longest(record: dict) -> int:
    """The patience that a run was trained with."""
    return max(record["params"]["patiences"])


def metric(record: dict, model: str, subset: str = score.PUBLISHED) -> dict:
    """The metrics row of one model on one set of test images."""
    return next(m for m in record["metrics"] if m["model"] == model and m["subset"] == subset)


def cases(records: list[dict], baseline: str) -> list[dict]:
    """What the table has a row for: arm x patience of stage 1, arm x class handling of stage 2.

    Each case holds its records in the order of seeds and the model that it reads from each. The baseline
    comes first, the other arms by the pixels of their tensor.
    """
    found = []
    for arm in _arms(records, "stage1", baseline):
        runs = _of(records, "stage1", arm)
        for p in sorted(runs[0]["params"]["patiences"], reverse=True):
            found.append({"stage": 1, "arm": arm, "patience": p, "model": f"patience-{p}", "runs": runs})
    for arm in _arms(records, "stage2", baseline):
        runs = _of(records, "stage2", arm)
        for handling in runs[0]["params"]["handlings"]:
            p = longest(runs[0])
            model = f"{handling}-patience-{p}"
            found.append(
                {
                    "stage": 2,
                    "arm": arm,
                    "patience": p,
                    "handling": handling,
                    "model": model,
                    "runs": runs,
                }
            )
    return found


def _arms(records: list[dict], notebook: str, baseline: str) -> list[str]:
    """Arms of a notebook in the order of the table."""
    pixels = {
        r["params"]["arm"]: int(np.prod(r["conditions"]["imgsz"]))
        for r in records
        if r["notebook"] == notebook
    }
    return sorted(pixels, key=lambda arm: (arm != baseline, pixels[arm], arm))


def _of(records: list[dict], notebook: str, arm: str) -> list[dict]:
    """Records of one arm in the order of their seeds, alike in everything but the seed."""
    runs = [r for r in records if r["notebook"] == notebook and r["params"]["arm"] == arm]
    for run in runs[1:]:
        _refuse_unlike(runs[0], run, {"seed"})
    return sorted(runs, key=lambda r: r["params"]["seed"])


def _refuse_unlike(one: dict, other: dict, free: set[str]) -> None:
    """Raise Refusal where two runs differ in data, or in a parameter that is not free to differ."""
    unlike = [k for k in one["params"] if k not in free and one["params"][k] != other["params"][k]]
    if "negatives" not in free and one["data"]["fingerprint"] != other["data"]["fingerprint"]:
        unlike.append("data")
    if unlike:
        raise Refusal(
            f"{one['run']} and {other['run']} differ in {', '.join(unlike)}, which no comparison may: execute"
            " the one that is out of date again (make study does)."
        )


def rows(profile: str, baseline: str, margin: float, alpha: float, resamples_n: int, bootstrap_seed: int):
    """The table as a frame; columns named with their units, fractions 0 to 1.

    Args:
        baseline: the arm (at its longest patience) that stage 1 is compared with; stage 2 is compared
            with its own `named` handling.
        margin: smallest difference in AP50 that matters; alpha: error rate of the family, Holm-adjusted.
        resamples_n, bootstrap_seed: of the bootstrap over groups.
    """
    found = cases(read_records(profile), baseline)
    weights = _Weights(resamples_n, bootstrap_seed)
    bases = [_base(case, found, baseline) for case in found]
    compared = [_compare(case, base, profile, weights) for case, base in zip(found, bases, strict=True)]
    family = [
        c for c, case, base in zip(compared, found, bases, strict=True) if confirmatory(case, base, baseline)
    ]
    adjusted = stats.holm([stats.sign_flip(c["differences"]) for c in family]) if family else []
    for c, p in zip(family, adjusted, strict=True):
        c["p"] = float(p)
        c["verdict"] = _verdict(c, margin, alpha)
    columns = [_columns(case) | c for case, c in zip(found, compared, strict=True)]
    frame = pd.DataFrame(columns).drop(columns=["differences"])
    frame.insert(0, "number", range(1, len(frame) + 1))
    return frame


def _base(case: dict, found: list[dict], baseline: str) -> dict:
    """The case that a case is compared with."""
    if case["stage"] == 2:
        return next(c for c in found if c["stage"] == 2 and c["arm"] == case["arm"])
    for other in found:  # the longest patience comes first
        if other["stage"] == 1 and other["arm"] == baseline:
            return other
    raise Refusal(f"there is no record of the baseline arm {baseline}: run it, or name another baseline.")


def confirmatory(case: dict, base: dict, baseline: str) -> bool:
    """Whether a comparison belongs to the preregistered family (params/prereg.yaml).

    Every arm at its longest patience, the baseline at its shorter ones, and the class handlings of
    stage 2. Patience of other arms, and the arm as-printed (it changes several values), are shown without
    a verdict: with eight seeds the rule can be met by six comparisons, 6 x 2 / 2^8 = .047, and not by more.
    """
    if case is base or case["arm"] == "as-printed":
        return False
    return case["stage"] == 2 or case["arm"] == baseline or case["patience"] == base["patience"]


class _Weights:
    """Bootstrap weights of a set of test images, drawn once and shared by every comparison."""

    def __init__(self, resamples_n: int, seed: int):
        self.resamples_n, self.seed, self.drawn = resamples_n, seed, {}

    def __call__(self, images: pd.DataFrame) -> np.ndarray | None:
        """(R, images_n) weights; None where there are too few groups for an interval."""
        key = tuple(images["image"])
        if images["group"].nunique() < stats.GROUPS_MIN:
            return None
        if key not in self.drawn:
            rng = np.random.default_rng(self.seed)
            self.drawn[key] = stats.group_bootstrap_weights(images["group"], self.resamples_n, rng)
        return self.drawn[key]


# What may differ between an arm and the baseline: what an arm file can hold, and the seed.
ARM = {"arm", "question", "change", "seed", "negatives", "engine", "effective"}


def _compare(case: dict, base: dict, profile: str, weights: _Weights) -> dict:
    """Paired difference in AP50 to the base: mean over seeds, and its interval over groups of the test set.

    p and verdict stay None here: they belong to the family. Without enough groups there are no bounds.
    """
    empty = dict.fromkeys(("delta", "delta_low", "delta_high", "p", "verdict", "differences"))
    if case is base:
        return empty
    _refuse_unlike(base["runs"][0], case["runs"][0], ARM)
    pairs = _pairs(case, base)
    deltas = [_ap50(m, case["model"]) - _ap50(b, base["model"]) for m, b in pairs]
    resampled = [_resampled(m, case["model"], b, base["model"], profile, weights) for m, b in pairs]
    enough = resampled and resampled[0] is not None
    low, high = stats.interval(np.mean(resampled, axis=0)) if enough else (None, None)
    delta = float(np.mean(deltas))
    return empty | {"delta": delta, "delta_low": low, "delta_high": high, "differences": deltas}


def _pairs(case: dict, base: dict) -> list[tuple[dict, dict]]:
    """Records of both cases with the same seed."""
    of_base = {r["params"]["seed"]: r for r in base["runs"]}
    pairs = [(r, of_base[r["params"]["seed"]]) for r in case["runs"] if r["params"]["seed"] in of_base]
    if not pairs:
        raise Refusal(f"arms {case['arm']} and {base['arm']} share no seed: train both with the same seeds.")
    return pairs


def _ap50(record: dict, model: str) -> float:
    """AP50 of a model on the published test images; no value counts as none found, which is an error."""
    return metric(record, model)["ap50"]


def _resampled(mine: dict, model: str, base: dict, base_model: str, profile: str, weights: _Weights):
    """Differences in AP50 on resamples of the test images, (R,), or None below GROUPS_MIN groups."""
    images = read_frame(profile, mine["run"], "images")
    test = images[images["split"] == "test"].reset_index(drop=True)
    drawn = weights(test)
    if drawn is None:
        return None
    frames = [
        (lambda f, m: f[f["model"] == m])(read_frame(profile, r["run"], "predictions"), m)
        for r, m in ((mine, model), (base, base_model))
    ]
    return score.differences(*frames, read_frame(profile, mine["run"], "truth"), test, drawn)


def _verdict(compared: dict, margin: float, alpha: float) -> str:
    """The verdict of a comparison of the family.

    Both layers of variance must agree: the interval is the wider hull of the one over groups and the one
    over seeds, so a difference that only one of them resolves stays unresolved.
    """
    _, low, high = stats.seed_interval(compared["differences"])
    bounds = [(low, high), (compared["delta_low"], compared["delta_high"])]
    known = None not in [b for pair in bounds for b in pair]
    hull = (min(b[0] for b in bounds), max(b[1] for b in bounds)) if known else (None, None)
    return stats.verdict(compared["differences"], hull, margin, alpha, compared["p"])


def _columns(case: dict) -> dict:
    """The columns that describe a case and its mean result over seeds."""
    runs, first = case["runs"], case["runs"][0]
    found = [metric(r, case["model"]) for r in runs]
    disjoint = [metric(r, case["model"], score.DISJOINT) for r in runs]
    stops = [next(s for s in r["stops"] if s["model"] == case["model"]) for r in runs]
    handling = case.get("handling")
    return {
        "profile": first["profile"],
        "provenance": first["data"]["provenance"],
        "stage": case["stage"],
        "arm": case["arm"],
        "handling": handling,
        "patience": case["patience"],
        "tensor_h_px": first["conditions"]["imgsz"][0],
        "tensor_w_px": first["conditions"]["imgsz"][1],
        "question": first["params"].get("question") or f"stage 2 with {HANDLING[handling]}",
        "ap50": _mean([m["ap50"] for m in found]),
        "ap50_sd": _sd([m["ap50"] for m in found]),
        "ap50_95": _mean([m.get("ap50_95") for m in found]),
        "ap_small": _mean([m.get("ap_small") for m in found]),
        "ap50_group_disjoint": _mean([m["ap50"] for m in disjoint]),
        "disjoint_images_n": disjoint[0]["images_n"],
        "epochs_n": _mean([s["epochs_n"] for s in stops]),
        "stopped_early_n": sum(s["stopped_early"] for s in stops),
        "train_h": _mean([s["train_s"] / 3600 for s in stops]),
        "images_per_s": _mean([s["images_per_s"] for s in stops]),
        "device": first["cost"]["device"],
        "runs_n": len(runs),
        "declared": "; ".join(f"{d['key']} {d['requested']} -> {d['value']}" for d in first["declared"]),
    }


def _mean(values: list) -> float | None:
    """Mean, or None where any value is missing."""
    return None if None in values else float(np.mean(values))


def _sd(values: list) -> float | None:
    """Standard deviation over seeds (n - 1), None below two."""
    return float(np.std(values, ddof=1)) if len(values) > 1 and None not in values else None


def markdown(frame: pd.DataFrame) -> str:
    """The table for readers: at most three digits, intervals in brackets, `-` where there is no value."""
    head = "# | arm | patience | tensor h x w | question | AP50 (± sd over seeds) | AP50-95 | AP small"
    head += " | AP50 group-disjoint | Δ AP50 [95 % paired, by group] | evidence | epochs | hours | images/s"
    lines = [f"| {head} |", "|" + "---|" * (head.count("|") + 1)]
    lines += ["| " + " | ".join(_cells(row)) + " |" for row in frame.to_dict("records")]
    return "\n".join([_caption(frame), "", *lines, ""])


def _caption(frame: pd.DataFrame) -> str:
    """What the figures are, said before them."""
    data = "SYNTHETIC twin data" if "synthetic" in set(frame["provenance"]) else "published-format data"
    devices = ", ".join(sorted(set(frame["device"])))
    return (
        f"Profile **{frame['profile'].iloc[0]}** on {data}, trained on {devices}. ± is the standard deviation"
        " over seeds; [ ] the paired 95 % interval of the difference to the base row, resampled by group"
        f" (video run or camera), [-] below {stats.GROUPS_MIN} groups; evidence counts the seeds, ✓ only if"
        " the rule of params/prereg.yaml is met."
    )


def _cells(row: dict) -> list[str]:
    """One table row as text."""
    arm = row["arm"] if row["stage"] == 1 else f"stage 2 from {row['arm']}"
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
        _show(row["ap_small"]),
        f"{_show(row['ap50_group_disjoint'])} (n={row['disjoint_images_n']})",
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


def readme() -> None:
    """Put the tables of all profiles between the markers of the README, the study's own first."""
    path = ROOT / "README.md"
    start, end = "<!-- table: generated -->", "<!-- /table -->"
    head, rest = path.read_text().split(start)
    tail = rest.split(end)[1]
    tables = [results(p) / "table.md" for p in ("h200", "mini", "demo")]
    body = "\n".join(t.read_text() for t in tables if t.is_file())
    write_text(path, f"{head}{start}\n{body}\n{end}{tail}")
