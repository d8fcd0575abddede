"""`predict` on one's own pictures: the boxes of the evaluation, what is skipped and refused; model cards."""

import json
import os
import re
import shutil
import subprocess
import sys

import cv2
import mounted
import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from ultralytics import YOLO

from saistudy import __main__ as door
from saistudy.data import photographs
from saistudy.evaluation import predict
from saistudy.paths import ROOT, Refusal
from saistudy.study import drawings, model_card

SIDES = ["x1", "y1", "x2", "y2"]


@pytest.fixture(scope="module")
def model(trained):
    """Weights of a run that learnt large painted rectangles."""
    return trained.stops[-1]["weights"]


@pytest.fixture(scope="module")
def evaluated(trained, rectangles, model, tmp_path_factory):
    """What the evaluation saves of the test images, at a batch of another size."""
    folder = tmp_path_factory.mktemp("predict")
    return predict.predict(model, rectangles, "test", trained.conditions["imgsz"], 3, "cpu", folder)


def images(rectangles):
    return rectangles.folder / "images" / "test"


def test_boxes_on_test_images_are_those_that_the_evaluation_saves(rectangles, model, evaluated, tmp_path):
    result = drawings.write(model, [images(rectangles)], tmp_path / "out", conf=0.01)
    seen = pd.read_csv(tmp_path / "out" / "detections.csv")
    assert list(seen) == ["path", "frame", "class", "conf", *SIDES] and seen["frame"].isna().all()
    assert result.shots_n == 8 and len(seen) == len(evaluated) > 8 and not result.broken
    assert [path.rsplit("/", 1)[1] for path in seen["path"]] == evaluated["image"].tolist()
    assert seen["class"].tolist() == evaluated["class"].map(rectangles.names).tolist()
    np.testing.assert_allclose(seen["conf"], evaluated["score"], atol=1e-5)
    np.testing.assert_allclose(seen[SIDES], evaluated[SIDES], atol=1e-3)  # px; sums in batches of 16 and of 3


def test_a_detection_at_the_very_threshold_counts(rectangles, model, evaluated, tmp_path):
    drawings.write(model, [images(rectangles)], tmp_path / "all", conf=0.01)
    every = pd.read_csv(tmp_path / "all" / "detections.csv", dtype={"conf": np.float32})["conf"]
    cut = float(every.nlargest(5).iloc[-1])
    drawings.write(model, [images(rectangles)], tmp_path / "out", conf=cut)
    assert len(pd.read_csv(tmp_path / "out" / "detections.csv")) == (every >= np.float32(cut)).sum()


def test_every_picture_is_drawn_with_its_boxes_under_a_name_of_its_own(rectangles, model, tmp_path):
    for folder in ("a", "b"):
        shutil.copytree(images(rectangles), tmp_path / "in" / folder)
    drawings.write(model, [tmp_path / "in", tmp_path / "in" / "a"], tmp_path / "out", conf=0.2)
    drawn = sorted(p.relative_to(tmp_path / "out" / "drawn") for p in (tmp_path / "out").rglob("*.jpg"))
    assert len(drawn) == 16 and {p.parts[0] for p in drawn} == {"a", "b"}
    seen = pd.read_csv(tmp_path / "out" / "detections.csv")
    row = seen.iloc[0]
    given = cv2.imread(row["path"])
    name = row["path"].removeprefix(str(tmp_path / "in") + "/").rpartition(".")[0]
    shown = cv2.imread(str(tmp_path / "out" / "drawn" / f"{name}.jpg"))
    assert shown.shape == given.shape and np.abs(shown.astype(int) - given).max() > 60


