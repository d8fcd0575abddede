"""A trained network as an ONNX file, run with onnxruntime beside torch before anyone relies on it."""

import time
from copy import deepcopy
from hashlib import sha256
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from onnx import load
from ultralytics import YOLO
from ultralytics.models.yolo.detect import DetectionPredictor
from ultralytics.utils.nms import non_max_suppression

from saistudy.paths import Refusal
from saistudy.training.rect import pin_torch

# Times torch's rounding, which another order of the same sums may double; measured on yolov8n and yolov8s up
# to 832 x 1440, trained and not: 0.16 to 0.81 times. One weight off by 0.01 gave 360 times.
MARGIN = 8
SCORE, OVERLAP = 0.25, 0.7  # of non-maximum suppression: the defaults of Ultralytics' predict


def onnx(weights: Path, hw: tuple[int, int], images: list[Path]) -> dict:
    """Export weights for the tensor hw (height, width in px) into the file beside them, and `compare` it.

    Adds `export_s`. Stock export, without the optional `onnxslim`.

    Raises:
        Refusal: as `compare`.
    """
    if not images:
        raise Refusal("no image was given, at least one was expected: name images to compare the outputs on.")
    started = time.perf_counter()
    file = Path(YOLO(weights).export(format="onnx", imgsz=list(hw), simplify=False, device="cpu"))
    return {"export_s": round(time.perf_counter() - started, 2)} | compare(weights, file, images)


def compare(weights: Path, file: Path, images: list[Path]) -> dict:
    """What an ONNX file is, and how far its outputs are from torch's on images, one at a time on the CPU.

    Ultralytics' predictor letterboxes the images. `difference` is the largest of all raw outputs: [box
    coordinates in px of the tensor, class scores]; `tolerance`, MARGIN times torch's own rounding on these
    images (its float32 beside its float64) plus the spacing of float32 at the longest side or score 1.
    `boxes_n` are torch's after non-maximum suppression, `matched_n` those that onnxruntime has within that
    tolerance. `torch_s` and `onnx_s` are median seconds of an image with as many threads.

    Raises:
        Refusal: the file cannot be run, or it differs from torch by more than the tolerance.
    """
    session = _session(file)
    hw = session.get_inputs()[0].shape[2:]
    ours, precise, theirs, *seconds = zip(*_runs(weights, session, hw, images), strict=True)
    spacing = np.finfo(np.float32).eps * np.array([max(hw), 1])
    seen, allowed = _apart(ours, theirs), MARGIN * (_apart(ours, precise) + spacing)
    if not (seen <= allowed).all():  # not a number counts as apart
        raise Refusal(
            f"{file} differs from torch by {seen[0]:.2g} px and {seen[1]:.2g} in score, {allowed[0]:.2g} and"
            f" {allowed[1]:.2g} were expected from rounding: it is another network, export it again."
        )
    pairs = zip(ours, theirs, strict=True)
    counts = np.sum([_matched(*pair, allowed) for pair in pairs], axis=0).tolist()
    found = {"imgsz": hw, "images_n": len(images), "boxes_n": counts[0], "matched_n": counts[1]}
    found |= zip(("torch_s", "onnx_s"), np.median(seconds, axis=1).round(4).tolist(), strict=True)
    content, opset = Path(file).read_bytes(), load(file).opset_import[0].version
    found |= {"file": str(file), "opset": opset, "bytes": len(content), "sha256": sha256(content).hexdigest()}
    return found | {"difference": seen.tolist(), "tolerance": allowed.tolist()}


def _session(file: Path) -> onnxruntime.InferenceSession:
    """The file ready to run on the CPU with torch's number of threads."""
    pin_torch()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's kinds have no base of their own
        raise Refusal(f"{file} cannot be run ({str(error).splitlines()[0]}): export it again.") from error


@torch.inference_mode()
def _runs(weights: Path, session, hw: list[int], images: list[Path]) -> list[tuple]:
    """Of each image the outputs of torch, torch in float64, onnxruntime; seconds of the first and last."""
    predictor = DetectionPredictor(overrides={"imgsz": hw, "rect": False, "device": "cpu", "save": False})
    predictor.setup_model(str(weights), verbose=False)
    pin_torch()
    network, runs = predictor.model.model, []
    exact = deepcopy(network).double()
    for image in [images[0], *images]:  # the first warms up
        predictor.setup_source(str(image))
        tensor = predictor.preprocess(next(iter(predictor.dataset))[1])
        start, ours, turn = time.perf_counter(), network(tensor)[0], time.perf_counter()
        theirs = torch.from_numpy(session.run(None, {"images": tensor.numpy()})[0])
        torch_s, onnx_s = turn - start, time.perf_counter() - turn
        runs.append((ours, exact(tensor.double())[0], theirs, torch_s, onnx_s))
    return runs[1:]


def _apart(ones: tuple[torch.Tensor, ...], others: tuple[torch.Tensor, ...]) -> np.ndarray:
    """The largest differences of coordinates in px and of scores over images, float64 (2,)."""
    rows = torch.stack([(a - b).abs().double().amax((0, 2)) for a, b in zip(ones, others, strict=True)])
    return np.array([rows[:, :4].max(), rows[:, 4:].max()])


def _matched(ours: torch.Tensor, theirs: torch.Tensor, allowed: np.ndarray) -> tuple[int, int]:
    """Boxes of torch after non-maximum suppression, and how many of them onnxruntime has too."""
    ours, theirs = (non_max_suppression(y, SCORE, OVERLAP)[0].double().numpy() for y in (ours, theirs))
    near = np.abs(ours[:, None] - theirs) <= [*[allowed[0]] * 4, allowed[1], 0]
    return len(ours), int(near.all(-1).any(-1).sum())
