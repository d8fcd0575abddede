"""What paired rates say of an accelerator, of all together, and of the seed's table of gains."""

import math
from typing import NamedTuple

import pandas as pd

from saistudy.study.bench import spread

MIB = 2**20
TOGETHER = ("AMP float16", "compile", "parallel loading", "channels-last", "cache")  # seed 001, L271-278


class Claim(NamedTuple):
    """A gain that seed document 001 states: line, factor, `speed` (a ratio) or `memory` (a share saved).

    low and high bound it; high None is open. on_gpu: it speaks of a GPU, so that a CPU cannot settle it.
    """

    line: int
    factor: str
    kind: str
    low: float
    high: float | None
    on_gpu: bool
    told: str


CLAIMS = [
    Claim(7, "combined", "speed", 5.0, 8.0, True, "all together: 5 to 8 times"),
    Claim(15, "AMP float16", "speed", 2.0, 3.0, True, "mixed precision: 2 to 3 times"),
    Claim(16, "AMP float16", "memory", 0.4, 0.5, True, "mixed precision: 40 to 50 % less memory"),
    Claim(41, "compile", "speed", 1.1, 1.3, False, "torch.compile: 1.1 to 1.3 times"),
    Claim(68, "parallel loading", "speed", 1.5, 2.0, False, "parallel loading: 1.5 to 2 times"),
    Claim(81, "non-blocking copies", "speed", 1.0, None, True, "non-blocking copies overlap: above 1"),
    Claim(96, "channels-last", "speed", 1.1, 1.2, True, "channels-last: 1.1 to 1.2 times"),
    Claim(121, "cache", "speed", 1.1, 1.3, False, "image cache: 1.1 to 1.3 times"),
    Claim(141, "checkpointing", "memory", 0.2, 0.4, True, "checkpointing: 20 to 40 % less memory"),
    # a single figure is held to its last digit: 10 % is 5 to 15 %, 40 % is 35 to 45 %
    Claim(279, "checkpointing", "speed", 0.85, 0.95, False, "checkpointing: 10 % slower"),
    Claim(177, "sum in place", "speed", 0.0, 1.0, False, "a sum into a new tensor is cheaper: below 1"),
    Claim(
        235,
        "checkpointing at half the batch",
        "memory",
        0.35,
        0.45,
        True,
        "batch 8, checkpointing: 40 % less",
    ),
]


def product_of(gains: dict[str, tuple[float, float]]) -> tuple[float, float]:
    """Lowest and highest gain of several together if gains multiply, to two decimals."""
    lows, highs = zip(*gains.values(), strict=True)
    return round(math.prod(lows), 2), round(math.prod(highs), 2)


def word(ratios: list[float]) -> str:
    """The rule: faster if every paired ratio is above 1, slower if every one is below, else unresolved."""
    if not ratios:
        return "not measured"
    if min(ratios) > 1:
        return "faster"
    return "slower" if max(ratios) < 1 else "unresolved"


def held(values: list[float], low: float, high: float | None) -> str:
    """The rule for a stated range: holds if all values lie inside, fails if all lie outside, else unresolved.

    All outside means on one side of it: values below and above it leave the truth open.
    """
    high = math.inf if high is None else high
    if not values:
        return "not measured"
    if low <= min(values) and max(values) <= high:
        return "holds"
    return "fails" if max(values) < low or min(values) > high else "unresolved"


def saved_frac(row: dict) -> tuple[float, str] | tuple[None, str]:
    """Share of the base's memory that a row of `accelerators.pair` saves, and of which figure it is."""
    for key, told in (("peak_bytes", "peak on the GPU"), ("kept_bytes", "kept for backward, counted")):
        if row[key] is not None and row["base_" + key]:
            return 1 - row[key] / row["base_" + key], told
    return None, "not measured"


def table(rows: list[dict]) -> pd.DataFrame:
    """A row per network and factor: rates, paired ratio (median, lowest to highest), word, memory, reason."""
    found = {}
    for row in rows:
        saved, _ = saved_frac(row)
        left = "; ".join(f"{key}: {why}" for key, why in row["left_out"].items())
        found[row["network"], row["factor"]] = {
            "batch": row["batch"],
            "base, images/s": spread(row["base_images_per_s"]),
            "images/s": spread(row["images_per_s"]),
            "steps/s": spread([rate / row["batch"] for rate in row["images_per_s"]]),
            "ratio": spread(row["ratios"]),
            "by the rule": word(row["ratios"]),
            "kept, MiB": _mib(row["kept_bytes"]),
            "GPU peak, MiB": _mib(row["peak_bytes"]),
            "memory saved": "-" if saved is None else f"{saved:.0%}",
            "first step, s": "-" if row["first_step_s"] is None else f"{row['first_step_s']:.2f}",
            "note": row["note"] or left,
        }
    return pd.DataFrame.from_dict(found, orient="index")


