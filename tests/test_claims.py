"""The ledger: its rows against the seeds, its verdicts against hand-computed values and perturbed claims."""

import csv
import importlib.util
import json
import math
import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saistudy.paths import PARAMS, ROOT, Refusal
from saistudy.study import claims, commands
from saistudy.study.ledger import published, quantities, recorded, rows
from saistudy.study.ledger.quantities import Finding

SHARED = ROOT.parent / "shared"
NUMBERS = re.compile(r"\d+(?:\.\d+)?")


@pytest.fixture(scope="module")
def ledger():
    return claims.read()


@pytest.fixture(scope="module")
def settled(ledger, tmp_path_factory):
    """Every verdict, with no record of an H200 at hand."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAISTUDY_RESULTS", str(tmp_path_factory.mktemp("results")))
        return {one.claim.id: one for one in claims.settle_all(ledger)}


@pytest.fixture(scope="module")
def shared():
    """The 219 claims as another session collected them."""
    path = SHARED / "claims.csv"
    if not path.is_file():
        pytest.skip(f"no list of claims to compare with ({path})")
    return {row["id"]: row for row in csv.DictReader(path.open(encoding="utf-8"))}


@pytest.fixture(scope="module")
def seeds():
    """The seeds' lines by the number that begins their name."""
    texts = {path.name[:3]: path.read_text() for path in sorted((SHARED / "seeds").glob("*.txt"))}
    if not texts:
        pytest.skip(f"no seeds to compare with ({SHARED / 'seeds'})")
    return texts


def stated(ledger):
    return {name: claim for name, claim in ledger.items() if not claim.contradiction}


def test_there_are_219_claims_and_30_contradictions(ledger):
    assert len(stated(ledger)) == 219
    assert {name for name, claim in ledger.items() if claim.contradiction} == {f"K{n}" for n in range(1, 31)}
    by_seed = pd.Series([claim.seed for claim in stated(ledger).values()]).value_counts().to_dict()
    assert by_seed == {"000": 96, "001": 37, "002": 36, "003": 16, "004": 26, "repo": 8}


RELINED = {"C05": "386", "E15": "168"}  # the collected list has the line above, or one without FP16


def test_ids_seeds_and_lines_are_those_of_the_collected_list(ledger, shared):
    assert list(stated(ledger)) == list(shared)
    for name, row in shared.items():
        assert ledger[name].line == RELINED.get(name, row["line"]), name
        assert ledger[name].seed in (row["seed"][:3], "repo"), name


def test_quantities_are_those_of_the_collected_list(ledger, shared):
    for name, row in shared.items():
        theirs, ours = row["quantity"].replace(",", ""), ledger[name].quantity
        if theirs not in ("-", "boolean", "header") and NUMBERS.search(theirs) and name not in ("A19",):
            assert NUMBERS.findall(ours) == NUMBERS.findall(theirs), name
        elif theirs.casefold() in ("true", "false"):
            assert ours == theirs.casefold(), name


def test_no_claim_is_a_copied_sentence(ledger, shared, seeds):
    theirs = {row["claim_en"].casefold().strip(".") for row in shared.values()}
    text = "\n".join(seeds.values()).casefold()
    for claim in ledger.values():
        told = claim.claim.casefold()
        assert told not in theirs and (len(told) < 25 or told not in text), claim.id


def test_every_line_is_there_in_its_seed(ledger, seeds):
    for claim in ledger.values():
        if claim.seed != "repo":
            lines = seeds[claim.seed].split("\n")
            for number in NUMBERS.findall(claim.line):
                assert lines[int(number) - 1].strip(), f"{claim.id}, L{number}"


# said in words (no, none, the same), in other figures (1h 23min, a root, two classes) or over more lines
SPREAD = "A37 A69 B27 B28 B29 B36 C07 C28 C32 C35 C36 E14 E22 E24"


