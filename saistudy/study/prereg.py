"""The decision rule that was fixed before the first run: params/prereg.yaml, and no other place."""

import hashlib
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from saistudy.paths import PARAMS, Refusal
from saistudy.schema import Count, Name

PATH = PARAMS / "prereg.yaml"
LONGEST, SHORTER = "longest", "shorter"
NAMED = "named"  # the handling that the others of stage 2 are compared with


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class Comparison(_Strict):
    """One comparison: stage 1 is that arm against the baseline, stage 2 that handling against `named`.

    `shorter` is the shortest patience that is read off a run; base rows are those at the longest. Stage 2 is
    that which starts from `arm`, as-meant.
    """

    stage: Literal[1, 2]
    arm: Name
    patience: Literal["longest", "shorter"] = LONGEST
    handling: Literal["single_cls", "joint"] | None = None

    @model_validator(mode="after")
    def _has_a_handling_in_stage_2(self):
        if (self.stage == 2) != (self.handling is not None):
            raise ValueError("a handling was expected in stage 2 and nowhere else")
        return self


class Rule(_Strict):
    """The whole rule: margin in AP50 (fraction), alpha of the family, seeds planned, when to stop."""

    primary: Comparison
    family: Annotated[tuple[Comparison, ...], Field(min_length=1, max_length=6, strict=False)]
    baseline: Name
    margin: Annotated[float, Field(gt=0)]
    alpha: Annotated[float, Field(gt=0, lt=1)]
    seeds_n: Count
    stopping: Annotated[str, Field(min_length=1)]

    @model_validator(mode="after")
    def _is_one_family(self):
        if len(set(self.family)) < len(self.family):
            raise ValueError("every comparison of the family was expected once")
        if self.primary not in self.family:
            raise ValueError("the primary comparison was expected among those of the family")
        if Comparison(stage=1, arm=self.baseline) in self.family:
            raise ValueError("the baseline at its longest patience is what the others are compared with")
        return self


def read() -> Rule:
    """The rule as the file states it.

    Raises:
        Refusal: an unknown or missing key, an ill-typed value, more than six comparisons, a primary one that
            is not among them.
    """
    try:
        return Rule.model_validate(yaml.safe_load(PATH.read_text()))
    except (OSError, yaml.YAMLError) as error:
        raise Refusal(f"{PATH.name} cannot be read: {' '.join(str(error).split())}.") from None
    except ValidationError as problem:
        first = problem.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the rule"
        raise Refusal(f"{PATH.name}: {where}: {first['msg']}; correct it before any run.") from None


def digest() -> str:
    """Hash of the rule's file, 64 hex digits; every record holds it."""
    return hashlib.sha256(PATH.read_bytes()).hexdigest()


def refuse_another(records: list[dict]) -> None:
    """Raise Refusal where a run was made under another rule than the one of now, or under none."""
    for record in records:
        if (seen := record.get("prereg_sha256")) != digest():
            under = f"under the rule {seen[:12]}" if seen else "before records held the rule's hash"
            raise Refusal(
                f"{record['run']} was made {under}, but {PATH.name} is {digest()[:12]}: a table never mixes"
                " rules; restore the file that the runs were made under, or execute them again."
            )


def feasible(seeds_n: int, comparisons_n: int, alpha: float) -> str:
    """Whether any outcome could count as evidence of a difference, in a sentence; ask before training.

    The smallest two-sided sign-flip p of n pairs is 2 / 2^n, Holm's first factor the number of comparisons.
    """
    from saistudy.evaluation import stats  # here: a record asks for the digest alone, without scipy's second

    smallest = min(1.0, 2 / 2**seeds_n)
    said = (
        f"{_of(seeds_n, 'seed')}, {_of(comparisons_n, 'comparison')}: the smallest two-sided p is"
        f" {smallest:.2g}, {min(1.0, comparisons_n * smallest):.2g} after Holm's adjustment"
    )
    if comparisons_n and stats.can_be_met(seeds_n, comparisons_n, alpha):
        return f"{said}; the rule can be met at alpha {alpha:g}."
    few = seeds_n < stats.SEEDS_MIN
    return (
        f"{said}; the rule can never be met at alpha {alpha:g}: no arm can be called better or worse"
        f"{' or equivalent, every verdict will be unresolved' if few else ''}."
    )


def _of(n: int, word: str) -> str:
    return f"{n} {word}{'' if n == 1 else 's'}"
