"""The verdict on every claim of the seeds, computed, and the ledger as table and as text.

A claim that no check can settle stays open: "not yet measured" with the command that would settle it, or "not
measurable" with the reason. A check that rests on other sentences of the same seed can only contradict.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from saistudy.paths import results, write_text
from saistudy.study.ledger import (
    arithmetic,
    batches,
    built,
    contradictions,
    known,
    page,
    quantities,
    recorded,
    rows,
    settings,
    speeds,
    tried,
)
from saistudy.study.ledger.quantities import Finding
from saistudy.study.ledger.rows import UNMEASURABLE, Claim, Ledger

HOLDS, FAILS, CONTRADICTED = "holds", "fails", "contradicted within the seeds"
UNMEASURED, NEVER = "not yet measured", "not measurable"
VERDICTS = (HOLDS, FAILS, CONTRADICTED, UNMEASURED, NEVER)
SETTLED = VERDICTS[:3]
Check = Callable[[Claim, Ledger], Finding | None]
MODULES = (arithmetic, contradictions, known, settings, tried, built, recorded, speeds, batches)
CHECKS: dict[str, Check] = {name: check for module in MODULES for name, check in module.CHECKS.items()}
SOURCES = {name: module.SOURCE for module in MODULES for name in module.CHECKS}


@dataclass(frozen=True)
class Settled:
    """A claim with its verdict, and where something was found, what, and in what kind of source."""

    claim: Claim
    verdict: str
    found: Finding | None
    source: str


def read() -> Ledger:
    """The ledger of params/claims.csv.

    Raises:
        Refusal: a row is not what it should be.
    """
    return rows.read(CHECKS)


def settle(claim: Claim, ledger: Ledger) -> Settled:
    """The verdict on one claim: by the first of its checks that finds something."""
    for name in claim.checks:
        if found := CHECKS[name](claim, ledger):
            return Settled(claim, verdict(claim, found), found, SOURCES[name])
    return Settled(claim, verdict(claim, None), None, "")


def verdict(claim: Claim, found: Finding | None) -> str:
    """What a finding says of a claim."""
    if claim.contradiction:
        return CONTRADICTED if len(set(map(str.strip, claim.quantity.split("|")))) > 1 else HOLDS
    if found is None:
        return _open(claim)
    if not quantities.agrees(claim.relation, claim.quantity, found, claim.tolerance):
        return CONTRADICTED if found.within else FAILS
    return _open(claim) if found.within or found.refutes else HOLDS


def _open(claim: Claim) -> str:
    return NEVER if claim.needs.startswith(UNMEASURABLE) else UNMEASURED


def settle_all(ledger: Ledger) -> list[Settled]:
    """The verdict on every row, in the order of the ledger."""
    return [settle(claim, ledger) for claim in ledger.values()]


def table(settled: list[Settled]) -> pd.DataFrame:
    """The claims: id, seed, line, claim, quantity, verdict, value, low, high, conditions, evidence (text)."""
    return pd.DataFrame([_row(one) for one in settled if not one.claim.contradiction])


def _row(one: Settled) -> dict:
    claim, found = one.claim, one.found if one.verdict in SETTLED else None
    unit = f" {claim.unit}" if claim.unit else ""
    said = {"id": claim.id, "seed": claim.seed, "line": claim.line, "claim": claim.claim}
    said |= {"quantity": f"{claim.quantity}{unit}", "verdict": one.verdict}
    if found is None:
        return said | dict.fromkeys(("value", "low", "high"), "") | {"conditions": _need(one), "evidence": ""}
    bounds = {"low": found.low, "high": found.high}
    return (
        said
        | {"value": quantities.written(found.value)}
        | {key: "" if bound is None else quantities.written(bound) for key, bound in bounds.items()}
        | {"conditions": _conditions(one), "evidence": found.evidence}
    )


def _need(one: Settled) -> str:
    return one.claim.needs.removeprefix(UNMEASURABLE)


def _conditions(one: Settled) -> str:
    """Under what a finding holds; a contradicted claim also says what would settle it."""
    if one.verdict != CONTRADICTED or not one.claim.needs:
        return one.found.conditions
    word = "not to be settled" if one.claim.needs.startswith(UNMEASURABLE) else "to settle it"
    return f"{one.found.conditions}; {word}: {_need(one)}"


def contradicted(settled: list[Settled]) -> pd.DataFrame:
    """The contradictions: id, lines, said (side by side), figures, true, claims, evidence (text)."""
    return pd.DataFrame([_side_by_side(one) for one in settled if one.claim.contradiction])


def _side_by_side(one: Settled) -> dict:
    claim, found = one.claim, one.found
    word = "nothing to measure: " if claim.needs.startswith(UNMEASURABLE) else "not yet known: "
    return {
        "id": claim.id,
        "lines": claim.line,
        "said": claim.claim,
        "figures": claim.quantity,
        "true": quantities.bounded(found, claim.unit) if found else f"{word}{_need(one)}",
        "claims": " ".join(claim.against),
        "evidence": f"{found.evidence}; {found.conditions}" if found else "",
    }


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """How many claims of each seed have which verdict, with sums."""
    counts = pd.crosstab(frame["seed"], frame["verdict"]).reindex(columns=list(VERDICTS), fill_value=0)
    counts.loc["all"] = counts.sum()
    return counts.assign(claims=counts.sum(axis=1)).rename_axis(index="seed", columns=None)


def write(settled: list[Settled], profile: str) -> None:
    """Write claims.csv and claims.md beside the folders of the profiles, each whole or not at all."""
    for name, text in texts(settled).items():
        write_text(results(profile).parent / name, text)


def texts(settled: list[Settled]) -> dict[str, str]:
    """The ledger's files by name."""
    frame = table(settled)
    page_ = page.markdown(frame, summary(frame), contradicted(settled))
    return {"claims.csv": frame.to_csv(index=False, lineterminator="\n"), "claims.md": page_}
