"""Ultralytics of another version: works where it was tried, is refused by name elsewhere."""

import os
import subprocess
import sys
import tomllib

import pytest
import ultralytics
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement

from saistudy.paths import ROOT, Refusal
from saistudy.training import rect

TRAIN = """
import sys
import ultralytics
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook
from saistudy.training.rect import RectTrainer

data, folder = sys.argv[1:]
seen = set()

def look(module, inputs):
    if isinstance(module, nn.Conv2d) and module.in_channels == 3:
        seen.add((module.training, *inputs[0].shape[2:]))

trainer = RectTrainer(overrides={
    "model": "yolov8n.yaml", "data": data, "project": folder, "name": "run", "imgsz": [64, 96], "batch": 8,
    "epochs": 2, "close_mosaic": 1, "mixup": 0.5, "device": "cpu", "amp": False, "plots": False,
})
hooks = []
trainer.add_callback("on_train_start", lambda _: hooks.append(register_module_forward_pre_hook(look)))
trainer.train()
print("version", ultralytics.__version__)
print("training", sorted(hw for training, *hw in seen if training))
print("rows", len(trainer.csv.read_text().splitlines()) - 1)
"""


@pytest.mark.parametrize("version", ["8.4.150", "8.4.151", "8.4.175", "8.4.190", ultralytics.__version__])
def test_versions_that_were_tried_pass(version):
    rect.refuse_version(version)


@pytest.mark.parametrize(
    "version",
    ["8.4.149", "8.4.191", "8.4.0", "8.3.184", "8.5.0", "9.0.0", "18.4.160", "8.4.1600", "8.4", "8.4.160.1"]
    + [
        "",
        " 8.4.160",
        "8.4.160\n",
        "8.4.0160",
        "8.4.160rc1",
        "8.4.160+cu128",
        "8.4.-160",
        "8.4.¹60",
        "unknown",
    ],
)
def test_every_other_version_is_refused_by_name(version):
    with pytest.raises(Refusal) as refused:
        rect.refuse_version(version)
    said = str(refused.value)
    assert f"Ultralytics {version} is imported" in said
    assert "8.4.150 to 8.4.190" in said and said.endswith("install ultralytics==8.4.190.")


@given(st.tuples(*[st.integers(0, 300)] * 3) | st.tuples(st.just(8), st.just(4), st.integers(0, 300)))
def test_versions_are_compared_as_numbers(parts):
    version = ".".join(map(str, parts))
    if (8, 4, 150) <= parts <= (8, 4, 190):
        rect.refuse_version(version)
    else:
        with pytest.raises(Refusal):
            rect.refuse_version(version)


def test_the_project_asks_for_nothing_below_what_was_tried():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (wanted,) = [r for r in map(Requirement, project["dependencies"]) if r.name == "ultralytics"]
    assert all(wanted.specifier.contains(tried) for tried in rect.TRIED)
    assert not wanted.specifier.contains("8.4.149")


def test_a_trainer_of_another_version_is_not_built(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(rect, "__version__", "8.5.0")
    place = {"data": str(tiny.yaml), "project": str(tmp_path), "device": "cpu"}
    with pytest.raises(Refusal, match=r"Ultralytics 8\.5\.0 is imported"):
        rect.RectTrainer(overrides=place | {"model": "yolov8n.yaml", "imgsz": [64, 96]})
    # before anything was written
    assert not list(tmp_path.iterdir())


def installed(version: str, folder) -> None:
    """Ultralytics of a version in a folder of its own; skips where the package index cannot be reached."""
    done = subprocess.run(
        [sys.executable, "-m", "uv", "pip", "install", "--python", sys.executable, "--no-deps"]
        + ["--target", str(folder), f"ultralytics=={version}"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    if done.returncode:
        pytest.skip(f"ultralytics {version} cannot be installed here: {done.stderr.strip()[-300:]}")


@pytest.mark.full
@pytest.mark.parametrize("version", rect.TRIED)
def test_a_rectangle_is_trained_by_the_ends_of_the_range(tiny, tmp_path, version):
    installed(version, tmp_path / "site")
    env = os.environ | {"PYTHONPATH": f"{tmp_path / 'site'}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-c", TRAIN, str(tiny.yaml), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-3:] == [f"version {version}", "training [[64, 96]]", "rows 2"]


@pytest.mark.full
def test_a_version_below_the_range_trains_nothing(tiny, tmp_path):
    installed("8.4.149", tmp_path / "site")
    env = os.environ | {"PYTHONPATH": f"{tmp_path / 'site'}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-c", TRAIN, str(tiny.yaml), str(tmp_path / "runs")]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path, timeout=600)
    assert done.returncode != 0 and not (tmp_path / "runs").exists()
    assert "Refusal: Ultralytics 8.4.149 is imported" in done.stderr
