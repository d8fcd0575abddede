"""`explore`: figures at the threshold of val are the record's, elsewhere counted by hand; its panels."""

import json
import re
import shutil
import subprocess
import sys

import nbformat
import numpy as np
import pandas as pd
import pytest

from saistudy.evaluation import metrics
from saistudy.paths import ROOT, Refusal
from saistudy.study import catalogue, controls, explore, looking, sheets, views
from saistudy.study.record import predicted
from saistudy.study.saved import read_frame

RUNS = [("demo", "896-s0", "patience-3"), ("demo", "stage2-896-s0", "named-patience-3")]
RUNS += [("mini", "896-s0", "patience-30")]


@pytest.fixture(autouse=True)
def committed(monkeypatch, tmp_path):
    """The committed results, and no tree of another test."""
    monkeypatch.setenv("SAISTUDY_RESULTS", str(ROOT / "results"))
    monkeypatch.setenv("SAISTUDY_WORK", str(tmp_path / "work"))
    monkeypatch.setenv("SAISTUDY_SHM", str(tmp_path / "shm"))
    for cached in (looking.runs, looking.seen, catalogue.of):
        cached.cache_clear()


def told(profile: str, run: str) -> dict:
    return json.loads((ROOT / "results" / profile / run / "record.json").read_text())


@pytest.mark.parametrize(("profile", "run", "model"), RUNS)
def test_at_the_threshold_from_val_the_figures_are_those_of_the_record(profile, run, model):
    record = told(profile, run)
    row = next(m for m in record["metrics"] if m["model"] == model and m["subset"] == "published")
    one = looking.seen(profile, run, model, "test")
    assert one.cut == row["threshold"]
    figures = looking.figures(one, one.cut)
    shared = figures.keys() & row.keys()
    assert len(shared) == 10 and {key: figures[key] for key in shared} == {key: row[key] for key in shared}


def test_alarms_per_camera_day_are_those_of_the_record_at_the_threshold_of_each_budget():
    rows = told("demo", "stage2-896-s0")["operation"]
    for handling, found in rows.items():
        one = looking.seen("demo", "stage2-896-s0", f"{handling}-patience-3", "test")
        for row in (row for row in found if row.get("rate_per_day") is not None):
            figures = looking.figures(one, row["threshold"])
            assert figures["alarms_per_camera_day"] == row["rate_per_day"]
            assert figures["image_recall"] == row["recall"]


def iou(a, b) -> float:
    sides = [max(0.0, min(a[i + 2], b[i + 2]) - max(a[i], b[i])) for i in (0, 1)]
    shared = sides[0] * sides[1]
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def by_hand(profile: str, run: str, model: str, cut: float) -> dict:
    """Boxes found, missed and false, alarms on images with and without truth: loops over the saved files."""
    truth = read_frame(profile, run, "truth").query("split == 'test'")
    images = read_frame(profile, run, "images").query("split == 'test'")["image"]
    found = predicted(profile, run, model).query("split == 'test'")
    counts = dict.fromkeys(("tp_n", "fp_n", "fn_n", "alarm", "false_alarm"), 0)
    for image in images:
        mine = found[(found["image"] == image) & (found["score"] >= cut)].sort_values(
            "score", ascending=False
        )
        boxes = [
            tuple(row) for row in truth[truth["image"] == image][["x1", "y1", "x2", "y2", "class"]].values
        ]
        counts["alarm" if boxes else "false_alarm"] += len(mine) > 0
        free = list(boxes)
        for *box, label in mine[["x1", "y1", "x2", "y2", "class"]].values.tolist():
            near = [other for other in free if other[4] == label and iou(box, other) >= 0.5]
            if near:
                free.remove(max(near, key=lambda other: iou(box, other)))
            counts["tp_n" if near else "fp_n"] += 1
        counts["fn_n"] += len(free)
    return counts


@pytest.mark.parametrize("cut", [0.02, 0.05, 0.1, 0.3, 0.9])
@pytest.mark.parametrize(("profile", "run", "model"), RUNS)
def test_at_any_other_threshold_they_are_those_of_a_count_by_hand(profile, run, model, cut):
    one, counts = looking.seen(profile, run, model, "test"), by_hand(profile, run, model, cut)
    figures = looking.figures(one, cut)
    assert {key: figures[key] for key in ("tp_n", "fp_n", "fn_n")} == {
        k: counts[k] for k in ("tp_n", "fp_n", "fn_n")
    }
    positives_n, negatives_n = figures["image_positives_n"], figures["image_negatives_n"]
    assert figures["image_recall"] == counts["alarm"] / positives_n
    assert figures["image_false_positive_rate"] == (
        counts["false_alarm"] / negatives_n if negatives_n else None
    )
    rate = counts["false_alarm"] * 2880 / negatives_n if negatives_n and run.startswith("stage2") else None
    assert figures["alarms_per_camera_day"] == rate


