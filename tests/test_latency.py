"""Latency: what is counted and how often, not how long it takes."""

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import painted
import pytest
from ultralytics import YOLO

from saistudy.evaluation import latency
from saistudy.paths import Refusal


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "random.pt"
    YOLO("yolov8n.yaml").save(path)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[Path]:
    """Images of three shapes, in an order that is not that of their names."""
    folder = tmp_path_factory.mktemp("images") / "tree"
    painted.tree(folder, {"test": 7}, {0: "fire", 1: "smoke"}, [(64, 48), (120, 60), (40, 90)])
    return sorted((folder / "images" / "test").iterdir(), reverse=True)


OPENED: list[str] = []


def _note(event: str, args: tuple) -> None:
    if event == "open" and str(args[0]).endswith(".png"):
        OPENED.append(Path(str(args[0])).name)


@pytest.fixture
def opened():
    """Names of the pictures that Python opens from here on; a hook cannot be taken back."""
    if not getattr(_note, "set", False):
        sys.addaudithook(_note)
        _note.set = True
    OPENED.clear()
    return OPENED


@pytest.mark.parametrize("imgsz", [64, [64, 96]])
def test_every_image_is_measured_once_and_warm_up_is_left_out(weights, files, opened, imgsz):
    seen = latency.measured(weights, files, imgsz, 0.25, "cpu", warmup_n=9)
    rows = seen["rows"]
    assert rows["image"].tolist() == [file.name for file in files]
    assert (seen["images_n"], seen["warmup_n"]) == (7, 9)
    # nine warm up: all seven and the first two again; then each once
    expected = Counter({file.name: 2 for file in files}) + Counter(file.name for file in files[:2])
    assert Counter(opened) == expected
    assert seen["imgsz"] == ([64, 64] if imgsz == 64 else [64, 96])
    assert seen["device"] == "cpu" and seen["threads_n"] == 1 and seen["conf"] == 0.25


def test_percentiles_are_those_of_its_own_rows(weights, files):
    seen = latency.measured(weights, files * 15, 32, 0.25, "cpu", warmup_n=1)
    total = seen["rows"]["total_s"].to_numpy()
    assert (total > 0).all() and len(total) == 105
    assert seen["rows"][list(latency.PARTS)].sum(axis=1).to_numpy() == pytest.approx(total)
    # the 53rd of 105 in order; 1 % of the 104 steps from the top is 1.04 steps down
    ordered = np.sort(total)
    assert seen["p50_s"] == pytest.approx(ordered[52])
    assert seen["p99_s"] == pytest.approx(ordered[-2] - 0.04 * (ordered[-2] - ordered[-3]))


def test_few_images_have_no_99th_percentile(weights, files):
    seen = latency.measured(weights, files[:2], 32, 0.25, "cpu", warmup_n=0)
    assert seen["p99_s"] is None
    assert seen["p50_s"] == pytest.approx(seen["rows"]["total_s"].mean())


def test_refuses(weights, files, tmp_path):
    with pytest.raises(Refusal, match="No image"):
        latency.measured(weights, [], 32, 0.25, "cpu", warmup_n=1)
    with pytest.raises(Refusal, match="could not be read"):
        latency.measured(weights, [tmp_path / "none.jpg"], 32, 0.25, "cpu", warmup_n=0)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    with pytest.raises(Refusal, match="could not be read"):
        latency.measured(weights, [broken], 32, 0.25, "cpu", warmup_n=0)
