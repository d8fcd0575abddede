"""Objects pasted while training: counts, labels on painted pixels, sources left as they are."""

import hashlib
import random
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import painted
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ultralytics import YOLO
from ultralytics.cfg import get_cfg
from ultralytics.data.utils import check_det_dataset
from ultralytics.utils.ops import xywh2xyxy

from saistudy.paths import Refusal
from saistudy.training import cutouts, paste
from saistudy.training.rect import RectDataset, RectTrainer

NAMES = {0: "grey", 1: "blue", 2: "green", 3: "red"}
COLOURS = {1: (255, 0, 0), 2: (0, 255, 0), 3: (0, 0, 255)}  # BGR; nothing else is saturated
STILL = {
    "hsv_h": 0.0,
    "hsv_s": 0.0,
    "hsv_v": 0.0,
    "fliplr": 0.0,
    "mosaic": 0.0,
    "scale": 0.0,
    "translate": 0.0,
}
HW = (256, 320)


def grain(rng, size) -> np.ndarray:
    """A grey picture (height, width, 3) uint8 with noise; size is (width, height)."""
    return np.repeat(rng.integers(60, 110, (size[1], size[0], 1)), 3, axis=2).astype(np.uint8)


def annotate(folder: Path, i: int, rng, beside: bool) -> None:
    """A picture with one rectangle of each colour and its label file; the first touches the edge."""
    size = [(400, 300), (300, 300), (240, 360)][i % 3]
    image, lines = grain(rng, size), []
    for n, (label, colour) in enumerate(COLOURS.items()):
        x1, y1 = (0, 0) if n == 0 else (size[0] // 3 * n, int(rng.integers(5, 200)))
        x2, y2 = x1 + int(rng.integers(30, 70)), y1 + int(rng.integers(30, 90))
        image[y1:y2, x1:x2] = colour
        fractions = np.array([x1 + x2, y1 + y2, 2 * (x2 - x1), 2 * (y2 - y1)]) / 2 / [*size, *size]
        lines.append(f"{label} " + " ".join(f"{value:.6f}" for value in fractions))
    places = (folder, folder) if beside else (folder / "images" / "a", folder / "labels" / "a")
    for place in places:
        place.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(places[0] / f"{i}.png"), image)
    (places[1] / f"{i}.txt").write_text("\n".join(lines))


def ground(folder: Path, n: int, rng) -> Path:
    folder.mkdir(parents=True)
    for i in range(n):
        cv2.imwrite(str(folder / f"ground{i}.png"), grain(rng, [(320, 200), (200, 320), (500, 400)][i % 3]))
    return folder


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A tree of grey rectangles, and what is pasted: nine annotated images, seven backgrounds."""
    folder, rng = tmp_path_factory.mktemp("paste"), np.random.default_rng(5)
    for i in range(9):
        annotate(folder / "annotated", i, rng, beside=False)
    ground(folder / "backgrounds", 7, rng)
    sizes = [(320, 240), (200, 300)]
    counts = {"train": 10, "val": 4}
    tree = painted.tree(folder / "tree", counts, NAMES, sizes, [0], {0: (200, 200, 200)}, sides=(0.2, 0.5))
    return tree, paste.Paste(folder / "backgrounds", folder / "annotated")


def dataset(
    sources, kind=paste.PasteDataset, ratio=2.0, augment=True, single_cls=False, classes=None, **change
):
    """A data set as a trainer builds it, and its plain counterpart by `kind`."""
    tree, what = sources
    data = check_det_dataset(str(tree.yaml))
    args = get_cfg(overrides={"task": "detect", "deterministic": False} | STILL | change)
    more = {"paste": paste.Paste(what.backgrounds_dir, what.annotated_dir, ratio)}
    return kind(
        img_path=data["train" if augment else "val"],
        hw=HW,
        batch_size=4,
        augment=augment,
        hyp=args,
        cache=args.cache or None,
        single_cls=single_cls,
        classes=classes,
        stride=32,
        data=data,
        fraction=args.fraction,
        **(more if kind is paste.PasteDataset else {}),
    )


class PastingTrainer(RectTrainer):
    """The rectangle trainer with pasting in both data sets; validation's must come to nothing."""

    paste = None

    def build_dataset(self, img_path, mode="train", batch=None):
        return paste.PasteDataset(
            img_path=img_path,
            hw=self.hw,
            batch_size=batch,
            augment=mode == "train",
            hyp=self.args,
            cache=self.args.cache or None,
            stride=32,
            data=self.data,
            paste=self.paste,
        )


