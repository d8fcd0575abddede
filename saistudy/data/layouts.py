"""The two published layouts, written: label lines, COCO files, parquet shards, data set card."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

COLUMNS = ("annotations", "image_name", "partner", "camera", "date")
DATA_YAML = (
    "# data.yaml\ntrain: pyro-sdis/images/train  # Path to training images\n"
    "val: pyro-sdis/images/val      # Path to validation images\n\n"
    "nc: 1  # Number of classes\nnames: ['smoke']  # Class names"
)
CARD = """---
license: apache-2.0
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


def coco(stems: list[str], done: dict[str, tuple]) -> dict:
    images, annotations = [], []
    for i, stem in enumerate(stems):
        _, boxes, (width, height) = done[stem]
        images.append({"id": i, "file_name": f"{stem}.jpg", "width": width, "height": height})
        for kind, x1, y1, x2, y2 in boxes:
            box = [float(x1), float(y1), float(x2 - x1), float(y2 - y1)]
            entry = {"id": len(annotations), "image_id": i, "category_id": int(kind == "smoke")}
            annotations.append(entry | {"iscrowd": 0, "bbox": box, "area": box[2] * box[3]})
    categories = [{"id": 0, "name": "fire"}, {"id": 1, "name": "smoke"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def shard(path: Path, rows: list[list]) -> None:
    """One parquet file as Hugging Face writes it: image bytes and path, then the text columns."""
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("image", image), *((name, pa.string()) for name in COLUMNS)])
    features = {"image": {"_type": "Image"}}
    features |= {name: {"dtype": "string", "_type": "Value"} for name in COLUMNS}
    schema = schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    columns = list(zip(*rows, strict=True))
    images = [{"bytes": row[0], "path": row[2]} for row in rows]
    table = pa.Table.from_arrays(
        [pa.array(c, field.type) for c, field in zip([images, *columns[1:]], schema, strict=True)],
        schema=schema,
    )
    pq.write_table(table, path, row_group_size=16)


def card(rows: dict[str, list[list]]) -> str:
    features = ["  - name: image\n    dtype: image"]
    features += [f"  - name: {name}\n    dtype: string" for name in COLUMNS]
    splits, total = [], 0
    for split, members in rows.items():
        size = sum(len(row[0]) + sum(len(text) for text in row[1:]) for row in members)
        total += size
        splits.append(f"  - name: {split}\n    num_bytes: {size}\n    num_examples: {len(members)}")
    text = {"features": "\n".join(features), "splits": "\n".join(splits), "size_bytes": total}
    return CARD.format(**text)
