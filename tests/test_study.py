"""The committed results of the demo say what the study promises of them, and tables follow from records."""

import copy
import json
import shutil
import subprocess

import pandas as pd
import pytest

from saistudy import params
from saistudy.evaluation import cocoeval
from saistudy.paths import PARAMS, ROOT, Refusal
from saistudy.study import agreement, comparisons, forecast, tables
from saistudy.study.record import read_frame, read_records

PROFILES = [p for p in ("demo", "mini", "h200") if agreement.committed(p)]


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
        frames = [read_frame(profile, record["run"], n) for n in ("truth", "predictions", "images")]
        truth, predictions, images = (f[f["split"] == "test"].reset_index(drop=True) for f in frames)
        for model in {metric["model"] for metric in record["metrics"]}:
            mine = predictions[predictions["model"] == model].reset_index(drop=True)
            again = cocoeval.coco(truth, mine, images, names)
            kept = comparisons.metric(record, model)
            for key in ("ap50", "ap50_95", "ap_small", "images_n", "boxes_n"):
                assert kept[key] == pytest.approx(again[key], abs=1e-12), (record["run"], model, key)


def test_the_table_covers_arms_patiences_and_class_handlings(committed):
    profile, folder = committed
    table = pd.read_csv(folder / "table.csv")
    stage1 = table[table["stage"] == 1]
    assert set(table["profile"]) == {profile}
    assert {"896", "1440", "1440x808", "1184x672"} >= set(stage1["arm"]) or profile == "h200"
    assert all(len(rows) == 2 for _, rows in stage1.groupby("arm"))
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
    longest = table[(table["stage"] == 1) & (table["patience"] == table["patience"].max())]
    assert (longest["ap50"] > 0.05).all()
    stops = [
        s["stopped_early"] for r in read_records("demo") if r["notebook"] == "stage1" for s in r["stops"]
    ]
    assert any(stops) and not all(stops)
    assert set(table["provenance"]) == {"synthetic"}


def test_the_readme_shows_the_committed_tables(committed):
    _, folder = committed
    readme = subprocess.run(
        ["git", "-C", ROOT, "show", "HEAD:README.md"], capture_output=True, text=True
    ).stdout
    assert (folder / "table.md").read_text() in readme


def test_a_run_whose_size_was_cut_is_another_experiment(committed):
    records = read_records(committed[0])
    run = next(r for r in records if r["run"] == "1440-s1")
    run["attempts"] = {"": [{"step": {"key": "imgsz", "before": 1440, "after": 1056}}, {"step": None}]}
    run["conditions"]["imgsz"] = [1056, 1056]
    found = comparisons.cases(records, "896")
    cut = [case for case in found if case["arm"] == "1440, cut to 1056x1056"]
    assert len(cut) == len(run["params"]["patiences"]) and all(case["runs"] == [run] for case in cut)
    assert not any(comparisons.confirmatory(case, found[0], "896") for case in cut)
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
    meant = [("as-meant", handling) for handling in ("named", "single_cls", "joint")]
    assert rows == [*meant, ("as-written", "named")]
    assert all(comparisons.base_of(case, found, "896") is second[0] for case in second)
    family = [case for case in second if comparisons.confirmatory(case, second[0], "896")]
    assert family == [second[1]]


def test_the_preregistered_family_of_the_study_has_six_comparisons():
    """Arms, patiences and handlings as the full grid of h200 runs them."""
    plan = forecast.study("h200")
    grid, handlings = plan["full"]["arms"], ["named", "single_cls", "joint"]
    found = [{"stage": 1, "arm": arm, "patience": p} for arm in grid for p in (30, 10)]
    found += [{"stage": 2, "arm": "896", "stage2_arm": "as-meant", "handling": h} for h in handlings]
    found += [{"stage": 2, "arm": "896", "stage2_arm": "as-written", "handling": "named"}]
    bases = [comparisons.base_of(case, found, "896") for case in found]
    pairs = zip(found, bases, strict=True)
    assert sum(comparisons.confirmatory(case, base, "896") for case, base in pairs) == 6


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
        frame = pd.read_parquet(run / "predictions.parquet")
        named = frame[frame["model"].str.startswith("named")]
        joint = named.assign(model=named["model"].str.replace("named", "joint"))
        others = frame[~frame["model"].str.startswith("joint")]
        pd.concat([others, joint]).to_parquet(run / "predictions.parquet", index=False)
    monkeypatch.setenv("SAISTUDY_RESULTS", str(tmp_path))
    frame = tables.of(profile)
    second = frame[frame["stage"] == 2]
    assert second["question"].tolist() == [
        "stage 2 with names {0: smoke}",
        "stage 2 with single_cls: True",
        "stage 2 with both classes, on FASDD's train images too",
        "stage 2 with names {0: smoke}; what then?",
    ]
    # the mean over seeds 0 and 1
    assert second["fasdd_ap50_fire"].fillna(-1).tolist() == pytest.approx([-1, -1, 0.5, -1])
    assert second["fasdd_ap50_smoke"].tolist() == pytest.approx([0.2, 0.1, 0.3, 0.2])
    # these two are the named model itself, and outside the family
    assert second["delta"].tolist()[2:] == [0.0, 0.0] and second["verdict"].isna().tolist()[2:] == [True] * 2
    rows = [line.split(" | ") for line in tables.markdown(frame).splitlines()[-4:]]
    kept = tables.markdown(frame).splitlines()[2].split(" | ").index("FASDD AP50 fire / smoke")
    assert [row[kept] for row in rows] == ["- / 0.200", "- / 0.100", "0.500 / 0.300", "- / 0.200"]
    assert [row[1] for row in rows] == ["stage 2 from 896"] * 3 + ["stage 2 as-written from 896"]
    assert [row[-4] for row in rows][2:] == ["n=2 not in the family"] * 2


def test_the_first_stage_shows_its_own_figures_by_class(committed):
    profile, _ = committed
    frame = tables.of(profile)
    first = frame[frame["stage"] == 1]
    both = first[["fasdd_ap50_fire", "fasdd_ap50_smoke"]].mean(axis=1)
    # AP50 is the mean over classes, so the mean of the two is the row's own
    assert both.tolist() == pytest.approx(first["ap50"].tolist(), abs=1e-9)


def test_the_family_is_one_that_eight_seeds_can_support():
    """Six comparisons of eight pairs: 6 x 2 / 2^8 = 0.047, one more would not do."""
    values = params.read("ablation", [PARAMS / "h200" / "ablation.yaml"], {})
    prereg = (PARAMS / "prereg.yaml").read_text()
    assert f"margin: {values['margin']}" in prereg and f"alpha: {values['alpha']}" in prereg
    assert 6 * 2 / 2**8 <= values["alpha"] < 7 * 2 / 2**8
