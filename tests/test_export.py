"""An ONNX file beside torch: equal to rounding on photographs, and told when a weight of it was changed."""

import hashlib
import shutil
from pathlib import Path

import cv2
import numpy as np
import onnx
import painted
import pytest
from onnx import numpy_helper
from ultralytics import YOLO

from saistudy.paths import Refusal
from saistudy.training import export

SHAPES = [(64, 64), (64, 96)]


def lifted(weights: Path, to: Path) -> Path:
    """Briefly trained weights whose every score is raised, so that boxes pass the threshold of predict."""
    model = YOLO(weights)
    for branch in model.model.model[-1].cv3:
        branch[-1].bias.data += 4.0
    model.save(to)
    return to


@pytest.fixture(scope="module", params=SHAPES, ids=str)
def exported(request, trained, tmp_path_factory):
    """Weights that find rectangles, pictures as they were trained on, and what was said of their export."""
    folder = tmp_path_factory.mktemp("export")
    weights = lifted(trained.folder / "weights" / "best.pt", folder / "best.pt")
    pictures, rng = [], np.random.default_rng(3)
    for i, size in enumerate([(64, 48), (48, 64), (120, 50), (64, 48), (64, 48), (300, 200)]):
        picture = painted.picture(size, painted.corners(size, (0.8, 0.95), rng), painted.COLOURS[i % 2])
        pictures.append(folder / f"{i}.png")
        cv2.imwrite(str(pictures[-1]), picture)
    return weights, request.param, pictures, export.onnx(weights, request.param, pictures)


def test_what_is_said_of_the_file(exported):
    weights, hw, pictures, said = exported
    file = Path(said["file"])
    assert file == weights.with_suffix(".onnx")
    assert said["bytes"] == file.stat().st_size
    assert said["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert said["opset"] == max(one.version for one in onnx.load(file).opset_import)
    assert (said["imgsz"], said["images_n"]) == (list(hw), len(pictures))
    assert min(said["torch_s"], said["onnx_s"], said["export_s"]) > 0


def test_it_is_torch_up_to_rounding(exported):
    _, _, pictures, said = exported
    assert 0 < said["difference"][0] <= said["tolerance"][0] < 0.01
    assert 0 < said["difference"][1] <= said["tolerance"][1] < 1e-4
    assert said["boxes_n"] == said["matched_n"] >= len(pictures) - 1


def test_stock_predicts_the_same_boxes_with_both(exported):
    weights, hw, pictures, said = exported
    asked = {"imgsz": list(hw), "rect": False, "device": "cpu", "verbose": False}
    found = []
    for file in (weights, said["file"]):
        model = YOLO(file, task="detect")
        found.append([model.predict(picture, **asked)[0].boxes for picture in pictures])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours.xyxy, theirs.xyxy, atol=0.05)
        np.testing.assert_allclose(ours.conf, theirs.conf, atol=1e-5)
        assert ours.cls.tolist() == theirs.cls.tolist()
    assert said["boxes_n"] == sum(map(len, found[0]))


def damaged(file: Path, to: Path, change) -> Path:
    """A copy of an ONNX file with one number of its first convolution's weights changed."""
    model = onnx.load(file)
    tensor = next(one for one in model.graph.initializer if len(one.dims) == 4)
    values = numpy_helper.to_array(tensor).copy()
    values.flat[0] = change(values.flat[0])
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(model, to)
    return to


@pytest.mark.parametrize("change", [lambda w: -w - 0.1, lambda w: w + 0.01, lambda w: np.nan])
def test_one_changed_weight_is_told(exported, tmp_path, change):
    weights, _, pictures, said = exported
    # saved again without a change it is the same network
    again = export.compare(weights, damaged(said["file"], tmp_path / "same.onnx", lambda w: w), pictures)
    assert again["difference"] == said["difference"]
    other = damaged(said["file"], tmp_path / "other.onnx", change)
    with pytest.raises(Refusal, match=r"other.onnx differs from torch by .* px and .* in score,") as refusal:
        export.compare(weights, other, pictures)
    assert "\n" not in str(refusal.value)


def test_other_weights_are_told(exported, trained, tmp_path):
    _, _, pictures, said = exported
    shorter = shutil.copy(trained.folder / "weights" / "best_patience1.pt", tmp_path)
    with pytest.raises(Refusal, match="another network"):
        export.compare(shorter, Path(said["file"]), pictures)


def test_a_file_cut_short_is_told(exported, tmp_path):
    weights, _, pictures, said = exported
    short = tmp_path / "short.onnx"
    short.write_bytes(Path(said["file"]).read_bytes()[:5000])
    with pytest.raises(Refusal, match="short.onnx cannot be run") as refusal:
        export.compare(weights, short, pictures)
    assert "\n" not in str(refusal.value)


def test_no_image_is_refused(exported):
    weights, hw, _, _ = exported
    with pytest.raises(Refusal, match="no image was given"):
        export.onnx(weights, hw, [])


@pytest.mark.parametrize("hw", [(96, 96), (96, 160)])
def test_photographs(real, trained, tmp_path, hw):
    weights = lifted(trained.folder / "weights" / "best.pt", tmp_path / "best.pt")
    pictures = sorted((real / "FASDD_CV" / "images").glob("*.jpg"))[::40][:5]
    said = export.onnx(weights, hw, pictures)
    assert said["images_n"] == len(pictures) >= 3
    assert said["difference"][0] <= said["tolerance"][0] < 0.01
    assert said["matched_n"] == said["boxes_n"]
