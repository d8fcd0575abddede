"""The networks whose step is measured: YOLOv8 with random weights, and a plain residual classifier."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import DetectionModel

from saistudy.training import checkpointing, residual, stripes
from saistudy.training.settings import Setting

CLASSIFIER = "classifier"
CLASSES_N = 2  # fire and smoke
BOXES_N = 3  # an image of a generated batch


@dataclass(frozen=True)
class Sizes:
    """Side in px that a network is fed, and the classifier's first width and blocks a stage."""

    side_px: int
    width: int = 8
    blocks_n: int = 1


def build(name: str, sizes: Sizes, setting: Setting, device: str, seed: int = 0) -> nn.Module:
    """A network by name, random weights by seed, in training mode, as the setting wants it, not compiled.

    Args:
        name: `classifier`, or a network of Ultralytics without its .yaml, such as yolov8n.
    """
    torch.manual_seed(seed)
    if name == CLASSIFIER:
        network = residual.build(sizes.width, sizes.blocks_n, len(stripes.STRIPES_N), setting.sum_in_place)
        layers = network
    else:
        network = DetectionModel(f"{name}.yaml", nc=CLASSES_N, verbose=False)
        network.args = get_cfg()  # the weights of its loss
        layers = network.model
    if setting.checkpointed:
        checkpointing.wrap(layers)
    network = network.to(device).train()
    return network.to(memory_format=torch.channels_last) if setting.channels_last else network


def batch_of(name: str, sizes: Sizes, images_n: int, device: str, seed: int = 0) -> dict[str, torch.Tensor]:
    """A generated batch on the device: `img` uint8 (N, 3, side, side), and the labels that `loss` takes.

    A detector's boxes, BOXES_N an image, are centre, width and height as fractions of the side.
    """
    rng = torch.Generator().manual_seed(seed)
    shape = (images_n, 3, sizes.side_px, sizes.side_px)
    batch = {"img": torch.randint(0, 256, shape, generator=rng, dtype=torch.uint8)}
    if name == CLASSIFIER:
        batch["cls"] = torch.randint(0, len(stripes.STRIPES_N), (images_n,), generator=rng)
    else:
        boxes_n = BOXES_N * images_n
        centres = 0.3 + 0.4 * torch.rand(boxes_n, 2, generator=rng)
        batch["bboxes"] = torch.cat([centres, 0.1 + 0.3 * torch.rand(boxes_n, 2, generator=rng)], dim=1)
        batch["cls"] = torch.randint(0, CLASSES_N, (boxes_n, 1), generator=rng).float()
        batch["batch_idx"] = torch.arange(images_n).repeat_interleave(BOXES_N).float()
    return {key: value.to(device) for key, value in batch.items()}


def loss(name: str, network: nn.Module, scores, batch: dict) -> torch.Tensor:
    """Mean loss of an image, a scalar: cross-entropy, or Ultralytics' own loss of a detector."""
    if name == CLASSIFIER:
        return functional.cross_entropy(scores, batch["cls"])
    return network.loss(batch, scores)[0].sum() / len(batch["img"])


def parts(batch: dict, parts_n: int) -> list[dict]:
    """A batch split by images into `parts_n` of equal size, labels of boxes with their images.

    Each is a batch of its own: `batch_idx` counts from 0.
    """
    if parts_n == 1:
        return [batch]
    size, split = len(batch["img"]) // parts_n, []
    for i in range(parts_n):
        images = slice(i * size, (i + 1) * size)
        if "batch_idx" not in batch:
            split.append({key: value[images] for key, value in batch.items()})
            continue
        mine = (batch["batch_idx"] >= images.start) & (batch["batch_idx"] < images.stop)
        labels = {key: batch[key][mine] for key in ("bboxes", "cls")}
        labels["batch_idx"] = batch["batch_idx"][mine] - images.start
        split.append({"img": batch["img"][images], **labels})
    return split
