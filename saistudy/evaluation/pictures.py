"""A model on pictures and videos of one's own, predicted exactly as the test images of a run are."""

from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml
from ultralytics import YOLO
from ultralytics.cfg import get_cfg

from saistudy.evaluation.predict import CONF_MIN, MAX_DET, PER_CLASS_MAX
from saistudy.evaluation.shots import Shot
from saistudy.evaluation.truth import BOX
from saistudy.paths import Refusal, write_text
from saistudy.training.dataset import RectDataset
from saistudy.training.paste import NOWHERE
from saistudy.training.rect import RectValidator, pin_torch, tensor_hw

BATCH = 16  # Ultralytics' own of a validation
FOUND = ["path", "frame", "class", "score", *BOX]


class _Unlabelled(RectDataset):
    """Files without labels, in the order given. They are only read: stock's scan would mend some in place."""

    def get_img_files(self, img_path):
        return [str(file) for file in img_path]

    def get_labels(self):
        none = {"cls": np.zeros((0, 1), np.float32), "bboxes": np.zeros((0, 4), np.float32), "segments": []}
        more = {"keypoints": None, "normalized": True, "bbox_format": "xywh", "shape": None}
        return [{"im_file": file} | none | more for file in self.im_files]

    def load_image(self, i, *args, **kwargs):
        """Stock, from the file itself: stock prefers an .npy beside it, and repairs or removes that."""
        self.npy_files[i] = NOWHERE
        return super().load_image(i, *args, **kwargs)


class _Batches:
    """What a validator takes for its loader: batches of shots, read as they are asked for."""

    batch_size, dataset = BATCH, range(1)  # stock divides its seconds by the length of the data set

    def __init__(self, taken: Iterator[Shot], hw: tuple[int, int]):
        self.taken, self.hw, self.now = taken, hw, ()

    def __len__(self) -> int:
        return 1  # how many there are is known at the end

    def __iter__(self):
        while now := list(islice(self.taken, BATCH)):
            self.now = now
            yield self._batch([shot.file for shot in now])

    def _batch(self, files: list[Path]) -> dict:
        data = {"names": {}, "channels": 3}
        samples = _Unlabelled(
            img_path=files, hw=self.hw, hyp=get_cfg(), augment=False, data=data, task="detect", prefix=""
        )
        return _Unlabelled.collate_fn([samples[i] for i in range(len(files))])


def find(
    weights: Path,
    taken: Iterator[Shot],
    conf: float,
    scratch: Path,
    take: Callable[[list, pd.DataFrame], None],
) -> None:
    """Predict shots batch by batch as `predict.predict` does, at the tensor that the model was trained at.

    Args:
        weights: a detector's `.pt` file; loading it runs code, so take one that you trust.
        conf: score from which a detection counts.
        scratch: an existing folder.
        take: called after each batch with its shots and their detections: columns FOUND; class by name, score
            and boxes float32, boxes in pixels of the picture as shown (EXIF turned), of each shot and class
            the PER_CLASS_MAX highest scores, falling.

    Raises:
        Refusal: the weights hold no detector.
    """
    names, hw = detector(weights)
    if (first := next(taken, None)) is None:  # stock cannot validate nothing
        return
    taken = chain([first], taken)
    batches, told = _Batches(taken, hw), {"path": str(scratch), "train": ".", "val": ".", "names": names}
    write_text(scratch / "data.yaml", yaml.safe_dump(told))
    device = "0" if torch.cuda.is_available() else "cpu"
    low = min(CONF_MIN, np.nextafter(np.float32(conf), 0).item())  # stock leaves out what equals its limit
    args = {"model": str(weights), "data": str(scratch / "data.yaml"), "imgsz": max(hw), "conf": low}
    args |= {"device": device, "batch": BATCH, "max_det": MAX_DET, "plots": False, "workers": 0}
    validator = RectValidator(batches, args=args, save_dir=scratch / "val", hw=hw, keep=True)

    def hand_over(_) -> None:
        rows, validator.rows = validator.rows, []
        take(batches.now, _found(rows, batches.now, names, conf))

    validator.callbacks["on_val_start"].append(pin_torch)
    validator.callbacks["on_val_batch_end"].append(hand_over)
    validator()


def detector(weights: Path) -> tuple[dict[int, str], tuple[int, int]]:
    """Class names of a detector by number, and height and width in px of the tensor that it was trained at.

    Raises:
        Refusal: there is no such file, it cannot be loaded, or it holds something else than a detector.
    """
    if weights.suffix != ".pt" or not weights.is_file():
        raise Refusal(f"{weights} was named as the model, a .pt file that exists was expected.")
    try:
        model = YOLO(weights)
    except Exception as error:  # pickle and torch raise what they like on a broken file
        told = " ".join(str(error).split())[:200]
        raise Refusal(f"{weights} cannot be loaded by Ultralytics ({told}): name sound weights.") from error
    if model.task != "detect":
        raise Refusal(f"{weights} is a model for '{model.task}', one for detection was expected.")
    return dict(model.names), tensor_hw(model.overrides.get("imgsz", 640))


def _found(rows: list[tuple], shots_: list[Shot], names: dict[int, str], conf: float) -> pd.DataFrame:
    """Detections of a batch with paths for files, those that count."""
    frame = pd.DataFrame(rows, columns=["file", "class", "score", *BOX])
    frame = frame.astype({"score": "float32", **dict.fromkeys(BOX, "float32")})
    frame = frame[frame["score"] >= conf]
    order = {str(shot.file): i for i, shot in enumerate(shots_)}
    frame = frame.assign(place=frame["file"].map(order))
    frame = frame.sort_values(["place", "score"], ascending=[True, False], kind="stable")
    frame = frame[frame.groupby(["place", "class"]).cumcount() < PER_CLASS_MAX]
    paths = [shots_[i].path for i in frame["place"]]
    frame["path"] = pd.Series(paths, frame.index, dtype=object)  # Arrow's strings are UTF-8 only
    frame["frame"] = pd.array([shots_[i].frame for i in frame["place"]], dtype="Int64")
    frame["class"] = frame["class"].map(names)
    return frame[FOUND].reset_index(drop=True)
