"""Known faults planted into a twin: broken labels and images, lists and COCO files that do not fit.

Each has the name under which the data check lists it. Published flaws are known of the real sets; stress
faults are not claimed to exist there.
"""

import io
import json
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from saistudy.data.painted import footage, layouts
from saistudy.paths import write_json

FEW_N = 400  # a twin of fewer images has refused ones only in train
STRESS_FRAC, REFUSED_FRAC = 0.2, 0.08  # at most this share of the images carries a stress fault, is refused
LABEL = ("columns", "not-a-number", "class", "range", "duplicate", "crlf")
PICTURE = ("exif-rotated", "grey", "cmyk", "misnamed", "no-end-marker")
PICTURE += ("zero-bytes", "truncated", "undecodable")
FASDD = (*LABEL, "bom", "missing-label", *PICTURE, "16-bit", "unlisted", "missing-image", "listed-twice")
FASDD += ("coco-boxes", "coco-class", "coco-missing", "category")
STRESS = {"FASDD_CV": FASDD}
STRESS["pyro-sdis"] = (*LABEL, *PICTURE, "zero-area", "clipped", "repeated-name", "undated")
LINES = {"columns", "not-a-number", "class", "range", "duplicate", "zero-area", "bom", "crlf"}
BOXED = LINES | {"clipped", "category", "coco-boxes", "coco-class"}  # need an image with boxes
# The image is left out of training, so a twin must not have too many of these.
REFUSED = {"columns", "not-a-number", "class", "range", "missing-label", "zero-bytes", "truncated"}
REFUSED |= {"undecodable", "unlisted", "missing-image"}
WAYS = {"columns": 2, "not-a-number": 2, "range": 3}  # in how many ways a fault is made


class Sheet(NamedTuple):
    """An image of the twin: its bytes, what it shows in px, its label text (None: no file).

    line is the label line that the fault is found at, from 1; 0 speaks of the whole image.
    """

    data: bytes
    boxes: list[tuple]
    size: tuple[int, int]
    text: str | None = None
    line: int = 0


