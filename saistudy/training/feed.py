"""Where the pixels of a training come from: stock Ultralytics, a store, or a store and deferred pixels.

The bits are the same each way (tests/test_feed.py, test_deferred.py); only the work differs. What cannot be
had is not forced: the next simpler way runs, says why, and the record says which it was.
"""

import copy
import math
import random
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from ultralytics.data.augment import Albumentations, CopyPaste, CutMix, RandomPerspective
from ultralytics.utils import DEFAULT_CFG, LOCAL_RANK

from saistudy.data import shm, store
from saistudy.paths import Refusal
from saistudy.training import batching, lean, plans, rendering
from saistudy.training.dataset import RectDataset, walk

STOCK, STORE, DEFERRED = WAYS = "stock", "store", "deferred"
SAMPLE_N = 8  # images rendered and compared with the installed OpenCV before a training begins


@dataclass(frozen=True)
class Feed:
    """The way that is asked for, and where stores may stand (in the order of preference).

    `beside_bytes` stay free in a place in memory: the loaders' batches.
    """

    way: str = STOCK
    places: tuple[Path, ...] = ()
    beside_bytes: int = 0


def asked(way: str, places, train: dict) -> Feed:
    """The Feed of a training with Ultralytics' arguments `train`.

    Raises:
        Refusal: no such way, or nowhere to put a store.
    """
    if way not in WAYS:
        raise Refusal(f"input is '{way}', one of {', '.join(WAYS)} was expected.")
    if way != STOCK and not places:
        raise Refusal(f"input {way} needs a place for the decoded images: name folders in `stores`.")
    batch, imgsz = train.get("batch"), train.get("imgsz", DEFAULT_CFG.imgsz)
    batch = batch if isinstance(batch, int) and batch > 0 else DEFAULT_CFG.batch
    sides = imgsz if isinstance(imgsz, list) else [imgsz, imgsz]
    side = math.isqrt(sides[0] * sides[1])
    workers = train.get("workers", DEFAULT_CFG.workers)
    loaders = shm.loader_bytes(batch, side, workers, batching.PREFETCH_N + 2)  # a ring has two more
    return Feed(way, tuple(map(Path, places)), loaders)


class FedDataset(RectDataset):
    """A RectDataset fed as `feed` asks; `input` is the way that runs, `why` the reason if it is another."""

    store, input, why = None, STOCK, ""

    def __init__(self, *args, feed: Feed, **kwargs):
        self.feed = feed
        super().__init__(*args, **kwargs)
        hyp = kwargs["hyp"]
        self.input, self.why = self._settled(hyp)
        self.transforms = self.build_transforms(hyp)
        if self.input != STOCK and self.augment:
            self.collate_fn = partial(batching.collate, ring=batching.Ring())
            self.labels = [lean.Label(label) for label in self.labels]

    def _settled(self, hyp) -> tuple[str, str]:
        """The way that runs and why it is not the one asked for."""
        if self.feed.way == STOCK:
            return STOCK, ""
        if why := self._no_store():
            return STOCK, _said(self, STOCK, why)
        try:
            self.store = store.ensure(self.im_files, self.hw, list(self.feed.places), self.feed.beside_bytes)
        except Refusal as refusal:
            return STOCK, _said(self, STOCK, str(refusal))
        lean.keep_pages()
        if self.feed.way == STORE or not self.augment:
            return STORE, ""
        why = no_plan(self) or differs(self, hyp)
        return (STORE, _said(self, STORE, why)) if why else (DEFERRED, "")

    def _no_store(self) -> str:
        if self.cache:
            return f"cache={self.cache} keeps images its own way"
        return f"images have {self.channels} channels" if self.channels != 3 else ""

    def load_image(self, i, rect_mode=True, resize_short=False):
        """The stock triple (image, original shape, resized shape); the image a read-only view, or a stub."""
        if self.store is None or self.ims[i] is not None:
            return super().load_image(i, rect_mode, resize_short)
        original, resized = self.store.sizes(i)
        image = plans.Stub.of(self.store.index[i]) if self.input == DEFERRED else self.store.image(i)
        if self.augment:
            self._remember(i, image, original, resized)
        return image, original, resized

    def _remember(self, i: int, *loaded) -> None:
        """Mosaic draws its partners from the images read lately, as many as stock keeps (8.4.190)."""
        self.ims[i], self.im_hw0[i], self.im_hw[i] = loaded
        self.buffer.append(i)
        if 1 < len(self.buffer) >= self.max_buffer_length:
            j = self.buffer.pop(0)
            self.ims[j], self.im_hw0[j], self.im_hw[j] = None, None, None

    def build_transforms(self, hyp):
        """The stock transforms, their pixel work saved or written down."""
        transforms = super().build_transforms(hyp)
        if self.input == STOCK or has_polygons(self):  # which stock pastes on a whole canvas
            return transforms
        planned = self.input == DEFERRED and self.augment
        return lean.replaced(transforms, plans.PLAN if planned else lean.LEAN)

    def renderer(self, device: torch.device):
        """What makes the batches' plans into pixels on a device: a fused kernel on CUDA, else plain torch."""
        if device.type != "cuda":
            return rendering.TorchRenderer(torch.from_numpy(self.store.shared()), self.hw)
        from saistudy.training.kernel import TritonRenderer, resident  # Triton ships with CUDA torch only

        return TritonRenderer(resident(self.store.shared(), device), self.hw, device)


