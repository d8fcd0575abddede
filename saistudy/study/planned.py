"""What the plan of a profile can show, asked before any run."""

from saistudy import params
from saistudy.study import forecast, prereg
from saistudy.study.prereg import NAMED, SHORTER, Comparison


def sentences(profile: str) -> list[str]:
    """Whether the planned seeds can meet the rule: a sentence for the plan, one for its full grid, if any.

    Raises:
        Refusal: there is no such profile, or the rule or a parameter is wrong.
    """
    plan, rule = forecast.study(profile), prereg.read()
    grids = {"": plan} | ({", full grid": forecast.study(profile, full=True)} if "full" in plan else {})
    return [f"{profile}{name}: {_sentence(profile, grid, rule)}" for name, grid in grids.items()]


def _sentence(profile: str, grid: dict, rule: prereg.Rule) -> str:
    members_n, seeds_n = len(members(profile, grid, rule)), len(grid["seeds"])
    asked = f"{members_n} of the {len(rule.family)} comparisons of {prereg.PATH.name} are planned"
    return f"{asked}; {prereg.feasible(seeds_n, members_n, rule.alpha)}"


def members(profile: str, grid: dict, rule: prereg.Rule) -> list[Comparison]:
    """The comparisons of the family for which a plan has both sides, at all its seeds.

    Args:
        grid: study.yaml, with its full grid laid over it or not.
    """
    stage1, stage2 = (_values(profile, notebook) for notebook in ("stage1", "stage2"))
    second = set(stage2["handlings"]) if forecast.AS_MEANT in grid["stage2_arms"] else set()
    found = []
    for member in rule.family:
        if member.stage == 2:
            planned = member.arm in grid["stage2_from"] and {NAMED, member.handling} <= second
        else:
            both = {member.arm, rule.baseline} <= set(grid["arms"])
            planned = both and (member.patience != SHORTER or len(stage1["patiences"]) > 1)
        found += [member] if planned else []
    return found


def _values(profile: str, notebook: str) -> dict:
    """The parameters of a notebook in a profile, without an arm."""
    return params.read(notebook, forecast.arm_files(profile, notebook, None), {})
