"""Which picture of a twin stands under which name, in which split, and with which planted fault.

Proportions: FASDD (Wang et al. 2024, doi 10.1080/10095020.2024.2347922, counts of FASDD_CV in the Science
Data Bank record V9) and the data set card of pyronear/pyro-sdis. Nothing is painted here.
"""

from collections import Counter
from typing import NamedTuple

import numpy as np

from saistudy.data.painted import faults, footage
from saistudy.data.painted.footage import Frame, Shot

CATEGORIES = {  # stem: images published, fire in it, smoke in it
    "fire_CV": (12_550, True, False),
    "smoke_CV": (23_414, False, True),
    "bothFireAndSmoke_CV": (20_151, True, True),
    "neitherFireNorSmoke_CV": (39_199, False, False),
}
EXTRA_FIRES = 73_297 / (12_550 + 20_151) - 1  # fire boxes of an image with fire beyond its first
EXTRA_SMOKE = 53_080 / (23_414 + 20_151) - 1
# Long side in px, from and to, and the share of images: test negatives of FASDD_CV as counted in a public
# false-alarm study; the outer ends, 320 and 2560, are assumed.
LONG_PX = ((320, 480), (481, 720), (721, 1080), (1081, 1440), (1441, 1920), (1921, 2560))
LONG_SHARES = np.array([14.7, 45.3, 27.0, 6.9, 3.0, 3.0]) / 99.9
ASPECTS, ASPECT_SHARES = ((4, 3), (16, 9), (3, 2), (3, 4)), (0.4, 0.35, 0.15, 0.1)  # assumed
COPY_FRAC = 0.005  # byte-identical copies in FASDD: with their originals about 1 % of the images (assumed)
PYRO_COPIES = 1_042 / 33_636  # exact duplicates of pyro-sdis
VAL_FRAC = 4_099 / 33_636  # pyro-sdis
DATE = "%Y-%m-%dT%H-%M-%S"  # pyro-sdis
CLEAR = ("clear", "cloud")  # what most images with fire or smoke show


class Role(NamedTuple):
    """One image: its name and split, what it shows, its fault ("" for none) and the way of that fault.

    scene is a Shot, or a Frame with its number; copied says that its bytes stand under another name too,
    run that other takes of its scene exist. own is the Frame that a PyroSDIS row tells of.
    """

    image: str
    split: str
    scene: Shot | tuple[Frame, int]
    positive: bool
    copied: bool = False
    run: bool = False
    what: str = ""
    way: int = 0
    own: Frame | None = None

    @property
    def free(self) -> bool:
        """Whether a fault may be planted here."""
        return not (self.copied or self.run or self.what)

    @property
    def cell(self) -> tuple[str, str]:
        """Split and category (in PyroSDIS the camera), which refused images may not empty."""
        return self.split, self.own.camera if self.own else self.image[:-10]

    def fits(self, what: str) -> bool:
        """Whether the fault can be made of this image."""
        if what == "category":
            return self.image.startswith("fire_") and self.scene.fires_n == 1
        return self.positive if what in faults.BOXED else not (what == "coco-size" and self.positive)

    def noted(self, line: int) -> list[tuple]:
        """What is planted in the image as (what, image, split, line); lists tell of their own faults."""
        whats = [] if self.what in ("", "missing-image", "listed-twice") else [self.what]
        whats += ["byte-identical"] * self.copied + ["near-identical"] * self.run
        return [(what, self.image, "" if what == "unlisted" else self.split, line) for what in whats]


def shares(n: int, weights: list[int]) -> list[int]:
    """Whole numbers in the given proportion that sum to n (largest remainders)."""
    exact = np.array(weights) * n / sum(weights)
    counts = exact.astype(int)
    counts[np.argsort(counts - exact, kind="stable")[: n - counts.sum()]] += 1
    return counts.tolist()


def fasdd(images_n: int, seed: int, area_frac: float, long_px: int | None, planted: str) -> list[Role]:
    """The images of a FASDD_CV twin: four categories, val and test a sixth of each, runs of one scene.

    60 % of the images are scenes of their own, the others takes of scenes with 5 to 40 (video frames in the
    published set: at DINOv2 cosine .96 65 % of its fire scenes remain); in a twin of fewer than 400 images
    10 % in runs of 2 to 4. `planted` is none (then no runs and no copies either), published or all.
    """
    rng, roles = np.random.default_rng([seed, 0]), []
    counts = shares(images_n, [n for n, _, _ in CATEGORIES.values()])
    runs = (0.0, 1, 1) if planted == "none" else (0.1, 2, 4) if images_n < faults.FEW_N else (0.4, 5, 40)
    for name, n in zip(CATEGORIES, counts, strict=True):
        shots = _shots(rng, name, n, runs, len(roles), area_frac, long_px)
        takes = Counter(shot.scene_n for shot in shots)
        held_n = n // 6
        splits = rng.permutation(["val"] * held_n + ["test"] * held_n + ["train"] * (n - 2 * held_n))
        own = [
            Role(f"{name}{i:06d}.jpg", str(split), shot, any(shot[3:5]), run=takes[shot.scene_n] > 1)
            for i, (split, shot) in enumerate(zip(splits, shots, strict=True))
        ]
        roles += own if planted == "none" else _repeat(own, rng)
    return faults.assign(roles, faults.wanted("FASDD_CV", planted, images_n, rng), rng)


