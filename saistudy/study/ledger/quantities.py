"""Claimed quantities as text, and whether what was found agrees with them. Pure."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

NUMBER = re.compile(r"-?\d+(\.\d+)?$")
RANGE = re.compile(r"(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)$")


@dataclass(frozen=True)
class Finding:
    """What an input of the repository says of a claim.

    `value` is a number, a text, a truth value, or a tuple of them with None for what is not known; `low` and
    `high` bound it where it is not exact (math.inf: no upper bound). `conditions` say under what it holds,
    `evidence` where it comes from. `within`: it rests on other sentences of the same seed, so that it can
    contradict the claim but never confirm it. `refutes`: it comes from elsewhere and can only refute.
    """

    value: object
    evidence: str
    conditions: str = ""
    low: float | None = None
    high: float | None = None
    within: bool = False
    refutes: bool = False


def number(text: str) -> float | None:
    """The number that a text is, if it is one."""
    return float(text) if NUMBER.match(text) else None


def half_step(text: str) -> float:
    """Half of the last digit of a number as it is written: .05 for "8.6", .5 for "50"."""
    return 0.5 * 10.0 ** -len(text.partition(".")[2])


def written(value: object) -> str:
    """A value as the ledger writes it: numbers to four digits, parts joined by a slash, "?" for unknown."""
    if isinstance(value, tuple):
        return "/".join(written(part) for part in value)
    if isinstance(value, bool) or value is None:
        return "?" if value is None else str(value).lower()
    if isinstance(value, float) and math.isinf(value):
        return "no bound"
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer() and abs(value) < 1e15):
        return str(int(value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def bounded(found: Finding, unit: str) -> str:
    """A value with its unit, and its bounds where it has any."""
    bounds = [written(found.value if bound is None else bound) for bound in (found.low, found.high)]
    more = "" if found.low is None and found.high is None else f" ({bounds[0]} to {bounds[1]})"
    return f"{written(found.value)} {unit}{more}".rstrip()


def _bounds(found: Finding, value: float) -> tuple[float, float]:
    return (value if found.low is None else found.low, value if found.high is None else found.high)


def _equals(claimed: str, value: float, found: Finding, _: float) -> bool:
    low, high = _bounds(found, value)
    return low - half_step(claimed) - 1e-9 <= float(claimed) <= high + half_step(claimed) + 1e-9


def _about(claimed: str, value: float, found: Finding, tolerance: float) -> bool:
    low, high = _bounds(found, value)
    return low * (1 - tolerance) <= float(claimed) <= high * (1 + tolerance)


def _between(claimed: str, value: float, found: Finding, _: float) -> bool:
    low, high = (float(part) for part in RANGE.match(claimed).groups())
    return low <= value <= high


COMPARED: dict[str, Callable[[str, float, Finding, float], bool]] = {
    "equals": _equals,  # to the digits that the claim is written with
    "about": _about,  # within a fraction of what was found, given in the column tolerance
    "at least": lambda claimed, value, *_: value >= float(claimed),
    "at most": lambda claimed, value, *_: value <= float(claimed),
    "between": _between,  # the claim is a range
}
TEXTUAL = {
    "is": lambda claimed, value: claimed == value,
    "other than": lambda claimed, value: claimed != value,
}
MANY = "one value"  # a contradiction: its quantity lists what was said, and all should be one
RELATIONS = (*COMPARED, *TEXTUAL, MANY)


def fits(relation: str, quantity: str) -> bool:
    """Whether a quantity is written as its relation needs it."""
    if relation in COMPARED:
        shape = RANGE if relation == "between" else NUMBER
        return all(shape.match(part) for part in quantity.split("/"))
    return bool(quantity) and (relation != MANY or "|" in quantity)


def agrees(relation: str, quantity: str, found: Finding, tolerance: float = 0.0) -> bool:
    """Whether a claimed quantity agrees with a finding; parts that were not found do not count."""
    if relation in TEXTUAL:
        return TEXTUAL[relation](quantity, written(found.value))
    values = found.value if isinstance(found.value, tuple) else (found.value,)
    parts = quantity.split("/")
    if len(parts) != len(values):
        return False
    pairs = zip(parts, values, strict=True)
    return all(
        COMPARED[relation](part, value, found, tolerance) for part, value in pairs if value is not None
    )
