"""The two trainers of the study: Ultralytics' own and the true rectangle, both with resume and telemetry."""

import math

import torch
from ultralytics.models.yolo.detect import DetectionTrainer

from saistudy.training import attempts, memory, resume, telemetry
from saistudy.training.decay import LayerDecay
from saistudy.training.rect import RectTrainer


class _Sized:
    """Mixin: where no batch is given (-1), the largest that fits at the tensor that is really trained."""

    batch_found: dict | None = None

    def auto_batch(self, max_num_obj=0, dataset_size=0):
        """What memory.find found, kept in `batch_found`; with the boxes of a mosaic of the fullest image."""
        cache, self.args.cache = self.args.cache, False
        data = self.build_dataset(self.data["train"], batch=1)
        self.args.cache = cache
        boxes_n = 4 * max(len(label["cls"]) for label in data.labels)
        amp = torch.bfloat16 if self.args.amp == "bf16" else self.amp
        self.batch_found = memory.find(self.model, self._largest(), amp, len(data), boxes_n)
        found = {"batch": self.batch_found["batch"], "batch_found": self.batch_found}
        attempts.amend(self.save_dir, found)
        return self.batch_found["batch"]

    def _largest(self) -> tuple[int, int]:
        """The largest tensor that training may see: with multi_scale it grows by that share."""
        sides = (side * (1 + self.args.multi_scale) for side in resume.tensor(self))
        return tuple(math.ceil(side / self.stride) * self.stride for side in sides)


class _Rect(telemetry.Watched, resume.Resumable, LayerDecay, _Sized, RectTrainer):
    """Exactly the tensor of `imgsz`."""


class _Stock(telemetry.Watched, resume.Resumable, LayerDecay, _Sized, DetectionTrainer):
    """Ultralytics' own trainer and data."""


ENGINES = {"rect": _Rect, "stock": _Stock}
