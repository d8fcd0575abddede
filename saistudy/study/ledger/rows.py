"""The rows of params/claims.csv, the only input of the ledger, read and refused."""

import csv
import hashlib
import re
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from saistudy.paths import PARAMS, Refusal, results
from saistudy.study.ledger import quantities

PATH = PARAMS / "claims.csv"
SEEDS = ("000", "001", "002", "003", "004", "repo")
COLUMNS = ["id", "seed", "line", "claim", "quantity", "unit", "relation", "tolerance", "check", "said"]
COLUMNS += ["against", "needs"]
IDS = re.compile(r"[A-JL-Z]\d\d$|K\d{1,2}$")
UNMEASURABLE = "not measurable: "


@dataclass(frozen=True)
class Claim:
    """One row. `line` is the seed's line, of the original repository a file; ids K... are contradictions.

    `relation` says how `quantity` compares with what `check` finds, `tolerance` is a fraction for "about".
    `said`: further figures of the same sentence, for the check. `against`: ids of the claims that the check
    reads. `needs`: what would settle the claim where no check can, or "not measurable: " and why.
    """

    id: str
    seed: str
    line: str
    claim: str
    quantity: str
    unit: str
    relation: str
    tolerance: float
    checks: tuple[str, ...]
    said: dict[str, str] = field(hash=False)
    against: tuple[str, ...]
    needs: str

    @property
    def contradiction(self) -> bool:
        """Whether the row sets sentences of one seed side by side."""
        return self.relation == quantities.MANY

    def figures(self) -> dict[str, float]:
        """The numbers of `said`."""
        return {key: float(text) for key, text in self.said.items() if quantities.number(text) is not None}


Ledger = dict[str, Claim]


def inputs() -> dict[str, str]:
    """Hash of every file that a verdict may rest on, by its folder and name: for the identity of a run.

    The ledger, the seeds' configurations as printed, and every record, table and bench of an H200.
    """
    files = [PATH, PARAMS / "tiers.yaml", *sorted((PARAMS / "h200").rglob("*.yaml"))]
    files += [*sorted(results("h200").glob("*/record.json")), *sorted(results("h200").glob("table.csv"))]
    files += sorted(results("h200-bench").glob("*.json"))
    hashes = {path: hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in files}
    return {f"{path.parent.name}/{path.name}": digest for path, digest in hashes.items()}


def read(checks: Container[str], path: Path = PATH) -> Ledger:
    """Every row by its id, in the order of the file.

    Args:
        checks: names of the checks that there are.

    Raises:
        Refusal: columns are missing, or a row is not what it should be; the sentence names its line.
    """
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != COLUMNS:
            raise Refusal(f"{path.name} has the columns {reader.fieldnames}, {COLUMNS} were expected.")
        found: Ledger = {}
        for row in reader:
            where = f"{path.name}, line {reader.line_num}"
            claim = _claim(where, row)
            _refuse(where, claim, checks, found)
            found[claim.id] = claim
    for claim in found.values():
        if unknown := set(claim.against) - found.keys():
            raise Refusal(f"{path.name}: {claim.id} stands against {sorted(unknown)}: no row has such an id.")
    return found


def _claim(where: str, row: dict) -> Claim:
    if None in row or None in row.values():
        raise Refusal(f"{where} has not {len(COLUMNS)} columns: quote a text that holds a comma.")
    row = {key: text.strip() for key, text in row.items()}
    pairs = [part.partition("=") for part in row.pop("said").split(";") if part.strip()]
    tolerance = row.pop("tolerance") or "0"
    if quantities.number(tolerance) is None:
        raise Refusal(f"{where}: tolerance is '{tolerance}', a fraction was expected.")
    return Claim(
        said={key.strip(): text.strip() for key, _, text in pairs},
        checks=tuple(row.pop("check").split()),
        against=tuple(row.pop("against").split()),
        tolerance=float(tolerance),
        **row,
    )


def _refuse(where: str, claim: Claim, checks: Container[str], found: Ledger) -> None:
    for wrong in _wrongs(claim, checks, found):
        raise Refusal(f"{where} ({claim.id}): {wrong}: mend that row.")


def _wrongs(claim: Claim, checks: Container[str], found: Ledger) -> Iterator[str]:
    """What is wrong with a row, in the order in which it is best mended."""
    if not IDS.match(claim.id):
        yield f"the id '{claim.id}' is not a letter but K with two digits, or K with a number"
    if claim.id in found:
        yield f"the id {claim.id} is there twice"
    if claim.seed not in SEEDS:
        yield f"the seed is '{claim.seed}', one of {', '.join(SEEDS)} was expected"
    if not claim.line or not claim.claim:
        yield "line or claim is empty"
    if claim.relation not in quantities.RELATIONS:
        yield f"the relation is '{claim.relation}', one of {', '.join(quantities.RELATIONS)} was expected"
    elif not quantities.fits(claim.relation, claim.quantity):
        yield f"the quantity '{claim.quantity}' cannot be compared by '{claim.relation}'"
    if claim.relation == "about" and claim.tolerance <= 0:
        yield "'about' needs a tolerance above 0"
    if unknown := [name for name in claim.checks if name not in checks]:
        yield f"there is no check {', '.join(unknown)}"
    if not claim.checks and not claim.needs:
        yield "a claim without a check needs a word on what would settle it"
