"""The committed results of the demo say what the study promises of them, and tables follow from records."""

import copy
import json
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest

from saistudy.__main__ import main
from saistudy.evaluation import cocoeval
from saistudy.paths import ROOT, Refusal
from saistudy.study import agreement, comparisons, forecast, front, prereg, tables
from saistudy.study.record import predicted, read_records
from saistudy.study.saved import read_frame

PROFILES = [p for p in ("demo", "mini", "h200") if agreement.read(p)]


@pytest.fixture(
    scope="module", params=PROFILES or [pytest.param("demo", marks=pytest.mark.skip("no commit"))]
)
def committed(request, tmp_path_factory):
    """A profile whose committed results stand in a scratch folder; SAISTUDY_RESULTS names it."""
    folder = tmp_path_factory.mktemp("committed")
    archive = subprocess.run(
        ["git", "-C", ROOT, "archive", "HEAD", "results"], capture_output=True, check=True
    )
    subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAISTUDY_RESULTS", str(folder / "results"))
        yield request.param, folder / "results" / request.param


def test_the_committed_table_follows_from_the_committed_records(committed):
    profile, folder = committed
    frame = tables.of(profile)
    text = frame.to_csv(index=False, float_format="%.6f", lineterminator="\n")
    assert text == (folder / "table.csv").read_text()
    assert tables.markdown(frame) == (folder / "table.md").read_text()


def test_every_committed_metric_recomputes_from_the_committed_predictions(committed):
    profile, _ = committed
    for record in read_records(profile):
        names = {int(key): value for key, value in record["data"]["names"].items()}
        frames = [read_frame(profile, record["run"], n) for n in ("truth", "images")]
        truth, images = (f[f["split"] == "test"].reset_index(drop=True) for f in frames)
        for model in {metric["model"] for metric in record["metrics"]}:
            found = predicted(profile, record["run"], model)
            mine = found[found["split"] == "test"].reset_index(drop=True)
            again = cocoeval.coco(truth, mine, images, names)
            kept = comparisons.metric(record, model)
            for key in ("ap50", "ap50_95", "ap_small", "images_n", "boxes_n"):
                assert kept[key] == pytest.approx(again[key], abs=1e-12), (record["run"], model, key)


def test_the_table_covers_arms_patiences_and_class_handlings(committed):
    profile, folder = committed
    table = pd.read_csv(folder / "table.csv")
    stage1 = table[table["stage"] == 1]
    assert set(table["profile"]) == {profile}
    plan = forecast.study(profile)
    trained = {r["params"]["arm"] for r in read_records(profile)}
    assert set(plan["arms"]) <= trained or profile == "h200"
    assert stage1["arm"].value_counts().to_dict() == dict.fromkeys(trained, 2) | {"896, other seeds": 1}
    handlings = set(table.loc[table["stage"] == 2, "handling"])
    assert {"named", "single_cls"} <= handlings <= {"named", "single_cls", "joint"}


def test_every_run_trained_at_the_tensor_that_its_arm_declares(committed):
    profile, _ = committed
    for record in read_records(profile):
        if record["notebook"] == "stage1":
            asked = (record["params"]["train"] | record["params"]["change"])["imgsz"]
            assert record["conditions"]["imgsz"] == (asked if isinstance(asked, list) else [asked] * 2)


def test_two_seeds_resolve_nothing(committed):
    _, folder = committed
    table = pd.read_csv(folder / "table.csv")
    few = table[(table["runs_n"] < 6) & table["verdict"].notna()]
    assert len(few) and set(few["verdict"]) == {"unresolved"}


def test_stage_two_starts_from_the_weights_of_stage_one(committed):
    profile, _ = committed
    records = {record["run"]: record for record in read_records(profile)}
    chained = [record for record in records.values() if record["notebook"] == "stage2"]
    assert chained
    for record in chained:
        parent = records[record["parent"]["run"]]
        longest = max(parent["stops"], key=lambda stop: stop["patience"])
        assert record["parent"]["sha256"] == longest["sha256"]
        assert record["parent"]["run_id"] == parent["run_id"]
        assert record["conditions"]["imgsz"] == parent["conditions"]["imgsz"]