def test_the_seed_says_the_number_on_the_line(ledger, seeds):
    """A claim's figures stand on its line or within two of it, but for those of SPREAD."""
    missing = []
    for claim in stated(ledger).values():
        if claim.seed != "repo" and claim.relation in ("equals", "at least", "at most"):
            at = int(claim.line)
            lines = seeds[claim.seed].split("\n")[max(at - 3, 0) : at + 2]
            text = "\n".join(lines).replace(",", "").replace("0px", "0 px")
            figures = [float(number) for number in NUMBERS.findall(text)]
            if not all(float(n) in figures for n in NUMBERS.findall(claim.quantity)):
                missing.append(claim.id)
    assert set(missing) == set(SPREAD.split())


def test_every_verdict_is_of_the_five(settled):
    assert {one.verdict for one in settled.values()} <= set(claims.VERDICTS)


def test_about_half_have_their_verdict_without_a_gpu(settled):
    table = claims.table(list(settled.values()))
    assert 0.4 < table["verdict"].isin(claims.SETTLED).mean() < 0.6
    assert not any(one.source == recorded.SOURCE for one in settled.values())


def test_an_open_claim_says_what_would_settle_it_and_a_settled_one_its_evidence(settled):
    for row in claims.table(list(settled.values())).to_dict("records"):
        settled_row = row["verdict"] in claims.SETTLED
        assert bool(row["evidence"]) == bool(row["value"]) == settled_row, row["id"]
        assert row["conditions"], row["id"]


COMMAND = re.compile(r"python -m saistudy .*?(?=$|, or | \()|make study PROFILE=h200( FULL=1)?")
ARMS = ("epochs-110", "epochs-238", "positives-only", "1440x808")
FILES = {"table.csv", "epochs.csv", "patience.csv", "sizes.csv"}


def test_what_would_settle_a_claim_is_a_command_that_exists_or_is_called_planned(ledger):
    """Subcommands, arms, notebooks, parameters and files that `needs` names, against the repository."""
    parser = commands.parser()
    arms = {path.stem for path in (PARAMS / "h200" / "arms").glob("*.yaml")}
    for claim in ledger.values():
        if not claim.needs or claim.needs.startswith((rows.UNMEASURABLE, "planned")):
            continue
        command = COMMAND.search(claim.needs)
        assert command, claim.id
        if command[0].startswith("python"):
            words = shlex.split(command[0].removeprefix("python -m saistudy "))
            told = parser.parse_args(words)
            assert all((ROOT / file).is_file() for file in getattr(told, "file", None) or []), claim.id
        assert set(re.findall(r"[a-z]+\.csv", claim.needs)) <= FILES, claim.id
        assert {arm for arm in ARMS if arm in claim.needs} <= arms, claim.id


def test_what_is_planned_is_not_there_yet(ledger):
    notebooks = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    for claim in ledger.values():
        if told := re.match(r"planned.*: the notebook ([a-z-]+)", claim.needs):
            assert told[1] not in notebooks, claim.id
        if told := re.search(r"saistudy run ([a-z-]+) ", claim.needs):
            assert told[1] in notebooks, claim.id


def test_the_compiler_of_the_pinned_torch_asks_for_what_is_said():
    source = importlib.util.find_spec("torch").submodule_search_locations[0]
    text = (Path(source) / "_inductor" / "exc.py").read_text()
    assert published.REQUIREMENTS["compile"][0] == "CUDA capability 7.0 or more"
    assert "only supports devices of CUDA Capability >= 7.0" in text


def test_a_number_that_a_reason_names_is_computed(ledger):
    """C12 and C26 are no verdicts; the figures of their reasons come from the network and from the replay."""
    from saistudy.training import described, patience

    megabytes = described.sizes()["checkpoint_bytes"] / 1e6
    assert f"{megabytes:.1f} MB" in ledger["C12"].needs
    best_at_25 = [0.4389 - 0.001 * abs(epoch - 25) for epoch in range(1, 101)]
    assert patience.replay(best_at_25, 15, 100).stop_epoch == 40
    assert "ends at epoch 40" in ledger["C26"].needs


