"""The clocks of index and tree: both sides do the same work, the figures agree, nothing stays."""

import os
import statistics
import subprocess
import sys

import pytest

from saistudy.data import fasdd, pyrosdis, tree
from saistudy.study import bench_index

ASKED = """
import os, sys
from saistudy.__main__ import _benchmark
assert all(map(callable, _benchmark(sys.argv[1])))
assert not {"torch", "ultralytics"} & set(sys.modules), "a bench of files waits for torch"
assert "OMP_NUM_THREADS" not in os.environ, "a bench of files has its threads pinned"
"""
KEYS = {"spread", "seconds", "images_per_s", "bytes", "environment"}


def _consistent(result, key, images_n):
    plain, own = result["seconds"].values()
    assert result[key] == pytest.approx(statistics.median(plain) / statistics.median(own))
    low, high = result["spread"]
    assert low == min(p / o for p, o in zip(plain, own, strict=True)) and low <= high
    rates = result["images_per_s"].values()
    assert list(rates) == pytest.approx([images_n / statistics.median(s) for s in (plain, own)])


def test_the_index_is_measured(tmp_path):
    result = bench_index.measure_index(12, 2, tmp_path / "work")
    assert result.keys() == KEYS | {"ratio_to_one_process", "again_s", "again_read_n", "files_n"}
    _consistent(result, "ratio_to_one_process", 12)
    # Nothing has changed in between, so the second read opens no image.
    assert (result["files_n"], result["again_read_n"]) == (12, 0)
    assert 12 * 50_000 < result["bytes"] < 12 * 900_000
    assert not list((tmp_path / "work").iterdir())
    assert "one process" in bench_index.sentences(result)


def test_one_process_finds_what_the_index_finds(tmp_path):
    root = bench_index._write_fasdd(tmp_path, 12)
    rows = fasdd.read(root).rows
    plain = bench_index._plain_index(sorted((root / "images").iterdir()))
    assert rows["sha256"].tolist() == [sha256 for sha256, _ in plain]
    # The index decodes brightness alone, which rounds otherwise than brightness of decoded colours.
    assert max((int(a) ^ b).bit_count() for a, (_, b) in zip(rows["phash"], plain, strict=True)) <= 4


def test_the_tree_is_measured(tmp_path):
    result = bench_index.measure_tree(40, 2, tmp_path / "work")
    assert result.keys() == KEYS | {"ratio_to_raw", "images_n"}
    _consistent(result, "ratio_to_raw", 40)
    assert not list((tmp_path / "work").iterdir())
    assert "raw" in bench_index.sentences(result)


def test_the_plain_way_writes_the_files_of_the_tree(tmp_path):
    source = bench_index._write_pyrosdis(tmp_path, 40)
    bench_index._plain_tree(source, tmp_path / "plain")
    tree.build(pyrosdis.read(source), tmp_path / "tree")
    plain = {path.name: path.read_bytes() for path in (tmp_path / "plain").iterdir()}
    assert plain == {path.name: path.read_bytes() for path in tmp_path.glob("tree/images/*/*")}
    # The rows repeat a few pictures, yet no two have the same bytes, as in the published shards.
    assert len(set(plain.values())) == 40
    assert all(50_000 < len(data) < 200_000 for data in plain.values())


@pytest.mark.parametrize("what", ["staging", "index", "tree"])
def test_a_bench_of_files_needs_no_torch_and_no_pinned_threads(what):
    free = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
    done = subprocess.run([sys.executable, "-c", ASKED, what], env=free, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
