"""Checks of a sentence's own figures: arithmetic, and thresholds against the figures that the seed reports.

Each takes the claim and the whole ledger and never reads the claim's own quantity.
"""

import math

from saistudy.study.ledger.quantities import Finding
from saistudy.study.ledger.rows import Claim, Ledger

SOURCE = "arithmetic on the sentence's own figures"


def _arithmetic(value: object, how: str) -> Finding:
    return Finding(value, f"arithmetic: {how}", "on the sentence's own figures, which stay unmeasured")


def percent_of(claim: Claim, _: Ledger) -> Finding:
    """Part of a whole in percent."""
    f = claim.figures()
    return _arithmetic(100 * f["part"] / f["whole"], f"{f['part']:g} of {f['whole']:g}")


def midpoint(claim: Claim, _: Ledger) -> Finding:
    """The middle of a range."""
    f = claim.figures()
    return _arithmetic((f["low"] + f["high"]) / 2, f"the middle of {f['low']:g} and {f['high']:g}")


def ratio(claim: Claim, _: Ledger) -> Finding:
    """One figure over another."""
    f = claim.figures()
    return _arithmetic(f["over"] / f["under"], f"{f['over']:g} / {f['under']:g}")


def gain_percent(claim: Claim, _: Ledger) -> Finding:
    """By how many percent one figure lies above another."""
    f = claim.figures()
    return _arithmetic(100 * (f["over"] / f["under"] - 1), f"{f['over']:g} / {f['under']:g} - 1")


def root_of_ratio(claim: Claim, _: Ledger) -> Finding:
    """The square root of a ratio."""
    f = claim.figures()
    return _arithmetic(math.sqrt(f["over"] / f["under"]), f"root of {f['over']:g} / {f['under']:g}")


def difference(claim: Claim, _: Ledger) -> Finding:
    """One figure less another."""
    f = claim.figures()
    return _arithmetic(f["from"] - f["less"], f"{f['from']:g} - {f['less']:g}")


def total(claim: Claim, _: Ledger) -> Finding:
    """The sum of all figures."""
    f = claim.figures()
    return _arithmetic(sum(f.values()), " + ".join(f"{one:g}" for one in f.values()))


def product(claim: Claim, _: Ledger) -> Finding:
    """The product of all figures, over `per` where there is one."""
    f = claim.figures()
    per = f.pop("per", 1.0)
    how = " x ".join(f"{one:g}" for one in f.values()) + (f" / {per:g}" if per != 1 else "")
    return _arithmetic(math.prod(f.values()) / per, how)


def reduced(claim: Claim, _: Ledger) -> Finding:
    """A figure less a percentage of it."""
    f = claim.figures()
    return _arithmetic(f["whole"] * (1 - f["percent"] / 100), f"{f['whole']:g} less {f['percent']:g} %")


def epoch_rate(claim: Claim, _: Ledger) -> Finding:
    """Iterations a second, and how many times the baseline's."""
    f = claim.figures()
    rates = f["iterations"] / f["seconds"], f["baseline_s"] / f["seconds"]
    return _arithmetic(rates, f"{f['iterations']:g} in {f['seconds']:g} s; {f['baseline_s']:g} s before")


def warmup_rates(claim: Claim, _: Ledger) -> Finding:
    """Learning rates of a linear warm-up over so many epochs."""
    f = claim.figures()
    epochs = range(1, int(f["epochs"]) + 1)
    return _arithmetic(tuple(f["lr"] * e / f["epochs"] for e in epochs), "lr x epoch / warm-up epochs")


def reported(claim: Claim, ledger: Ledger) -> Finding:
    """The figure that the seed itself reports for its threshold."""
    other = ledger[claim.against[0]]
    return Finding(
        float(other.quantity), f"{other.id}, L{other.line}", "the seed's figure, not measured here"
    )


CHECKS = {
    f.__name__: f
    for f in (
        *(percent_of, midpoint, ratio, gain_percent, root_of_ratio, difference, total, product, reduced),
        *(epoch_rate, warmup_rates, reported),
    )
}
