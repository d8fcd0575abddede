"""Conditions: what stock Ultralytics changes in silence is read back, and refused before the first step."""

import hashlib

import painted
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import optimizer as optim
from ultralytics.data.augment import Mosaic
from ultralytics.utils.callbacks.base import default_callbacks

from saistudy.paths import Refusal
from saistudy.training import conditions, dataset
from saistudy.training.engines import ENGINES
from saistudy.training.fit import fit

PLAIN = painted.BARE | {"imgsz": 64, "batch": 8, "nbs": 8, "epochs": 1, "lr0": 0.001, "mosaic": 0.0}


class Enough(Exception):
    """Ends a training before its first step."""


def before_the_first_step(tree, folder, look, engine="rect", workers=0, **change):
    """What `look` makes of a trainer that has built everything and not yet trained."""
    found = []

    def stop(trainer):
        found.append(look(trainer))
        raise Enough

    place = {"model": "yolov8n.yaml", "data": str(tree.yaml), "project": str(folder), "name": "run"}
    trainer = ENGINES[engine](overrides=place | PLAIN | {"plots": False, "exist_ok": True} | change)
    trainer.args.workers = workers  # the constructor sets 0 on a CPU
    trainer.add_callback("on_train_start", stop)
    with pytest.raises(Enough):
        trainer.train()
    return found[0]


def effective(tree, folder, **change) -> dict:
    return before_the_first_step(tree, folder, conditions.read_back, **change)


def test_weight_decay_is_what_the_batch_makes_of_it(tiny, tmp_path):
    seen = effective(tiny, tmp_path, batch=8, nbs=4, weight_decay=0.0005)
    # 0.0005 * 8 * 1 / 4
    assert seen["weight_decay"] == pytest.approx(0.001, rel=1e-12)
    assert conditions.differences({"weight_decay": 0.0005, "batch": 8}, seen).keys() == {"weight_decay"}


def test_copy_paste_is_none_on_boxes(tiny, tmp_path):
    seen = effective(tiny, tmp_path, copy_paste=0.5, mosaic=0.7)
    assert (seen["copy_paste"], seen["mosaic"]) == (0.0, 0.7)


def test_stock_collapses_a_pair(tiny, tmp_path):
    assert effective(tiny, tmp_path, engine="stock", imgsz=[64, 96])["imgsz"] == [96, 96]
    assert effective(tiny, tmp_path, engine="rect", imgsz=[64, 96])["imgsz"] == [64, 96]


def test_counts_and_choices_are_read_from_what_was_built(tiny, tmp_path):
    seen = effective(tiny, tmp_path, workers=4, optimizer="auto", lr0=0.5, patience=3, fraction=0.5)
    train_n = int((tiny.rows["split"] == "train").sum())
    assert seen["images_n"] == round(train_n / 2)
    assert seen["val_images_n"] == int((tiny.rows["split"] == "val").sum())
    # "auto" takes AdamW below 10,000 iterations and ignores lr0: 0.002 * 5 / (4 + classes)
    assert seen["optimizer"] == "AdamW"
    assert seen["lr0"] == pytest.approx(0.002 * 5 / (4 + 2), abs=1e-6)
    assert seen["names"] == {"0": "fire", "1": "smoke"}


@pytest.mark.parametrize(
    ("asked", "got", "differs"),
    [
        ({"imgsz": 96}, {"imgsz": [96, 96]}, False),
        ({"imgsz": [64, 96]}, {"imgsz": [96, 96]}, True),
        ({"lr0": 0.1 + 0.2}, {"lr0": 0.3}, False),  # 4e-17 apart
        ({"lr0": 0.3}, {"lr0": 0.3001}, True),
        ({"amp": True}, {"amp": False}, True),
        ({"optimizer": "auto"}, {"optimizer": "AdamW"}, True),
        ({"device": 0}, {"device": "cuda:0"}, False),
        ({"fliplr": 0.5}, {}, False),  # not read back
    ],
)
def test_what_counts_as_a_difference(asked, got, differs):
    assert bool(conditions.differences(asked, got)) == differs


ONE = {"key": "weight_decay", "value": 0.001, "reason": "nbs 4"}


def test_declared_differences():
    asked, got = {"weight_decay": 0.0005, "copy_paste": 0.5}, {"weight_decay": 0.001, "copy_paste": 0.0}
    two = {"key": "copy_paste", "value": 0.0, "reason": "no polygons"}
    answer = conditions.refuse_undeclared(asked, got, [two, ONE])
    assert answer == [{"requested": 0.5, **two}, {"requested": 0.0005, **ONE}]
    # what did not occur is not reported as if it had
    assert conditions.refuse_undeclared(got, got, [ONE, two]) == []
    with pytest.raises(Refusal, match="copy_paste was requested as 0.5 but is 0.0"):
        conditions.refuse_undeclared(asked, got, [ONE])
    with pytest.raises(Refusal, match="weight_decay was requested"):
        conditions.refuse_undeclared(asked, got, [two, ONE | {"value": 0.002}])


@pytest.mark.parametrize("declared", [[], [ONE | {"value": 0.002}]])
def test_refused_before_the_first_step(tiny, tmp_path, declared):
    steps = []
    handle = optim.register_optimizer_step_pre_hook(lambda *_: steps.append(1))
    try:
        with pytest.raises(Refusal, match="weight_decay was requested as 0.0005 but is 0.001 in effect"):
            train = PLAIN | {"nbs": 4, "weight_decay": 0.0005}
            fit("yolov8n.yaml", tiny.yaml, tmp_path / "run", declared=declared, **train)
    finally:
        handle.remove()
    assert not steps
    assert not [*tmp_path.rglob("*.pt"), *tmp_path.rglob("results.csv")]


