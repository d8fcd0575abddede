"""One photograph: its size, its fingerprints, what is odd about it; and many: which show the same scene."""

import hashlib
import io
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from saistudy.paths import Refusal

# What Ultralytics decodes, and the suffixes under which each is expected.
FORMATS = {
    "JPEG": {"jpg", "jpeg"},
    "MPO": {"jpg", "jpeg", "mpo"},
    "PNG": {"png"},
    "BMP": {"bmp"},
    "WEBP": {"webp"},
    "TIFF": {"tif", "tiff"},
}
SIDE_PX = 10  # Ultralytics ignores an image with a shorter side
START, END = b"\xff\xd8", b"\xff\xd9"  # markers of a JPEG
ORIENTATION = 0x0112  # EXIF tag; 1 upright
UPRIGHT = {  # rows and columns as stored -> as shown (EXIF 2.32, 4.6.4 A)
    2: np.fliplr,
    3: lambda grey: grey[::-1, ::-1],
    4: np.flipud,
    5: np.transpose,
    6: lambda grey: np.rot90(grey, -1),
    7: lambda grey: grey[::-1, ::-1].T,
    8: np.rot90,
}
DISTANCE = 8  # bits; see `cluster`
PAIRS_N = 5_000_000  # near pairs held at a time while clustering (80 MB)


class Photograph(NamedTuple):
    """Width and height in px as shown (EXIF turned), sha256 of the bytes, 64-bit perceptual hash, oddities.

    An oddity does not stop training: exif-rotated, grey, cmyk, 16-bit, misnamed (PNG bytes under .jpg, say),
    no-end-marker.
    """

    width: int
    height: int
    sha256: str
    phash: int
    oddities: tuple[str, ...]


class Damaged(Refusal):
    """An image that cannot be trained on; `reason`: zero-bytes, undecodable, truncated, format, tiny."""

    def __init__(self, reason: str, told: str) -> None:
        super().__init__(told)
        self.reason = reason


def describe(data: bytes, image: str) -> Photograph:
    """What an image's bytes are; `image` is its file name, whose suffix says what they should be.

    Every pixel is decoded: of a JPEG the brightness, which needs all of its data. A JPEG that lacks
    only its end marker is sound.

    Raises:
        Damaged: the bytes do not decode, Ultralytics does not read the format, a side is < 10 px.
    """
    photo, grey = _decode(data)
    orientation = _orientation(photo)
    shown = UPRIGHT.get(orientation, np.asarray)(grey)
    height, width = shown.shape
    if photo.format not in FORMATS:
        told = f"{photo.format}: one of {sorted(FORMATS)} was expected, convert or remove it"
        raise Damaged("format", told)
    if min(width, height) < SIDE_PX:
        raise Damaged("tiny", f"{width}x{height} px: sides of at least {SIDE_PX} px were expected, remove it")
    oddities = _oddities(photo, data, image, orientation)
    return Photograph(width, height, hashlib.sha256(data).hexdigest(), perceptual_hash(shown), oddities)


def _orientation(photo: Image.Image) -> int:
    """What EXIF says about the upright side; 1 where it cannot be read, as OpenCV and Ultralytics take it."""
    try:
        return int(photo.getexif().get(ORIENTATION, 1))
    except Exception:  # Pillow's parser raises what it likes on a broken block
        return 1


def _oddities(photo: Image.Image, data: bytes, image: str, orientation: int) -> tuple[str, ...]:
    suffix = image.rpartition(".")[2].lower()
    jpeg = data[:2] == START
    deep = photo.mode.startswith("I") or (data[1:4] == b"PNG" and data[24] == 16)
    found = {
        "exif-rotated": orientation in range(2, 9),
        "grey": _colours(photo, data) in ("L", "LA", "1"),
        "cmyk": _colours(photo, data) == "CMYK",
        "16-bit": deep,
        "misnamed": suffix not in FORMATS[photo.format],
        "no-end-marker": jpeg and not data.endswith(END),
    }
    return tuple(name for name, there in found.items() if there)


def _colours(photo: Image.Image, data: bytes) -> str:
    """Pillow's mode of the file itself: a JPEG was decoded to grey whatever it holds."""
    return _open(data).mode if photo.mode == "L" else photo.mode


def _decode(data: bytes) -> tuple[Image.Image, np.ndarray]:
    """The decoded image, and its brightness, uint8 (height, width) as stored.

    Bytes put before the end marker may not change a pixel: that tells a complete scan from one that
    breaks off, unless it does so within its last block. It is a second decoding, so only in doubt.
    """
    if not data:
        raise Damaged("zero-bytes", "an empty file: fetch the image again")
    jpeg, whole = data[:2] == START, data.removesuffix(END) + END
    photo, grey = _load(whole if jpeg else data)
    if jpeg and (not data.endswith(END) or _doubtful(photo, grey)):
        longer = _load(data.removesuffix(END) + b"\x55\xaa" * 32 + END)[1]
        if not np.array_equal(grey, longer):
            raise Damaged("truncated", "the JPEG breaks off before its last row: fetch the whole image again")
    return photo, grey