def test_the_demo_learns_and_shows_both_ends_of_patience(committed):
    profile, folder = committed
    if profile != "demo":
        pytest.skip("a promise of the demo only")
    table = pd.read_csv(folder / "table.csv")
    grid = table[(table["stage"] == 1) & table["arm"].isin(forecast.study(profile)["arms"])]
    assert (grid.loc[grid["patience"] == grid["patience"].max(), "ap50"] > 0.05).all()
    stops = [
        s["stopped_early"] for r in read_records("demo") if r["notebook"] == "stage1" for s in r["stops"]
    ]
    assert any(stops) and not all(stops)
    assert set(table["provenance"]) == {"synthetic"}


def test_the_readme_shows_the_committed_tables(committed):
    profile, folder = committed
    readme = subprocess.run(
        ["git", "-C", ROOT, "show", "HEAD:README.md"], capture_output=True, text=True
    ).stdout
    assert ((folder / "table.md").read_text() in readme) == (profile in front.SHOWN)


def test_a_run_whose_size_was_cut_is_another_experiment(committed):
    records = read_records(committed[0])
    run = next(r for r in records if r["run"] == "1440-s1")
    run["attempts"] = {"": [{"step": {"key": "imgsz", "before": 1440, "after": 1056}}, {"step": None}]}
    run["conditions"]["imgsz"] = [1056, 1056]
    found = comparisons.cases(records, "896")
    cut = [case for case in found if case["arm"] == "1440, cut to 1056x1056"]
    assert len(cut) == len(run["params"]["patiences"]) and all(case["runs"] == [run] for case in cut)
    assert not any(comparisons.confirmatory(case, found[0], prereg.read()) for case in cut)
    whole = [case for case in found if case["arm"] == "1440"]
    assert whole and all(run not in case["runs"] for case in whole)


def test_two_seeds_that_saw_one_stream_are_no_replicates(committed):
    records = read_records(committed[0])
    arm = [r for r in records if r["notebook"] == "stage1" and r["params"]["arm"] == "896"]
    for number, record in enumerate(arm):
        record["telemetry"] = {"": {"first_batch": f"{number:016x}"}}
    comparisons.cases(records, "896")
    for record in arm:
        record["telemetry"] = {"": {"first_batch": "5b28eac59a3ecf6a"}}
    with pytest.raises(Refusal, match="896-s0 and 896-s1 began with the same batch under two seeds"):
        comparisons.cases(records, "896")


def _stage2(records: list[dict], **params) -> list[dict]:
    """Records of stage 2 as they would be under other parameters, joint and fire beside the rest."""
    meant = [r for r in records if r["notebook"] == "stage2" and comparisons.stage2_arm(r) == "as-meant"]
    found = copy.deepcopy(meant)
    for record in found:
        seed, second = record["params"]["seed"], params.get("stage2_arm")
        record["run"] = forecast.stage2_name("896", second, seed)
        kept = [("named", None, 0.2), ("single_cls", None, 0.1), ("joint", 0.4 + 0.2 * seed, 0.3)]
        record["retention"] = [{"model": m, "ap50_fire": f, "ap50_smoke": s} for m, f, s in kept]
        record["params"] |= params
        for part in ("metrics", "stops"):
            others = [m for m in record[part] if not m["model"].startswith("joint")]
            extra = [m | {"model": m["model"].replace("named", "joint")} for m in others]
            record[part] = others + [m for m in extra if m["model"].startswith("joint")]
    return found


@pytest.fixture
def with_arms(committed):
    """The committed records with both arms of stage 2 and three handlings, to be compared in memory."""
    records = read_records(committed[0])
    first = [r for r in records if r["notebook"] == "stage1"]
    meant = _stage2(records, stage2_arm="as-meant", handlings=["named", "single_cls", "joint"])
    change = {"change": {"optimizer": "auto"}, "handlings": ["named"], "question": "what then?"}
    return [*first, *_stage2(records, stage2_arm="as-written", **change), *meant]


