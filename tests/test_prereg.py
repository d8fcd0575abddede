"""The rule as it is read, what belongs to its family, and what the plans can show under it."""

import hashlib
import re

import pytest
import yaml

from saistudy.paths import PARAMS, Refusal
from saistudy.study import comparisons, forecast, planned, prereg

RULE = yaml.safe_load((PARAMS / "prereg.yaml").read_text())
ONE = {"stage": 1, "arm": "1440"}


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Writes a rule with some keys replaced, and has it read instead of the project's."""

    def write(**changed):
        path = tmp_path / "prereg.yaml"
        path.write_text(yaml.safe_dump({k: v for k, v in (RULE | changed).items() if v is not ...}))
        monkeypatch.setattr(prereg, "PATH", path)
        return prereg.read

    return write


def test_the_rule_is_read_as_it_stands():
    rule = prereg.read()
    assert (rule.baseline, rule.margin, rule.alpha, rule.seeds_n) == ("896", 0.01, 0.05, 8)
    assert (rule.primary.arm, rule.primary.patience) == ("1440x808", "longest")
    assert [c.model_dump(exclude_defaults=True) for c in rule.family] == RULE["family"]
    assert prereg.digest() == hashlib.sha256((PARAMS / "prereg.yaml").read_bytes()).hexdigest()


def test_the_family_is_one_that_the_planned_seeds_can_support():
    """Six comparisons of eight pairs: 6 x 2 / 2^8 = 0.047, one more would not do."""
    rule = prereg.read()
    assert len(rule.family) * 2 / 2**rule.seeds_n <= rule.alpha < (len(rule.family) + 1) * 2 / 2**rule.seeds_n


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"margn": 0.1}, "margn: Extra inputs"),
        ({"margin": ...}, "margin: Field required"),
        ({"margin": "0.01"}, "margin: Input should be a valid number"),
        ({"margin": 0.0}, "margin: Input should be greater than 0"),
        ({"alpha": 1.0}, "alpha: Input should be less than 1"),
        ({"family": [*RULE["family"], {"stage": 1, "arm": "again"}]}, "family: .* at most 6"),
        ({"family": []}, "family: .* at least 1"),
        ({"family": [*RULE["family"][:5], RULE["primary"]]}, "expected once"),
        ({"family": [*RULE["family"][:5], {"stage": 1, "arm": "896"}]}, "baseline at its longest"),
        ({"primary": {"stage": 1, "arm": "again"}}, "the primary comparison was expected among"),
        ({"primary": ONE | {"handling": "joint"}}, "primary: .*handling was expected in stage 2"),
        ({"primary": ONE | {"stage": 2}}, "primary: .*handling was expected in stage 2"),
        ({"primary": ONE | {"patience": 10}}, "primary.patience: Input should be"),
        ({"primary": ONE | {"seed": 1}}, "primary.seed: Extra inputs"),
    ],
)
def test_a_rule_that_is_none_is_refused(written, changed, said):
    with pytest.raises(Refusal, match=f"prereg.yaml: .*{said}"):
        written(**changed)()


def test_no_yaml_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(prereg, "PATH", tmp_path / "none.yaml")
    with pytest.raises(Refusal, match="none.yaml cannot be read"):
        prereg.read()
    (tmp_path / "none.yaml").write_text("family: [")
    with pytest.raises(Refusal, match="none.yaml cannot be read"):
        prereg.read()


def case(stage, arm, patience, **more):
    patiences = (30, 10) if stage == 1 else (20, 10)
    return {"stage": stage, "arm": arm, "patience": patience, "patiences": patiences, **more}


def second(handling, patience=20, arm="896", stage2_arm="as-meant"):
    return case(2, arm, patience, stage2_arm=stage2_arm, handling=handling)