def test_no_accuracy_memory_or_rate_of_a_gpu_is_settled_without_its_record(settled):
    """Typed from the list: what a GPU has to measure is open or contradicted, never held or failed."""
    gpu = "A02 A03 A04 A05 A06 A07 A10 A11 A12 A13 A15 A16 A20 A22 A23 A24 A33 A34 A36 A74 A75 A78 A79 A80"
    gpu += " A82 A83 A91 A92 B01 B02 B03 B05 B11 B15 B16 B27 C18 C19 C33 E06 E07 E08 E09 X01 X02 X03 X08"
    for name in gpu.split():
        assert settled[name].verdict not in (claims.HOLDS, claims.FAILS), name


# Expected by hand, a row at least for each check: counts and shapes from the literature, arithmetic on paper.
EXPECTED = {
    "A01": "2025-08-24",  # companion_date: the companion document's second line
    "A03": 56.6,  # said_elsewhere: L172
    "A08": 82.142857,  # percent_of: 115 / 140
    "A09": 8,  # workers
    "A19": "[1440,1440]",  # tensor
    "A30": 110.0,  # table_epochs
    "A35": 26_133,  # images_without_boxes: the archive's list
    "A37": 2,  # classes
    "A44": 0.001,  # acts: 0.0005 x 128 / 64
    "A49": 0.15,  # midpoint
    "A50": 0.0,  # copy_paste
    "A55": 3,  # save_step
    "A57": True,  # single_class
    "A58": 0.01,  # chosen_rate: MuSGD
    "A65": 12.326081298 * 37_413 / 95_314,  # archive_gb
    "A66": 37_416,  # listed_lines: the total, . and ..
    "A67": 8_368 + 15_610 + 13_435,  # images_with_boxes
    "A70": "/dev/shm/sai_cache/train",  # label_folder: no images/ in the path
    "A72": "train val",  # splits_in_memory
    "A78": 110 * 293 / 2.33 / 3600,  # stage_hours: 37,413 / 128 = 292.3
    "K14": 100 * 9 / 21,  # share_saved
    "A81": 100 * 9 / 21,  # reduction: from the companion's 21 hours to 12
    "A90": 75.0,  # share_followed: three of four
    "B04": "1.6 or later",  # requirement
    "B17": 125 / 150,  # ratio
    "B19": 75.0,  # product
    "B20": (2.5, 3.0),  # epoch_rate
    "B21": 1.25,  # reduced
    "B22": (0.833 * 3 * 1.2 * 1.3, 3 * 1.2 * 1.3),  # combined_speedup
    "B26": "bfloat16",  # cpu_autocast
    "B28": 1,  # checkpoint_updates
    "B31": 1.0,  # clipped_norm: by the definition of clipping
    "B32": (0.9, 0.999),  # adamw_betas
    "C05": 1978.9,  # h100
    "C07": 1.0,  # linear_rule
    "C08": 6**0.5,  # root_of_ratio
    "C10": "(384,100,288)->(384,100,512)->(384,100,4)",  # described_shapes
    "C11": 288.0,  # total
    "C13": 2.811204,  # described_network
    "C17": 0.008 + 0.044 + 3 + 1,  # sum_of_parts
    "C24": 100 * 0.0057 / 0.4332,  # gain_percent
    "C29": "CPU",  # cheapest
    "C32": (0.0004 / 3, 0.0008 / 3, 0.0004),  # warmup_rates
    "D06": 0.8656,  # difference
    "D12": 0.0,  # reported
    "E01": 3.1572,  # parameters: Ultralytics' own table says 3.2 M
    "E10": True,  # cpu_step
    "E16": (0.015, 0.7, 0.4),  # hsv
    "E17": 0.5,  # scale
    "E18": True,  # cached
    "E19": 10,  # epochs_without_mosaic
    "E20": True,  # best_by_map
    "E25": True,  # default
    "X04": 0.0,  # benchmark_difference
    "X06": 5 + 43 / 60,  # commit_hours
    "K11": (110 * 293 + 60 * 231) / 2.33 / 3600,  # total_hours
    "K13": 2.33 * (896 / 1440) ** 2,  # scaled_by_pixels
    "K16": (37_413, 56_115),  # splits_with_boxes
    "K19": 12.326081298 + 3 * (12 * 4 + 1) * 128 * 3 * 896**2 / 1e9,  # images_and_loader_gb
    "K29": "MuSGD",  # chosen_optimizer
}
LOOSE = {"E16": 0.02}  # eight bits of hue, saturation and value


