"""The comparison table of a profile, generated from its records and their predictions."""

import pandas as pd

from saistudy import params
from saistudy.evaluation import stats
from saistudy.paths import PARAMS, results, write_text
from saistudy.study import comparisons, paired, prereg
from saistudy.study.described import columns
from saistudy.study.fixed import NEAR_FRAC, NEAR_HOURS_FRAC
from saistudy.study.forecast import AS_MEANT
from saistudy.study.record import read_records

STANDS_FOR = {"demo": " At this scale patience 1 and 3 stand for 10 and 30."}
PAIR = ["delta", "delta_low", "delta_high", "holds_fixed", "seeds_n"]
MARK = {"better": "✓ better", "worse": "✓ worse", "equivalent": "✓ equivalent", "unresolved": "✗ unresolved"}


def rows(profile: str, resamples_n: int, bootstrap_seed: int) -> pd.DataFrame:
    """The table as a frame, by the rule of params/prereg.yaml; columns named with units, fractions 0 to 1.

    Stage 1 is compared with the rule's baseline at its longest patience, stage 2 with the `named` handling,
    as-meant, from the same arm. p and p_equivalent are adjusted for the family; other rows have neither.

    Args:
        resamples_n, bootstrap_seed: of the bootstrap over groups.

    Raises:
        Refusal: a record is of another rule or profile, or not comparable with the others.
    """
    rule, records = prereg.read(), read_records(profile)
    prereg.refuse_another(records)
    found = comparisons.cases(records, rule.baseline)
    bases = [comparisons.base_of(case, found, rule.baseline) for case in found]
    tested = paired.Tested(profile, comparisons.Weights(resamples_n, bootstrap_seed))
    told = _with_noise_floor(list(zip(found, bases, strict=True)))
    compared = [paired.compare(case, base, tested) for case, base in told]
    family = [c for c, pair in zip(compared, told, strict=True) if comparisons.confirmatory(*pair, rule)]
    paired.judge(family, rule.margin, rule.alpha)
    lines = [columns(case) | c for (case, _), c in zip(told, compared, strict=True)]
    frame = pd.DataFrame(lines).drop(columns=list(paired.LAYERS))
    frame.insert(0, "number", range(1, len(frame) + 1))
    return frame


def _with_noise_floor(told: list[tuple[dict, dict]]) -> list[tuple[dict, dict]]:
    """Cases beside their bases, and after the rows of the baseline of stage 1 what its seeds alone do."""
    base = told[0][1]
    last = sum(case["runs"] is base["runs"] for case, _ in told)
    return [*told[:last], *((case, base) for case in comparisons.noise_floor(base)), *told[last:]]


def pairs(profile: str, wanted: list[list[str]], resamples_n: int, bootstrap_seed: int) -> pd.DataFrame:
    """Arms of stage 1 against other arms than the baseline, at the longest patience; no verdict, no family.

    Args:
        wanted: [arm, against] each; a pair is left out where one of the two has no record.
        resamples_n, bootstrap_seed: as in `rows`.

    Returns:
        Columns arm, against, delta, delta_low, delta_high, holds_fixed, seeds_n.
    """
    rule, records = prereg.read(), read_records(profile)
    prereg.refuse_another(records)
    first = [case for case in comparisons.cases(records, rule.baseline) if case["stage"] == 1]
    longest = {c["arm"]: c for c in first if c["patience"] == max(c["patiences"])}
    tested = paired.Tested(profile, comparisons.Weights(resamples_n, bootstrap_seed))
    lines = []
    for arm, against in wanted:
        if {arm, against} <= longest.keys():
            both = longest[arm], longest[against]
            seen = paired.compare(*both, tested) | {"seeds_n": len(paired.pairs_of(*both))}
            lines.append({"arm": arm, "against": against} | {key: seen[key] for key in PAIR})
    return pd.DataFrame(lines, columns=["arm", "against", *PAIR])


def markdown(frame: pd.DataFrame) -> str:
    """The table for readers: at most three digits, intervals in brackets, `-` where there is no value."""
    head = "# | arm | patience | tensor h x w | question | AP50 (± sd over seeds) | AP50-95 | AP small"
    head += " | AP50 group-disjoint | FASDD AP50 fire / smoke | holds fixed | Δ AP50 [95 % paired, by group]"
    head += " | evidence | epochs | hours | images/s"
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
        " it kept of stage 1; holds fixed names what a row shares with its base row: pixels and scale (of an"
        f" object in the tensor) within {NEAR_FRAC:.0%}, epochs with their patience, hours within"
        f" {NEAR_HOURS_FRAC:.0%}; evidence counts the seeds, ✓ only if the rule of params/prereg.yaml is met."
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
        row["holds_fixed"] if _is(row["holds_fixed"]) else "-",
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
    for name, text in texts(frame).items():
        write_text(results(profile) / name, text)


def texts(frame: pd.DataFrame) -> dict[str, str]:
    """The table's files by name."""
    csv = frame.to_csv(index=False, float_format="%.6f", lineterminator="\n")
    return {"table.csv": csv, "table.md": markdown(frame)}


def of(profile: str) -> pd.DataFrame:
    """The table of a profile with the bootstrap of its ablation parameters."""
    values = params.read("ablation", [PARAMS / profile / "ablation.yaml"], {})
    return rows(profile, values["resamples_n"], values["bootstrap_seed"])