def trainer(sources, folder, workers=2, **change) -> PastingTrainer:
    tree, what = sources
    place = {"model": "yolov8n.yaml", "data": str(tree.yaml), "project": str(folder), "exist_ok": True}
    plain = painted.BARE | STILL | {"imgsz": list(HW), "batch": 4, "nbs": 4, "epochs": 1, "plots": False}
    built = PastingTrainer(overrides=place | plain | change)
    built.paste = what
    built.args.workers = workers  # the constructor sets 0 on a CPU
    return built


class Enough(Exception):
    """Ends a training before its first step."""


def loaders(sources, folder, **change) -> tuple:
    """The train and val loaders of a trainer that has built everything."""
    built = trainer(sources, folder, **change)

    def stop(_):
        raise Enough

    built.add_callback("on_train_start", stop)
    with pytest.raises(Enough):
        built.train()
    return built.train_loader, built.test_loader


def bounds(image: np.ndarray, label: int) -> list[np.ndarray]:
    """x1, y1, x2, y2 of each patch of a class's colour in an RGB image (3, height, width)."""
    near = np.abs(image.transpose(1, 2, 0)[..., ::-1].astype(int) - COLOURS[label]).max(-1) <= 100
    _, _, stats, _ = cv2.connectedComponentsWithStats(near.astype(np.uint8), connectivity=8)
    return [np.array([x, y, x + w, y + h]) for x, y, w, h, area in stats[1:] if area >= 4]


def overlap(image: np.ndarray, label: int, box: np.ndarray) -> float:
    """IoU of a label with the patch of its colour that it meets best; 0 without one."""
    return max((painted.iou(found, box) for found in bounds(image, label)), default=0.0)


def labelled(batch: dict, i: int) -> list[tuple[int, np.ndarray]]:
    """Class and corners in px of the pasted objects of image i of a batch."""
    height, width = batch["img"].shape[2:]
    mine = batch["batch_idx"] == i
    corners = xywh2xyxy(batch["bboxes"][mine]).numpy() * [width, height, width, height]
    return [
        (c, box) for c, box in zip(batch["cls"][mine].flatten().int().tolist(), corners, strict=True) if c
    ]


def seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def passes(samples, n: int = 1, seed: int = 0) -> list[dict]:
    seed_all(seed)
    return [samples[i % len(samples)] for i in range(n * len(samples))]


def bits(sample: dict) -> str:
    return hashlib.sha256(sample["img"].numpy().tobytes() + sample["bboxes"].numpy().tobytes()).hexdigest()