def datasets(fed: Feed, engine: str = "rect") -> dict:
    """The kinds of data set that a trainer builds, as its attributes; Ultralytics' own engine has its own."""
    if engine == "stock" or fed.way == STOCK:
        return {}
    kind = partial(FedDataset, feed=fed)
    return {"dataset": kind, "valset": kind}


def has_polygons(dataset: RectDataset) -> bool:
    """Whether any label of a data set carries a polygon, so that copy-paste acts."""
    return any(len(label["segments"]) for label in dataset.labels)


def no_plan(dataset: RectDataset) -> str:
    """What of a data set's augmentation the plan has no words for; empty where it has all."""
    for transform in walk(dataset.transforms):
        if isinstance(transform, RandomPerspective) and transform.perspective:
            return "perspective is not planned"
        if isinstance(transform, CutMix) and transform.p:
            return "cutmix is not planned"
        if isinstance(transform, Albumentations) and transform.transform is not None:
            return "albumentations are not planned"
        if isinstance(transform, CopyPaste) and has_polygons(dataset):
            return "pasted polygons are not planned"
    return ""


def differs(dataset: FedDataset, hyp) -> str:
    """How rendered images differ from those of the installed OpenCV over a sample; empty where they do not.

    Both ways draw from the same random state; that of the training is left as it was.
    """
    indices = [k * len(dataset) // SAMPLE_N for k in range(min(SAMPLE_N, len(dataset)))]
    with _kept_random():
        rendered = samples(dataset, hyp, DEFERRED, indices)
        wanted = samples(dataset, hyp, STORE, indices)
    device = torch.device("cuda" if torch.cuda.is_available() and LOCAL_RANK < 1 else "cpu")
    images = dataset.renderer(device)(torch.stack([one["img"] for one in rendered])).cpu()
    wrong = int((images != torch.stack([one["img"] for one in wanted])).sum())
    if not wrong:
        return ""
    return f"{wrong} of {images.numel()} rendered values differ from OpenCV {cv2.__version__}"


def samples(dataset: FedDataset, hyp, way: str, indices: list[int], seed: int = 0) -> list[dict]:
    """What a copy of a data set gives at these numbers in turn, fed this way with nothing read before."""
    twin = copy.copy(dataset)
    twin.input, twin.buffer = way, []
    twin.ims, twin.im_hw0, twin.im_hw = ([None] * twin.ni for _ in range(3))
    stock = way == STORE  # the stock transforms on the store's pixels: the reference
    twin.transforms = RectDataset.build_transforms(twin, hyp) if stock else twin.build_transforms(hyp)
    random.seed(seed)
    np.random.seed(seed)
    return [twin[i] for i in indices]


@contextmanager
def _kept_random():
    """Python's and NumPy's random states as they were, after the block."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def _said(dataset: FedDataset, way: str, why: str) -> str:
    """The reason, printed as well."""
    print(f"{dataset.prefix}input {dataset.feed.way} was asked for, {way} runs: {why}", flush=True)
    return why