def test_frames_of_a_video_are_predicted_as_pictures_of_the_same_pixels(rectangles, model, tmp_path):
    film, files = tmp_path / "film.avi", sorted(images(rectangles).iterdir())
    size = cv2.imread(str(files[0])).shape[1::-1]
    writer = cv2.VideoWriter(str(film), cv2.VideoWriter.fourcc(*"MJPG"), 5, size)
    for i in range(20):  # more than a batch
        writer.write(cv2.imread(str(files[i % len(files)])))
    writer.release()
    result = drawings.write(model, [film], tmp_path / "out", conf=0.05)
    seen = pd.read_csv(tmp_path / "out" / "detections.csv")
    assert (
        result.shots_n == 20
        and set(seen["frame"]) <= set(range(20))
        and seen["frame"].is_monotonic_increasing
    )
    reader, stills = cv2.VideoCapture(str(film)), tmp_path / "stills"
    stills.mkdir()
    for i in range(20):
        cv2.imwrite(str(stills / f"{i:02d}.png"), reader.read()[1])
    drawings.write(model, [stills], tmp_path / "again", conf=0.05)
    again = pd.read_csv(tmp_path / "again" / "detections.csv")
    assert [int(path[-6:-4]) for path in again["path"]] == seen["frame"].tolist()
    np.testing.assert_allclose(seen[["conf", *SIDES]], again[["conf", *SIDES]], atol=1e-3)
    shown = cv2.VideoCapture(str(tmp_path / "out" / "drawn" / "film.mp4"))
    assert (shown.get(cv2.CAP_PROP_FRAME_COUNT), shown.get(cv2.CAP_PROP_FPS)) == (20, 5)


