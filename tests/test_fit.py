"""The engine: a forked patience against a run really trained with it, refusals, the log, the class rows."""

import contextlib
import hashlib
import re
from pathlib import Path

import painted
import pandas as pd
import pytest
import torch
from ultralytics import YOLO

from saistudy.paths import Refusal
from saistudy.training.engines import ENGINES
from saistudy.training.fit import fit
from saistudy.training.paste import Paste

ONCE = painted.LEARNABLE | {"epochs": 2, "batch": 8, "nbs": 8}


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, map_location="cpu", weights_only=False)["model"].state_dict()


def equal(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def same_as_really_trained(run, patience: int, tree, folder: Path) -> None:
    """Assert that the fork of `run` is a training with that patience, epoch by epoch and bit by bit."""
    stop = next(s for s in run.stops if s["patience"] == patience)
    seed = run.conditions["seed"]
    real = fit("yolov8n.yaml", tree.yaml, folder, seed=seed, patiences=[patience], **painted.LEARNABLE)
    rows = pd.read_csv(run.folder / "results.csv").drop(columns="time")
    expected = pd.read_csv(real.folder / "results.csv").drop(columns="time")
    assert rows.iloc[: stop["epochs_n"]].equals(expected)
    assert stop["epochs_n"] == real.stops[0]["epochs_n"] == len(expected)
    assert equal(weights_of(stop["weights"]), weights_of(real.folder / "weights" / "best.pt"))


def test_a_forked_patience_is_a_run_really_trained_with_it(trained, rectangles, tmp_path):
    short, long = trained.stops
    # it did stop early, the run went on, and its weights are not the run's last ones
    assert short["stopped_early"] and short["epochs_n"] < long["epochs_n"]
    assert not equal(weights_of(short["weights"]), weights_of(long["weights"]))
    same_as_really_trained(trained, 1, rectangles, tmp_path / "real")


@pytest.mark.full
@pytest.mark.parametrize("seed", range(4))
def test_forks_of_more_seeds(rectangles, tmp_path, seed):
    train = painted.LEARNABLE | {"epochs": 25}
    run = fit("yolov8n.yaml", rectangles.yaml, tmp_path / "run", seed=seed, patiences=[1, 2, 3, 25], **train)
    for p in (1, 2, 3):
        real = fit("yolov8n.yaml", rectangles.yaml, tmp_path / f"{p}", seed=seed, patiences=[p], **train)
        stop = next(s for s in run.stops if s["patience"] == p)
        assert stop["epochs_n"] == len(pd.read_csv(real.folder / "results.csv"))
        assert equal(weights_of(stop["weights"]), weights_of(real.folder / "weights" / "best.pt"))


def test_the_stops_say_what_the_files_hold(trained):
    csv = pd.read_csv(trained.folder / "results.csv")
    for stop in trained.stops:
        data = stop["weights"].read_bytes()
        assert (stop["sha256"], stop["bytes"]) == (hashlib.sha256(data).hexdigest(), len(data))
        # the checkpoint is that of the epoch (from 0) that the stop names, without the optimizer
        checkpoint = torch.load(stop["weights"], weights_only=False)
        assert checkpoint["optimizer"] is None
        assert len(checkpoint["train_results"]["epoch"]) >= stop["best_epoch"]
        until = csv["metrics/mAP50-95(B)"].iloc[: stop["epochs_n"]]
        assert until.iloc[stop["best_epoch"] - 1] == until.max()


def test_one_line_an_epoch(tiny, tmp_path, capfd):
    capfd.readouterr()
    fit("yolov8n.yaml", tiny.yaml, tmp_path / "run", imgsz=[64, 96], **_without(ONCE, "imgsz"))
    told, warned = capfd.readouterr()
    lines = told.splitlines()
    assert len(lines) == 2 and "\r" not in told + warned
    # losses, AP on val, pace: each a number
    shape = (
        r"epoch \d/2  loss [\d.]+  val AP50 [\d.]+  AP50-95 [\d.]+  \| \d+ images/s, at most 0:00:\d\d to go"
    )
    assert all(re.fullmatch(shape, line) for line in lines)
    log = (tmp_path / "run" / "train.log").read_text()
    assert "Starting training for 2 epochs" in log and "2 epochs completed" in log
    assert "\r" not in log


def _without(settings: dict, key: str) -> dict:
    return {k: v for k, v in settings.items() if k != key}


def test_the_log_is_given_back(tiny, tmp_path):
    from ultralytics.utils import LOGGER

    before = LOGGER.handlers[:], LOGGER.level
    with pytest.raises(Refusal):
        fit("yolov8n.yaml", tiny.yaml, tmp_path / "run", **ONCE | {"nbs": 4, "weight_decay": 0.0005})
    assert (LOGGER.handlers, LOGGER.level) == before


@pytest.fixture(scope="module")
def pair(tiny, tmp_path_factory):
    """A run at 64 x 96 with two declared differences, its folder named relative to where it was started."""
    declared = [
        {"key": "weight_decay", "value": 0.001, "reason": "nbs 4"},
        {"key": "copy_paste", "value": 0.0, "reason": "boxes only"},
    ]
    train = ONCE | {"imgsz": [64, 96], "epochs": 1, "nbs": 4, "weight_decay": 0.0005, "copy_paste": 0.5}
    with contextlib.chdir(tmp_path_factory.mktemp("pair")):
        run = fit("yolov8n.yaml", tiny.yaml, Path("runs/a"), declared=declared, **train)
        yield run, Path.cwd()


def test_declared_differences_are_returned(pair):
    assert {d["key"]: (d["requested"], d["value"]) for d in pair[0].declared} == {
        "weight_decay": (0.0005, 0.001),
        "copy_paste": (0.5, 0.0),
    }


def test_a_relative_folder_is_that_folder(pair):
    run, place = pair
    # stock puts a relative project below its own runs folder
    assert run.folder == place / "runs" / "a"
    assert (run.folder / "results.csv").is_file() and run.stops[0]["weights"].is_file()


def test_no_curves_unless_asked_for(pair):
    assert not (pair[0].folder / "tensorboard").exists()


def test_the_checkpoint_carries_the_pair(pair, tiny):
    model = YOLO(pair[0].stops[0]["weights"])
    assert model.ckpt["train_args"]["imgsz"] == [64, 96]
    image = next((tiny.folder / "images" / "test").iterdir())
    assert len(model.predict(image, device="cpu", verbose=False)) == 1


def test_stock_loads_and_predicts(trained, rectangles):
    row = rectangles.rows[rectangles.rows["split"] == "test"].iloc[0]
    image = rectangles.folder / "images" / "test" / row["image"]
    (found,) = YOLO(trained.stops[-1]["weights"]).predict(image, conf=0.1, device="cpu", verbose=False)
    overlaps = [painted.iou(box, painted.truth_px(row)[0]) for box in found.boxes.xyxy.numpy()]
    assert max(overlaps) > 0.7


@pytest.mark.parametrize("weights", ["yolov8n.pt", "yolov8n", "nowhere/best.pt"])
def test_missing_weights_are_not_fetched(tiny, tmp_path, monkeypatch, weights):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Refusal) as told:
        fit(weights, tiny.yaml, tmp_path / "run", **ONCE)
    assert weights in str(told.value) and "\n" not in str(told.value)
    assert not list(tmp_path.iterdir())


