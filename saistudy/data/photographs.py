"""One photograph: its size and fingerprints; and many: which show the same scene."""

import hashlib
import io

import numpy as np
import pandas as pd
from PIL import Image

from saistudy.paths import Refusal

FORMATS = {
    "JPEG",
    "MPO",
    "PNG",
    "BMP",
    "WEBP",
    "TIFF",
}  # what Ultralytics decodes
SIDE_PX = 10  # Ultralytics ignores an image with a shorter side
END = b"\xff\xd9"  # end marker of a JPEG
DISTANCE = 8  # bits; see `cluster`


def describe(data: bytes) -> tuple[int, int, str, int]:
    """Width and height in px as shown (EXIF turned), sha256 of the bytes, 64-bit perceptual hash.

    Every pixel is decoded. A JPEG that lacks only its end marker is sound.

    Raises:
        Refusal: the bytes do not decode, Ultralytics does not read the format, a side is < 10 px.
    """
    try:
        photo = _decode(data)
        turned = photo.getexif().get(0x0112) in {5, 6, 7, 8}
        phash = perceptual_hash(photo)
    except Exception as error:  # Pillow's decoders raise what they like on damaged bytes
        raise Refusal(f"not decodable ({error}): fetch a whole image again") from error
    width, height = photo.size[::-1] if turned else photo.size
    if photo.format not in FORMATS or min(width, height) < SIDE_PX:
        raise Refusal(
            f"{photo.format} of {width}x{height} px; one of {sorted(FORMATS)} with sides of"
            f" at least {SIDE_PX} px was expected, convert or remove it"
        )
    return width, height, hashlib.sha256(data).hexdigest(), phash


def _decode(data: bytes) -> Image.Image:
    """The decoded image.

    Where the end marker is missing it is added; bytes put before it may then not change a pixel,
    which tells a complete scan from one that breaks off.
    """
    if data[:2] != b"\xff\xd8" or data.endswith(END):
        return _load(data)
    photo, longer = _load(data + END), _load(data + b"\x55\xaa" * 32 + END)
    if not np.array_equal(np.asarray(photo), np.asarray(longer)):
        raise OSError("the JPEG breaks off before its last row")
    return photo


def _load(data: bytes) -> Image.Image:
    photo = Image.open(io.BytesIO(data))
    photo.load()
    return photo


def perceptual_hash(photo: Image.Image) -> int:
    """64-bit hash: signs of the 63 lowest cosine terms of 32x32 grey about their median.

    The classic pHash (8x8 corner of the 2-D DCT without the mean term, most significant bit first;
    the last bit is 0). It was chosen over the gradient hash (dHash, 9x8 grey) by looking: see
    `cluster`. Distances are even, because the median leaves 31 bits set (fewer in a blank image).
    """
    from scipy.fft import dctn  # here: scipy takes most of a second, and a plan hashes nothing

    grey = np.asarray(photo.convert("L").resize((32, 32), Image.Resampling.BOX), dtype=np.float64)
    terms = dctn(grey, norm="ortho")[:8, :8].ravel()[1:].round(6)
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
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    unique, inverse = np.unique(np.asarray(phash, dtype=np.uint64), return_inverse=True)
    pairs = [np.empty((2, 0), dtype=np.int64)]
    for start in range(0, len(unique), 128):
        far = np.bitwise_count(unique[start : start + 128, None] ^ unique[None, start:])
        pairs.append(np.stack(np.nonzero(far <= distance)) + start)
    left, right = np.concatenate(pairs, axis=1)
    graph = coo_array((np.ones(len(left), dtype=bool), (left, right)), shape=(len(unique),) * 2)
    labels = connected_components(graph, directed=False)[1][inverse]
    return pd.factorize(labels)[0]