def _mib(size: int | None) -> str:
    return "-" if size is None else f"{size / MIB:.1f}"


def interaction(rows: list[dict]) -> list[dict]:
    """Per network: the product of the single ratios beside the ratio of all together, pass by pass.

    network, of (factors that were measured alone and are in the combination), missing, product and combined
    (one a pass), quotient (combined over product: below 1, the gains do not multiply), word.
    """
    found = []
    for row in (row for row in rows if row["factor"] == "combined"):
        single = {r["factor"]: r["ratios"] for r in rows if r["network"] == row["network"] and r["ratios"]}
        of = [name for name in row["of"] if name in single]
        product = [math.prod(ratios) for ratios in zip(*(single[name] for name in of), strict=True)]
        quotient = [both / alone for both, alone in zip(row["ratios"], product, strict=False)]
        missing = [name for name in row["of"] if name not in single]
        one = {"network": row["network"], "of": of, "missing": missing, "product": product}
        found.append(one | {"combined": row["ratios"], "quotient": quotient, "word": _multiply(quotient)})
    return found


def _multiply(quotient: list[float]) -> str:
    """Below 1 in every pass: less than the product; above 1: more; else unresolved."""
    words = {"faster": "more than the product", "slower": "less than the product"}
    said = word(quotient)
    return words.get(said, said)


def interaction_table(found: list[dict]) -> pd.DataFrame:
    """What `interaction` found, a row per network."""
    rows = {}
    for one in found:
        rows[one["network"]] = {
            "of": ", ".join(one["of"]) or "-",
            "not measured": ", ".join(one["missing"]) or "-",
            "product of single ratios": spread(one["product"]),
            "all together": spread(one["combined"]),
            "all together / product": spread(one["quotient"]),
            "by the rule": one["word"],
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def claims(rows: list[dict], profile: str, gpu: bool, backend: str) -> list[dict]:
    """Each gain of CLAIMS beside every network: line, claim, network, kind, values, verdict, why.

    `held` decides where the machine can: what speaks of a GPU is open without one, and what speaks of
    compiled code is open where the back end generates none.
    """
    found = []
    for claim in CLAIMS:
        for row in (row for row in rows if row["factor"] == claim.factor):
            saved, _ = saved_frac(row)
            memory = [] if saved is None else [saved]
            values = row["ratios"] if claim.kind == "speed" else memory
            verdict, why = held(values, claim.low, claim.high), row["note"]
            if open_for := _open(claim, row, profile, gpu, backend):
                verdict, why = "not settled", why or open_for
            told = {"line": claim.line, "claim": claim.told, "network": row["network"], "kind": claim.kind}
            found.append(told | {"values": values, "verdict": verdict, "why": why})
    return found


def _open(claim: Claim, row: dict, profile: str, gpu: bool, backend: str) -> str:
    """Why this run cannot settle a claim; empty if it can."""
    if not row["ratios"]:
        return "not measured"
    if profile == "demo":
        return "demo: too small to settle anything"
    if claim.on_gpu and not gpu:
        return "not applicable: no GPU"
    if claim.factor == "compile" and backend != "inductor":
        return f"{backend} generates no code"
    missing = [*row["left_out"]]
    if claim.factor == "combined":
        missing += [name for name in TOGETHER if name not in row["of"]]
    return f"without {', '.join(missing)}" if missing else ""


def claims_table(found: list[dict]) -> pd.DataFrame:
    """What `claims` found, as shown: a share saved in percent."""
    rows = []
    for one in found:
        share = one["kind"] == "memory" and one["values"]
        seen = f"{one['values'][0]:.0%} saved" if share else spread(one["values"])
        rows.append([f"L{one['line']}", one["claim"], one["network"], seen, one["verdict"], one["why"]])
    columns = ["seed 001", "claim", "network", "measured here", "verdict", "why"]
    return pd.DataFrame(rows, columns=columns).set_index("seed 001")


def parts_table(rows: list[dict], parts: tuple[str, ...]) -> pd.DataFrame:
    """Milliseconds a step in each part, and each part's share of their sum, of `accelerators.where`."""
    found = {}
    for row in rows:
        whole = sum(row[part] for part in parts) if row["step"] else None
        cells = {
            part: f"{1000 * row[part]:.1f} ms ({row[part] / whole:.0%})" if whole else "-" for part in parts
        }
        step = f"{1000 * row['step']:.1f} ms" if whole else "-"
        found[row["network"], row["setting"]] = cells | {"whole step": step, "note": row["note"]}
    return pd.DataFrame.from_dict(found, orient="index")
