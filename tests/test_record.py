"""A record is whole or not at all; fresh figures against committed ones."""

import pytest

from saistudy.paths import Refusal
from saistudy.study import agreement, record

PARTS = dict(
    run="896-s0", notebook="stage1", profile="demo", run_id="0" * 16, params={}, data={}, metrics=[], cost={}
)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), (n for n in range(3)), object()])
def test_what_is_no_finite_number_or_text_leaves_no_record(tmp_path, bad):
    with pytest.raises((ValueError, TypeError)):
        record.write_record(tmp_path, **PARTS | {"metrics": [{"ap50": bad}]})
    assert not list(tmp_path.iterdir())


def test_a_bad_record_leaves_the_good_one_as_it_was(tmp_path):
    before = record.write_record(tmp_path, **PARTS).read_bytes()
    with pytest.raises(ValueError):
        record.write_record(tmp_path, **PARTS | {"cost": {"train_s": float("nan")}})
    assert (tmp_path / "record.json").read_bytes() == before


def test_a_missing_part_is_named(tmp_path):
    with pytest.raises(Refusal, match="metrics"):
        record.write_record(tmp_path, **{k: v for k, v in PARTS.items() if k != "metrics"})


@pytest.mark.parametrize(
    ("source", "advice"),
    [("stage1.yaml", "give both the same value"), ("class table", "look at the findings in notebooks/data")],
)
def test_what_is_relied_on_and_not_met_stops_with_what_to_do(source, advice):
    record.require([record.expect("mosaic", 0.5, 0.5, source)])
    with pytest.raises(Refusal, match=f"mosaic: 0.5 was seen, 1.0 was expected .{source}.: {advice}"):
        record.require([record.expect("mosaic", 0.5, 1.0, source)])


def test_records_of_two_profiles_are_never_mixed(tmp_path, monkeypatch):
    monkeypatch.setenv("SAISTUDY_RESULTS", str(tmp_path))
    record.write_record(tmp_path / "mini" / "896-s0", **PARTS | {"profile": "mini"})
    record.write_record(tmp_path / "mini" / "896-s1", **PARTS)
    with pytest.raises(Refusal, match="never mixes profiles"):
        record.read_records("mini")


def metric(ap50, boxes_n=10):
    return {
        "model": "patience-3",
        "subset": "published",
        "ap50": ap50,
        "images_n": 5,
        "groups_n": 5,
        "boxes_n": boxes_n,
    }


@pytest.mark.parametrize(
    ("old", "new", "inside"),
    [
        (metric(0.5), metric(0.55), True),
        (metric(0.5), metric(0.65), False),
        (metric(0.5), metric(0.5, boxes_n=11), False),
        (metric(None), metric(None), True),
        (metric(0.5), metric(None), False),
    ],
)
def test_agreement_needs_the_same_data_and_a_close_figure(old, new, inside):
    kept, fresh = ([{"run": "896-s0", "written": "then", "metrics": [m]}] for m in (old, new))
    band = agreement.expected(kept, tolerance=0.1)
    assert agreement.compare(fresh, band)["inside"].tolist() == [inside]


def test_a_further_seed_is_held_to_the_band_of_its_arm():
    # .5, .6, .7: mean .6, s .1; 4.3027 (t, 2 degrees) x .1 x sqrt(4/3) = .4968, above the tolerance
    seeds = [
        {"run": f"896-s{n}", "written": "then", "metrics": [metric(v)]} for n, v in enumerate((0.5, 0.6, 0.7))
    ]
    band = agreement.expected(seeds, tolerance=0.1)
    (row,) = band["seeds"]
    assert (row["low"], row["high"]) == pytest.approx((0.6 - 0.49684, 0.6 + 0.49684), abs=1e-4)
    fresh = [{"run": f"896-s{n}", "metrics": [metric(v)]} for n, v in ((7, 1.0), (8, 0.05), (0, 0.61))]
    assert agreement.compare(fresh, band)["inside"].tolist() == [True, False, False]
    # two seeds make no band for a third: it is left out; nor is there one narrower than the tolerance
    assert agreement.compare(fresh, agreement.expected(seeds[:2], 0.1))["run"].tolist() == ["896-s0"]
    alike = agreement.expected([s | {"metrics": [metric(0.5)]} for s in seeds], tolerance=0.1)
    assert (alike["seeds"][0]["low"], alike["seeds"][0]["high"]) == pytest.approx((0.4, 0.6))
