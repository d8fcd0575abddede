"""Every kind of finding that the check knows: what it is about, and what becomes of the image or line."""

from saistudy.data import index

OUT = "left out, since Ultralytics would ignore it with all of its boxes"
KINDS = {  # by topic: what it is called, and what becomes of it
    "boxes": {
        "zero-area": "line dropped: nothing to learn from",
        "duplicate": "line dropped, as Ultralytics does",
        "clipped": "at most one pixel cut off",
        "range": OUT,
        "columns": OUT,
        "not-a-number": OUT,
        "class": OUT,
        "bom": "read without it",
        "crlf": "read all the same",
    },
    "images": {
        "zero-bytes": OUT,
        "undecodable": OUT,
        "truncated": "left out: a part of the picture is missing",
        "format": OUT,
        "tiny": OUT,
        "unreadable": "left out: its bytes, or those of its label file, cannot be read",
        "exif-rotated": "kept: sizes and boxes are of the image as shown",
        "16-bit": "kept: trained on with 8 bits",
        "cmyk": "kept: turned into RGB when decoded",
        "grey": "kept: decoded to three equal channels",
        "misnamed": "kept: its bytes decide",
        "no-end-marker": "kept: the copy in the tree gets the marker",
    },
    "lists": {
        "missing-label": "left out: Ultralytics would take it for a negative",
        "missing-image": "left out",
        "unsafe-name": "left out: a name may not lead elsewhere",
        "shared-label": "left out: one label file cannot serve two images",
        "unlisted": "left out: no list says where it belongs",
        "listed-twice": "kept where it is listed first",
        "orphan-label": "not read",
        "category": "kept: the labels decide; a swap of class ids would show here",
    },
    "coco": {
        "coco-missing": "the lists decide",
        "coco-unlisted": "the lists decide",
        "coco-split": "the lists decide",
        "coco-size": "the pixels decide",
        "coco-boxes": "the YOLO labels decide",
        "coco-class": "the YOLO labels decide",
        "coco-box": "the YOLO labels decide",
    },
    "duplicates": {"byte-identical": "kept", "near-identical": "kept"},
}
# What stands in place of KINDS["lists"] where a data set has none, or the user's own.
LISTS = {
    "fasdd": [*KINDS["lists"]],
    "pyrosdis": ["missing-label", "unsafe-name", "no-camera", "repeated-name", "undated"],
    "yolo": ["missing-image", "unsafe-name", "listed-twice", "repeated-name", "no-label-file"],
}
MEANING = KINDS["lists"] | {
    "repeated-name": "renamed and kept",
    "no-camera": "left out: no split by cameras could place it",
    "undated": "kept as one event of its camera",
    "no-label-file": "kept as an image without boxes, as Ultralytics does",
}
ABOUT = {what: about for about, kinds in KINDS.items() for what in kinds}
# Of these there is no whole picture to show.
DARK = {"zero-bytes", "undecodable", "truncated", "unreadable", "missing-image", "unsafe-name"}
DARK |= {"orphan-label", "coco-unlisted"}


def about(what: str) -> str:
    """The topic of a kind; "lists" for one that only another reader knows."""
    return ABOUT.get(what, "lists")


def searched(reader: str, coco: bool, found: set[str]) -> list[tuple[str, str, str]]:
    """About, what and what becomes of it: kinds that a reader and the check look for, and others `found`.

    `reader` is fasdd, pyrosdis or yolo; `coco` says that COCO files were read.
    """
    topics = {name: KINDS[name] for name in ("boxes", "images", "lists", *["coco"] * coco)}
    topics["lists"] = {what: MEANING[what] for what in LISTS[reader]}
    rows = [(topic, what, meaning) for topic, kinds in topics.items() for what, meaning in kinds.items()]
    others = found - {what for _, what, _ in rows} - set(KINDS["duplicates"])
    return rows + [
        (about(what), what, "kept" if what in index.KEPT else "left out") for what in sorted(others)
    ]
