"""Stock input, store and deferred pixels in turn: what an image costs the CPU, and how many come a second."""

import os
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import yaml

from saistudy import params, paths
from saistudy.data.room import room
from saistudy.paths import PARAMS, Refusal
from saistudy.study import bench
from saistudy.study.bench_staging import environment, ratio
from saistudy.training import rates

IMAGES_N, LINKS_N = 72, 10  # photographs, and names of each: mosaic's buffer shall be small against the set
BYTES_N = 900_000  # of a photograph: FASDD's 34 GB over 37,413 (seed 000)
SIZE = (1080, 1920)
WAYS = ("stock", "store", "deferred")
BATCH, WORKERS = 16, 2
BATCHES_N = {"stock": 16, "store": 24, "deferred": 120}  # counted: some seconds each
WARM_N = 12
SIDES = (896, 1440)


def measure(sides=SIDES, passes_n: int = 4, work: Path | None = None, images_n: int = IMAGES_N) -> dict:
    """CPU seconds an image and images/s of the loader, A B C A B C, every pass in a process of its own.

    Per side in pixels: ratio_cpu_per_image (stock / deferred), ratio_cpu_per_image_store (stock / store),
    ratio_images_per_s (deferred / stock) and ratio_images_per_s_store, all larger is better, medians over
    medians; spread: least and largest ratio of passes one after the other; passes: every one. Rendering is
    not counted: a GPU does it.

    Args:
        work: folder for the photographs, on disk; stores stand in /dev/shm.

    Raises:
        Refusal: no room for the stores, or an input that did not run as asked.
    """
    base = work or paths.work("bench")
    base.mkdir(parents=True, exist_ok=True)
    _refuse_full(sides, images_n)
    train = _augmentation()
    with TemporaryDirectory(dir=base) as folder, TemporaryDirectory(dir="/dev/shm") as memory:
        data = _photographs(Path(folder), images_n)
        found = {str(side): _side(data, side, passes_n, Path(memory) / str(side), train) for side in sides}
    what = {"images_n": images_n, "names_n": LINKS_N * images_n, "batch": BATCH, "workers": WORKERS}
    return {"sides": found, **what, "environment": environment()}


def _augmentation() -> dict:
    """Stage 1's augmentation at h200: what Ultralytics is told of pixels."""
    train = params.read("stage1", [PARAMS / "h200" / "stage1.yaml"], {})["train"]
    named = ("mosaic", "mixup", "copy_paste", "hsv_h", "hsv_s", "hsv_v", "translate", "scale", "fliplr")
    return {key: train[key] for key in named if key in train}


def _refuse_full(sides, images_n: int) -> None:
    needed = sum(2 * LINKS_N * images_n * 3 * side * side * SIZE[0] // SIZE[1] for side in sides)
    if (free := room(Path("/dev/shm")).usable_bytes) < needed:
        raise Refusal(f"/dev/shm has {free:_} bytes free, {needed:_} are needed: free some.")


def _photographs(folder: Path, images_n: int) -> Path:
    """The data.yaml of generated JPEGs of BYTES_N, each under LINKS_N names, with a box each."""
    for kind in ("images", "labels"):
        (folder / kind / "train").mkdir(parents=True)
    for i in range(images_n):
        drawn = _jpeg(np.random.default_rng(i))
        for k in range(LINKS_N):
            file = folder / "images" / "train" / f"{k:02d}-{i:03d}.jpg"
            file.write_bytes(drawn) if k == 0 else os.link(file.with_name(f"00-{i:03d}.jpg"), file)
            (folder / "labels" / "train" / f"{k:02d}-{i:03d}.txt").write_text("0 0.5 0.5 0.4 0.3\n")
    known = {"path": str(folder), "train": "images/train", "val": "images/train", "names": {0: "smoke"}}
    (folder / "data.yaml").write_text(yaml.safe_dump(known))
    return folder / "data.yaml"


def _jpeg(rng: np.random.Generator) -> bytes:
    """A picture with the spectrum of photographs (1/f, Field 1987), with noise until it has BYTES_N."""
    height, width = SIZE
    f = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    f[0, 0] = 1
    phases = rng.standard_normal((3, *f.shape)) + 1j * rng.standard_normal((3, *f.shape))
    plain = np.fft.irfft2(phases / f**1.2, s=SIZE).transpose(1, 2, 0)
    plain = 128 + 45 * plain / plain.std()
    noise = rng.standard_normal(plain.shape)
    low, high, drawn = 0.0, 40.0, b""
    for _ in range(7):
        middle = (low + high) / 2
        image = np.clip(plain + middle * noise, 0, 255).astype(np.uint8)
        drawn = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
        low, high = (middle, high) if len(drawn) < BYTES_N else (low, middle)
    return drawn


def _side(data: Path, side: int, passes_n: int, place: Path, train: dict) -> dict:
    """All passes at one square, and their ratios."""
    passes: dict[str, list] = {way: [] for way in WAYS}
    for number in range(-1, passes_n):  # the first builds stores and label caches, and is not counted
        for way in WAYS:
            count = WARM_N if number < 0 else BATCHES_N[way]
            asked = (data, way, (side, side), BATCH, WORKERS, count, WARM_N, [place])
            [seen] = bench.apart("spawn", _rates, asked, train)
            if seen.input != way:
                raise Refusal(f"input {way} was asked for, {seen.input} ran: nothing to compare.")
            passes[way] += [seen] if number >= 0 else []
    return _ratios(passes)


def _rates(asked: tuple, train: dict):
    yield rates.rate(*asked, **train)


def _ratios(passes: dict[str, list]) -> dict:
    cpu = {way: [one.cpu_s for one in seen] for way, seen in passes.items()}
    per_s = {way: [one.images_per_s for one in seen] for way, seen in passes.items()}
    found = {
        "ratio_cpu_per_image": ratio(cpu["stock"], cpu["deferred"]),
        "ratio_cpu_per_image_store": ratio(cpu["stock"], cpu["store"]),
        "ratio_images_per_s": ratio(per_s["deferred"], per_s["stock"]),
        "ratio_images_per_s_store": ratio(per_s["store"], per_s["stock"]),
    }
    return {
        **{key: value for key, (value, _) in found.items()},
        "spread": {key: spread for key, (_, spread) in found.items()},
        "cpu_ms_per_image": {way: 1000 * median(seen) for way, seen in cpu.items()},
        "passes": {way: [one._asdict() for one in seen] for way, seen in passes.items()},
    }


def sentences(result: dict) -> str:
    """A paragraph for each side."""
    machine = result["environment"]
    lines = [
        f"{result['images_n']} generated photographs of 1920 x 1080 under {result['names_n']} names, batch"
        f" {result['batch']}, {result['workers']} workers on {machine['cores_n']} cores of {machine['cpu']}"
    ]
    for side, found in result["sides"].items():
        ms = found["cpu_ms_per_image"]
        for key, way in (("", "deferred"), ("_store", "store")):
            least, most = found["spread"][f"ratio_cpu_per_image{key}"]
            lines.append(
                f"{side}: {way} takes {ms[way]:.2f} ms of CPU an image, stock {ms['stock']:.2f}: 1 /"
                f" {found[f'ratio_cpu_per_image{key}']:.2f} ({least:.2f} to {most:.2f});"
                f" {found[f'ratio_images_per_s{key}']:.2f} times the images/s"
            )
    return "\n".join(lines)
