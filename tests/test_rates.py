"""The benches of the input path: what is counted, and ratios by hand; no timing is asserted."""

import io

import numpy as np
import pytest
from PIL import Image

from saistudy.study import bench_loader, bench_step
from saistudy.training import rates


@pytest.mark.parametrize("way", ["stock", "store", "deferred"])
def test_a_pass_counts_every_image_and_says_what_ran(tiny, tmp_path, way):
    """With two workers and more batches than an epoch has; the CPU's seconds include the workers'."""
    seen = rates.rate(tiny.folder / "data.yaml", way, (96, 96), 4, 2, 12, 3, [tmp_path], mosaic=1.0)
    assert seen.images_n > 36 and seen.input == way  # more than an epoch of the training split
    assert seen.cpu_s > 0 and seen.images_per_s > 0


def test_ratios_of_the_loader_by_hand():
    """Stock over ours in CPU seconds, ours over stock in images/s; spreads are pass by pass."""
    told = {
        "stock": [(0.02, 50), (0.04, 40)],
        "store": [(0.01, 90), (0.01, 80)],
        "deferred": [(0.001, 500)] * 2,
    }
    passes = {way: [rates.Rate(cpu, rate, 10, way) for cpu, rate in seen] for way, seen in told.items()}
    found = bench_loader._ratios(passes)
    assert found["ratio_cpu_per_image"] == pytest.approx(30)
    assert found["spread"]["ratio_cpu_per_image"] == pytest.approx([20, 40])
    assert found["ratio_cpu_per_image_store"] == pytest.approx(3)
    assert found["ratio_images_per_s"] == pytest.approx(500 / 45)
    assert found["ratio_images_per_s_store"] == pytest.approx(85 / 45)


def test_generated_photographs_have_the_seeds_size():
    """1080p, .9 MB within 2 %, and the spectrum falls as in photographs: coarse detail outweighs fine."""
    drawn = bench_loader._jpeg(np.random.default_rng(0))
    assert len(drawn) == pytest.approx(900_000, rel=0.02)
    image = Image.open(io.BytesIO(drawn))
    assert image.size == (1920, 1080)
    power = np.abs(np.fft.rfft2(np.asarray(image.convert("L"), float)))
    assert power[1:20, 1:20].mean() > 20 * power[200:220, 200:220].mean()


def test_cells_of_a_gpu_come_in_the_order_of_their_worth():
    """YOLOv8s at 896 first, its three inputs in turn and twice; then tensors, networks, workers."""
    found = bench_step.cells(True, 12)
    assert [cell.way for cell in found[:6]] == ["resident", "deferred", "stock"] * 2
    assert all(cell[:4] == ("yolov8s.yaml", (896, 896), 128, 12) for cell in found[:6])
    later = [(cell.model, cell.hw, cell.workers) for cell in found[6:]]
    assert later.index(("yolov8s.yaml", (832, 1440), 12)) < later.index(("yolov8m.yaml", (896, 896), 12))
    assert later[-1] == ("yolov8s.yaml", (896, 896), 8)


def test_ratios_of_a_step_by_hand():
    """A resident step's time is 1 / rate: its rate over that of deferred pixels is the ratio of times."""

    def row(way, rate, frac=0.0, note=""):
        kind = {"model": "yolov8s.yaml", "hw": [896, 896], "batch": 128, "workers": 12}
        return kind | {"way": way, "images_per_s": rate, "render_frac": frac, "note": note}

    rows = [row("resident", 800.0), row("deferred", 790.0, 0.02), row("stock", 300.0)]
    rows += [
        row("resident", 820.0),
        row("deferred", 770.0, 0.04),
        row("stock", 320.0),
        row("x", 1.0, note="no"),
    ]
    [found] = bench_step.ratios(rows)
    assert found["step_ratio"] == pytest.approx(810 / 780)
    assert found["end_to_end"] == pytest.approx(780 / 310)
    assert found["render_frac"] == pytest.approx(0.03)