def state_of(folder: Path) -> dict:
    """Every file of a folder with its time and content."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in files}


@pytest.mark.parametrize(("ratio", "synthetic_n"), [(2.0, 20), (0.25, 2), (0.05, 0), (0.77, 8)])
def test_counts(sources, ratio, synthetic_n):
    built = dataset(sources, ratio=ratio)
    assert len(built) == len(built.im_files) == built.ni == 10 + synthetic_n
    files = Counter(Path(file).name for file in built.im_files)
    times = [files[f"ground{i}.png"] for i in range(7)]
    # each background as often as the others, give or take one
    assert sum(times) == synthetic_n and max(times) - min(times) <= 1


def test_the_ratio_counts_the_images_that_train(sources):
    assert len(dataset(sources, fraction=0.5, ratio=2.0)) == 5 + 10


def test_every_pasted_object_has_its_label_and_every_label_its_object(sources):
    counted = Counter()
    for sample in passes(dataset(sources), 3)[10:]:
        found = labelled(sample | {"img": sample["img"][None]}, 0)
        if sample["im_file"].endswith("png") and "ground" not in sample["im_file"]:
            continue
        counted[len(found)] += 1
        classes = Counter(label for label, _ in found)
        patches = {label: bounds(sample["img"].numpy(), label) for label in COLOURS}
        assert {label: len(seen) for label, seen in patches.items() if seen} == classes
        for label, box in found:
            # whole pixels against fractions of one; blue touches its image's edge, and its colour fades out
            off = min(np.abs(seen - box).max() for seen in patches[label])
            assert off <= (3.0 if label == 1 else 1.0)
    assert counted.keys() == {1, 2, 3}


@pytest.mark.parametrize("mosaic", [0.0, 1.0])
def test_labels_lie_on_pasted_objects_in_the_train_loader(sources, tmp_path, mosaic):
    train, _ = loaders(sources, tmp_path, mosaic=mosaic, scale=0.5, translate=0.1, fliplr=0.5)
    assert train.num_workers == 2
    found, images_n = [], 0
    for _ in range(2):
        for batch in train:
            images_n += len(batch["img"])
            for i, image in enumerate(batch["img"].numpy()):
                objects = labelled(batch, i)
                once = {label for label, n in Counter(label for label, _ in objects).items() if n == 1}
                found += [overlap(image, label, box) for label, box in objects if label in once]
    assert images_n == 2 * 30 and len(found) >= 30
    assert np.mean(found) >= 0.9


def test_mosaic_tiles_of_real_images_are_synthetic_too(sources):
    built = dataset(sources, mosaic=1.0)
    passes(built)  # fills the mosaic buffer
    classes = {int(c) for i in range(10) for c in built[i]["cls"].flatten()}
    assert classes == {0, 1, 2, 3}


def test_real_images_are_never_pasted_on(sources):
    ours, plain = dataset(sources), dataset(sources, RectDataset)
    for i in range(10):
        seed_all(i)
        mine = ours[i]
        seed_all(i)
        theirs = plain[i]
        assert mine.keys() == theirs.keys() and bits(mine) == bits(theirs)
        assert set(mine["cls"].flatten().tolist()) == {0.0}
    assert ours[10].keys() == plain[0].keys()


def test_validation_is_never_pasted_into(sources, tmp_path):
    _, val = loaders(sources, tmp_path)
    plain = dataset(sources, RectDataset, augment=False)
    assert len(val.dataset) == len(plain) == 4
    for mine, theirs in zip(passes(val.dataset), passes(plain), strict=True):
        assert bits(mine) == bits(theirs)


def test_draws_are_fresh_and_repeat_with_the_seed(sources):
    built = dataset(sources)
    first, again, other = (list(map(bits, passes(built, 2, seed))) for seed in (1, 1, 2))
    assert first == again
    synthetic = [i for i in range(60) if i % 30 >= 10]
    assert len({first[i] for i in synthetic}) == len(synthetic)
    assert not {first[i] for i in synthetic} & {other[i] for i in synthetic}


def test_two_workers_repeat_with_the_seed(sources, tmp_path):
    runs = []
    for seed in (3, 3, 4):
        train, _ = loaders(sources, tmp_path, seed=seed, mosaic=0.5)
        assert train.num_workers == 2
        runs.append([bits(batch) for _ in range(2) for batch in train])
    assert runs[0] == runs[1] != runs[2]
    assert len(set(runs[0])) == len(runs[0])


def test_cached_arrays_stay_as_they_are(sources):
    built = dataset(sources, cache="ram", mosaic=0.5)
    before = built.ims.buffer.clone()
    seen = passes(built, 3)
    assert torch.equal(built.ims.buffer, before)
    assert any(c for sample in seen for c in sample["cls"].flatten().tolist())


@pytest.mark.parametrize("cache", [False, "ram", "disk"])
def test_nothing_is_written_to_the_source_folders(sources, cache):
    what = sources[1]
    broken = what.backgrounds_dir / "ground0.npy"
    broken.write_bytes(b"no array")  # stock would remove it
    try:
        before = state_of(what.backgrounds_dir) | state_of(what.annotated_dir)
        passes(dataset(sources, cache=cache, mosaic=0.5))
        assert state_of(what.backgrounds_dir) | state_of(what.annotated_dir) == before
    finally:
        broken.unlink()
        for file in sources[0].folder.rglob("*.npy"):
            file.unlink()


def test_classes_left_out_are_not_pasted(sources):
    samples = passes(dataset(sources, classes=[0, 2]), 2)
    assert {c for sample in samples for c in sample["cls"].flatten().tolist()} == {0.0, 2.0}
    with pytest.raises(Refusal, match=r"no object of classes \[0\]"):
        dataset(sources, classes=[0])


def test_single_cls_makes_every_object_0(sources):
    samples = passes(dataset(sources, single_cls=True))
    assert {c for sample in samples for c in sample["cls"].flatten().tolist()} == {0.0}
    assert sum(len(sample["cls"]) for sample in samples[10:]) >= 20


def solid(rng, side: tuple[int, int], at: tuple[int, int], size: tuple[int, int]) -> cutouts.Cutout:
    """A white rectangle with a margin of 200 px of grey 128 around it, as cut from an image."""
    pixels = np.full((side[1] + 400, side[0] + 400, 3), 128, np.uint8)
    pixels[200:-200, 200:-200] = 255
    return cutouts.Cutout(pixels, np.array([200, 200, 200 + side[0], 200 + side[1]], float), at, max(size))


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(16, 300), st.integers(16, 300)),
    sides=st.lists(st.tuples(st.integers(2, 200), st.integers(2, 200)), min_size=1, max_size=3),
    long_px=st.integers(200, 2000),
    seed=st.integers(0, 2**16),
)
def test_pixels_and_boxes_agree_for_any_size(size, sides, long_px, seed):
    rng = np.random.default_rng(seed)
    objects = [solid(rng, side, i, (long_px, 1)) for i, side in enumerate(sides)]
    image = np.zeros((size[1], size[0], 3), np.uint8)
    random.seed(seed)
    result, labels, xywh = paste.pasted(image, objects)
    assert not image.any() and result.shape == image.shape and result.dtype == np.uint8
    assert labels.shape == (len(xywh), 1) and labels.dtype == xywh.dtype == np.float32
    assert len(xywh) <= 3 and (xywh2xyxy(xywh) >= -1e-6).all() and (xywh2xyxy(xywh) <= 1 + 1e-6).all()
    far = np.ones(result.shape[:2], bool)
    for x1, y1, x2, y2 in xywh2xyxy(xywh) * [*size, *size]:
        # whole pixels inside are opaque: nothing of the black ground shows
        inner = result[int(np.ceil(y1)) : int(y2), int(np.ceil(x1)) : int(x2)]
        assert inner.size == 0 or inner.min() >= 128
        assert min(x2 - x1, y2 - y1) >= 2 - 1e-4
        ys, xs = (
            slice(max(0, int(y1 - 3)), int(np.ceil(y2 + 3))),
            slice(max(0, int(x1 - 3)), int(np.ceil(x2 + 3))),
        )
        far[ys, xs] = False
    # beyond the faded edge the background is untouched
    assert not result[far].any()


def test_the_edge_fades_over_three_pixels():
    random.seed(2)
    image = np.zeros((400, 400, 3), np.uint8)
    one = solid(None, (100, 100), 0, (400, 400))
    result, _, xywh = paste.pasted(image, [one])
    x1, y1, x2, y2 = (xywh2xyxy(xywh) * 400)[0]
    assert x1 > 4
    row = result[int((y1 + y2) / 2), :, 0].astype(int)
    edge = row[int(x1) - 4 : int(x1)]
    away = x1 - (np.arange(int(x1) - 4, int(x1)) + 0.5)
    # outside: the grey around the object from 128 in a line down to the black ground, three pixels away
    assert np.abs(edge - 128 * np.clip((3 - away) / 3, 0, 1)).max() <= 1 and edge[0] == 0 < edge[2]
    assert row[int(x1) + 1] == 255


def test_a_training_runs_and_its_weights_load_in_stock(sources, tmp_path):
    built = trainer(sources, tmp_path, imgsz=[64, 96], workers=2)
    built.train()
    assert len(built.train_loader.dataset) == 30
    assert YOLO(built.best).names == NAMES


def test_labels_beside_their_images(sources, tmp_path):
    rng = np.random.default_rng(6)
    # an images/ higher up must not lead astray
    for i in range(2):
        annotate(tmp_path / "images" / "objects", i, rng, beside=True)
    found = cutouts.cutouts(tmp_path / "images" / "objects", NAMES, cv2.IMREAD_COLOR, 0.05)
    assert Counter(one.label for one in found) == {1: 2, 2: 2, 3: 2}


def test_a_cutout_holds_its_object_to_the_pixel(tmp_path):
    annotate(tmp_path, 0, np.random.default_rng(7), beside=True)
    image = cv2.imread(str(tmp_path / "0.png"))
    for one in cutouts.cutouts(tmp_path, NAMES, cv2.IMREAD_COLOR, 0.05):
        x1, y1, x2, y2 = np.rint(one.box).astype(int)
        assert np.abs(one.box - [x1, y1, x2, y2]).max() < 1e-3  # six decimals of 400 px
        assert (one.pixels[y1:y2, x1:x2] == COLOURS[one.label]).all()
        mask = (one.pixels == COLOURS[one.label]).all(-1)
        inside = np.zeros_like(mask)
        inside[y1:y2, x1:x2] = True
        # beyond the image its edge is repeated: only there does the colour go on
        if one.label != 1:
            assert (mask == inside).all()
        assert one.long_px == max(image.shape[:2])


def wrong(sources, tmp_path, name: str) -> paste.Paste:
    """Folders of which one is wrong."""
    rng = np.random.default_rng(8)
    grounds, annotated = sources[1].backgrounds_dir, tmp_path / "annotated"
    annotate(annotated, 0, rng, beside=True)
    text = {"class": "7 .5 .5 .2 .2", "polygon": "1 .1 .1 .2 .2 .3 .1", "range": "1 .9 .5 .4 .2", "empty": ""}
    if name in text:
        (annotated / "0.txt").write_text(text[name])
    elif name == "no labels":
        (annotated / "0.txt").unlink()
    elif name == "broken":
        (annotated / "0.png").write_bytes(b"no picture")
    elif name == "no folder":
        grounds = tmp_path / "nowhere"
    elif name == "no backgrounds":
        (grounds := tmp_path / "bare").mkdir()
    elif name == "objects":
        annotate(grounds := tmp_path / "grounds", 0, rng, beside=True)
    elif name == "broken ground":
        (ground(grounds := tmp_path / "grounds", 2, rng) / "ground1.png").write_bytes(b"no picture")
    return paste.Paste(grounds, annotated)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("class", r"line 1 \(class\) reads '7 .5 .5 .2 .2', .* a class of \{0: 'grey', 1: 'blue'"),
        ("polygon", r"line 1 \(columns\) reads .* class xc yc w h"),
        ("range", r"line 1 \(range\)"),
        ("empty", "holds 1 images, 1 of them with a label file and none with a box"),
        ("no labels", "holds 1 images, 0 of them with a label file"),
        ("broken", r"annotated_dir: .*0.png cannot be read"),
        ("no folder", "backgrounds_dir .*nowhere is no folder"),
        ("no backgrounds", "backgrounds_dir .*bare holds no image"),
        ("objects", r"backgrounds_dir: .*0.txt names objects"),
        ("broken ground", r"backgrounds_dir: .*ground1.png cannot be read"),
    ],
)
def test_bad_folders_are_refused_in_one_sentence(sources, tmp_path, name, told):
    with pytest.raises(Refusal, match=told) as refusal:
        dataset((sources[0], wrong(sources, tmp_path, name)))
    assert "\n" not in str(refusal.value) and str(refusal.value).endswith(".")


@pytest.mark.parametrize("ratio", [0.0, -1.0, float("nan"), float("inf")])
def test_a_ratio_that_is_none_is_refused(ratio):
    with pytest.raises(Refusal, match="synthetic_ratio"):
        paste.Paste(Path("a"), Path("b"), ratio)
