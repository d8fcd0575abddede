"""Tests the clock against `cp -r`: what it reports follows from its passes, and it leaves nothing behind."""

import json
import statistics

import pytest

from saistudy.paths import Refusal
from saistudy.study import bench_staging


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    (folder / "to").mkdir()
    result = bench_staging.measure(60, 20_000, 3, folder / "work", folder / "to")
    # its own files are gone, from either side
    assert list((folder / "work").iterdir()) == list((folder / "to").iterdir()) == []
    return result


def test_ratios_follow_from_the_passes(measured):
    for kind, key in (("warm", "ratio_to_cp"), ("cold", "ratio_to_cp_cold")):
        cp, stage = (measured["seconds"][f"{name}, {kind}"] for name in ("cp", "stage"))
        assert len(cp) == len(stage) == len(measured["threads_n"][kind]) == 3
        assert measured[key] == pytest.approx(statistics.median(cp) / statistics.median(stage))
        pairs = sorted(a / b for a, b in zip(cp, stage, strict=True))
        assert measured["spread"][kind] == pytest.approx([pairs[0], pairs[2]])


def test_ways_are_taken_in_turn_each_made_ready_for():
    seen = []
    ways = {name: lambda name=name: seen.append(name) for name in "AB"}
    seconds = bench_staging.in_turn(ways, 2, lambda name: seen.append(f"for {name}"))
    assert seen == ["for A", "A", "for B", "B"] * 2
    assert [len(passes) for passes in seconds.values()] == [2, 2] and list(seconds) == ["A", "B"]


def test_the_result_says_what_was_copied_and_on_what_machine(measured):
    assert (measured["files_n"], measured["bytes"]) == (60, 1_200_000)
    assert set(measured["environment"]) == {"cpu", "cores_n", "ram_gib", "platform"}
    assert json.loads(json.dumps(measured, allow_nan=False)) == measured
    lines = bench_staging.sentences(measured).splitlines()
    assert [line.split(":")[0] for line in lines[1:]] == ["warm", "cold"]
    assert f"{measured['ratio_to_cp']:.2f} times" in lines[1] and lines[0].startswith("60 files, 0.00 GB")


def test_too_much_for_the_target_is_refused_before_a_file_is_made(tmp_path):
    with pytest.raises(Refusal, match="bytes free"):
        bench_staging.measure(10**6, 10**9, 1, tmp_path / "work", tmp_path)
    assert list(tmp_path.iterdir()) == []