@pytest.mark.parametrize("factor", [0.3, 1.0, 1.7])
@pytest.mark.parametrize(("profile", "run", "model"), RUNS)
def test_the_pictures_are_those_of_the_notebooks_galleries(profile, run, model, factor):
    one, cut = looking.seen(profile, run, model, "test"), 0.0
    cut = one.cut * factor
    frames = (
        predicted(profile, run, model),
        *(read_frame(profile, run, name) for name in ("truth", "images")),
    )
    for mine, theirs in ((looking.misses, views.misses), (looking.alarms, views.alarms)):
        wanted = theirs(*frames, cut)
        assert mine(one, cut, 8) == [image for image, *_ in wanted]
        for image, true, found in wanted:
            ours, seen = looking.boxes(one, image, cut)
            assert [list(box[:4]) for box in ours] == true
            assert [list(box[:4]) for box in seen] == [box[:4] for box in found]
            assert [box[4].split()[-1] for box in seen] == [f"{box[4]:.2f}" for box in found]


def test_the_curve_is_precision_and_recall_at_each_of_its_thresholds():
    one = looking.seen("mini", "896-s0", "patience-30", "test")
    curve = looking.curve(one).iloc[::20]
    for row in curve.itertuples():
        wanted = metrics.prf(one.matches, one.truth, row.threshold)
        assert row.recall == wanted["recall"]
        assert (
            np.isnan(row.precision) if wanted["precision"] is None else row.precision == wanted["precision"]
        )


def test_two_runs_are_counted_by_outcome_and_parted_by_it():
    one, other = (looking.seen("demo", run, "patience-3", "test") for run in ("896-s0", "1440-s0"))
    table, apart = looking.agreement(one, other), looking.parted(one, other)
    assert table.to_numpy().sum() == 42 and table.to_numpy().trace() == 42 - len(apart) > 0
    first, second = (
        dict(zip(s.images["image"], looking.outcomes(s, s.cut), strict=True)) for s in (one, other)
    )
    assert apart == [image for image in first if first[image] != second[image]]
    assert table.loc["missed", "found"] == sum((first[i], second[i]) == ("missed", "found") for i in first)
    stage2 = looking.seen("demo", "stage2-896-s0", "named-patience-3", "test")
    with pytest.raises(Refusal, match="choose two runs of one stage"):
        looking.agreement(one, stage2)


def test_the_frames_of_a_camera_come_in_time_and_a_run_without_time_says_so():
    one = looking.seen("demo", "stage2-896-s0", "named-patience-3", "val")
    (group,) = looking.filmed(one)
    frames = looking.film(one, group)
    assert len(frames) == 12 and frames["time"].is_monotonic_increasing
    found = predicted("demo", "stage2-896-s0", "named-patience-3")
    for row in frames.itertuples():
        scores = found.loc[found["image"] == row.image, "score"]
        assert row.score == scores.max() or (np.isnan(row.score) and scores.empty)
    first = looking.seen("demo", "896-s0", "patience-3", "val")
    assert looking.filmed(first) == []
    with pytest.raises(Refusal, match="choose a run of fixed cameras"):
        looking.film(first, "v00000")


def test_a_run_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(Refusal, match="has no run '896-s7' to look at; it has 1184x672-s0, "):
        explore.Chooser("demo", "896-s7", "test")


def test_where_pictures_are_absent_the_panel_says_so_and_draws_boxes_on_grey():
    chosen = explore.Chooser("mini", "896-s0", "test")
    assert "are not on this machine" in chosen.images.note and "SAISTUDY_FASDD" in chosen.images.note
    images = read_frame("mini", "896-s0", "images")
    assert sorted(chosen.images.rows["image"]) == sorted(images["image"])
    assert explore.Threshold(chosen).picture.value[:2] == b"\xff\xd8"
    truth = read_frame("mini", "896-s0", "truth")
    for image in images["image"][:5]:
        boxes = truth.loc[truth["image"] == image, ["x1", "y1", "x2", "y2"]].to_numpy().tolist()
        assert [list(box[:4]) for box in chosen.images.boxes(image)] == boxes


def test_filters_of_the_index_take_what_they_name():
    rows = pd.DataFrame(
        {
            "split": ["train", "test", "test"],
            "kind": ["fire_CV", "fire_CV", "smoke_CV"],
            "group": ["v1", "v10", "v2"],
            "finding": ["-", "clipped", "-"],
        },
        index=["a", "b", "c"],
    )
    assert catalogue.choose(rows).index.tolist() == ["a", "b", "c"]
    assert catalogue.choose(rows, group="v1").index.tolist() == ["a", "b"]
    assert catalogue.choose(rows, "test", "fire_CV").index.tolist() == ["b"]
    assert catalogue.choose(rows, finding="clipped", kind="smoke_CV").empty