def close(found, expected, tolerance=1e-5):
    if isinstance(expected, tuple):
        return len(found) == len(expected) and all(map(close, found, expected, [tolerance] * len(found)))
    if isinstance(expected, int | float) and not isinstance(expected, bool):
        return math.isclose(found, expected, rel_tol=tolerance, abs_tol=tolerance)
    return found == expected


@pytest.mark.parametrize("name", EXPECTED)
def test_a_check_finds_what_the_hand_computed(settled, name):
    assert close(settled[name].found.value, EXPECTED[name], LOOSE.get(name, 1e-5)), settled[name].found


def test_the_header_of_results_csv_is_read(settled):
    """Names as in Ultralytics' documentation of results.csv."""
    header = settled["E21"].found.value.split(", ")
    assert header[:2] == ["epoch", "time"] and "metrics/mAP50-95(B)" in header and "val/dfl_loss" in header


def test_every_check_has_an_expectation_by_hand(ledger):
    """Those that read records of a GPU have theirs further below, and in test_speeds.py."""
    measured = {name for name, source in claims.SOURCES.items() if source == recorded.SOURCE}
    covered = {name for row in [*EXPECTED, "E21"] for name in ledger[row].checks} - measured
    assert covered == set(claims.CHECKS) - measured


FIRM = "A19 A44 A50 A58 A65 A66 A70 A81 B04 B06 B12 B26 B28 C05 C07 C13 C15 C16 E21 X06"
HELD = "A08 A39 A49 A67 A68 B17 B19 C02 C08 C14 C24 D06 E01 E02 E03 E04 E05 E17 E19 E20"


@pytest.mark.parametrize(("names", "verdict"), [(FIRM, claims.FAILS), (HELD, claims.HOLDS)])
def test_verdicts_known_from_the_literature_and_the_shared_facts(settled, names, verdict):
    assert {name for name in names.split() if settled[name].verdict != verdict} == set()


def parts(one):
    """The parts of a claimed quantity, and of what was found, with its bounds: (text, value, low, high)."""
    found = one.found
    values = found.value if isinstance(found.value, tuple) else (found.value,)
    pairs = zip(one.claim.quantity.split("/"), values, strict=True)
    low, high = found.low, found.high
    return [(text, x, x if low is None else low, x if high is None else high) for text, x in pairs]


def moves(one):
    """Other quantities for a settled claim, each with whether the verdict has to flip.

    Every part of a quantity is moved alone, just outside of what was found, below it and above it. A
    one-sided relation has to flip on its side and to stay on the other. What fails has to hold at what was
    found, and to go on failing further away from it.
    """
    claim, holds = one.claim, one.verdict == claims.HOLDS
    if claim.relation in quantities.TEXTUAL:
        told = quantities.written(one.found.value)
        other = f"{told} 1" if claim.relation == "other than" else told
        yield (f"not {claim.quantity}" if holds else other), True
        return
    told = parts(one)
    for i, (text, value, low, high) in enumerate(told):
        if value is None:
            continue
        step = max(2 * quantities.half_step(text), 2 * claim.tolerance * abs(float(text)))
        at = [(low - step, True), (high + step, True)] if holds else []
        if claim.relation in ("at least", "at most"):
            up = claim.relation == "at least"  # a larger demand is the one that is missed
            outside, inside = (value + step, value - step) if up else (value - step, value + step)
            at = [(outside, True), (inside, False)] if holds else [(outside, False)]
        elif not holds and len(told) == 1:
            away = float(text) + step if float(text) > high else float(text) - step
            at = [(away, False)]
        for number, flips in at:
            moved = [f"{number:.9f}" if j == i else part for j, (part, *_) in enumerate(told)]
            yield "/".join(moved), flips
    if not holds:
        yield "/".join(text if value is None else f"{value:.9f}" for text, value, *_ in told), True


