"""Deferred pixels: from plans, every value is the installed OpenCV's; the kernel, interpreted and built."""

import os
import random
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from ultralytics.cfg import get_cfg

from saistudy.paths import ROOT
from saistudy.training import feed, lean, plans, rendering
from saistudy.training.dataset import build_dataset

triton = pytest.importorskip("triton", reason="no Triton: it ships with CUDA torch")

CPU = torch.device("cpu")


def settings(seed: int) -> dict:
    """Augmentation drawn at random, each part off now and then."""
    draw = random.Random(seed)
    on = lambda high: draw.choice([0.0, draw.uniform(0, high)])  # noqa: E731
    shape = {"degrees": on(90), "shear": on(15), "scale": on(0.9), "translate": on(0.4)}
    mixed = {"mosaic": draw.choice([0.0, 0.5, 1.0]), "mixup": on(1), "flipud": on(1), "fliplr": on(1)}
    return shape | mixed | {"hsv_h": on(1), "hsv_s": on(1), "hsv_v": on(1), "bgr": on(1)}


def tensor(seed: int, most: int) -> tuple[int, int]:
    """A square or a rectangle, multiples of 32 up to `most` px."""
    draw = random.Random(seed)
    height, width = (32 * draw.randint(2, most // 32) for _ in range(2))
    return (height, height) if draw.random() < 0.4 else (height, width)


def planned(tiny, hw, places, train) -> feed.FedDataset:
    cfg = get_cfg(overrides={"imgsz": max(hw), "cache": False} | train)
    asked = feed.asked("deferred", places, {"batch": 8, "imgsz": list(hw), "workers": 0})
    kind, known = partial(feed.FedDataset, feed=asked), {"names": tiny.names, "channels": 3}
    built = build_dataset(cfg, f"{tiny.folder}/images/train", hw, 8, known, "train", 32, kind)
    assert built.input == "deferred", built.why
    return built


def differing(tiny, place, seed: int, most: int, images_n: int) -> int:
    """Values compared with stock transforms on the same pixels; every one and every label must be equal."""
    train, hw = settings(seed), tensor(seed, most)
    built = planned(tiny, hw, [place], train)
    hyp = get_cfg(overrides={"imgsz": max(hw)} | train)
    numbers = [random.Random(seed + k).randrange(len(built)) for k in range(images_n)]
    ours = feed.samples(built, hyp, "deferred", numbers, seed)
    stock = feed.samples(built, hyp, "store", numbers, seed)
    for one, other in zip(ours, stock, strict=True):
        assert all(torch.equal(one[key], other[key]) for key in ("cls", "bboxes", "batch_idx"))
    images = built.renderer(CPU)(torch.stack([one["img"] for one in ours]))
    wanted = torch.stack([one["img"] for one in stock])
    assert int((images != wanted).sum()) == 0, (train, hw)
    return images.numel()


def test_ten_million_values_are_opencvs(tiny, tmp_path):
    """Over 24 random settings and tensors."""
    seen = sum(differing(tiny, tmp_path, seed, 448, 6) for seed in range(24))
    assert seen > 1e7


@pytest.mark.full
def test_three_hundred_million_values_are_opencvs(tiny, tmp_path):
    """At sizes up to those of the study."""
    seen, seed = 0, 1000
    while seen < 3e8:
        seen += differing(tiny, tmp_path, seed, 1440, 8)
        seed += 1


def test_hsv_of_every_colour_is_opencvs():
    """All 2^24 colours through tables that shift nothing, then through drawn ones, in a few strips."""
    renderer = rendering.TorchRenderer(torch.zeros(1, dtype=torch.uint8), (32, 32))
    lut = lean.tables(lean.LeanHSV(0.3, 0.6, 0.5))
    colours = np.indices((256, 256, 256), dtype=np.uint8).reshape(3, -1).T.reshape(4096, 4096, 3)
    for rows in np.array_split(colours, 8):
        image = np.ascontiguousarray(rows)
        ours = renderer._shifted(torch.from_numpy(image), torch.from_numpy(lut.T.copy())).numpy()
        looked = cv2.LUT(cv2.cvtColor(image, cv2.COLOR_BGR2HSV), lut.reshape(1, 256, 3))
        assert np.array_equal(ours, cv2.cvtColor(looked, cv2.COLOR_HSV2BGR))


def test_a_plan_by_hand():
    """Two patches moved by (2, 1), no draw: pixels and grey where one would look for them."""
    pixels = torch.arange(24, dtype=torch.uint8)  # two images of 2 x 2 pixels, 12 bytes each
    image = plans.Stub((4, 4, 3))
    matrix = [1.0, 0.0, -2.0, 0.0, 1.0, -1.0]
    left, right = (0, 2, 0, 0, 2, 2), (12 - 3 * 2, 2, 2, 0, 4, 2)
    image.layers = [([left, right], matrix)]
    plan = torch.from_numpy(plans.packed(image, reverse=True))[None]
    seen = rendering.TorchRenderer(pixels, (4, 6))(plan)[0]
    wanted = torch.full((4, 6), 114, dtype=torch.uint8)
    wanted[1:3, 2:6] = torch.tensor([[2, 5, 14, 17], [8, 11, 20, 23]])  # red is the third byte of a pixel
    assert torch.equal(seen[0], wanted)


def test_a_plan_is_small_and_holds_no_pixels(tiny, tmp_path):
    """1.3 KB an image whatever its size; worker memory holds stubs."""
    for hw in ((96, 160), (640, 640)):
        built = planned(tiny, hw, [tmp_path], {"mosaic": 1.0})
        assert built[0]["img"].shape == (plans.BYTES_N,) and plans.BYTES_N < 1400
        assert all(isinstance(built.ims[i], plans.Stub) for i in built.buffer)


KERNEL = """
import random, sys, torch
sys.path[:0] = {path!r}
import conftest, test_deferred as t
from pathlib import Path
from saistudy.data import tree
from saistudy.training.kernel import TritonRenderer
tiny, seen = tree.load(Path({tree!r})), 0
for seed in range(20):
    train, hw = t.settings(seed), (96, 160)
    built = t.planned(tiny, hw, [Path({place!r})], train)
    plans = torch.stack([built[(seed + k) % len(built)]["img"] for k in range(4)])
    kernel = TritonRenderer(torch.from_numpy(built.store.shared()), hw, t.CPU, 16384)
    ours, wanted = kernel(plans), built.renderer(t.CPU)(plans)
    assert torch.equal(ours, wanted), (seed, train, int((ours != wanted).sum()))
    seen += ours.numel()
print(seen)
"""


def test_the_kernel_interpreted_gives_the_same_values(tiny, tmp_path):
    """4 images of 96 x 160 over 20 settings, under Triton's own interpreter, against the plain renderer."""
    path = [str(ROOT), str(ROOT / "tests")]
    code = KERNEL.format(path=path, tree=str(tiny.folder), place=str(tmp_path))
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[-1]) == 20 * 4 * 3 * 96 * 160


def test_the_kernel_builds_for_an_h200_without_spills(tmp_path):
    """For sm_90 with no fused product and sum but those asked for; registers and spills by ptxas."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from saistudy.training.kernel import BLOCK_N, render_kernel

    kinds = ["*u8", "*i64", "*fp64", "*u8", "*i32", "*u8", "*u8", "i32", "i32", "constexpr"]
    source = ASTSource(
        render_kernel, dict(zip(render_kernel.arg_names, kinds, strict=True)), {"BLOCK": BLOCK_N}
    )
    built = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"enable_fp_fusion": False})
    (tmp_path / "kernel.ptx").write_text(built.asm["ptx"])
    assembler = next((Path(triton.__file__).parent / "backends/nvidia/bin").glob("ptxas*"))
    said = subprocess.run(
        [
            assembler,
            "-v",
            "-arch=sm_90a",
            "--fmad=false",
            tmp_path / "kernel.ptx",
            "-o",
            tmp_path / "kernel.cubin",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    registers = int(re.search(r"Used (\d+) registers", said)[1])
    assert re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", said).groups() == ("0", "0")
    assert registers <= 128, said  # 128 leave room for 4 programs of 128 threads on each scheduler's share
    fused = built.asm["ptx"].count("fma.rn.f32")
    assert fused > 0 and "fma.rn.f64" not in built.asm["ptx"]
