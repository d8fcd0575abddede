"""The two twins, written: pictures rendered by all cores, streamed to the files of the published layout."""

import json
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np

from saistudy.data import index, photographs
from saistudy.data.painted import casting, faults, footage, layouts
from saistudy.data.painted.casting import Role
from saistudy.paths import Refusal, write_text

SHARDS_N = 6
AHEAD_N = 32  # images rendered before they are written: a few MB
TRIES_N = 100


class Seen:
    """The pictures so far, by perceptual hash: no two scenes may look alike, takes of one scene must.

    Painted landscapes are less various than photographs: of thousands a few would fall into one cluster
    of `photographs.cluster`, a fault that nobody planted, so they are painted anew.
    """

    def __init__(self, images_n: int, render: Callable[[Role], tuple]) -> None:
        self.hashes, self.owners = np.zeros(images_n, np.uint64), np.zeros(images_n, int)
        self.scenes: dict[int, int] = {}  # scene asked for -> scene painted
        self.render, self.n = render, 0

    def settle(self, role: Role, sheet: faults.Sheet, phash: int | None) -> faults.Sheet:
        """The sheet, or one of another scene (if it is the first of its scene) or another take."""
        own, shot = role.scene.scene_n, role.scene
        for _ in range(TRIES_N):
            shot = shot._replace(scene_n=self.scenes.setdefault(own, own))
            if shot != role.scene:
                sheet, phash = self.render(role._replace(scene=shot))
            if phash is None:
                return sheet
            near = np.bitwise_count(self.hashes[: self.n] ^ np.uint64(phash)) <= photographs.DISTANCE
            mine = self.owners[: self.n] == own
            if not near[~mine].any() and (near[mine].any() or not mine.any()):
                self.hashes[self.n], self.owners[self.n] = phash, own
                self.n += 1
                return sheet
            if mine.any():
                shot = shot._replace(take_n=shot.take_n + 50)  # runs are shorter
            else:
                self.scenes[own] += len(self.hashes)
        raise Refusal(
            f"{role.image}: {TRIES_N} painted scenes in a row look like others of the twin; a new one was"
            " expected sooner, so ask for fewer images."
        )


def _phash(data: bytes, image: str) -> int | None:
    """Perceptual hash of an image's bytes, None where they are too damaged to have one."""
    try:
        return photographs.describe(data, image).phash
    except photographs.Damaged:
        return None