def settled_claims(settled):
    return [one for one in settled.values() if not one.claim.contradiction and one.verdict in claims.SETTLED]


def misjudged(settled):
    """Moves after which a verdict flips that should stay or stays that should flip, and how many moves."""
    wrong, n = [], 0
    for one in settled_claims(settled):
        for quantity, flips in moves(one):
            after = claims.verdict(replace(one.claim, quantity=quantity), one.found)
            wrong += [(one.claim.id, quantity, after)] if (after != one.verdict) != flips else []
            n += 1
    return wrong, n


def test_a_perturbed_quantity_flips_the_verdict_in_every_direction_that_should(settled):
    wrong, moved_n = misjudged(settled)
    assert moved_n > len(settled_claims(settled))
    names = {name for name, *_ in wrong}
    assert len(names) <= 0.05 * len(settled_claims(settled)), wrong


@pytest.mark.parametrize("blind", [True, False])
def test_the_perturbation_finds_a_comparison_that_ignores_the_quantity(settled, monkeypatch, blind):
    monkeypatch.setattr(quantities, "agrees", lambda *_: blind)
    wrong, moved_n = misjudged(settled)
    assert len({name for name, *_ in wrong}) > 0.3 * len(settled_claims(settled))


def reads_its_own_quantity(settled, ledger):
    """Claims whose checks find something else, or the same verdict, once another quantity is claimed."""
    found = []
    for one in settled_claims(settled):
        quantity = next(quantity for quantity, flips in moves(one) if flips)
        claim = replace(one.claim, quantity=quantity)
        again = claims.settle(claim, ledger | {claim.id: claim})
        if again.found.value != one.found.value or again.verdict == one.verdict:
            found.append(claim.id)
    return found


def test_no_check_reads_the_quantity_that_is_claimed(settled, ledger, tmp_path, monkeypatch):
    """Every settled claim is settled again, by its own checks, with another quantity."""
    monkeypatch.setenv("SAISTUDY_RESULTS", str(tmp_path))
    assert reads_its_own_quantity(settled, ledger) == []
    monkeypatch.setitem(claims.CHECKS, "total", lambda claim, _: Finding(float(claim.quantity), ""))
    only = {name: settled[name] for name in ("C11", "C14")}
    assert reads_its_own_quantity(only, ledger) == ["C11"]


def test_a_contradiction_is_one_while_its_sayings_differ(ledger):
    for claim in (claim for claim in ledger.values() if claim.contradiction):
        assert claims.verdict(claim, None) == claims.CONTRADICTED, claim.id
        first = claim.quantity.split("|")[0]
        assert claims.verdict(replace(claim, quantity=f"{first}|{first}"), None) == claims.HOLDS


def test_figures_of_a_contradiction_are_said_by_its_claims_or_follow_from_them(settled, ledger):
    """Each number stands in a row that the contradiction names, or is what its check computes."""
    for claim in (claim for claim in ledger.values() if claim.contradiction):
        parties = [ledger[name] for name in claim.against]
        told = " ".join(" ".join([row.quantity, row.claim, *row.said.values()]) for row in parties)
        known = {float(number) for number in NUMBERS.findall(told)}
        found = settled[claim.id].found
        known |= {x for x in np.atleast_1d(found.value if found else ()) if not isinstance(x, str)}
        for figure in claim.quantity.split("|"):
            if quantities.number(figure) is not None:
                digits = len(figure.partition(".")[2])
                assert any(round(float(x), digits) == float(figure) for x in known), (claim.id, figure)


def test_what_only_contradicts_never_confirms(settled):
    for one in settled.values():
        if one.found and (one.found.within or one.found.refutes) and not one.claim.contradiction:
            assert one.verdict != claims.HOLDS, one.claim.id
            assert one.claim.needs, f"{one.claim.id} would be left without a word on what settles it"