def wanted(name: str, planted: str, images_n: int, rng) -> list[tuple[str, int]]:
    """Faults to plant, each with the way to make it. `planted` is none, published or all.

    Of FASDD_CV three boxes without area are published; how often boxes leave the image by a pixel or COCO
    sizes are wrong is assumed. Each stress fault comes once, then again as far as the image number allows.
    """
    several = {"zero-area": 3, "clipped": max(2, images_n // 1_000), "coco-size": max(2, images_n // 500)}
    published = [(what, way) for what, n in several.items() for way in range(n)]
    chosen = published if name == "FASDD_CV" and planted != "none" else []
    return chosen + (_stress(STRESS[name], images_n, rng) if planted == "all" else [])


def _stress(kinds: tuple[str, ...], images_n: int, rng) -> list[tuple[str, int]]:
    times_n = 1 if images_n < 1_000 else 2 + images_n // 4_000
    ways = {what: max(times_n, WAYS.get(what, 1)) for what in kinds}
    rounds = [[what for what in kinds if ways[what] > way] for way in range(max(ways.values()))]
    order = [(str(what), way) for way, found in enumerate(rounds) for what in rng.permutation(found)]
    chosen, refused_n = [], 0
    for what, way in order:
        refused_n += what in REFUSED
        if what not in REFUSED or refused_n <= REFUSED_FRAC * images_n:
            chosen.append((what, way))
    return chosen[: int(STRESS_FRAC * images_n)]


def assign(roles: list, wanted: list[tuple[str, int]], rng) -> list:
    """The roles (see `casting.Role`) with the wanted faults, each on an image that fits and can be spared."""
    order = [i for i in rng.permutation(len(roles)).tolist() if roles[i].free]
    cells = Counter(role.cell for role in roles)
    for what, way in wanted:
        for i in order:
            if not roles[i].fits(what) or (what in REFUSED and not _spared(roles, i, cells)):
                continue
            if what == "repeated-name" and not _follows(roles, i):
                continue
            cells[roles[i].cell] -= what in REFUSED
            suffix = ".png" if what == "16-bit" else ".jpg"
            roles[i] = roles[i]._replace(what=what, way=way, image=roles[i].image[:-4] + suffix)
            order.remove(i)
            break
    return roles


def _spared(roles: list, i: int, cells: Counter) -> bool:
    return cells[roles[i].cell] > 3 and (len(roles) >= FEW_N or roles[i].split == "train")


def _follows(roles: list, i: int) -> bool:
    """Whether the image before it has the same cell, and no third one will take that name too."""
    near = [role.what for role in roles[max(0, i - 1) : i + 2]]
    return i > 0 and roles[i - 1].cell == roles[i].cell and "repeated-name" not in near


def clip(sheet: Sheet) -> Sheet:
    """The sheet with one box pulled 0.6 px over the border nearest to it: published labels do that."""
    width, height = sheet.size
    ends = {1: -0.6, 2: -0.6, 3: width + 0.6, 4: height + 0.6}
    gaps = {(i, at): abs(box[at] - ends[at]) for i, box in enumerate(sheet.boxes) for at in ends}
    i, at = min(gaps, key=gaps.get)
    boxes = list(sheet.boxes)
    boxes[i] = (*boxes[i][:at], ends[at], *boxes[i][at + 1 :])
    return sheet._replace(boxes=boxes, line=i + 1)


def swap(sheet: Sheet, boxes_n: int) -> Sheet:
    """The sheet with the class of its first `boxes_n` boxes turned into the other one."""
    other = {"fire": "smoke", "smoke": "fire"}
    swapped = [(other[kind], *box) for kind, *box in sheet.boxes[:boxes_n]]
    return sheet._replace(boxes=swapped + sheet.boxes[boxes_n:])


def label(sheet: Sheet, what: str, way: int, wrong_class: int) -> Sheet:
    """The sheet with a broken or odd label line; `way` counts through the ways to break it."""
    end = "\n" if sheet.text.endswith("\n") else ""
    lines = sheet.text.splitlines()
    if what == "crlf":
        return sheet._replace(text="\r\n".join(lines) + "\r\n", line=1)
    if what == "bom":
        return sheet._replace(text="\ufeff" + sheet.text, line=1)
    if what == "duplicate":
        lines.append(lines[0])
    elif what == "zero-area":
        name, x, y, w, h = lines[0].split()
        lines.append(f"{name} {x} {y} {w} 0.000000" if way % 2 else f"{name} {x} {y} 0.000000 {h}")
    else:
        lines[-1] = _broken(lines[-1], what, way, wrong_class, sheet.size[0])
    return sheet._replace(text="\n".join(lines) + end, line=len(lines))


def _broken(line: str, what: str, way: int, wrong_class: int, width: int) -> str:
    """A label line that Ultralytics refuses with its whole image."""
    name, x, y, w, h = line.split()
    over = f"{1 - float(w) / 2 + 3 / width:.6f}"  # three pixels beyond the right border
    ways = {
        "columns": [f"{line} 0.9", f"{name} {x} {y} {w}"],
        "not-a-number": [f"{name} {x} {y} wide {h}", f"{name} {x} {y} nan {h}"],
        "class": [f"{wrong_class} {x} {y} {w} {h}"],
        "range": [f"{name} 1.020000 {y} {w} {h}", f"{name} {over} {y} {w} {h}", f"{name} {x} {y} -{w} {h}"],
    }[what]
    return ways[way % len(ways)]


def picture(data: bytes, what: str) -> bytes:
    """Image bytes with a fault: empty, cut at 60 %, noise, or sound in a form that readers stumble over."""
    if what == "zero-bytes":
        return b""
    if what == "truncated":
        return data[: len(data) * 6 // 10]
    if what == "no-end-marker":
        return data[:-2]
    if what == "undecodable":
        return np.random.default_rng(len(data)).bytes(len(data))
    photo = Image.open(io.BytesIO(data))
    if what == "exif-rotated":  # stored on its left side; orientation 6 turns it upright again
        exif = Image.Exif()
        exif[0x0112] = 6
        return _saved(photo.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=90, exif=exif)
    if what in ("grey", "cmyk"):
        return _saved(photo.convert({"grey": "L", "cmyk": "CMYK"}[what]), "JPEG", quality=90)
    if what == "16-bit":
        photo = Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 257)
    told = PngInfo()
    told.add_text("Comment", footage.PROVENANCE.decode())
    return _saved(photo, "PNG", compress_level=1, pnginfo=told)


def _saved(photo: Image.Image, form: str, **how) -> bytes:
    buffer = io.BytesIO()
    photo.save(buffer, form, **how)
    return buffer.getvalue()


def coco(what: str, sheet: Sheet) -> tuple[list[tuple], tuple[int, int]] | None:
    """Boxes and size that COCO says of an image, with its fault; None where COCO does not name it."""
    boxes, (width, height) = sheet.boxes, sheet.size
    if what == "coco-missing":
        return None
    if what == "coco-class":
        boxes = swap(sheet, 1).boxes
    return boxes[what == "coco-boxes" :], (width + 10 * (what == "coco-size"), height)


def plant(sheet: Sheet, what: str, way: int, classes: dict[str, int], end: str, wrong_class: int) -> Sheet:
    """The sheet with its label text and the fault `what` planted ("": none).

    `classes` are the published class ids, `end` closes the text of an image with boxes; `wrong_class` is an
    id that is none.
    """
    if what == "clipped":
        sheet = clip(sheet)
    elif what == "category":
        sheet = swap(sheet, len(sheet.boxes))
    text = layouts.yolo(sheet.boxes, sheet.size, classes)
    sheet = sheet._replace(text=text and text + end)
    if what in LINES:
        return label(sheet, what, way, wrong_class)
    if what in (*PICTURE, "16-bit"):
        return sheet._replace(data=picture(sheet.data, what))
    return sheet._replace(text=None) if what == "missing-label" else sheet


def save(path: Path, name: str, planted: list[tuple]) -> None:
    """Write the faults of twin `name`, sorted, after those of another twin in the same folder."""
    known = json.loads(path.read_text(encoding="utf-8"))["faults"] if path.exists() else []
    fields = ("twin", "what", "image", "split", "line")
    own = [dict(zip(fields, (name, *fault), strict=True)) for fault in sorted(set(planted))]
    others = [fault for fault in known if fault["twin"] != name]
    write_json(path, {"provenance": "synthetic", "faults": others + own})