def _rendered(render: Callable[[Role], object], roles: list[Role], what: str) -> Iterator[tuple]:
    """Roles with what they rendered to, in order, by all cores, at most AHEAD_N images ahead."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        waiting: deque = deque()
        for role in index.progress(roles, len(roles), what):
            waiting.append((role, pool.submit(render, role)))
            if len(waiting) > AHEAD_N:
                role, future = waiting.popleft()
                yield role, future.result()
        yield from ((role, future.result()) for role, future in waiting)


def fasdd(part: Path, images_n: int, seed: int, area_frac: float, long_px, planted: str) -> list[tuple]:
    """Write a FASDD_CV at `part`; what is planted in it, as (what, image, split, line)."""
    labels = part / "annotations/YOLO_CV/labels"
    for place in (part / "images", labels, part / "annotations/COCO_CV/Annotations"):
        place.mkdir(parents=True)

    def render(role: Role) -> tuple[faults.Sheet, int | None]:
        sheet = faults.Sheet(*footage.photograph(seed, role.scene), role.scene.size)
        sheet = faults.plant(sheet, role.what, role.way, {"fire": 0, "smoke": 1}, "\n", wrong_class=7)
        return sheet, _phash(sheet.data, role.image)

    roles, said, found = casting.fasdd(images_n, seed, area_frac, long_px, planted), {}, []
    seen = Seen(images_n, render)
    for role, rendered in _rendered(render, roles, "FASDD twin"):
        sheet = seen.settle(role, *rendered)
        if role.what != "missing-image":
            (part / "images" / role.image).write_bytes(sheet.data)
        if sheet.text is not None:
            (labels / role.image).with_suffix(".txt").write_bytes(sheet.text.encode())
        said[role.image] = faults.coco(role.what, sheet)
        found += role.noted(sheet.line)
    if planted == "all":
        stray = f"fire_CV{images_n:06d}"  # a number beyond all of its category
        (labels / f"{stray}.txt").write_text("0 0.500000 0.500000 0.100000 0.100000\n")
        found.append(("orphan-label", f"{stray}.jpg", "", 0))
    return found + _annotate(part / "annotations", roles, said, planted)


def _annotate(folder: Path, roles: list[Role], said: dict, planted: str) -> list[tuple]:
    """Write the three lists and the three COCO files; the faults planted in them."""
    found = []
    for split in index.SPLITS:
        own = [role for role in roles if role.split == split and role.what != "unlisted"]
        names = sorted(role.image for role in own)
        entries = {image: said[image] for image in names if said[image]}
        found += [
            ("missing-image", r.image, split, 1 + names.index(r.image))
            for r in own
            if r.what == "missing-image"
        ]
        for role in roles:
            if role.what == "listed-twice" and split == ("test" if role.way % 2 else role.split):
                names.append(role.image)
                found.append(("listed-twice", role.image, split, len(names)))
        if planted == "all" and split == "train":
            stray = f"smoke_CV{len(roles):06d}.jpg"
            entries[stray] = ([], (640, 480))
            found.append(("coco-unlisted", stray, split, 0))
        lines = "".join(f"./images/{image}\r\n" for image in names)
        (folder / f"YOLO_CV/{split}.txt").write_bytes(lines.encode())
        (folder / f"COCO_CV/Annotations/{split}.json").write_text(json.dumps(layouts.coco(entries)))
    return found


def pyrosdis(part: Path, images_n: int, seed: int, cameras_n: int, size, area_frac, planted) -> list[tuple]:
    """Write a pyro-sdis at `part`; what is planted in it, as (what, image, split, line)."""
    (part / "data").mkdir(parents=True)

    def render(role: Role) -> faults.Sheet:
        frame, frame_n = role.scene
        sheet = faults.Sheet(*footage.shoot(frame, seed, frame_n, tuple(size), area_frac), tuple(size))
        return faults.plant(sheet, role.what, role.way, {"smoke": 1}, "", wrong_class=0)

    roles = casting.pyrosdis(images_n, seed, cameras_n, planted)
    counts = Counter(role.split for role in roles)
    told, found = {split: [0, n] for split, n in sorted(counts.items())}, []
    rows = _rows(_rendered(render, roles, "PyroSDIS twin"), told, found)
    for split, shards_n in (("train", SHARDS_N), ("val", 1)):
        for k, shard in enumerate(np.array_split(range(counts[split]), shards_n)):
            path = part / f"data/{split}-{k:05d}-of-{shards_n:05d}.parquet"
            layouts.shard(path, islice(rows, len(shard)))
    (part / "data.yaml").write_text(layouts.DATA_YAML)
    write_text(part / "README.md", layouts.card(told))
    return found


def _rows(rendered: Iterator[tuple], told: dict, found: list[tuple]) -> Iterator[tuple]:
    """Rows for the shards; `told` counts their bytes by split, `found` their faults."""
    for role, sheet in rendered:
        date = "unknown" if role.what == "undated" else f"{role.own.date:{casting.DATE}}"
        row = (sheet.data, sheet.text, role.image, role.own.partner, role.own.camera, date)
        told[role.split][0] += len(sheet.data) + sum(map(len, row[1:]))
        if role.what == "repeated-name":  # the name under which the index will hold it
            role = role._replace(image=role.image.replace(".jpg", "_2.jpg"))
        found += role.noted(sheet.line)
        yield row