@given(st.floats(0.001, 1e6), st.integers(0, 6))
def test_a_number_equals_itself_rounded_and_not_two_steps_off(value, digits):
    step = 10.0**-digits
    rounded = round(value, digits)
    found = Finding(value, "")
    assert quantities.agrees("equals", f"{rounded:.{digits}f}", found)
    assert not quantities.agrees("equals", f"{rounded + 2 * step:.{digits}f}", found)


@pytest.mark.parametrize(
    ("relation", "quantity", "value", "agrees"),
    [
        ("about", "11", 10.0, True),
        ("about", "12", 10.0, False),
        ("at least", "300", 1998.78, True),
        ("at least", "85", 0.0, False),
        ("at most", "25", 0.14, True),
        ("at most", "0", 1, False),
        ("between", "2-3", 2.5, True),
        ("between", "2-3", 3.1, False),
        ("is", "true", True, True),
        ("is", "true", False, False),
        ("other than", "0.9/0.999", (0.9, 0.999), False),
        ("equals", "2.5/3", (2.5, 3.0), True),
        ("equals", "2.5/3", (2.5, 4.0), False),
        ("equals", "34/125", (34.0, None), True),
        ("equals", "34", (34.0, 1.0), False),
    ],
)
def test_a_relation_compares_as_it_is_named(relation, quantity, value, agrees):
    assert quantities.agrees(relation, quantity, Finding(value, ""), tolerance=0.1) is agrees


def test_bounds_hold_what_lies_between_them():
    found = Finding(5.0, "", low=4.0, high=math.inf)
    assert quantities.agrees("equals", "900", found) and not quantities.agrees("equals", "3", found)


GOOD = ["A01", "000", "3", "said", "1", "", "equals", "", "classes", "", "", ""]


def write_rows(path, *lines):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([rows.COLUMNS, *lines])
    return path


@pytest.mark.parametrize(
    ("column", "text", "sentence"),
    [
        ("check", "divine", "no check divine"),
        ("relation", "looks like", "relation is 'looks like'"),
        ("quantity", "many", "'many' cannot be compared by 'equals'"),
        ("seed", "005", "seed is '005'"),
        ("id", "Q1", "id 'Q1'"),
        ("tolerance", "some", "tolerance is 'some'"),
        ("against", "A99", "A99"),
        ("check", "", "needs a word on what would settle it"),
        ("claim", "", "line or claim is empty"),
    ],
)
def test_a_bad_row_is_refused_with_one_sentence(tmp_path, column, text, sentence):
    row = dict(zip(rows.COLUMNS, GOOD, strict=True)) | {column: text}
    with pytest.raises(Refusal, match=re.escape(sentence)) as refusal:
        rows.read(claims.CHECKS, write_rows(tmp_path / "claims.csv", list(row.values())))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [([GOOD, GOOD], "twice"), ([GOOD[:-1]], "12 columns"), ([[*GOOD, "more"]], "12 columns")],
)
def test_a_repeated_id_and_a_torn_row_are_refused(tmp_path, lines, sentence):
    with pytest.raises(Refusal, match=sentence):
        rows.read(claims.CHECKS, write_rows(tmp_path / "claims.csv", *lines))


def test_other_columns_are_refused(tmp_path):
    path = tmp_path / "claims.csv"
    path.write_text("id,claim\nA01,said\n")
    with pytest.raises(Refusal, match="columns"):
        rows.read(claims.CHECKS, path)


def bench(root, gpu):
    """A bench as `bench training --json` prints it: 60 GiB and 256 images/s at 896, 120 and 128 at 1440."""
    measured = [("896", 60.0, 256.0), ("1440", 120.0, 128.0)]
    told = [
        {"arm": arm, "batch": 128, "gpu_reserved_gib": gib, "images_per_s": rate, "note": ""}
        for arm, gib, rate in measured
    ]
    (root / "h200-bench").mkdir(parents=True, exist_ok=True)
    whole = {"rows": told, "environment": {"gpus": [{"name": gpu}] if gpu else None}}
    (root / "h200-bench" / "training.json").write_text(json.dumps(whole))


