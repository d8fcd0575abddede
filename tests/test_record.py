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
    kept, fresh = ([{"run": "896-s0", "metrics": [m]}] for m in (old, new))
    assert agreement.compare(fresh, kept, tolerance=0.1)["inside"].tolist() == [inside]
