"""Predictions beside a record: a file per model and evaluation size, kept out of git where they are large."""

import hashlib
import json
import subprocess

import pandas as pd
import pytest

from saistudy.paths import Refusal
from saistudy.study import record, saved

COLUMNS = ["image", "split", "group", "class", "score", "x1", "y1", "x2", "y2"]


def detections(rows_n: int, model: str = "patience-3") -> pd.DataFrame:
    rows = [(f"i{n}", "test", "g", 0, 0.5, 0.0, 0.0, 1.0, float(n)) for n in range(rows_n)]
    return pd.DataFrame(rows, columns=COLUMNS).assign(model=model)


def test_there_is_a_file_per_model_and_size_even_where_nothing_was_found(tmp_path, monkeypatch):
    monkeypatch.setenv("SAISTUDY_RESULTS", str(tmp_path))
    folder = tmp_path / "demo" / "a-s0"
    at = {"96x160": pd.concat([detections(3), detections(2, "patience-1")]), "64x64": detections(1)}
    rows = saved.save_predictions(folder, saved.PREDICTIONS, ["patience-1", "patience-3"], at)
    assert [(row["model"], row["imgsz"], row["rows_n"]) for row in rows] == [
        *[("patience-1", [96, 160], 2), ("patience-3", [96, 160], 3)],
        *[("patience-1", [64, 64], 0), ("patience-3", [64, 64], 1)],
    ]
    for row in rows:
        data = (folder / row["file"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (row["bytes"], row["sha256"])
    back = record.predicted("demo", "a-s0", "patience-3", [96, 160])
    pd.testing.assert_frame_equal(back, detections(3).drop(columns="model"))
    with pytest.raises(Refusal, match="patience-3@32x32.parquet does not exist"):
        record.predicted("demo", "a-s0", "patience-3", [32, 32])


def test_another_execution_leaves_no_file_of_the_one_before(tmp_path):
    saved.save_predictions(tmp_path, saved.PREDICTIONS, ["old"], {"64x64": detections(1, "old")})
    saved.save_predictions(tmp_path, saved.PREDICTIONS, ["new"], {"64x64": detections(1, "new")})
    assert [path.name for path in (tmp_path / "predictions").iterdir()] == ["new@64x64.parquet"]


@pytest.mark.parametrize(
    ("mine", "others", "inside"),
    [
        (saved.RUN_MAX_BYTES, 0, True),
        (saved.RUN_MAX_BYTES + 1, 0, False),
        (1_000, saved.PROFILE_MAX_BYTES - 1_000, True),
        (1_001, saved.PROFILE_MAX_BYTES - 1_000, False),
    ],
)
def test_what_is_too_large_for_the_repository_is_ignored_by_git(tmp_path, mine, others, inside):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    folder, other = tmp_path / "demo" / "a-s0", tmp_path / "demo" / "b-s0"
    for place in (folder / "predictions", folder / "retention", other):
        place.mkdir(parents=True)
    kept = [{"bytes": others, "committed": True}, {"bytes": 10**9, "committed": False}]
    (other / "record.json").write_text(json.dumps({"predictions": kept}))
    rows = saved.keep_out(folder, [{"file": "predictions/x@1x1.parquet", "bytes": mine}])
    assert [row["committed"] for row in rows] == [inside]
    for kind in ("predictions", "retention"):
        (folder / kind / "x@1x1.parquet").write_bytes(b"x")
    told = subprocess.run(["git", "-C", tmp_path, "status", "--porcelain", "-uall"], capture_output=True)
    assert (b"a-s0/predictions/x@1x1.parquet" in told.stdout) == inside
    assert (b"a-s0/retention/x@1x1.parquet" in told.stdout) == inside
    # smaller again: back in
    assert saved.keep_out(folder, [{"bytes": 1}])[0]["committed"]
    assert not (folder / ".gitignore").exists()


def test_the_blob_is_the_one_that_git_computes(tmp_path):
    for data in (b"", b"a\n", "écran".encode()):
        (tmp_path / "f").write_bytes(data)
        told = subprocess.run(
            ["git", "hash-object", tmp_path / "f"], capture_output=True, text=True, check=True
        )
        assert record.blob(data) == told.stdout.strip()
