"""Tests the painted pictures: boxes as asked for and where the picture changed, events that grow, the
same bytes on any processor and from any thread, scenes that differ, and that neither colour nor place
alone finds smoke or fire."""

import hashlib
import io
import itertools
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from saistudy.data import photographs
from saistudy.data.painted import footage, placing, plumes
from saistudy.data.painted.footage import MOODS, Frame, Shot
from saistudy.paths import ROOT

PUBLISHED, DEMO = 0.0017, 0.05  # median share of the frame that a box covers


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data))).astype(np.int16)


def area(box: tuple) -> int:
    return (box[-2] - box[-4]) * (box[-1] - box[-3])


def kinds(boxes: list[tuple]) -> list[str]:
    return sorted(box[0] for box in boxes)


@cache
def camera_frames(images_n: int = 240, cameras_n: int = 8) -> list[Frame]:
    return footage.watch(np.random.default_rng(0), images_n, cameras_n)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**31),
    st.sampled_from([(160, 120), (320, 180), (240, 320)]),
    st.sampled_from([PUBLISHED, 0.008, DEMO]),
    st.integers(0, 3),
    st.integers(0, 2),
    st.sampled_from(MOODS),
)
def test_every_box_asked_for_is_painted_inside_the_frame(seed, size, area_frac, fires_n, plumes_n, mood):
    data, boxes = footage.photograph(seed, Shot(0, 0, size, fires_n, plumes_n, mood, area_frac))
    assert Image.open(io.BytesIO(data)).size == size
    fires, smokes = kinds(boxes).count("fire"), kinds(boxes).count("smoke")
    # at the demo's size they may not fit; then there is still one of each
    exact = area_frac < DEMO
    assert fires == fires_n if exact else min(1, fires_n) <= fires <= fires_n
    assert smokes == plumes_n if exact else min(1, plumes_n) <= smokes <= plumes_n
    for _, x1, y1, x2, y2 in boxes:
        assert 0 <= x1 < x2 <= size[0] and 0 <= y1 < y2 <= size[1]
        assert {type(v) for v in (x1, y1, x2, y2)} == {int}


@pytest.mark.parametrize("kind", ["smoke", "fire"])
@pytest.mark.parametrize("area_frac", [PUBLISHED, DEMO])
def test_boxes_have_the_median_area_asked_for(kind, area_frac):
    size = (1280, 720) if area_frac == PUBLISHED else (320, 180)
    land = footage._scene(0, 0, size, "clear", area_frac)
    found = []
    for i in range(300):
        things = placing.place(land, (0, i), [kind], area_frac)
        found += placing.paint(land.picture.copy(), land, things, 0.3, 1.0, 0.0)
    shares = np.array([area(box) for box in found]) / (size[0] * size[1])
    assert 0.8 < np.median(shares) / area_frac < 1.2
    # 1.2 as published; at the demo's size ln(0.4 / 0.05) / 3.7 = 0.56
    assert np.log(shares).std() == pytest.approx(1.2 if area_frac == PUBLISHED else 0.56, abs=0.15)
    aspects = [(x2 - x1) / (y2 - y1) for _, x1, y1, x2, y2 in found]
    # 0.4-3 when chosen; painting moves an edge by a pixel or two
    assert min(aspects) > 0.3 and max(aspects) < 4


