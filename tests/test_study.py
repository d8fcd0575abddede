"""The committed results of the demo say what the study promises of them, and tables follow from records."""

import subprocess

import pandas as pd
import pytest

from saistudy import params
from saistudy.evaluation import cocoeval
from saistudy.paths import PARAMS, ROOT, Refusal
from saistudy.study import agreement, comparisons, tables
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
    assert set(table.loc[table["stage"] == 2, "handling"]) == {"named", "single_cls"}


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


def test_the_family_is_one_that_eight_seeds_can_support():
    """Six comparisons of eight pairs: 6 x 2 / 2^8 = 0.047, one more would not do."""
    values = params.read("ablation", [PARAMS / "h200" / "ablation.yaml"], {})
    prereg = (PARAMS / "prereg.yaml").read_text()
    assert f"margin: {values['margin']}" in prereg and f"alpha: {values['alpha']}" in prereg
    assert 6 * 2 / 2**8 <= values["alpha"] < 7 * 2 / 2**8
