"""What is kept about files: unchanged ones are not read again; versions, damage, kills, threads."""

import hashlib
import io
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from saistudy.data.known import Known
from saistudy.data.photographs import Damaged
from saistudy.paths import ROOT, Refusal


def _jpeg(seed=0):
    pixels = np.random.default_rng(seed).integers(0, 255, (36, 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def _unread():
    raise AssertionError("the file was read")


def test_an_unchanged_file_is_not_read_again(tmp_path):
    kept = tmp_path / "sub" / "known.parquet"
    known = Known(kept)
    first = known.describe("a/b.jpg", (10, 20), _jpeg)
    assert first.sha256 == hashlib.sha256(_jpeg()).hexdigest() and (first.width, first.height) == (64, 36)
    assert known.holds("a/b.jpg", (10, 20)) and known.describe("a/b.jpg", (10, 20), _unread) == first
    known.keep()
    later = Known(kept)
    assert later.describe("a/b.jpg", (10, 20), _unread) == first and later.read_n == 0
    assert [path.name for path in kept.parent.iterdir()] == ["known.parquet"]


@pytest.mark.parametrize("file_stamp", [("a/b.jpg", (11, 20)), ("a/b.jpg", (10, 21)), ("b/b.jpg", (10, 20))])
def test_another_size_time_or_place_is_read(tmp_path, file_stamp):
    known = Known(tmp_path / "known.parquet")
    known.describe("a/b.jpg", (10, 20), _jpeg)
    known.keep()
    later = Known(known.path)
    file, stamp = file_stamp
    assert not later.holds(file, stamp)
    assert later.describe(file, stamp, lambda: _jpeg(1)).sha256 == hashlib.sha256(_jpeg(1)).hexdigest()


def test_damage_and_oddities_are_kept_but_not_what_could_not_be_read(tmp_path):
    def locked():
        raise PermissionError("locked")

    known = Known(tmp_path / "known.parquet")
    cut = known.describe("cut.jpg", (1, 1), lambda: _jpeg()[:-100])
    odd = known.describe("odd.png", (1, 1), lambda: _jpeg()[:-2])
    gone = known.describe("gone.jpg", (1, 1), locked)
    assert (cut.reason, odd.oddities, gone.reason) == (
        "truncated",
        ("misnamed", "no-end-marker"),
        "unreadable",
    )
    known.keep()
    later = Known(known.path)
    again = later.describe("cut.jpg", (1, 1), _unread)
    assert isinstance(again, Damaged) and (again.reason, str(again)) == ("truncated", str(cut))
    assert later.describe("odd.png", (1, 1), _unread) == odd
    # It may be readable by now.
    assert later.describe("gone.jpg", (1, 1), _jpeg).width == 64


def test_what_another_version_or_nobody_wrote_counts_as_empty(tmp_path):
    known = Known(tmp_path / "known.parquet")
    known.describe("a.jpg", (1, 1), _jpeg)
    known.keep()
    assert Known(known.path).holds("a.jpg", (1, 1))
    table = pq.read_table(known.path)
    pq.write_table(table.replace_schema_metadata({"code": "of an older version"}), known.path)
    assert not Known(known.path).holds("a.jpg", (1, 1))
    known.path.write_bytes(b"PAR1 not really")
    assert not Known(known.path).holds("a.jpg", (1, 1))


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("no folder")
    known = Known(tmp_path / "file" / "known.parquet")
    known.describe("a.jpg", (1, 1), _jpeg)
    with pytest.raises(Refusal, match="known.parquet cannot be written"):
        known.keep()


def test_often_is_not_at_once(tmp_path):
    known = Known(tmp_path / "known.parquet")
    known.describe("a.jpg", (1, 1), _jpeg)
    known.keep(often=True)
    assert not known.path.exists()
    known.keep()
    assert known.path.exists()


def test_without_a_path_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    known = Known()
    known.describe("a.jpg", (1, 1), _jpeg)
    known.keep()
    assert not list(tmp_path.iterdir())


KEEPS = """
import sys
from pathlib import Path
from saistudy.data.known import Known
from saistudy.data.photographs import Photograph
known = Known(Path(sys.argv[1]))
number = 0
while True:  # each file is larger than the one before
    number += 1
    for each in range(300):
        known._found[f"{number}/{each}.jpg", 1, 1] = Photograph(64, 36, "0" * 64, each, ())
    known.keep()
    print(number, flush=True)
"""


def _killed_after_s(path, wait_s):
    """Number of the last file that is known to be written when the process is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", KEEPS, path], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    process.stdout.readline()
    time.sleep(wait_s)
    process.send_signal(signal.SIGKILL)
    told = process.communicate()[0].split()
    return max(map(int, told), default=1)


@pytest.mark.parametrize("moments_n", [2, pytest.param(20, marks=pytest.mark.full)])
def test_killed_while_keeping_leaves_the_old_file_or_the_new_one(tmp_path, moments_n):
    for moment, wait_s in enumerate(np.random.default_rng(moments_n).uniform(0, 0.3, moments_n)):
        path = tmp_path / str(moment) / "known.parquet"
        whole_n = _killed_after_s(path, wait_s)
        rows_n = pq.read_table(path).num_rows
        assert rows_n in (300 * whole_n, 300 * (whole_n + 1))
        assert Known(path).holds(f"{whole_n}/299.jpg", (1, 1))


def test_threads_that_describe_while_another_keeps(tmp_path):
    known = Known(tmp_path / "known.parquet")
    images = [_jpeg(seed) for seed in range(20)]

    def work(number):
        if number % 10 == 0:
            known.keep()
        return known.describe(f"{number}.jpg", (1, 1), lambda: images[number % 20])

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(work, range(400)))
    known.keep()
    assert known.read_n == 400
    assert [photo.sha256 for photo in found] == [
        hashlib.sha256(images[n % 20]).hexdigest() for n in range(400)
    ]
    assert pq.read_table(known.path).num_rows == 400
    assert os.listdir(tmp_path) == ["known.parquet"]