def _shots(rng, name: str, n: int, runs: tuple, first_n: int, area_frac: float, long_px) -> list[Shot]:
    """The shots of a category in shuffled order; scene numbers start at `first_n`."""
    _, fire, smoke = CATEGORIES[name]
    in_runs, shortest, longest = runs
    lengths, left = [], round(in_runs * n)
    while left >= shortest and left:
        lengths.append(int(min(rng.integers(shortest, longest + 1), left)))
        left -= lengths[-1]
    lengths += [1] * (n - sum(lengths))
    shots = []
    for scene_n, length in enumerate(lengths, start=first_n):
        fires_n = (1 + int(rng.poisson(EXTRA_FIRES))) * fire
        plumes_n = (1 + int(rng.random() < EXTRA_SMOKE)) * smoke
        scene = Shot(scene_n, 0, _size(rng, long_px), fires_n, plumes_n, _mood(rng, fire or smoke), area_frac)
        shots += [scene._replace(take_n=i) for i in range(length)]
    return [shots[i] for i in rng.permutation(n)]


def _size(rng, long_px: int | None) -> tuple[int, int]:
    low, high = LONG_PX[rng.choice(len(LONG_PX), p=LONG_SHARES)]
    long = min(int(rng.integers(low, high + 1)), long_px or high)
    across, down = ASPECTS[rng.choice(len(ASPECTS), p=ASPECT_SHARES)]
    return round(long * across / max(across, down)), round(long * down / max(across, down))


def _mood(rng, positive: bool) -> str:
    """Images with fire or smoke are mostly clear or cloudy; all kinds of negatives are alike in number."""
    mostly = positive and rng.random() < 0.8
    return str(rng.choice(CLEAR if mostly else footage.MOODS))


def _repeat(roles: list[Role], rng) -> list[Role]:
    """The same roles, where a few of val and test show the very image of one of train."""
    held, train = (
        [i for i, r in enumerate(roles) if r.free and (r.split == "train") == inside]
        for inside in (False, True)
    )
    copies_n = max(1, round(len(roles) * COPY_FRAC))
    pairs = list(zip(rng.permutation(held)[:copies_n], rng.permutation(train), strict=False))
    for copy, original in pairs:
        roles[copy] = roles[copy]._replace(scene=roles[original].scene, copied=True)
        roles[original] = roles[original]._replace(copied=True)
    return roles


def pyrosdis(images_n: int, seed: int, cameras_n: int, planted: str) -> list[Role]:
    """The images of a PyroSDIS twin by split and name: val from every camera, 3.1 % byte-identical copies."""
    rng = np.random.default_rng([seed, 0])
    frames = footage.watch(rng, images_n, cameras_n)
    held = _held_out(frames, rng)
    roles = [
        Role(name(frame), "val" if i in held else "train", (frame, i), frame.growth > 0, own=frame)
        for i, frame in enumerate(frames)
    ]
    if planted != "none":
        _echo(roles, rng)
    roles.sort(key=lambda role: (role.split, role.image))
    roles = faults.assign(roles, faults.wanted("pyro-sdis", planted, images_n, rng), rng)
    for i, role in enumerate(roles):
        if role.what == "repeated-name":
            roles[i] = role._replace(image=roles[i - 1].image)
    return roles


def name(frame: Frame) -> str:
    """The published image name of a frame."""
    return f"{frame.partner}_{frame.camera}_{frame.date:{DATE}}.jpg"


def _held_out(frames: list[Frame], rng) -> set[int]:
    """Numbers of the frames of val, from every camera alike."""
    own: dict[str, list[int]] = {}
    for i, frame in enumerate(frames):
        own.setdefault(frame.camera, []).append(i)
    wanted = shares(round(len(frames) * VAL_FRAC), [1] * len(own))
    return {int(i) for c, n in zip(sorted(own), wanted, strict=True) for i in rng.choice(own[c], n, False)}


def _echo(roles: list[Role], rng) -> None:
    """Let some images show the very bytes of a near one of train of their camera: half of them in val."""
    order = rng.permutation(len(roles)).tolist()
    copies_n = max(1, round(len(roles) * PYRO_COPIES))
    val = [i for i in order if roles[i].split == "val"][: -(-copies_n // 2)]
    copies = val + [i for i in order if roles[i].split == "train"][: copies_n - len(val)]
    for i in copies:
        near = sorted(range(max(0, i - 60), min(len(roles), i + 60)), key=lambda j: (abs(j - i), j))
        alike = [j for j in near if roles[j].cell == ("train", roles[i].own.camera) and j not in copies]
        for j in [j for j in alike if roles[j].positive == roles[i].positive][:1]:
            roles[i] = roles[i]._replace(scene=roles[j].scene, copied=True)
            roles[j] = roles[j]._replace(copied=True)