def test_a_slider_replaces_table_and_picture_and_the_button_brings_them_back():
    chosen = explore.Chooser("mini", "896-s0", "test")
    panel = explore.Threshold(chosen)
    table, picture = panel.table.value, panel.picture.value
    chosen.cut.value = 0.9
    figures = looking.figures(chosen.seen, 0.9)
    rows = [re.findall(r"<t[hd]>(.*?)</t[hd]>", row) for row in panel.table.value.split("<tr")]
    shown = dict(zip(rows[1], rows[2], strict=True))
    assert shown[""] == "at the slider" and shown["threshold"] == "0.900"
    assert int(shown["boxes missed"]) == figures["fn_n"] and shown["recall"] == f"{figures['recall']:.3f}"
    assert panel.picture.value != picture
    chosen.again.click()
    assert (panel.table.value, panel.picture.value) == (table, picture)


def test_another_profile_run_and_model_are_offered_and_drawn_once(monkeypatch):
    chosen = explore.Chooser("demo", "896-s0", "test")
    drawn = []
    monkeypatch.setattr(controls.Panel, "redraw", lambda self, _=None: drawn.append(chosen.run.value))
    explore.Threshold(chosen)
    drawn.clear()
    chosen.run.value = "stage2-896-s0"
    assert set(chosen.model.options) == set(looking.runs("demo")["stage2-896-s0"])
    assert "stage2-896-s0" in drawn and chosen.cut.value == chosen.seen.cut
    chosen.profile.value = "mini"
    assert chosen.run.value == "stage2-896-s0" and chosen.seen.profile == "mini"
    assert "are not on this machine" in chosen.note.value


def test_a_run_of_ones_own_in_jupyterlab_is_offered_beside_the_study(tmp_path, monkeypatch):
    """Run All of stage1 leaves it in results/lab (params.check); explore reads the study's results first."""
    shutil.copytree(ROOT / "results/mini/896-s0", tmp_path / "mini/896-s0")
    shutil.copytree(ROOT / "results/demo/1440-s0", tmp_path / "lab/demo/own-s0")
    monkeypatch.setenv("SAISTUDY_RESULTS", str(tmp_path))
    chosen = explore.Chooser("mini", "896-s0", "test")
    assert chosen.profile.options == ("mini", "lab/demo")
    panel = explore.Threshold(chosen)
    chosen.profile.value = "lab/demo"
    assert (
        chosen.run.options == ("own-s0",)
        and chosen.cut.value == told("demo", "1440-s0")["metrics"][-1]["threshold"]
    )
    assert "at the slider" in panel.table.value and panel.picture.value
    assert "execute notebooks/data.ipynb with profile demo" in chosen.note.value


def test_a_run_whose_detections_lie_elsewhere_is_said_and_not_shown_as_the_one_before(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "results/mini", tmp_path / "mini")
    monkeypatch.setenv("SAISTUDY_RESULTS", str(tmp_path))
    for path in (tmp_path / "mini/1440-s0").glob("predictions/*"):
        path.unlink()
    looking.runs.cache_clear()
    chosen = explore.Chooser("mini", "896-s0", "test")
    panel = explore.Threshold(chosen)
    chosen.run.value = "1440-s0"
    assert "at the slider" not in panel.table.value and "1440-s0" in panel.table.value
    assert panel.picture.value == b""
    chosen.run.value = "896-s0"
    assert "at the slider" in panel.table.value and panel.picture.value
    looking.runs.cache_clear()


def test_a_small_picture_is_not_enlarged_and_a_large_one_is_read_reduced(tmp_path):
    import cv2

    picture = np.zeros((1200, 1600, 3), np.uint8)
    picture[:, 800:] = (0, 0, 255)
    read = {"a.jpg": cv2.imencode(".jpg", picture)[1].tobytes()}.__getitem__
    drawn, _, axes = sheets.figure(1)
    cell = sheets.Cell(
        "a.jpg", (1600, 1200), [(100, 100, 500, 500, "fire")], [(900, 100, 1500, 900, "0.50")], "a"
    )
    sheets.fill(axes, [cell], read)
    (shown,) = axes[0].images
    assert shown.get_array().shape[1] <= 300 and shown.get_extent() == [0, 1600, 1200, 0]
    assert shown.get_array()[100, -5].tolist()[0] > 200  # red right, RGB
    assert [text.get_text() for text in axes[0].texts] == ["fire", "0.50"]


@pytest.mark.full
def test_executed_without_anybody_it_leaves_still_pictures(tmp_path):
    out = tmp_path / "explore" / "run.ipynb"
    done = subprocess.run(
        [sys.executable, "-m", "saistudy", "run", "explore", "--output", out],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    book = nbformat.read(out, as_version=4)
    data = [o["data"] for c in book.cells if c.cell_type == "code" for o in c.outputs if "data" in o]
    assert sum("image/jpeg" in one for one in data) == 4
    assert not any("application/vnd.jupyter.widget-view+json" in one for one in data)
    row = told("demo", "896-s0")["metrics"][2]
    table = next(one["text/plain"] for one in data if "chosen on val" in one.get("text/plain", ""))
    assert f"{row['precision']:.3f}" in table and f"{row['recall']:.3f}" in table
    assert not (tmp_path / "explore" / "record.json").exists()
