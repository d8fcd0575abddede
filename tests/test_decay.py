"""Layer-wise learning rates: stock's groups split by layer, beside stock itself and hand-computed factors."""

import numpy as np
import painted
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel

from saistudy.paths import Refusal
from saistudy.training import decay
from saistudy.training.rect import RectTrainer

OPTIMIZERS = ["AdamW", "SGD", "MuSGD", "RMSprop"]


class Decayed(decay.LayerDecay, RectTrainer):
    """The trainer under test at the seed's rate."""

    llrd_rate = 0.9


class Untouched(decay.LayerDecay, RectTrainer):
    """The mixin as it comes: rate 1."""


class Split(RectTrainer):
    """Stock's groups split by layer although no rate differs."""

    def build_optimizer(self, model, *args, **kwargs):
        optimizer = super().build_optimizer(model, *args, **kwargs)
        decay.split(optimizer, model, 1.0)
        return optimizer


def trainer(kind, tree, folder, **change):
    place = {"model": "yolov8n.yaml", "data": str(tree.yaml), "project": str(folder), "name": kind.__name__}
    return kind(overrides=painted.LEARNABLE | place | {"plots": False, "imgsz": 32, "epochs": 2} | change)


@pytest.fixture(scope="module")
def model():
    return DetectionModel("yolov8n.yaml", nc=2, verbose=False)


@pytest.fixture(scope="module")
def bare(rectangles, tmp_path_factory):
    """A trainer that builds optimizers for any model."""
    return trainer(Decayed, rectangles, tmp_path_factory.mktemp("bare"))


def by_parameter(optimizer) -> dict[nn.Parameter, dict]:
    """The group of each parameter without its list of parameters; no parameter stands in two."""
    rows = [
        (p, {k: v for k, v in g.items() if k != "params"})
        for g in optimizer.param_groups
        for p in g["params"]
    ]
    found = dict(rows)
    assert len(found) == len(rows)
    return found


def layer_of(model) -> dict[nn.Parameter, int]:
    """The layer of each parameter, found by walking the network's layers, not by name."""
    return {p: i for i, layer in enumerate(model.model) for p in layer.parameters()}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_only_the_learning_rate_differs_from_stock(bare, model, name):
    asked = {"name": name, "lr": 0.001, "momentum": 0.9, "decay": 0.0005}
    ours = by_parameter(bare.build_optimizer(model, **asked))
    stock = by_parameter(RectTrainer.build_optimizer(bare, model, **asked))
    layers = layer_of(model)
    assert ours.keys() == stock.keys() == set(model.parameters())
    for parameter, group in stock.items():
        expected = group["lr"] * 0.9 ** (22 - layers[parameter])
        assert ours[parameter].pop("lr") == pytest.approx(expected, rel=1e-12)
        assert ours[parameter] == {k: v for k, v in group.items() if k != "lr"}


def test_the_first_layer_by_hand(bare, model):
    groups = bare.build_optimizer(model, name="AdamW", lr=0.001).param_groups
    lr = {p: group["lr"] for group in groups for p in group["params"]}
    first, last = model.model[0].conv.weight, model.model[22].cv3[0][2].weight
    # a YOLOv8 has 23 layers; 0.9 ** 22 = 0.0984770902...
    assert lr[last] == 0.001
    assert lr[first] / lr[last] == pytest.approx(0.0984770902183612, rel=1e-12)
    # the head's weights come first: lr/pg0 and the lr0 that is read back are those asked for
    assert any(p is last for p in groups[0]["params"])


@settings(max_examples=15, deadline=None)
@given(rate=st.floats(0.05, 0.999), lr=st.floats(1e-6, 1.0), name=st.sampled_from(OPTIMIZERS))
def test_any_rate_and_optimizer(bare, model, rate, lr, name):
    bare.llrd_rate = rate
    try:
        groups = by_parameter(bare.build_optimizer(model, name=name, lr=lr))
    finally:
        del bare.llrd_rate
    stock = by_parameter(RectTrainer.build_optimizer(bare, model, name=name, lr=lr))
    layers = layer_of(model)
    factors = {(layers[p], round(np.log(groups[p]["lr"] / stock[p]["lr"]) / np.log(rate))) for p in stock}
    # one factor per layer: the exponent counts the layers up to the last
    assert factors == {(i, 22 - i) for i in set(layers.values())}


