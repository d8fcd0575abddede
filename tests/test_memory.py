"""The largest batch that fits: the search on any limit, the trial steps on a real network."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ultralytics import YOLO
from ultralytics.cfg import get_cfg

from saistudy.paths import Refusal
from saistudy.training import memory
from saistudy.training.fit import fit


@given(st.integers(0, 3000), st.integers(1, 2000))
def test_the_largest_that_fits(limit, most):
    asked = []

    def fits(batch):
        asked.append(batch)
        return batch <= limit

    assert memory.largest(fits, most) == min(limit, most)
    assert len(asked) <= 2 * math.log2(most) + 2
    assert max(asked) <= max(2 * limit, 1)  # no trial far beyond what a GPU holds


@pytest.mark.parametrize(
    ("gib", "name", "row"),
    [
        (0, "cpu", ("yolov8n", 4, 320)),
        (4, "low", ("yolov8s", 8, 480)),
        (5.99, "low", ("yolov8s", 8, 480)),
        (6, "medium", ("yolov8m", 16, 640)),
        (12, "high", ("yolov8l", 32, 640)),
        (24, "high", ("yolov8l", 32, 640)),
        (24.5, "workstation", ("yolov8x", 64, 800)),
        (80, "workstation", ("yolov8x", 64, 800)),
        (139.8, "h200", ("yolov8s", 128, 896)),
    ],
)
def test_the_tiers_of_seed_004(gib, name, row):
    """L45-51: below 6, 6 to 12, 12 to 24, above 24 GB, no GPU; the H200 beside them."""
    found = memory.tier(gib)
    assert (found["tier"], (found["model"], found["batch"], found["imgsz"])) == (name, row)


def network():
    model = YOLO("yolov8n.yaml").model
    model.args = get_cfg()
    return model


def test_trial_steps_are_training_steps_at_the_rectangle():
    model, seen = network(), []
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.model[0].register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    loss = memory.steps(model, 3, (64, 96), False, boxes_n=5)
    assert seen == [(3, 3, 64, 96)] * 2
    assert math.isfinite(loss) and loss > 0
    changed = [key for key, value in model.state_dict().items() if not torch.equal(value, before[key])]
    assert any(key.endswith("conv.weight") for key in changed)


def test_without_a_gpu_a_batch_must_be_named(rectangles, tmp_path):
    with pytest.raises(Refusal, match="batch auto was asked for on cpu"):
        memory.find(network(), (64, 96), False, 16, 5)
    train = {"epochs": 1, "imgsz": 64, "device": "cpu", "amp": False, "workers": 0, "batch": "auto"}
    with pytest.raises(Refusal, match="batch auto was asked for on cpu"):
        fit("yolov8n.yaml", rectangles.yaml, tmp_path / "run", **train)