def test_a_bench_of_an_h200_settles_memory_and_rate(ledger, tmp_path, monkeypatch):
    monkeypatch.setenv("SAISTUDY_RESULTS", str(tmp_path))
    bench(tmp_path, "NVIDIA H200")
    found = {name: claims.settle(ledger[name], ledger) for name in ("A03", "A06", "A07", "A13", "A15")}
    assert found["A06"].found.value == pytest.approx(60 * 1.073741824)  # GiB to GB
    assert found["A13"].found.value == 2.0 and found["A15"].found.value == 1.0  # 256 and 128 images/s of 128
    assert found["A07"].found.value == pytest.approx(120 * 1.073741824)  # 12 % above the 115 that are said
    verdicts = {name: one.verdict for name, one in found.items()}
    assert verdicts == {
        **{"A03": claims.FAILS, "A06": claims.FAILS, "A07": claims.FAILS},
        **{"A13": claims.FAILS, "A15": claims.HOLDS},
    }


@pytest.mark.parametrize("gpu", [None, "NVIDIA A100"])
def test_a_bench_of_another_machine_settles_nothing(ledger, tmp_path, monkeypatch, gpu):
    monkeypatch.setenv("SAISTUDY_RESULTS", str(tmp_path))
    bench(tmp_path, gpu)
    assert claims.settle(ledger["A06"], ledger).source != recorded.SOURCE


def run(
    root,
    profile,
    seed,
    ap50,
    notebook="stage1",
    model="patience-30",
    provenance="published-format",
    more=None,
):
    name = f"{'stage2-' if notebook == 'stage2' else ''}896-s{seed}"
    folder = root / profile / name
    folder.mkdir(parents=True)
    metrics = [{"model": model, "subset": "published", "ap50": ap50}]
    params = {"arm": "896", "patiences": [10, 30 if notebook == "stage1" else 20]}
    told = {"run": name, "notebook": notebook, "profile": profile, "params": params, "metrics": metrics}
    told |= {"data": {"provenance": provenance}} | (more or {})
    (folder / "record.json").write_text(json.dumps(told))


@pytest.mark.parametrize(("gpu", "source"), [("NVIDIA H200", True), ("NVIDIA A100", False)])
def test_a_training_on_an_h200_settles_memory_and_rate_too(ledger, tmp_path, monkeypatch, gpu, source):
    """On whatever images, which the conditions name: neither rests on what is in them."""
    monkeypatch.setenv("SAISTUDY_RESULTS", str(tmp_path))
    seen = {"gpu_reserved_gib": 100.0, "images_per_s": 96.0}
    more = {"environment": {"gpus": [{"name": gpu}]}, "telemetry": {"": seen}}
    more |= {"conditions": {"imgsz": [1440, 1440], "batch": 96}}
    run(tmp_path, "h200", 0, 0.5, provenance="synthetic", more=more)
    one = claims.settle(ledger["A05"], ledger)
    assert (one.source == recorded.SOURCE) == source
    if source:
        assert one.found.value == pytest.approx(107.3741824) and one.verdict == claims.HOLDS
        assert "synthetic" in one.found.conditions
    assert claims.settle(ledger["A07"], ledger).found is None  # another batch


def test_figures_of_the_original_on_other_images_stay_open(ledger, tmp_path, monkeypatch):
    """It tested stage 1 on images with boxes alone, this study on all: one is no verdict on the other."""
    monkeypatch.setenv("SAISTUDY_RESULTS", str(tmp_path))
    params = {"params": {"arm": "positives-only", "patiences": [10, 30]}}
    run(tmp_path, "h200", 0, 0.9057, more=params)
    assert [claims.settle(ledger[name], ledger).verdict for name in ("X01", "X02")] == [claims.UNMEASURED] * 2