def test_missing_pretrained_weights_are_not_fetched(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Refusal, match="yolov8n.pt"):
        fit("yolov8n.yaml", tiny.yaml, tmp_path / "run", pretrained="yolov8n.pt", **ONCE)
    assert not list(tmp_path.iterdir())


def test_other_weights_are_refused(tiny, tmp_path, trained):
    stop = trained.stops[0]
    with pytest.raises(Refusal, match=f"sha256 {stop['sha256']}, {'0' * 64} was expected"):
        fit(stop["weights"], tiny.yaml, tmp_path / "run", weights_sha256="0" * 64, **ONCE)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("change", [{"time": 0.1}, {"val": False}, {"save": False}, {"resume": True}])
def test_settings_under_which_no_patience_can_be_read_off(tiny, tmp_path, change):
    with pytest.raises(Refusal, match=next(iter(change))):
        fit("yolov8n.yaml", tiny.yaml, tmp_path / "run", patiences=[1, 3], **ONCE | change)


class Enough(Exception):
    """Ends a training before its first step."""


def start(weights: Path, tree, folder: Path, **change) -> dict[str, torch.Tensor]:
    """The weights with which a training on a tree would begin."""
    found = {}

    def stop(trainer):
        found.update({k: v.clone() for k, v in trainer.model.state_dict().items()})
        raise Enough

    place = {"model": str(weights), "data": str(tree.yaml), "project": str(folder), "name": "run"}
    trainer = ENGINES["rect"](overrides=place | ONCE | {"plots": False} | change)
    trainer.add_callback("on_train_start", stop)
    with pytest.raises(Enough):
        trainer.train()
    return found


def test_a_named_class_keeps_its_row_and_single_cls_loses_it(trained, tmp_path):
    counts = {"train": 4, "val": 2}
    smoke = painted.tree(tmp_path / "smoke", counts, {0: "smoke"}, [(64, 48)], colours=painted.COLOURS[1:])
    weights = trained.stops[-1]["weights"]
    learnt = {k: v.float() for k, v in weights_of(weights).items()}
    named = start(weights, smoke, tmp_path / "named", single_cls=False)
    single = start(weights, smoke, tmp_path / "single", single_cls=True)
    rows = [k for k, v in learnt.items() if v.shape != named[k].shape]
    # weight and bias of the class convolution at three strides; smoke is row 1 of stage 1
    assert len(rows) == 6
    assert all(torch.equal(named[k][0], learnt[k][1]) for k in rows)
    assert not any(torch.equal(single[k][0], learnt[k][1]) for k in rows)
    # everything else is carried over by both
    others = [k for k in learnt if k not in rows]
    assert all(torch.equal(named[k].float(), learnt[k]) for k in others)
    assert all(torch.equal(single[k].float(), learnt[k]) for k in others)


def test_pasted_objects_and_learning_rates_by_layer(trained, rectangles, tmp_path):
    annotated = rectangles.folder
    counts = {"train": 3, "val": 1}
    empty = painted.tree(tmp_path / "empty", counts, {0: "fire"}, [(64, 48)], colours=[(30, 30, 30)])
    for label in (empty.folder / "labels").rglob("*.txt"):
        label.write_text("")
    paste = Paste(empty.folder / "images" / "train", annotated / "images" / "train", synthetic_ratio=1.5)
    train = ONCE | {"epochs": 1}
    run = fit("yolov8n.yaml", rectangles.yaml, tmp_path / "run", llrd_rate=0.9, paste=paste, **train)
    assert run.conditions["images_n"] == 16 + 24 and run.conditions["val_images_n"] == 8
    rates = [group["lr0"] for group in run.conditions["groups"]]
    assert max(rates) == pytest.approx(train["lr0"])
    assert min(rates) == pytest.approx(train["lr0"] * 0.9**22)  # 23 layers, the first 22 steps from the last