def test_what_cannot_be_read_is_named_and_skipped_and_nothing_given_is_touched(
    rectangles, model, tmp_path, capsys
):
    folder = tmp_path / "in"
    shutil.copytree(images(rectangles), folder)
    sound = cv2.imencode(".jpg", cv2.imread(str(next(folder.iterdir()))))[1].tobytes()
    (folder / "cut.jpg").write_bytes(sound[: len(sound) // 2])
    (folder / "empty.png").touch()
    (folder / "film.mp4").write_bytes(b"no film")
    (folder / "notes.txt").write_text("no picture")
    (folder / "unended.jpg").write_bytes(sound.removesuffix(photographs.END))
    before = {path: path.read_bytes() for path in folder.iterdir()}
    words = ["predict", str(model), str(folder), "--conf", "0.1", "--output", str(tmp_path / "out")]
    assert door.main(words) == 1
    said = capsys.readouterr().out
    assert all(f"skipped {folder / name}: " in said for name in ("cut.jpg", "empty.png", "film.mp4"))
    assert "in 9 pictures or frames" in said and "--conf" in said and "notes" not in said
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_an_array_beside_a_picture_is_neither_predicted_on_nor_touched(rectangles, model, tmp_path):
    folder = tmp_path / "in"
    shutil.copytree(images(rectangles), folder)
    first, second, *_ = sorted(folder.iterdir())
    drawings.write(model, [folder], tmp_path / "before", conf=0.01)
    np.save(first.with_suffix(".npy"), np.zeros((96, 96, 3), np.uint8))
    second.with_suffix(".npy").write_bytes(b"no array")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    drawings.write(model, [folder], tmp_path / "out", conf=0.01)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    seen = [(tmp_path / out / "detections.csv").read_text() for out in ("before", "out")]
    assert seen[0] == seen[1]


def filmed(path, pictures, rate=5.0, code="MJPG"):
    """A video of pictures that share their size."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), rate, pictures[0].shape[1::-1])
    for picture in pictures:
        writer.write(picture)
    writer.release()


def test_frames_of_two_short_videos_in_one_batch_are_kept_apart(rectangles, model, tmp_path):
    stills = [cv2.imread(str(path)) for path in sorted(images(rectangles).iterdir())]
    films = [tmp_path / "a.avi", tmp_path / "b.avi"]
    for film, part in zip(films, (stills[:3], stills[3:6]), strict=True):
        filmed(film, part)
        drawings.write(model, [film], tmp_path / film.stem, conf=0.01)
    drawings.write(model, films, tmp_path / "out", conf=0.01)
    alone = pd.concat([pd.read_csv(tmp_path / film.stem / "detections.csv") for film in films])
    seen = pd.read_csv(tmp_path / "out" / "detections.csv")
    assert seen[["path", "frame"]].values.tolist() == alone[["path", "frame"]].values.tolist()
    np.testing.assert_allclose(seen[["conf", *SIDES]], alone[["conf", *SIDES]], atol=1e-3)


def test_what_opencv_cannot_open_by_name_is_read_as_stock_does_or_skipped(
    rectangles, model, tmp_path, capsys
):
    folder, given = tmp_path / "in", next(images(rectangles).iterdir())
    folder.mkdir()
    shutil.copy(given, folder / os.fsdecode(b"caf\xe9.jpg"))
    filmed(tmp_path / "x.avi", [cv2.imread(str(given))] * 3)
    (tmp_path / "x.avi").rename(folder / os.fsdecode(b"film\xe9.avi"))
    turned = Image.Exif()
    turned[photographs.ORIENTATION] = 6
    with Image.open(given) as photo:
        photo.resize((120, 80)).save(folder / "turned.tif", exif=turned)
    Image.fromarray(np.zeros((80, 120), np.float32)).save(folder / "float.tif")
    words = ["predict", str(model), str(folder), "--conf", "0.01", "--output", str(tmp_path / "out")]
    assert door.main(words) == 1
    said = capsys.readouterr().out
    assert f"skipped {folder / 'float.tif'}: OpenCV cannot read" in said and said.count("skipped") == 1
    assert "in 5 pictures or frames" in said
    drawn = {path.name for path in (tmp_path / "out" / "drawn").iterdir()}
    assert drawn == {"caf\ufffd.jpg", "film\ufffd.mp4", "turned.jpg"}
    assert cv2.imread(str(tmp_path / "out" / "drawn" / "turned.jpg")).shape == (120, 80, 3)
    drawings.write(model, [given], tmp_path / "alone", conf=0.01)
    alone, seen = (pd.read_csv(tmp_path / out / "detections.csv") for out in ("alone", "out"))
    seen = seen[seen["path"].str.endswith("caf\\udce9.jpg")]
    np.testing.assert_allclose(seen[["conf", *SIDES]], alone[["conf", *SIDES]], atol=1e-3)


@pytest.mark.parametrize(
    ("name", "rate", "written"),
    [("film.avi", 119.683, 119.68), ("film.mp4", 30000, 25), ("film.avi", 29.97, 29.97)],
)
def test_a_video_of_an_odd_rate_is_drawn(rectangles, model, tmp_path, name, rate, written):
    code = "MJPG" if name.endswith("avi") else "mp4v"
    filmed(tmp_path / name, [cv2.imread(str(next(images(rectangles).iterdir())))] * 3, rate, code)
    drawings.write(model, [tmp_path / name], tmp_path / "out", conf=0.2)
    shown = cv2.VideoCapture(str(tmp_path / "out" / "drawn" / "film.mp4"))
    assert shown.get(cv2.CAP_PROP_FRAME_COUNT) == 3
    assert shown.get(cv2.CAP_PROP_FPS) == pytest.approx(written)


def test_what_is_too_wide_to_be_drawn_is_named_and_the_others_are_drawn(rectangles, model, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in" / "a.png"), np.zeros((10, 65501, 3), np.uint8))  # a JPEG holds 65500
    shutil.copy(next(images(rectangles).iterdir()), tmp_path / "in" / "b.jpg")
    filmed(tmp_path / "in" / "c.avi", [np.zeros((16, 9000, 3), np.uint8)] * 2)  # an MP4 of MPEG-4 holds 8191
    words = ["predict", str(model), str(tmp_path / "in"), "--conf", "0.01", "--output", str(tmp_path / "out")]
    assert door.main(words) == 1
    said = capsys.readouterr().out
    assert f"not drawn {tmp_path / 'in' / 'a.png'}: 65501x10 px are too many for .jpg; its boxes" in said
    assert f"not drawn {tmp_path / 'in' / 'c.avi'}: no MP4 of 9000x16 px at 5 frames/s can be made" in said
    assert "in 4 pictures or frames" in said
    assert [path.name for path in (tmp_path / "out" / "drawn").iterdir()] == ["b.jpg"]
    assert set(pd.read_csv(tmp_path / "out" / "detections.csv")["path"]) >= {str(tmp_path / "in" / "b.jpg")}


@pytest.mark.parametrize("last", [False, True], ids=["another-follows", "the-last"])
def test_a_disk_that_fills_up_while_a_video_is_drawn_is_told_and_leaves_nothing(model, tmp_path, last):
    """Noise, which no codec makes small, on a tmpfs of 128 KiB."""
    noise = np.random.default_rng(0)
    frames = [noise.integers(0, 255, (96, 160, 3), np.uint8) for _ in range(40)]
    names = ["a.avi", "b.avi"]
    filmed(tmp_path / names[last], frames)
    filmed(tmp_path / names[not last], frames[:2])
    with mounted.tmpfs(tmp_path / "small", "size=128k") as place:
        with pytest.raises(Refusal, match=r"frames of \S+avi were kept: is the disk full\?\): name another"):
            drawings.write(model, [tmp_path / name for name in names], place / "out", conf=0.9)
        assert list(place.iterdir()) == []


def test_a_video_that_breaks_off_is_told_as_read_in_part(rectangles, model, tmp_path, capsys):
    film = tmp_path / "film.avi"
    filmed(film, [cv2.imread(str(next(images(rectangles).iterdir())))] * 20)
    film.write_bytes(film.read_bytes()[: film.stat().st_size // 2])
    words = ["predict", str(model), str(film), "--conf", "0.2", "--output", str(tmp_path / "out")]
    assert door.main(words) == 1
    assert re.search(r"read only in part \S*film.avi: \d of 20 frames", capsys.readouterr().out)


def test_the_work_of_another_predict_of_the_same_output_stays(rectangles, model, tmp_path):
    for name in (".out.part", ".out.1.part"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "detections.csv").touch()
    drawings.write(model, [next(images(rectangles).iterdir())], tmp_path / "out", conf=0.2)
    assert sorted(path.name for path in tmp_path.glob(".out*/*")) == ["detections.csv"] * 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"paths": ["nowhere"]}, "nowhere does not exist"),
        ({"paths": ["notes.txt"]}, "neither a picture nor a video"),
        ({"paths": ["void"]}, "no picture or video was found in"),
        ({"paths": ["broken.jpg"]}, "none of 1 files can be read, the first is"),
        ({"output": "void"}, "exists already, and nothing is overwritten"),
        ({"model": "notes.txt"}, "a .pt file that exists was expected"),
        ({"model": "broken.pt"}, "cannot be loaded by Ultralytics"),
        ({"conf": 1.5}, "a score from 0 to 1 was expected"),
    ],
)
def test_what_cannot_be_done_is_refused_and_leaves_nothing(rectangles, model, tmp_path, change, said):
    (tmp_path / "void").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "broken.jpg").write_bytes(b"x")
    (tmp_path / "broken.pt").write_bytes(b"x")
    shutil.copy(next(images(rectangles).iterdir()), tmp_path / "sound.jpg")
    given = {"paths": ["sound.jpg"], "output": "out", "conf": 0.1} | change
    before = sorted(tmp_path.rglob("*"))
    weights = tmp_path / given["model"] if "model" in given else model
    with pytest.raises(Refusal, match=re.escape(said)):
        drawings.write(
            weights, [tmp_path / p for p in given["paths"]], tmp_path / given["output"], given["conf"]
        )
    assert sorted(tmp_path.rglob("*")) == before


def test_any_ultralytics_detector_will_do_and_another_task_will_not(rectangles, tmp_path):
    picture = next(images(rectangles).iterdir())
    for name, task in (("yolov8n.yaml", None), ("yolov8n-cls.yaml", "classify")):
        weights = tmp_path / f"{name}.pt"
        YOLO(name).save(weights)
        if task:
            with pytest.raises(Refusal, match=f"a model for '{task}'"):
                drawings.write(weights, [picture], tmp_path / "cls", conf=0.2)
            continue
        with pytest.raises(Refusal, match="give one with --conf"):
            drawings.write(weights, [picture], tmp_path / "out")
        assert drawings.write(weights, [picture], tmp_path / "out", conf=0.2).shots_n == 1


def test_a_model_card_is_written_beside_the_weights_and_predict_takes_its_threshold(
    trained, rectangles, model, tmp_path, monkeypatch
):
    weights = tmp_path / "weights"
    shutil.copytree(model.parent, weights)
    stops = [stop | {"weights": weights / stop["weights"].name} for stop in trained.stops]
    run = type(trained)(tmp_path, conditions=trained.conditions, stops=stops)
    rows = [
        {"model": f"patience-{stop['patience']}", "subset": subset, "threshold": 0.25 + i, "precision": 0.5}
        for i, stop in enumerate(stops)
        for subset in ("published", "group-disjoint")
    ]
    rows[2]["threshold"] = rows[3]["threshold"] = 0.3125
    params = {"profile": "demo", "weights": "yolov8n.yaml", "seed": 1}
    model_card.write("painted-s1", params, [rectangles], {"": run}, rows, {})
    text = (weights / "model.md").read_text()
    head = yaml.safe_load(text.split("---\n")[1])
    assert head["run"] == "demo painted-s1" and head["classes"] == {0: "fire", 1: "smoke"}
    assert head["imgsz"] == trained.conditions["imgsz"] and head["licence"] == "AGPL-3.0"
    assert head["data"]["fingerprint"] == rectangles.fingerprint
    assert head["weights"]["best.pt"]["sha256"] == stops[-1]["sha256"]
    assert "| best.pt | 0.312 | 0.500 | - |" in text
    assert model_card.threshold(weights / "best.pt")[0] == 0.3125
    assert model_card.threshold(stops[0]["weights"])[0] == 0.25
    result = drawings.write(weights / "best.pt", [images(rectangles)], tmp_path / "out")
    assert result.threshold == 0.3125 and result.said_by.endswith("model.md")
    shutil.copy(stops[0]["weights"], weights / "best.pt")  # other weights under the same name
    with pytest.raises(Refusal, match="names a threshold for it"):
        model_card.threshold(weights / "best.pt")


def test_without_a_card_the_record_that_names_the_file_by_its_hash_has_the_threshold(model, tmp_path):
    shutil.copy(model, tmp_path / "best.pt")
    mine = model_card.sha256(model)
    stop = {"model": "patience-5", "sha256": mine, "weights": "work/x/weights/best.pt"}
    rows = [{"model": "patience-1", "threshold": 0.9}, {"model": "patience-5", "threshold": 0.125}]
    (tmp_path / "record.json").write_text(json.dumps({"stops": [stop], "metrics": rows}))
    assert model_card.threshold(tmp_path / "best.pt") == (0.125, str(tmp_path / "record.json"))
    rows = [{"model": "best", "threshold": 0.5}]  # a fine-tuning knows best.pt alone
    (tmp_path / "record.json").write_text(json.dumps({"stops": [stop], "metrics": rows}))
    assert model_card.threshold(tmp_path / "best.pt")[0] == 0.5


def test_of_stage_2_each_handling_has_the_card_of_its_own_data(trained, rectangles, model, tmp_path):
    runs = {}
    for handling in ("named", "joint"):
        weights = tmp_path / handling / "weights"
        shutil.copytree(model.parent, weights)
        stops = [stop | {"weights": weights / stop["weights"].name} for stop in trained.stops]
        runs[handling] = type(trained)(tmp_path, conditions=trained.conditions, stops=stops)
    rows = [{"model": "joint-patience-5", "threshold": 0.5}, {"model": "named-patience-5", "threshold": 0.25}]
    pool = {"name": "joint", "provenance": "published-format", "fingerprint": "f" * 64}
    params, more = {"profile": "h200", "arm": "896", "seed": 0}, {"handlings": {"joint": pool}}
    model_card.write("stage2-896-s0", params | {"profile": "mini"}, [rectangles], runs, rows, more)
    told = (tmp_path / "joint" / "weights" / "model.md").read_text()
    assert "that of the pictures that were given" in told  # any photographs may stand for the published ones
    model_card.write("stage2-896-s0", params, [rectangles], runs, rows, more)
    told = (tmp_path / "joint" / "weights" / "model.md").read_text()
    assert "CC BY-SA 4.0" in told and "Apache-2.0" in told and "stage 1 896-s0" in told
    assert yaml.safe_load(told.split("---\n")[1])["weights"]["best.pt"]["threshold"] == 0.5
    other = yaml.safe_load((tmp_path / "named" / "weights" / "model.md").read_text().split("---\n")[1])
    assert other["data"]["name"] == rectangles.name and other["weights"]["best.pt"]["threshold"] == 0.25


@pytest.mark.full
def test_on_a_demo_run_the_boxes_are_those_of_its_predictions(tmp_path):
    """Stage 1 of the demo, two epochs, as a person runs it; its card, and its own test images."""
    environ = os.environ | {
        "SAISTUDY_RESULTS": str(tmp_path / "results"),
        "SAISTUDY_WORK": str(tmp_path / "work"),
    }
    environ["SAISTUDY_SHM"] = str(tmp_path / "shm")

    def saistudy(*words):
        call = [sys.executable, "-m", "saistudy", *map(str, words)]
        return subprocess.run(call, cwd=ROOT, env=environ, capture_output=True, text=True)

    folder = tmp_path / "results" / "demo" / "short-s0"
    train = yaml.safe_load((ROOT / "params" / "demo" / "stage1.yaml").read_text())["train"]
    train |= {"epochs": 5, "close_mosaic": 0}
    words = ["-p", "train", json.dumps(train), "-p", "arm", "short", "-p", "eval_sizes", "[]"]
    done = saistudy("run", "stage1", *words, "--output", folder / "run.ipynb")
    assert done.returncode == 0, done.stderr
    record = json.loads((folder / "record.json").read_text())
    weights = tmp_path / "work" / "demo" / "short-s0" / "train" / "weights" / "best.pt"
    assert "SYNTHETIC" in (weights.parent / "model.md").read_text()
    tree = tmp_path / "work" / "demo" / "trees" / "fasdd_cv" / "images" / "test"
    done = saistudy("predict", weights, tree, "--output", tmp_path / "own")
    cut = next(m["threshold"] for m in record["metrics"] if m["model"] == "patience-3")
    assert done.returncode == 0 and f"at least {cut:.4g}" in done.stdout and "model.md" in done.stdout, (
        done.stderr
    )
    assert saistudy("predict", weights, tree, "--conf", "0.01", "--output", tmp_path / "out").returncode == 0
    saved = pd.read_parquet(folder / "predictions" / "patience-3@96x96.parquet").query("split == 'test'")
    seen = pd.read_csv(tmp_path / "out" / "detections.csv")
    seen["image"] = [path.rsplit("/", 1)[1] for path in seen["path"]]
    assert len(seen) == len(saved) > 100
    for image, mine in seen.groupby("image"):  # in no order: batches of 4 and of 16 may swap equal scores
        theirs = saved.loc[saved["image"] == image, ["score", *SIDES]].to_numpy(float)
        apart = np.abs(mine[["conf", *SIDES]].to_numpy(float)[:, None] - theirs) < [1e-5, *[1e-2] * 4]
        assert len(mine) == len(theirs) and apart.all(2).any(1).all(), image
