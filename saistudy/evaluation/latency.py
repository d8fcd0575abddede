"""How long one image takes: preprocessing, network and non-maximum suppression, one image at a time."""

from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from ultralytics import YOLO

from saistudy.paths import Refusal
from saistudy.training.rect import pin_torch, tensor_hw

PARTS = ("preprocess_s", "inference_s", "postprocess_s")
P99_MIN = 100
"""Fewest images with a 99th percentile: below, it is only the slowest image."""


def measured(weights: Path, files: Sequence[Path], imgsz, conf: float, device: str, warmup_n: int) -> dict:
    """Latency at batch 1 through stock `YOLO.predict`, whose own clocks it reads.

    Each file is one call, so that nothing is read ahead while the network runs. Reading and decoding the
    file is not counted; the copy to the device, letterboxing, the network (32 bits, layers fused, as stock
    has it) and suppression are. On a GPU stock waits for it before each clock is read (8.4.190). Use
    photographs: on noise a detector finds nothing, and suppression has nothing to do.

    Args:
        files: images, each measured once; the first `warmup_n`, again from the start if there are fewer,
            are run before and left out.
        imgsz: integer or [height, width] of the tensor, px: the model's own rectangle, not cut to the image.
        conf: score from which a detection is kept (the model's threshold): it sets the load of suppression.
        device: Ultralytics' own.

    Returns:
        p50_s, p99_s (seconds an image, numpy's linear interpolation; p99_s None below 100 images), images_n,
        warmup_n, imgsz [h, w], conf, device (its name), threads_n (of torch), and rows: a frame with image
        (file name), preprocess_s, inference_s, postprocess_s, total_s in the order of `files`.

    Raises:
        Refusal: no file, or a file that Ultralytics cannot read.
    """
    if not files:
        raise Refusal("No image was seen, one or more were expected: name the images to measure on.")
    model, hw = YOLO(weights), tensor_hw(imgsz)
    model.add_callback("on_predict_start", pin_torch)
    settings = {"imgsz": list(hw), "conf": conf, "device": device}
    for file in islice(cycle(files), warmup_n):
        _one(model, file, settings)
    rows = pd.DataFrame([_one(model, file, settings) for file in files])
    return {
        **_percentiles(rows["total_s"].to_numpy()),
        **{"images_n": len(rows), "warmup_n": warmup_n, "imgsz": list(hw), "conf": conf},
        "device": _name(model.predictor.device),
        "threads_n": torch.get_num_threads(),
        "rows": rows,
    }


def _one(model: YOLO, file: Path, settings: dict) -> dict:
    """Seconds that one image took, by part."""
    try:
        (result,) = model.predict(file, batch=1, rect=False, verbose=False, **settings)
    except (FileNotFoundError, ValueError) as error:
        raise Refusal(f"{file} could not be read ({error}): name images that are there.") from error
    height, width = settings["imgsz"]
    if model.predictor.pixels != height * width:
        raise RuntimeError(f"a tensor of {model.predictor.pixels} px was measured, not {height} x {width}")
    parts = {part: result.speed[part.removesuffix("_s")] / 1e3 for part in PARTS}  # stock counts in ms
    return {"image": Path(file).name, **parts, "total_s": sum(parts.values())}


def _percentiles(seconds: np.ndarray) -> dict[str, float | None]:
    p50, p99 = np.percentile(seconds, [50, 99])
    return {"p50_s": float(p50), "p99_s": float(p99) if len(seconds) >= P99_MIN else None}


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