def _doubtful(photo: Image.Image, grey: np.ndarray) -> bool:
    """Whether a JPEG may lack data before its end marker.

    libjpeg leaves the blocks that it has no data for at mid-grey (T.81: coefficients 0, level shift 128);
    the later scans of a progressive image only refine it, and of CMYK the brightness is another.
    """
    return bool(grey[-1, -1] == 128 or photo.info.get("progressive") or photo.mode == "CMYK")


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data))
    except Exception as error:  # Pillow's openers raise what they like on bytes that are no image
        told = "too many pixels" if isinstance(error, Image.DecompressionBombError) else "no image"
        raise Damaged("undecodable", f"{told} ({type(error).__name__}): fetch or convert it") from error


def _load(data: bytes) -> tuple[Image.Image, np.ndarray]:
    photo = _open(data)
    try:
        if photo.format == "JPEG" and photo.mode == "RGB":
            photo.draft("L", None)
        photo.load()
        return photo, _brightness(photo)
    except Exception as error:  # as above: on bytes that break off or contradict themselves
        told = " ".join(str(error).split())
        raise Damaged("truncated", f"breaks off ({told}): fetch the whole image again") from error


def _brightness(photo: Image.Image) -> np.ndarray:
    if photo.mode.startswith("I"):  # Pillow's own conversion cuts 16 bits off at 255
        return (np.asarray(photo).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8)
    return np.asarray(photo.convert("L"))


def perceptual_hash(grey: np.ndarray) -> int:
    """64-bit hash of brightness uint8 (height, width): signs of 63 low cosine terms about their median.

    The classic pHash (32x32 by area; 8x8 corner of the 2-D DCT without the mean term, most significant
    bit first; the last bit is 0). It was chosen over the gradient hash (dHash, 9x8 grey) by looking: see
    `cluster`. Distances are even, because the median leaves 31 bits set (fewer in a blank image).
    """
    from scipy.fft import dctn  # here: scipy takes most of a second, and a plan hashes nothing

    small = Image.fromarray(np.ascontiguousarray(grey)).resize((32, 32), Image.Resampling.BOX)
    terms = dctn(np.asarray(small, dtype=np.float64), norm="ortho")[:8, :8].ravel()[1:].round(6)
    bits = np.append(terms > np.median(terms), False)
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def cluster(phash: np.ndarray, distance: int = DISTANCE) -> np.ndarray:
    """Cluster labels int (N,) of uint64 hashes: chains of steps of at most `distance` bits.

    Labels count from 0 in order of first appearance; identical hashes always share one. The
    distance was set by looking at contact sheets of the clusters of 438 photographs that are frames
    of a few videos. pHash: up to 12 bits no two scenes fell together, at 14 a night fire joined an
    indoor scene. dHash joined a street fire with blank frames at 3 bits, where it still tore most
    videos apart. 8 and not 12, because chance grows with the square of the images: among 95,314
    unrelated ones (4.5e9 pairs, 31 fair bits set of 63) 6 pairs are expected within 8 bits, 175
    within 10 and 3,500 within 12. At 8 bits some videos fall into several runs, which costs a
    little independence between groups and joins no strangers.
    """
    unique, inverse = np.unique(np.asarray(phash, dtype=np.uint64), return_inverse=True)
    labels = np.arange(len(unique))
    held, held_n = [np.empty((2, 0), dtype=np.int64)], 0
    for near in _near(unique, distance):
        held.append(near)
        held_n += near.shape[1]
        if held_n > PAIRS_N:
            labels, held, held_n = _joined(labels, held), held[:1], 0
    return pd.factorize(_joined(labels, held)[inverse])[0]


def _near(unique: np.ndarray, distance: int) -> Iterator[np.ndarray]:
    """Positions int (2, n) of all pairs of hashes (different, sorted) within the distance, some repeatedly.

    Of distance + 1 bands of bits at least one is the same in such a pair, because each differing bit
    spoils one band only: so pairs are sought among hashes that share a band. A band takes every ninth bit,
    because neighbouring terms of a picture go together.
    """
    bands_n = min(distance + 1, 64)
    for first in range(bands_n):
        band = unique & np.uint64(sum(1 << bit for bit in range(first, 64, bands_n)))
        order = np.argsort(band, kind="stable")
        for alike in np.split(order, np.flatnonzero(np.diff(band[order])) + 1):
            hashes = unique[alike]
            for start in range(0, len(alike) - 1, 256):
                far = np.bitwise_count(hashes[start : start + 256, None] ^ hashes[None, start:])
                left, right = np.divmod(np.flatnonzero(far <= distance), far.shape[1])
                apart = left < right
                if apart.any():
                    yield alike[np.stack([left[apart], right[apart]]) + start]


def _joined(labels: np.ndarray, held: list[np.ndarray]) -> np.ndarray:
    """Cluster labels after the pairs in `held` (each (2, n)) were joined, too."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    left, right = labels[np.concatenate(held, axis=1)]
    graph = coo_array((np.ones(len(left), dtype=bool), (left, right)), shape=(len(labels),) * 2)
    return connected_components(graph, directed=False)[1][labels]
