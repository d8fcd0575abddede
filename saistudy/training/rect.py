"""Training and validating at exactly the tensor that was asked for, rectangles included.

Stock Ultralytics replaces a list `imgsz` by its largest side (`check_imgsz(max_dim=1)` in trainer and
validator, 8.4.190), so `imgsz=[1440, 808]` trains the square 1440. Here the engine keeps that integer, while
the pair (height, width) lives on trainer, validator and data set (training.dataset). Nothing is patched;
`best.pt` loads in stock `YOLO()`.

Stock `predict` and `export` find the pair in `best.pt`; stock `predict` still cuts the rectangle to the
shape of each image unless `rect=False`. Stock `YOLO(best.pt).val()` takes the longest side again: a model
is evaluated at its rectangle by `saistudy.evaluation.predict` (all three tried, tests/test_rect.py).
"""

import os
import re
from copy import copy

import torch
from ultralytics import __version__
from ultralytics.models.yolo.detect import DetectionTrainer, DetectionValidator
from ultralytics.utils.checks import check_imgsz
from ultralytics.utils.torch_utils import unwrap_model

from saistudy.paths import Refusal
from saistudy.training.dataset import RectDataset, build_dataset, refuse_other_shape
from saistudy.training.ladder import STRIDE_PX

# tests/test_rect.py and test_geometry.py were run with 8.4.150, .160, .170, .180 and .190 (2026-11-20)
TRIED = "8.4.150", "8.4.190"


def refuse_version(version: str) -> None:
    """Raise Refusal unless an Ultralytics version such as "8.4.190" lies in the range that was tried.

    Its transforms and trainer change weekly, and a rectangle that is set in a way which another version does
    not heed would train something else in silence.
    """
    number = re.fullmatch(r"8\.4\.(0|[1-9][0-9]*)", version, re.ASCII)
    low, high = (int(tried.split(".")[2]) for tried in TRIED)
    if not number or not low <= int(number[1]) <= high:
        raise Refusal(
            f"Ultralytics {version} is imported, but true rectangles were tried with {TRIED[0]} to {TRIED[1]}"
            f" only: install ultralytics=={TRIED[1]}."
        )


def pin_torch(*_) -> None:
    """Keep torch at OMP_NUM_THREADS threads on a CPU; a callback, for Ultralytics sets its own number.

    `select_device("cpu")` takes min(8, cores - 1) whatever the environment says (8.4.190), and CPU results
    differ between thread counts (measured: losses by 1e-5 of themselves after 3 epochs).
    """
    if threads := os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(int(threads))


def tensor_hw(imgsz: int | list[int]) -> tuple[int, int]:
    """Height and width in pixels of the tensor for an `imgsz` (one or two integers), rounded up to 32."""
    height, width = check_imgsz(imgsz, stride=STRIDE_PX, min_dim=2)
    return height, width


def say_rounding(asked: int | list[int], hw: tuple[int, int]) -> None:
    """Print a line where the tensor is not what `imgsz` says; Ultralytics' own warning goes to train.log."""
    if list(hw) != ([asked, asked] if isinstance(asked, int) else list(asked)):
        print(
            f"imgsz {asked} is trained as {list(hw)} (height, width):"
            f" each side is rounded up to a multiple of the stride {STRIDE_PX}",
            flush=True,
        )


def refuse_stride(hw: tuple[int, int], stride: int) -> None:
    """Raise Refusal where a model's stride in pixels (64 for the P6 models) does not divide both sides."""
    if any(side % stride for side in hw):
        fits = [-(-side // stride) * stride for side in hw]
        raise Refusal(
            f"the tensor {list(hw)} was asked for, this model's stride is {stride}: ask for imgsz {fits}."
        )


class RectValidator(DetectionValidator):
    """The stock validator at exactly `hw`; keeps each image's boxes in `rows` when `keep` is true.

    `rows` holds (file, class, score, x1, y1, x2, y2) with boxes in pixels of the original image.
    """

    def __init__(self, *args, hw: tuple[int, int], keep: bool = False, **kwargs):
        self.hw, self.keep, self.rows = hw, keep, []
        super().__init__(*args, **kwargs)

    def build_dataset(self, img_path, mode="val", batch=None):
        """A RectDataset of the split."""
        return build_dataset(self.args, img_path, self.hw, batch, self.data, mode, int(self.stride))

    def preprocess(self, batch):
        """Stock, after the shape was checked."""
        refuse_other_shape(batch, self.hw)
        return super().preprocess(batch)

    def update_metrics(self, preds, batch):
        """Stock; with `keep`, each prediction after non-maximum suppression is remembered as well."""
        super().update_metrics(preds, batch)
        if self.keep:
            for i, pred in enumerate(preds):
                self.rows += _rows(pred, batch, i)


def _rows(pred: dict, batch: dict, i: int) -> list[tuple]:
    """Predictions of one image, scaled back to its own pixels."""
    from ultralytics.utils.ops import scale_boxes

    boxes = scale_boxes(
        batch["img"].shape[2:],
        pred["bboxes"].clone(),
        batch["ori_shape"][i],
        ratio_pad=batch["ratio_pad"][i],
    )
    columns = zip(pred["cls"].tolist(), pred["conf"].tolist(), boxes.tolist(), strict=True)
    return [(batch["im_file"][i], int(c), score, *box) for c, score, box in columns]


class RectTrainer(DetectionTrainer):
    """The stock trainer at exactly the tensor that `imgsz` declares; `hw` is (height, width) in pixels.

    `dataset` builds the data set of the training split, `valset` that of the validation split.

    Raises:
        Refusal: Ultralytics is of a version that was not tried, or the model's stride divides no such tensor.
    """

    dataset = valset = RectDataset
    renderer = None

    def __init__(self, *args, **kwargs):
        refuse_version(__version__)
        super().__init__(*args, **kwargs)
        self.hw = tensor_hw(self.args.imgsz)
        say_rounding(self.args.imgsz, self.hw)
        self.args.imgsz = max(self.hw)

    def build_dataset(self, img_path, mode="train", batch=None):
        """A RectDataset for training or validation."""
        stride = max(int(unwrap_model(self.model).stride.max()), STRIDE_PX)
        refuse_stride(self.hw, stride)
        kind = self.dataset if mode == "train" else self.valset
        return build_dataset(self.args, img_path, self.hw, batch, self.data, mode, stride, kind)

    def get_validator(self):
        """The validator at the same tensor."""
        return RectValidator(
            self.test_loader,
            save_dir=self.save_dir,
            args=copy(self.args),
            _callbacks=self.callbacks,
            hw=self.hw,
        )

    def preprocess_batch(self, batch):
        """Stock, after plans were rendered and the shape was checked (multi-scale comes later)."""
        self.render(batch)
        refuse_other_shape(batch, self.hw)
        return super().preprocess_batch(batch)

    def render(self, batch) -> None:
        """Put pixels where a batch holds plans, (N, bytes): see training.plans."""
        if batch["img"].ndim == 2:
            self.renderer = self.renderer or self.train_loader.dataset.renderer(self.device)
            batch["img"] = self.renderer(batch["img"])

    def save_model(self):
        """Stock, with the pair in the checkpoint's arguments: resume, predict and export find it there."""
        longest = self.args.imgsz
        self.args.imgsz = list(self.hw)
        try:
            return super().save_model()
        finally:
            self.args.imgsz = longest