def test_accuracy_is_settled_by_records_of_the_h200_alone(ledger, tmp_path, monkeypatch):
    monkeypatch.setenv("SAISTUDY_RESULTS", str(tmp_path))
    run(tmp_path, "mini", 0, 0.99)
    run(tmp_path, "demo", 0, 0.99)
    run(tmp_path, "h200", 7, 0.99, provenance="synthetic")
    assert claims.settle(ledger["A91"], ledger).verdict == claims.UNMEASURED
    run(tmp_path, "h200", 0, 0.40)
    run(tmp_path, "h200", 1, 0.50)
    run(tmp_path, "h200", 0, 0.90, "stage2", "single_cls-patience-20")
    stage1, stage2 = (claims.settle(ledger[name], ledger) for name in ("A91", "A92"))
    assert stage1.found.value == pytest.approx(45.0) and stage1.verdict == claims.FAILS
    assert stage2.found.value == pytest.approx(90.0) and stage2.verdict == claims.HOLDS


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [("better", claims.FAILS), ("worse", claims.HOLDS), ("unresolved", claims.CONTRADICTED)],
)
def test_the_better_size_is_that_of_the_table(ledger, tmp_path, monkeypatch, verdict, expected):
    monkeypatch.setenv("SAISTUDY_RESULTS", str(tmp_path))
    (tmp_path / "h200").mkdir()
    told = {"stage": [1, 1], "arm": ["1440", "1440"], "patience": [10, 30], "verdict": [None, verdict]}
    told["provenance"] = "published-format"
    path = tmp_path / "h200" / "table.csv"
    pd.DataFrame(told).to_csv(path, index=False)
    assert claims.settle(ledger["A23"], ledger).verdict == expected  # the claim says 896
    pd.DataFrame(told | {"provenance": "synthetic"}).to_csv(path, index=False)
    assert claims.settle(ledger["A23"], ledger).verdict == claims.CONTRADICTED


def test_what_is_written_is_whole_and_the_same_bytes_twice(settled, tmp_path, monkeypatch):
    monkeypatch.setenv("SAISTUDY_RESULTS", str(tmp_path / "results"))
    every = list(settled.values())
    claims.write(every, "demo")
    paths = [tmp_path / "results" / name for name in ("claims.csv", "claims.md")]
    first = [path.read_bytes() for path in paths]
    claims.write(every, "mini")
    assert [path.read_bytes() for path in paths] == first
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == ["claims.csv", "claims.md"]
    frame = pd.read_csv(paths[0], dtype=str, keep_default_na=False)
    columns = "id seed line claim quantity verdict value low high conditions evidence"
    assert list(frame) == columns.split() and len(frame) == 219
    page = first[1].decode()
    assert f"{sum(frame['verdict'].isin(claims.SETTLED))} of 219 claims have their verdict" in page
    assert page.index("## How many") < page.index("## What fails") < page.index("## Seed 000")
    failing = [one.claim for one in every if one.verdict == claims.FAILS]
    assert all(f"\n- {claim.id}: {claim.claim}. Found: " in page for claim in failing)
    assert max(map(len, page.split("\n"))) < 700  # a row of a table is a paragraph at most
    for name in (*frame["id"], *[f"K{n}" for n in range(1, 31)]):
        assert page.count(f"\n| {name} |") == 1, name
    lengths = {len(re.split(r"(?<!\\)\|", line)) for line in page.split("\n") if line.startswith("| A")}
    assert len(lengths) == 1  # no bar in a cell breaks the table


def test_the_summary_counts_every_claim_once(settled):
    table = claims.table(list(settled.values()))
    counts = claims.summary(table)
    assert counts.loc["all", "claims"] == 219 == counts.drop(index="all")["claims"].sum()
    assert list(counts) == [*claims.VERDICTS, "claims"]
    by_verdict = table["verdict"].value_counts().to_dict()
    assert {name: counts.loc["all", name] for name in by_verdict} == by_verdict


def test_the_inputs_are_named_without_this_clone_and_change_with_a_record(tmp_path, monkeypatch):
    monkeypatch.setenv("SAISTUDY_RESULTS", str(tmp_path))
    before = rows.inputs()
    assert {"params/claims.csv", "h200/stage1.yaml", "arms/as-printed.yaml"} <= before.keys()
    assert all(name.count("/") == 1 for name in before)
    run(tmp_path, "h200", 0, 0.5)
    bench(tmp_path, None)
    assert rows.inputs().keys() - before.keys() == {"896-s0/record.json", "h200-bench/training.json"}
