"""The two published formats, written: label lines, COCO files, parquet shards, data set card."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

COLUMNS = ("annotations", "image_name", "partner", "camera", "date")
GROUP_N = 100  # rows of a row group: what Hugging Face `datasets` writes for images
DATA_YAML = (
    "# data.yaml\ntrain: pyro-sdis/images/train  # Path to training images\n"
    "val: pyro-sdis/images/val      # Path to validation images\n\n"
    "nc: 1  # Number of classes\nnames: ['smoke']  # Class names"
)
CARD = """---
license: apache-2.0
provenance: synthetic
dataset_info:
  features:
{features}
  splits:
{splits}
  dataset_size: {size_bytes}
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*
  - split: val
    path: data/val-*
---
# A synthetic stand-in for PyroSDIS

Painted pictures in the published layout of PyroSDIS. No camera took them, and nothing measured on
them says anything about real smoke. As in the published files every box has class id 1, although
`data.yaml` counts one class, and the same cameras stand in train and in val.
"""


def yolo(boxes: list[tuple], size: tuple[int, int], classes: dict[str, int]) -> str:
    """Published label text: `class xc yc w h` a line, no newline at the end."""
    lines = []
    for kind, x1, y1, x2, y2 in boxes:
        middle = ((x1 + x2) / 2 / size[0], (y1 + y2) / 2 / size[1])
        sides = ((x2 - x1) / size[0], (y2 - y1) / size[1])
        lines.append(" ".join([str(classes[kind]), *(f"{v:.6f}" for v in middle + sides)]))
    return "\n".join(lines)


def coco(said: dict[str, tuple[list[tuple], tuple[int, int]]]) -> dict:
    """COCO content of images in the given order: name -> boxes in px, (width, height). Ids count from 0."""
    images, annotations = [], []
    for i, (image, (boxes, (width, height))) in enumerate(said.items()):
        images.append({"id": i, "file_name": image, "width": width, "height": height})
        for kind, x1, y1, x2, y2 in boxes:
            box = [float(x1), float(y1), float(x2 - x1), float(y2 - y1)]
            entry = {"id": len(annotations), "image_id": i, "category_id": int(kind == "smoke")}
            annotations.append(entry | {"iscrowd": 0, "bbox": box, "area": box[2] * box[3]})
    categories = [{"id": 0, "name": "fire"}, {"id": 1, "name": "smoke"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    return {"info": {"provenance": "synthetic"}} | content


def shard(path: Path, rows: Iterator[tuple]) -> None:
    """Write one parquet file as Hugging Face does: image bytes and path, then the text columns.

    A row is (bytes, *COLUMNS); a row group is written as soon as it is full, so memory stays flat.
    """
    schema = _schema()
    with pq.ParquetWriter(path, schema) as writer:
        while group := list(islice(rows, GROUP_N)):
            columns = list(zip(*group, strict=True))
            images = [{"bytes": row[0], "path": row[2]} for row in group]
            arrays = zip([images, *columns[1:]], schema, strict=True)
            table = pa.Table.from_arrays([pa.array(c, field.type) for c, field in arrays], schema=schema)
            writer.write_table(table, GROUP_N)


def _schema() -> pa.Schema:
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("image", image), *((name, pa.string()) for name in COLUMNS)])
    features = {"image": {"_type": "Image"}}
    features |= {name: {"dtype": "string", "_type": "Value"} for name in COLUMNS}
    told = json.dumps({"info": {"features": features}})
    return schema.with_metadata({"huggingface": told, "provenance": "synthetic"})


def card(told: dict[str, tuple[int, int]]) -> str:
    """README.md of the data set; `told` is split -> (bytes, rows)."""
    features = ["  - name: image\n    dtype: image"]
    features += [f"  - name: {name}\n    dtype: string" for name in COLUMNS]
    splits = [
        f"  - name: {split}\n    num_bytes: {size}\n    num_examples: {n}"
        for split, (size, n) in told.items()
    ]
    text = {"features": "\n".join(features), "splits": "\n".join(splits)}
    return CARD.format(**text, size_bytes=sum(size for size, _ in told.values()))