def test_every_row_of_stage_2_is_compared_with_the_named_class_as_meant(with_arms):
    found = comparisons.cases(with_arms, "896")
    second = [case for case in found if case["stage"] == 2]
    rows = [(case["stage2_arm"], case["handling"]) for case in second]
    meant = [("as-meant", handling) for handling in ("named", "named", "single_cls", "joint")]
    assert rows == [*meant, ("as-written", "named")]
    longest, shorter, *others = (case["patience"] for case in second)
    assert shorter < longest and set(others) == {longest}
    assert all(comparisons.base_of(case, found, "896") is second[0] for case in second)
    family = [case for case in second if comparisons.confirmatory(case, second[0], prereg.read())]
    assert family == [second[2]]


def test_without_the_base_of_stage_2_there_is_no_comparison(with_arms):
    alone = [r for r in with_arms if r["params"].get("stage2_arm") != "as-meant"]
    found = comparisons.cases(alone, "896")
    with pytest.raises(Refusal, match="no record of stage 2 from 896 that is as-meant"):
        comparisons.base_of(found[-1], found, "896")


def test_the_table_says_what_each_row_of_stage_2_is_and_what_it_kept(
    with_arms, committed, tmp_path, monkeypatch
):
    profile, folder = committed
    shutil.copytree(folder, tmp_path / profile)
    for record in [r for r in with_arms if r["notebook"] == "stage2"]:
        run = tmp_path / profile / record["run"]
        shutil.copytree(folder / f"stage2-896-s{record['params']['seed']}", run, dirs_exist_ok=True)
        (run / "record.json").write_text(json.dumps(record))
        for path in (run / "predictions").glob("named-*"):
            shutil.copy(path, path.with_name(path.name.replace("named", "joint")))
    monkeypatch.setenv("SAISTUDY_RESULTS", str(tmp_path))
    frame = tables.of(profile)
    second = frame[frame["stage"] == 2]
    assert second["question"].tolist() == [
        "stage 2 with names {0: smoke}",
        "stage 2 with names {0: smoke}",
        "stage 2 with single_cls: True",
        "stage 2 with both classes, on FASDD's train images too",
        "stage 2 with names {0: smoke}; what then?",
    ]
    # the mean over seeds 0 and 1; what a shorter patience kept of stage 1 was not tested
    fire, smoke = (second[f"fasdd_ap50_{word}"].fillna(-1).tolist() for word in ("fire", "smoke"))
    assert fire == pytest.approx([-1, -1, -1, 0.5, -1]) and smoke == pytest.approx([0.2, -1, 0.1, 0.3, 0.2])
    # the last two are the named model itself; only single_cls is in the family
    assert second["delta"].tolist()[3:] == [0.0, 0.0]
    assert second["verdict"].isna().tolist() == [True, True, False, True, True]
    rows = [line.split(" | ") for line in tables.markdown(frame).splitlines()[-5:]]
    kept = tables.markdown(frame).splitlines()[2].split(" | ").index("FASDD AP50 fire / smoke")
    assert [row[kept] for row in rows] == ["- / 0.200", "-", "- / 0.100", "0.500 / 0.300", "- / 0.200"]
    assert [row[1] for row in rows] == ["stage 2 from 896"] * 4 + ["stage 2 as-written from 896"]
    assert [row[-4] for row in rows][3:] == ["n=2 not in the family"] * 2


def test_the_first_stage_shows_its_own_figures_by_class(committed):
    profile, _ = committed
    frame = tables.of(profile)
    first = frame[frame["stage"] == 1]
    both = first[["fasdd_ap50_fire", "fasdd_ap50_smoke"]].mean(axis=1)
    # AP50 is the mean over classes, so the mean of the two is the row's own
    assert both.tolist() == pytest.approx(first["ap50"].tolist(), abs=1e-9)