def first_batch(trainer) -> str:
    """sha256 of the first batch's pixels and boxes."""
    batch = next(iter(trainer.train_loader))
    return hashlib.sha256(batch["img"].numpy().tobytes() + batch["bboxes"].numpy().tobytes()).hexdigest()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_seed_makes_its_batches(tiny, tmp_path, workers):
    mixed = {"mosaic": 0.5, "workers": workers}
    one, other, again = (
        before_the_first_step(tiny, tmp_path, first_batch, seed=seed, **mixed) for seed in (0, 1, 0)
    )
    assert one == again
    assert one != other


MIXED = painted.LEARNABLE | {"epochs": 4, "imgsz": 64, "batch": 8, "nbs": 8, "mosaic": 0.7, "close_mosaic": 2}


@given(st.integers(1, 300), st.integers(0, 300), st.sampled_from([0.0, 0.3, 1.0]))
def test_the_plan_by_counting(epochs, close, p):
    """The last `close_mosaic` epochs are without; 0 closes none (Ultralytics' own description)."""
    asked = {"epochs": epochs, "close_mosaic": close, "mosaic": p}
    plan = [conditions.planned_mosaic(asked, epoch) for epoch in range(1, epochs + 1)]
    closed_n = min(close, epochs)
    assert plan == [p] * (epochs - closed_n) + [0.0] * closed_n


def test_the_plan_is_read_back(tiny, tmp_path):
    seen = effective(tiny, tmp_path, mosaic=0.7, epochs=5, close_mosaic=2)
    assert (seen["mosaic"], seen["mosaic_epochs_n"]) == (0.7, 3)
    assert effective(tiny, tmp_path, mosaic=0.0, epochs=5, close_mosaic=2)["mosaic_epochs_n"] == 0


def in_epoch(epoch: int, act):
    """A callback for Ultralytics' own table that acts on the trainer in one epoch (from 1)."""
    return lambda trainer: act(trainer) if trainer.epoch + 1 == epoch else None


def set_mosaic(p: float):
    """Sets the probability of every mosaic in the training data."""

    def act(trainer):
        for transform in dataset.walk(trainer.train_loader.dataset.transforms):
            if isinstance(transform, Mosaic):
                transform.p = p

    return act


def reopen(trainer):
    """Builds the transforms of the training data again, mosaic included."""
    trainer.train_loader.dataset.transforms = trainer.train_loader.dataset.build_transforms(trainer.args)


def stop(trainer):
    raise Enough


@pytest.mark.parametrize(
    ("engine", "workers"),
    [
        ("rect", 0),
        ("stock", 2),
        pytest.param("rect", 2, marks=pytest.mark.full),
        pytest.param("stock", 0, marks=pytest.mark.full),
    ],
)
def test_mosaic_by_epoch_after_a_resume_into_the_closed_phase(
    rectangles, tmp_path, monkeypatch, engine, workers
):
    train = MIXED | {"engine": engine, "workers": workers}
    with monkeypatch.context() as patch, pytest.raises(Enough):
        patch.setitem(default_callbacks, "on_train_batch_start", [in_epoch(4, stop)])
        fit("yolov8n.yaml", rectangles.yaml, tmp_path / "run", **train)
    with (
        monkeypatch.context() as patch,
        pytest.raises(Refusal, match="mosaic was requested as 0.0 but is 0.7 in effect in epoch 4"),
    ):
        patch.setitem(default_callbacks, "on_train_batch_start", [in_epoch(4, reopen)])
        fit("yolov8n.yaml", rectangles.yaml, tmp_path / "run", **train)
    run = fit("yolov8n.yaml", rectangles.yaml, tmp_path / "run", **train)
    assert [row["epoch"] for row in run.attempts] == [1, 4, 4]
    seen = pd.read_csv(run.folder / "telemetry.csv")["mosaic"]
    assert seen.tolist() == [0.7, 0.7, 0, 0] and not run.declared
    assert run.conditions["mosaic_epochs_n"] == run.telemetry["mosaic_epochs_n"] == 2


def test_mosaic_of_an_epoch_that_is_not_the_planned_one(rectangles, tmp_path, monkeypatch):
    hooks = [in_epoch(2, set_mosaic(0.3)), in_epoch(3, set_mosaic(0.7))]
    monkeypatch.setitem(default_callbacks, "on_train_epoch_start", hooks)
    with pytest.raises(Refusal, match="mosaic was requested as 0.7 but is 0.3 in effect in epoch 2: correct"):
        fit("yolov8n.yaml", rectangles.yaml, tmp_path / "run", **MIXED)
    # neither a row nor a checkpoint tells of that epoch
    assert pd.read_csv(tmp_path / "run" / "results.csv")["epoch"].tolist() == [1]
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["epoch-00001"]
    declared = [{"key": "mosaic", "value": 0.3, "reason": "weakened on purpose"}]
    run = fit("yolov8n.yaml", rectangles.yaml, tmp_path / "other", declared=declared, **MIXED)
    assert run.declared == [{"requested": 0.7, **declared[0]}]
    assert pd.read_csv(run.folder / "telemetry.csv")["mosaic"].tolist() == [0.7, 0.3, 0, 0]
