"""The store: pixels of stock Ultralytics, kept once, refused where they are of something else."""

import gc
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import mounted
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from ultralytics.cfg import get_cfg
from ultralytics.data import YOLODataset
from ultralytics.data.augment import LetterBox

from saistudy.data import pixels, store, storing
from saistudy.paths import ROOT, Refusal
from saistudy.training.dataset import RectDataset

SHAPES = [(640, 80), (80, 640), (1300, 500), (37, 23), (12, 10), (500, 500), (301, 447), (224, 224)]
SQUARE, WIDE = (224, 224), (96, 160)


def picture(rng, width: int, height: int) -> Image.Image:
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Images of unusual shapes, one turned by EXIF, one grey, one png; a box each."""
    folder, rng = tmp_path_factory.mktemp("stored"), np.random.default_rng(0)
    for kind in ("images", "labels"):
        (folder / kind / "train").mkdir(parents=True)
    for i, (width, height) in enumerate(SHAPES):
        picture(rng, width, height).save(folder / "images" / "train" / f"{i}.jpg", quality=90)
    turned = Image.Exif()
    turned[274] = 6
    picture(rng, 300, 200).save(folder / "images" / "train" / "8.jpg", exif=turned)
    picture(rng, 90, 200).convert("L").save(folder / "images" / "train" / "9.jpg")
    picture(rng, 90, 200).save(folder / "images" / "train" / "A.png")
    for image in (folder / "images" / "train").iterdir():
        (folder / "labels" / "train" / f"{image.stem}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    return folder


@pytest.fixture(scope="module")
def files(tree):
    return sorted(map(str, (tree / "images" / "train").iterdir()))


def dataset(tree, hw):
    """What Ultralytics loads at a square; at a rectangle what RectDataset does."""
    size = {"hw": hw} if hw[0] != hw[1] else {"imgsz": hw[0], "rect": False}
    kind = RectDataset if hw[0] != hw[1] else YOLODataset
    known = {"names": {0: "smoke"}, "nc": 1, "channels": 3}
    hyp = get_cfg(overrides={"imgsz": max(hw)})
    return kind(img_path=str(tree / "images" / "train"), augment=False, hyp=hyp, data=known, **size)


@pytest.mark.parametrize("hw", [SQUARE, WIDE, (160, 96)])
def test_pixels_and_shapes_are_those_of_stock(tree, files, tmp_path, hw):
    """Every image of unusual shape, turned, grey or png, at a square and at rectangles both ways."""
    stock, ours = dataset(tree, hw), store.ensure(files, hw, [tmp_path])
    assert list(stock.im_files) == files
    for i in range(len(files)):
        image, original, resized = stock.load_image(i)
        assert np.array_equal(ours.image(i), image)
        assert ours.sizes(i) == (tuple(original), tuple(resized))
        assert not ours.image(i).flags.writeable


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 40), st.integers(1, 40))
def test_an_image_fits_its_tensor(height, width, tall, wide):
    """By the two rules that were there before: nothing exceeds the tensor, the long side fills a square."""
    hw = 32 * tall, 32 * wide
    steps = [(height, width), *pixels.fitted(height, width, hw)]
    assert all(1 <= side <= most for side, most in zip(steps[-1], hw, strict=True))
    if hw[0] == hw[1]:
        assert max(steps[-1]) == hw[0]
        letterbox = LetterBox(hw, scaleup=False)
        assert letterbox.get_params({"img": np.empty((*steps[-1], 3))})["ratio"] == (1, 1)


def test_found_again_and_mapped_in_another_process(files, tmp_path):
    """Nothing is built twice; pickled, the folder travels and not the pixels."""
    ours = store.ensure(files, WIDE, [tmp_path])
    built = (ours.folder / storing.PIXELS).stat().st_mtime_ns
    again = store.ensure(files, WIDE, [tmp_path], say=pytest.fail)
    assert (again.folder / storing.PIXELS).stat().st_mtime_ns == built
    sent = pickle.dumps(ours)
    assert len(sent) < 1000
    assert np.array_equal(pickle.loads(sent).image(3), ours.image(3))


def test_another_size_or_opencv_or_source_is_another_store(files, tree, tmp_path, monkeypatch):
    """Its name says so, and the folder of one is refused as that of another, with what to do."""
    ours = store.ensure(files, WIDE, [tmp_path])
    with pytest.raises(Refusal, match=r"is the store 96x160.*224x224.* was expected: remove it"):
        store.opened(ours.folder, files, SQUARE)
    with monkeypatch.context() as patch:
        patch.setattr(cv2, "__version__", "4.13.0")
        with pytest.raises(Refusal, match="opencv-4.13.0"):
            store.opened(ours.folder, files, WIDE)
    seen = os.stat(files[0])
    os.utime(files[0], ns=(seen.st_atime_ns, seen.st_mtime_ns + 1))
    try:
        with pytest.raises(Refusal, match="was expected"):
            store.opened(ours.folder, files, WIDE)
    finally:
        os.utime(files[0], ns=(seen.st_atime_ns, seen.st_mtime_ns))
    store.opened(ours.folder, files, WIDE)


def test_a_changed_byte_is_found(files, tmp_path):
    """By the hashes of the pixels, which are not read at every start."""
    ours = store.ensure(files, WIDE, [tmp_path])
    assert ours.differing() == []
    with open(ours.folder / storing.PIXELS, "r+b") as handle:
        handle.seek(int(ours.index[4]["at"]) + 7)
        byte = handle.read(1)[0]
        handle.seek(-1, os.SEEK_CUR)
        handle.write(bytes([byte ^ 1]))
    assert ours.differing() == [4]


def test_killed_while_it_is_built_it_goes_on(tmp_path):
    """kill -9 in the midst: no manifest; begun again, what was whole is not decoded again."""
    rng, source = np.random.default_rng(1), tmp_path / "source"
    source.mkdir()
    for i in range(60):
        picture(rng, 1200, 900).save(source / f"{i:02d}.jpg", quality=95)
    files = sorted(map(str, source.iterdir()))
    code = (
        "import sys; from pathlib import Path; from saistudy.data import store;"
        f"store.ensure({files!r}, (640, 640), [Path({str(tmp_path / 'stores')!r})])"
    )
    running = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    folder = tmp_path / "stores" / store.name(files, (640, 640))
    until = time.monotonic() + 60
    while time.monotonic() < until and running.poll() is None:
        if (folder / storing.INDEX).is_file() and np.load(folder / storing.INDEX)["done"].sum() > 5:
            break
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert not (folder / store.MANIFEST).exists()
    done = np.load(folder / storing.INDEX)["done"].copy()
    assert 5 < done.sum() < 60
    before = folder.joinpath(storing.PIXELS).stat().st_ino
    decoded = []
    load = pixels.load
    pixels.load = lambda file, hw: decoded.append(file) or load(file, hw)
    try:
        ours = store.ensure(files, (640, 640), [tmp_path / "stores"])
    finally:
        pixels.load = load
    assert sorted(decoded) == [file for file, there in zip(files, done, strict=True) if not there]
    assert folder.joinpath(storing.PIXELS).stat().st_ino == before and ours.differing() == []


@pytest.fixture
def small(tmp_path):
    """A tmpfs of 1 MiB."""
    with mounted.tmpfs(tmp_path / "small", "size=1m") as place:
        yield place


def test_where_there_is_no_room_the_next_place_is_taken(files, small, tmp_path):
    """A tmpfs that cannot hold it is left empty; with no other place one sentence says what was needed."""
    with pytest.raises(Refusal, match=r"no place .* 1\.\d\d MiB are needed, .*small has .*: free some"):
        store.ensure(files, (256, 256), [small])
    assert list(small.iterdir()) == []
    ours = store.ensure(files, (256, 256), [small, tmp_path / "disk"])
    assert ours.folder.parent == tmp_path / "disk" and list(small.iterdir()) == []


def test_room_is_made_by_removing_what_nobody_uses(files, small):
    """A finished store of another size goes; one that a training has mapped stays."""
    first = store.ensure(files, WIDE, [small])
    names = {first.folder.name}
    with pytest.raises(Refusal, match="no place"):
        store.ensure(files, SQUARE, [small])
    assert {path.name for path in small.glob("*opencv*")} == names
    del first
    gc.collect()
    second = store.ensure(files, SQUARE, [small])
    assert [path.name for path in small.glob("*opencv*")] == [second.folder.name]


def test_release_gives_the_memory_back(files, tmp_path):
    """What is in use stays."""
    ours = store.ensure(files, WIDE, [tmp_path / "stores"])
    store.release(tmp_path / "stores")
    assert ours.folder.is_dir()
    del ours
    gc.collect()
    store.release(tmp_path / "stores")
    assert not (tmp_path / "stores").exists()


def test_what_is_no_image_is_said_in_a_sentence(files, tmp_path):
    """A text, an empty file, and a JPEG cut in its header."""
    for name, content in (("text", b"no image"), ("empty", b""), ("cut", Path(files[0]).read_bytes()[:40])):
        wrong = tmp_path / f"{name}.jpg"
        wrong.write_bytes(content)
        with pytest.raises(Refusal, match=f"{name}.jpg cannot be .*: take it out of the data set"):
            store.ensure([*files, str(wrong)], WIDE, [tmp_path / "stores"])
    assert not list((tmp_path / "stores").glob("*/store.json"))