def _ap50(records: list[dict], run: str) -> float:
    """AP50 of a run at its longest patience, as its record says."""
    record = next(r for r in records if r["run"] == run)
    return comparisons.metric(record, f"patience-{comparisons.longest(record)}")["ap50"]


def test_the_noise_floor_is_one_seed_of_the_baseline_against_another(committed):
    profile, folder = committed
    table, records = pd.read_csv(folder / "table.csv"), read_records(profile)
    floor = table[table["arm"] == "896, other seeds"].iloc[0]
    assert floor["runs_n"] == 1 and pd.isna(floor["verdict"])
    assert floor["delta"] == pytest.approx(_ap50(records, "896-s1") - _ap50(records, "896-s0"), abs=1e-6)
    assert floor["delta_low"] < floor["delta_high"]
    assert "not in the family" in (folder / "table.md").read_text().split("the noise floor")[1].split("\n")[0]


@pytest.fixture
def again(committed, tmp_path, monkeypatch):
    """The committed results with one seed of the baseline once more, as the arm `again`."""
    profile, folder = committed
    shutil.copytree(folder, tmp_path / profile)
    for other in (tmp_path / profile).glob("again-s*"):
        shutil.rmtree(other)
    shutil.copytree(folder / "896-s0", tmp_path / profile / "again-s0")
    path = tmp_path / profile / "again-s0" / "record.json"
    record = json.loads(path.read_text())
    record["run"], record["params"]["arm"], record["params"]["change"] = "again-s0", "again", {}
    path.write_text(json.dumps(record))
    monkeypatch.setenv("SAISTUDY_RESULTS", str(tmp_path))
    return profile


def test_the_same_seed_once_more_has_a_row_outside_the_family(again):
    frame = tables.rows(again, resamples_n=20, bootstrap_seed=0)
    row = frame[frame["arm"] == "again"].iloc[0]
    assert (row["delta"], row["delta_low"], row["delta_high"], row["runs_n"]) == (0, 0, 0, 1)
    assert pd.isna(row["verdict"]) and row["holds_fixed"].startswith("pixels, scale, epochs")


def test_pairs_are_compared_with_each_other_where_both_were_run(again):
    wanted = [["1440x808", "1440"], ["1440x808", "again"], ["1440", "epochs-1000"]]
    frame, records = tables.pairs(again, wanted, resamples_n=20, bootstrap_seed=0), read_records(again)
    assert frame[["arm", "against"]].to_numpy().tolist() == wanted[:2]
    seeds = sorted({r["params"]["seed"] for r in records})
    by_seed = [_ap50(records, f"1440x808-s{s}") - _ap50(records, f"1440-s{s}") for s in seeds]
    once = _ap50(records, "1440x808-s0") - _ap50(records, "896-s0")
    assert frame["delta"].tolist() == pytest.approx([np.mean(by_seed), once])
    assert frame["seeds_n"].tolist() == [len(seeds), 1]
    assert "verdict" not in frame and (frame["delta_low"] < frame["delta_high"]).all()


@pytest.mark.parametrize(
    ("under", "said"), [("0" * 64, "under the rule 0{12}, but"), (None, "before records")]
)
def test_a_table_refuses_records_of_another_rule(again, tmp_path, under, said):
    path = tmp_path / again / "1440-s1" / "record.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"prereg_sha256": under}))
    for table in (tables.of, lambda profile: tables.pairs(profile, [], 20, 0)):
        with pytest.raises(Refusal, match=f"1440-s1 was made {said}"):
            table(again)


def test_without_a_record_the_command_still_says_what_the_plan_can_show(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SAISTUDY_RESULTS", str(tmp_path))
    assert main(["table", "h200"]) == 2
    told = capsys.readouterr()
    assert "h200: 3 of the 6 comparisons" in told.out and "h200, full grid: 6 of the 6" in told.out
    assert "no record of a training" in told.err
