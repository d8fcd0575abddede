"""What the pinned Ultralytics really does with a setting, tried live on a CPU with a few painted pixels.

Each function asks one question that a claim depends on and answers with what was seen. Networks are as small
as a detection head allows, for none of the answers depends on their size; nothing is kept.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import psutil
import ultralytics
import yaml
from ultralytics.data.build import InfiniteDataLoader
from ultralytics.data.dataset import YOLODataset
from ultralytics.data.utils import img2label_paths
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import DEFAULT_CFG, SETTINGS
from ultralytics.utils.metrics import Metric

from saistudy.training import conditions, dataset, memory

VERSION = ultralytics.__version__
NAMES = {0: "fire", 1: "smoke"}
SIDE_PX = 32
TINY = {  # three convolutions and a head on the last
    "nc": 2,
    "backbone": [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [8, 3, 2]]],
    "head": [[[2], 1, "Detect", ["nc"]]],
}
BOXES_N = 2  # an image of a trial step; it only has to have some


class _Enough(Exception):
    """The trainer has been seen; it is not to take a step."""


class _Chosen(Metric):
    """Metrics of given precision, recall, mAP50 and mAP50-95."""

    given = (0.0, 0.0, 0.0, 0.0)

    def mean_results(self) -> list[float]:
        return list(self.given)


@contextmanager
def _painted(images_n: int) -> Iterator[Path]:
    """A folder with a data.yaml of so many noise images of two classes, one box each, and tiny.yaml."""
    with TemporaryDirectory() as name:
        folder, rng = Path(name), np.random.default_rng(0)
        for kind in ("images", "labels"):
            (folder / kind).mkdir()
        for i in range(images_n):
            pixels = rng.integers(0, 256, (SIDE_PX, SIDE_PX, 3), dtype=np.uint8)
            cv2.imwrite(str(folder / "images" / f"{i}.png"), pixels)
            (folder / "labels" / f"{i}.txt").write_text(f"{i % 2} 0.5 0.5 0.4 0.4\n")
        told = {"path": name, "train": "images", "val": "images", "names": NAMES}
        (folder / "data.yaml").write_text(yaml.safe_dump(told))
        (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY))
        yield folder


def _trainer(folder: Path, train: dict) -> DetectionTrainer:
    """A stock trainer on the CPU; the machine's share (device, workers, cache) is not what is asked about."""
    SETTINGS.update({k: False for k, v in SETTINGS.items() if isinstance(v, bool)})
    own = {"device": "cpu", "workers": 0, "cache": False, "plots": False, "exist_ok": True, "verbose": False}
    places = {"model": str(folder / "tiny.yaml"), "data": str(folder / "data.yaml"), "project": str(folder)}
    return DetectionTrainer(overrides=train | own | places | {"name": "run"})


def conditions_of(train: dict, iterations_n: int | None = None) -> dict:
    """What a stock trainer acts with before its first step: its arguments, then conditions.read_back.

    Args:
        train: Ultralytics' arguments under its own names.
        iterations_n: optimizer steps that `optimizer: auto` is to choose for, instead of those of the few
            images here; `optimizer` and `lr0` are then what it chose.
    """
    seen = {}

    def look(trainer):
        seen.update(vars(trainer.args) | conditions.read_back(trainer))
        if iterations_n is not None:
            trainer.build_optimizer(trainer.model, name="auto", iterations=iterations_n)
            seen.update(optimizer=trainer.args.optimizer, lr0=trainer.args.lr0)
        raise _Enough

    with _painted(train.get("batch", 16)) as folder:
        trainer = _trainer(folder, train)
        trainer.add_callback("on_train_start", look)
        try:
            trainer.train()
        except _Enough:
            return seen
    raise RuntimeError("the trainer never started, so its conditions are not known")


@cache
def short_run(epochs_n: int, save_period: int, close_mosaic: int) -> dict:
    """A whole training of a few epochs: `header` of results.csv (list), `saved` (numbers of the epoch*.pt
    files, ascending), `mosaic` (its probability in each epoch)."""
    mosaic = {}
    train = {"epochs": epochs_n, "save_period": save_period, "close_mosaic": close_mosaic}
    with _painted(4) as folder:
        trainer = _trainer(folder, train | {"imgsz": SIDE_PX, "batch": 4, "nbs": 4, "optimizer": "SGD"})
        trainer.add_callback(
            "on_train_batch_start",
            lambda t: mosaic.update({t.epoch: dataset.mosaic(t.train_loader.dataset)}),
        )
        trainer.train()
        header = (trainer.save_dir / "results.csv").read_text().split("\n")[0].split(",")
        saved = sorted(int(path.stem[5:]) for path in (trainer.save_dir / "weights").glob("epoch*.pt"))
    return {"header": header, "saved": saved, "mosaic": [mosaic[i] for i in range(epochs_n)]}


def fitness_parts() -> list[str]:
    """Which of precision, recall, mAP50 and mAP50-95 move the fitness that best.pt is chosen by."""
    names, metric, moved = ("precision", "recall", "mAP50", "mAP50-95"), _Chosen(), []
    for i, name in enumerate(names):
        metric.given = tuple(float(j == i) for j in range(4))
        if metric.fitness() > 0:
            moved.append(name)
    return moved


def default(key: str):
    """Ultralytics' own default of an argument."""
    return getattr(DEFAULT_CFG, key)


@cache
def parameters_n(model: str) -> int:
    """Parameters of a network of Ultralytics, such as yolov8n.yaml, with the 80 classes of COCO."""
    return sum(p.numel() for p in DetectionModel(model, nc=80, verbose=False).parameters())


def label_folder(images: str) -> str:
    """The folder where Ultralytics looks for the labels of the images in a folder."""
    return str(Path(img2label_paths([f"{images}/image.jpg"])[0]).parent)


def workers_started(workers: int) -> int:
    """Processes that a training loader of Ultralytics starts when asked for so many workers."""
    with _painted(1) as folder:
        data = YOLODataset(str(folder / "images"), data={"names": NAMES, "channels": 3}, imgsz=SIDE_PX)
        before = len(psutil.Process().children(recursive=True))
        with warnings.catch_warnings():  # that there are more workers than cores
            warnings.simplefilter("ignore")
            loader = InfiniteDataLoader(data, num_workers=workers, collate_fn=data.collate_fn)
            next(iter(loader))
        started = len(psutil.Process().children(recursive=True)) - before
        loader.close()
    return started


def cached_images(cache: bool) -> tuple[int, int]:
    """Images that a data set of Ultralytics holds in memory right after it was made, and images it has."""
    with _painted(5) as folder:
        told = {"names": NAMES, "channels": 3}
        with redirect_stdout(io.StringIO()):  # its bar
            data = YOLODataset(str(folder / "images"), data=told, imgsz=SIDE_PX, cache=cache)
        return sum(image is not None for image in data.ims), len(data)


def trial_step(model: str, batch: int, imgsz: int) -> float:
    """The loss of the second of two training steps of a network on noise, on the CPU in 32 bits."""
    network = DetectionModel(model, verbose=False)
    network.args = DEFAULT_CFG
    return memory.steps(network, batch, (imgsz, imgsz), False, BOXES_N)