def test_frozen_layers_stay_frozen_and_have_a_group(rectangles, tmp_path):
    run = trainer(Decayed, rectangles, tmp_path, freeze=10, epochs=1)
    before = {}
    run.add_callback(
        "on_train_start", lambda t: before.update({k: v.clone() for k, v in t.model.state_dict().items()})
    )
    run.train()
    assert by_parameter(run.optimizer).keys() == set(run.model.parameters())
    moved = {k for k, v in run.model.named_parameters() if not torch.equal(v, before[k])}
    layers = {int(name.split(".")[1]) for name in moved}
    # of the layers without parameters (up-sampling, joining) nothing can move
    assert layers == {12, 15, 16, 18, 19, 21, 22}


def weights(run) -> dict[str, torch.Tensor]:
    return run.model.state_dict() | {f"ema.{k}": v for k, v in run.ema.ema.state_dict().items()}


def test_rate_one_trains_bit_for_bit_as_without(rectangles, tmp_path):
    runs = []
    for kind in (RectTrainer, Untouched, Split):
        # the constructor seeds
        runs.append(trainer(kind, rectangles, tmp_path, warmup_epochs=0.5))
        runs[-1].train()
    stock, untouched, split = (weights(run) for run in runs)
    assert len(runs[1].optimizer.param_groups) == len(runs[0].optimizer.param_groups)
    assert len(runs[2].optimizer.param_groups) > len(runs[0].optimizer.param_groups)
    for key, value in stock.items():
        assert torch.equal(untouched[key], value), key
        assert torch.equal(split[key], value), key


@pytest.fixture(scope="module")
def followed(rectangles, tmp_path_factory):
    """Stock's and our run with warm-up, and the lr of every group after every batch."""
    runs = {}
    for kind in (RectTrainer, Decayed):
        run = trainer(kind, rectangles, tmp_path_factory.mktemp("followed"), epochs=4, warmup_epochs=1.5)
        rates = []
        run.add_callback("on_train_batch_end", lambda t, rates=rates: rates.append(by_parameter(t.optimizer)))
        run.train()
        runs[kind] = run, rates
    return runs


def test_every_step_follows_the_schedule_times_the_factor(followed):
    (stock, theirs), (run, ours) = followed[RectTrainer], followed[Decayed]
    layers = [layer_of(run.model)[p] for p in run.model.parameters()]
    warm_n = 6  # 1.5 epochs of 4 batches
    assert len(ours) == len(theirs) == 16
    for step, (mine, stocks) in enumerate(zip(ours, theirs, strict=True)):
        pairs = zip(run.model.parameters(), stock.model.parameters(), layers, strict=True)
        for parameter, twin, i in pairs:
            factor = 0.9 ** (22 - i)
            start = 0.1 if stocks[twin]["param_group"] == "bias" else 0.0  # warmup_bias_lr
            share = min(1.0, step / warm_n)
            # stock goes in a line from `start` to its lr, which is ours divided by the factor
            target = (stocks[twin]["lr"] - (1 - share) * start) / share if share else 0.0
            expected = (1 - share) * start + share * target * factor
            assert mine[parameter]["lr"] == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_results_csv_holds_the_schedules(followed):
    (stock, _), (run, _) = followed[RectTrainer], followed[Decayed]
    theirs, ours = pd.read_csv(stock.csv), pd.read_csv(run.csv)
    layers, kinds = layer_of(run.model), {"weight": "lr/pg0", "bn": "lr/pg1", "bias": "lr/pg2"}
    columns = [name for name in ours if name.startswith("lr/pg")]
    assert len(columns) == len(run.optimizer.param_groups) > 3
    for column, group in zip(columns, run.optimizer.param_groups, strict=True):
        i = {layers[p] for p in group["params"]}
        assert len(i) == 1
        expected = theirs[kinds[group["param_group"]]] * 0.9 ** (22 - i.pop())
        # the last epochs lie after the warm-up; six digits are written
        np.testing.assert_allclose(ours[column][2:], expected[2:], rtol=2e-5)
    assert ours["lr/pg0"][3] < ours["lr/pg0"][2]


def test_the_weights_differ_and_load_in_stock(followed):
    (stock, _), (run, _) = followed[RectTrainer], followed[Decayed]
    assert not torch.equal(weights(stock)["model.0.conv.weight"], weights(run)["model.0.conv.weight"])
    assert YOLO(run.best).names == {0: "fire", 1: "smoke"}


@pytest.mark.parametrize("rate", [0.0, -0.5, 1.1, float("nan")])
def test_a_rate_out_of_range_is_refused(bare, model, rate):
    bare.llrd_rate = rate
    with pytest.raises(Refusal, match="above 0 and at most 1"):
        bare.build_optimizer(model, name="AdamW")
    del bare.llrd_rate


def test_a_network_without_layers_is_refused(bare):
    with pytest.raises(Refusal, match="parameter weight belongs to no layer, .* Linear"):
        bare.build_optimizer(nn.Linear(2, 2), name="AdamW")