def test_no_smoke_or_fire_hangs_in_the_sky():
    for n in range(40):
        land = footage._scene(1, n, (320, 240), MOODS[n % 7], PUBLISHED)
        things = placing.place(land, (1, n), ["smoke"], PUBLISHED)
        assert all(thing.y + thing.high > land.ground_px[thing.x + thing.wide // 2] for thing in things), (
            "its foot stands at or below the line where sky meets ground"
        )


@pytest.mark.parametrize("kind", ["smoke", "fire"])
def test_a_box_is_where_the_picture_changed(kind):
    near = 0
    for n in range(40):
        fires_n, plumes_n = (1, 0) if kind == "fire" else (0, 1)
        shot = Shot(n, 0, (320, 240), fires_n, plumes_n, MOODS[n % 7], DEMO)
        data, ((_, x1, y1, x2, y2),) = footage.photograph(7, shot)
        bare, none = footage.photograph(7, shot._replace(fires_n=0, plumes_n=0))
        assert none == []
        change = ndimage.uniform_filter(np.abs(pixels(data) - pixels(bare)).max(axis=2).astype(float), 3)
        inside = change[y1:y2, x1:x2]
        outside = np.ones(change.shape, bool)
        outside[max(0, y1 - 8) : y2 + 8, max(0, x1 - 8) : x2 + 8] = False
        # flames light what stands around them, smoke changes nothing but itself
        limit = 0.75 if kind == "fire" else 0.3
        assert change[outside].max(initial=0) < max(limit * inside.max(), 14)
        # and all four edges of the box are reached by the change
        rows, cols = (np.flatnonzero((inside > 0.14 * inside.max()).any(axis=k)) for k in (1, 0))
        slack = (y2 - y1) * 0.15 + 3, (x2 - x1) * 0.15 + 3
        near += rows[0] < slack[0] and rows[-1] > y2 - y1 - slack[0]
        near += cols[0] < slack[1] and cols[-1] > x2 - x1 - slack[1]
    assert near > 0.9 * 80


def test_events_grow_and_drift_and_start_without_smoke():
    frames = camera_frames()
    size, found = (320, 180), {}
    for i, frame in enumerate(frames):
        _, boxes = footage.shoot(frame, 3, i, size, DEMO)
        assert (len(boxes) > 0) == (frame.growth > 0)
        found.setdefault(frame.event_n, []).append(boxes)
    onsets = [boxes[0] == [] for boxes in found.values()]
    assert np.mean(onsets) > 0.5
    grown = shifted = 0
    events = [[b for b in boxes if b] for boxes in found.values() if sum(map(bool, boxes)) >= 4]
    for boxes in events:
        first, late = sum(map(area, boxes[0])), [sum(map(area, b)) for b in boxes[len(boxes) // 2 :]]
        grown += np.median(late) > 1.3 * first
        middles = {(x1 + x2) / 2 for (_, x1, _, x2, _), *_ in boxes}
        shifted += len(middles) > 1
    assert len(events) >= 8 and grown == len(events) and shifted > 0.8 * len(events)


def test_frames_follow_the_published_counts_and_cadence():
    for images_n, cameras_n in ((100, 8), (4_000, 10)):
        frames = footage.watch(np.random.default_rng(1), images_n, cameras_n)
        assert len(frames) == images_n and {f.camera_n for f in frames} == set(range(cameras_n))
        smoky = [f for f in frames if f.growth]
        assert len(smoky) / images_n == pytest.approx(28_103 / 33_636, abs=0.02)
        assert sum(f.plumes_n for f in smoky) / len(smoky) == pytest.approx(32_109 / 28_103, abs=0.06)
        lengths = np.unique([f.event_n for f in frames], return_counts=True)[1]
        assert lengths.min() >= 5 and lengths.max() <= 40 and len(lengths) >= 1.5 * cameras_n
        pairs = [(a, b) for a, b in itertools.pairwise(frames) if a.camera_n == b.camera_n]
        gaps = np.array([(b.date - a.date).total_seconds() for a, b in pairs])
        same = np.array([a.event_n == b.event_n for a, b in pairs])
        assert gaps[same].max() <= 600 < gaps[~same].min() and gaps.min() > 0
        assert (gaps[same] == 30).mean() > 0.85
    # the long run has the 1-3 s gaps and the pauses too
    assert 0 < (gaps[same] <= 3).mean() < 0.1 and 0 < (gaps[same] > 30).mean() < 0.1


def test_some_smoke_is_barely_visible():
    peaks = []
    for n in range(200):
        land = footage._scene(5, n % 4, (320, 180), "clear", 0.03)
        (thing,) = placing.place(land, (5, n), ["smoke"], 0.03)
        picture = land.picture.copy()
        ((_, x1, y1, x2, y2),) = placing.paint(picture, land, [thing], 0.2, 1.0, 0.0)
        change = np.abs(picture.astype(int) - land.picture)[y1:y2, x1:x2].max(axis=2)
        peaks.append(np.percentile(change, 95))
    # about 12 of 255 is where people begin to miss a soft edge on a textured ground (assumed: 25)
    assert 0.08 < np.mean(np.array(peaks) < 25) < 0.25
    assert np.median(peaks) > 50


def test_pictures_say_that_they_are_synthetic():
    photo, _ = footage.photograph(0, Shot(0, 0, (320, 240), 0, 0, "fog", DEMO))
    frame, _ = footage.shoot(camera_frames()[5], 0, 5, (320, 180), DEMO)
    for data in (photo, frame):
        assert Image.open(io.BytesIO(data)).info["comment"] == b"provenance: synthetic"


def test_a_frame_of_a_camera_has_the_published_weight():
    frames = camera_frames()
    weights = [len(footage.shoot(frames[i], 0, i, (1280, 720), PUBLISHED)[0]) for i in range(0, 240, 30)]
    # pyro-sdis: about 100 KB a frame
    assert 60_000 < np.median(weights) < 160_000


def some(size: tuple[int, int], area_frac: float) -> list[tuple[str, tuple]]:
    """A dozen pictures of both kinds as (digest, boxes)."""
    shots = [Shot(n // 2, n, size, n % 3, (n + 1) % 2, MOODS[n % 7], area_frac) for n in range(8)]
    made = [footage.photograph(11, shot) for shot in shots]
    made += [footage.shoot(camera_frames()[i], 11, i, size, area_frac) for i in (3, 14, 60, 150)]
    return [(hashlib.sha256(data).hexdigest(), tuple(boxes)) for data, boxes in made]


def test_the_same_bytes_with_and_without_simd():
    from numpy._core import _multiarray_umath as core

    features = [name for name in core.__cpu_dispatch__ if core.__cpu_features__[name]]
    code = (
        "from numpy._core import _multiarray_umath as core; import test_scenes;"
        "print([n for n in core.__cpu_dispatch__ if core.__cpu_features__[n]]);"
        "print(test_scenes.some((480, 270), 0.0017) + test_scenes.some((320, 180), 0.05))"
    )
    path = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"
    env = os.environ | {"PYTHONPATH": path, "NPY_DISABLE_CPU_FEATURES": " ".join(features)}
    run = subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True)
    left, made = run.stdout.splitlines()
    assert left == "[]", "every feature was switched off there"
    assert made == str(some((480, 270), PUBLISHED) + some((320, 180), DEMO))


def test_threads_and_one_another_give_the_same_bytes():
    frames = list(enumerate(camera_frames()))[::9]
    shots = [Shot(n // 3, n, (320, 240), n % 2, 1, MOODS[n // 3 % 7], DEMO) for n in range(24)]

    def make(one) -> bytes:
        if isinstance(one, Shot):
            return footage.photograph(2, one)[0]
        return footage.shoot(one[1], 2, one[0], (320, 180), DEMO)[0]

    alone = [make(one) for one in shots + frames]
    footage._scene.cache_clear(), footage._view.cache_clear(), footage._grain.cache_clear()
    plumes.tile.cache_clear()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(make, shots + frames)) == alone


def phash(picture: np.ndarray) -> int:
    return photographs.perceptual_hash(np.asarray(Image.fromarray(picture).convert("L")))


def nearest(hashes: list[int]) -> int:
    return min((a ^ b).bit_count() for a, b in itertools.combinations(hashes, 2))


@pytest.mark.parametrize("scenes_n", [60, pytest.param(400, marks=pytest.mark.full)])
def test_scenes_and_cameras_differ_by_more_than_a_near_duplicate(scenes_n):
    lands = [footage._scene(1, n, (320, 240), MOODS[n % 7], PUBLISHED) for n in range(scenes_n)]
    views = [footage._view(1, n, (320, 180), PUBLISHED) for n in range(40)]
    assert nearest([phash(land.picture) for land in lands]) > photographs.DISTANCE
    assert nearest([phash(view.picture) for view in views]) > photographs.DISTANCE


def test_takes_of_a_scene_are_near_duplicates_and_not_copies():
    far = []
    for n in range(12):
        shots = [Shot(n, take, (320, 240), n % 2, 1, MOODS[n % 7], PUBLISHED) for take in range(4)]
        data = [footage.photograph(1, shot)[0] for shot in shots]
        assert len(set(data)) == 4
        hashes = [phash(pixels(one).astype(np.uint8)) for one in data]
        far += [(a ^ b).bit_count() for a, b in itertools.pairwise(hashes)]
    assert max(far) <= photographs.DISTANCE


def overlap(one: tuple, two: tuple) -> float:
    """Intersection over union of boxes x1, y1, x2, y2."""
    wide = min(one[2], two[2]) - max(one[0], two[0])
    high = min(one[3], two[3]) - max(one[1], two[1])
    shared = max(0, wide) * max(0, high)
    return shared / (area(one) + area(two) - shared)


def ap50(truth: list[list[tuple]], found: list[tuple]) -> float:
    """Average precision at an overlap of 0.5 of (score, image number, box): area under the envelope."""
    hits, taken = [], set()
    for _, i, box in sorted(found, key=lambda one: -one[0]):
        free = [(overlap(box, t), j) for j, t in enumerate(truth[i]) if (i, j) not in taken]
        best, j = max(free, default=(0, 0))
        hits.append(best >= 0.5)
        if best >= 0.5:
            taken.add((i, j))
    hits = np.array(hits, bool)
    precision = hits.cumsum() / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(envelope[hits].sum() / sum(map(len, truth)))


def test_the_average_precision_of_this_file_is_that_of_the_definition():
    truth = [[(0, 0, 10, 10)], [(0, 0, 10, 10), (20, 20, 30, 30)]]
    found = [(3, 0, (0, 0, 10, 10)), (2, 0, (0, 0, 10, 10)), (1, 1, (20, 20, 30, 31))]
    # found: hit, miss (taken already), hit; recall 1/3 at precision 1, then 2/3 at precision 2/3
    assert ap50(truth, found) == pytest.approx(1 / 3 + 2 / 9)


def blobs(mask: np.ndarray, i: int) -> list[tuple]:
    """The fifty largest connected parts of a mask as (size, image number, box)."""
    parts = cv2.connectedComponentsWithStats(mask)[2][1:].tolist()
    largest = sorted((part for part in parts if part[4] >= 9), key=lambda part: -part[4])[:50]
    return [(n, i, (x, y, x + wide, y + high)) for x, y, wide, high, n in largest]


def orange(picture: np.ndarray, red: int, gap: int) -> np.ndarray:
    r, g, b = cv2.split(picture)
    return (r > red) & (r - b > gap) & (r > g + 20)


def grey(picture: np.ndarray, light: int, gap: int) -> np.ndarray:
    r, g, b = cv2.split(picture)
    low = np.minimum(np.minimum(r, g), b)
    return (low > light) & (np.maximum(np.maximum(r, g), b) - low < gap)


@cache
def album(area_frac: float) -> list[tuple[np.ndarray, list]]:
    """Pictures and boxes in about the proportions of FASDD_CV: 4 of 10 are negatives."""
    size = (480, 360) if area_frac == PUBLISHED else (320, 240)
    asked = [(0, 0), (2, 0), (0, 1), (3, 1), (0, 0), (0, 1), (2, 1), (0, 0), (0, 2), (0, 0)]
    shots = [Shot(n, 0, size, *asked[n % 10], MOODS[n * 3 % 7], area_frac) for n in range(50)]
    return [(pixels(data), boxes) for data, boxes in (footage.photograph(4, shot) for shot in shots)]


@pytest.mark.parametrize("area_frac", [PUBLISHED, DEMO])
@pytest.mark.parametrize("kind", ["fire", "smoke"])
def test_a_colour_threshold_finds_little(area_frac, kind):
    pictures, boxes = zip(*album(area_frac), strict=True)
    truth = [[box[1:] for box in some if box[0] == kind] for some in boxes]
    rule, firsts, gaps = (orange, (140, 180, 210), (60, 100, 140))
    if kind == "smoke":
        rule, firsts, gaps = (grey, (110, 140, 170, 200), (15, 40))
    scores = []
    for first, gap, close in itertools.product(firsts, gaps, (0, 3)):
        masks = [rule(picture, first, gap).astype(np.uint8) for picture in pictures]
        if close:
            square = np.ones((close, close), np.uint8)
            masks = [cv2.morphologyEx(mask, cv2.MORPH_CLOSE, square) for mask in masks]
        scores.append(ap50(truth, [part for i, mask in enumerate(masks) for part in blobs(mask, i)]))
    assert max(scores) <= 0.2, "the best of all thresholds, chosen on the very pictures it is scored on"


@pytest.mark.parametrize("area_frac", [PUBLISHED, DEMO])
@pytest.mark.parametrize("kind", ["fire", "smoke"])
def test_a_box_of_median_size_at_the_horizon_finds_nothing(area_frac, kind):
    pictures, boxes = zip(*album(area_frac), strict=True)
    truth = [[box[1:] for box in some if box[0] == kind] for some in boxes]
    known = np.array([box for some in truth for box in some])
    wide, high = np.median(known[:, 2] - known[:, 0]), np.median(known[:, 3] - known[:, 1])
    scores = []
    for across, down in itertools.product((0.25, 0.5, 0.75), (0.3, 0.4, 0.5, 0.6, 0.7)):
        x, y = across * pictures[0].shape[1], down * pictures[0].shape[0]
        box = (x - wide / 2, y - high / 2, x + wide / 2, y + high / 2)
        scores.append(ap50(truth, [(1, i, box) for i in range(len(truth))]))
    assert max(scores) <= 0.2