def test_what_belongs_to_the_family():
    rule, base, named = prereg.read(), case(1, "896", 30), second("named")
    inside = [case(1, arm, 30) for arm in ("1440", "1440x808", "1184x672", "positives-only")]
    assert all(comparisons.confirmatory(c, base, rule) for c in [*inside, case(1, "896", 10)])
    outside = [base, case(1, "1440", 10), case(1, "as-printed", 30), case(1, "again", 30)]
    outside += [
        case(1, "epochs-110", 10),
        case(1, "1440, cut to 1056x1056", 30),
        case(1, "896, other seeds", 30),
    ]
    assert not any(comparisons.confirmatory(c, base, rule) for c in outside)
    assert comparisons.confirmatory(second("single_cls"), named, rule)
    outside = [named, second("named", 10), second("joint"), second("single_cls", 10)]
    outside += [second("single_cls", arm="1440"), second("single_cls", stage2_arm="as-written")]
    assert not any(comparisons.confirmatory(c, named, rule) for c in outside)


def test_of_three_patiences_the_family_has_the_shortest():
    rule, base = prereg.read(), case(1, "896", 50)
    several = [case(1, "896", p) | {"patiences": (50, 30, 10)} for p in (30, 10)]
    assert [comparisons.confirmatory(c, base, rule) for c in several] == [False, True]


def test_a_family_of_the_file_is_the_family_of_the_table(written):
    rule = written(family=[ONE, {"stage": 2, "arm": "1440", "handling": "joint"}], primary=ONE)()
    cases = [case(1, "1440", 30), case(1, "1440x808", 30), case(1, "896", 10)]
    seen = [comparisons.confirmatory(c, case(1, "896", 30), rule) for c in cases]
    assert seen == [True, False, False]
    assert comparisons.confirmatory(second("joint", arm="1440"), second("named", arm="1440"), rule)


@pytest.mark.parametrize("seeds_n", [1, 2, 3, 4, 5])
def test_the_noise_floor_uses_no_seed_twice(seeds_n):
    runs = [{"params": {"seed": seed}} for seed in range(seeds_n)]
    floor = comparisons.noise_floor(case(1, "896", 30) | {"runs": runs})
    pairs = [(0, 1), (2, 3)][: seeds_n // 2]
    assert len(floor) == bool(pairs)
    for found in floor:
        assert [r["params"]["seed"] for r in found["others"]] == [one for one, _ in pairs]
        assert [r["params"]["seed"] for r in found["runs"]] == [other for _, other in pairs]


@pytest.mark.parametrize(
    ("seeds_n", "comparisons_n", "said"),
    # 2/2^3 = .25; 2/2^6 = .031, twice that .0625; 6 x 2/2^8 = .047; 7 x 2/2^8 = .055
    [
        (3, 1, "3 seeds, 1 comparison: the smallest two-sided p is 0.25, 0.25 after .*can never be met"),
        (3, 1, "better or worse or equivalent, every verdict will be unresolved"),
        (6, 1, "p is 0.031, 0.031 after .*the rule can be met at alpha 0.05"),
        (6, 2, "6 seeds, 2 comparisons: .* 0.062 after .*can never be met"),
        (6, 2, "can be called better or worse.$"),
        (8, 6, "0.0078, 0.047 after .*can be met"),
        (8, 7, "0.0078, 0.055 after .*can never be met"),
        (1, 3, "1 seed, 3 comparisons: the smallest two-sided p is 1, 1 after"),
        (8, 0, "8 seeds, 0 comparisons: .*can never be met"),
    ],
)
def test_feasible_says_whether_any_outcome_could_count(seeds_n, comparisons_n, said):
    assert re.search(said, prereg.feasible(seeds_n, comparisons_n, 0.05))


def test_the_full_grid_holds_the_whole_family():
    plan, rule = forecast.study("h200"), prereg.read()
    full = plan | plan["full"]
    assert planned.members("h200", full, rule) == list(rule.family)
    assert len(full["seeds"]) == rule.seeds_n
    # what a family needs of a plan, taken away piece by piece
    short = [full | {"arms": ["1440", "positives-only"]}, full | {"arms": ["896", "1440"]}]
    short += [full | {"stage2_from": ["1440"]}, full | {"stage2_arms": ["as-written"]}]
    assert [len(planned.members("h200", grid, rule)) for grid in short] == [1, 3, 5, 5]


@pytest.mark.parametrize("profile", ["demo", "mini", "h200"])
def test_plans_are_told_by_grid(profile):
    told = planned.sentences(profile)
    assert [line.split(":")[0] for line in told] == [profile, f"{profile}, full grid"][: len(told)]
    assert len(told) == 1 + ("full" in forecast.study(profile))
