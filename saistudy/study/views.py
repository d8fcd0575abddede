"""What notebooks show: small frames and picks of images, with outputs that do not change from run to run."""

import pandas as pd
from IPython.display import display

from saistudy.data import check, index, split
from saistudy.data.boxes import to_xyxy_px
from saistudy.evaluation import metrics, score
from saistudy.evaluation.truth import BOX
from saistudy.paths import Refusal
from saistudy.study import plots

pd.set_option("display.max_colwidth", None)
SHOWN = ["model", "subset", "images_n", "groups_n", "boxes_n", "ap10", "ap50", "ap50_95", "ap_small"]
SHOWN += ["boxes_small_n"]
POINT = ["threshold", "precision", "recall", "f1", "tp_n", "fp_n", "fn_n"]


def show(values: dict, title: str) -> None:
    """Display a mapping as a one-column frame, keys sorted, nested mappings and lists as text."""
    rows = {key: _cell_of(value) for key, value in sorted(values.items())}
    display(pd.Series(rows, name=title, dtype=object).to_frame())


def side_by_side(columns: dict[str, dict]) -> pd.DataFrame:
    """Mappings beside each other, a column each, keys sorted; `-` where one lacks a key or has no value."""
    keys = sorted({key for values in columns.values() for key in values})
    cells = {
        name: [_cell_of(v) if (v := values.get(key)) is not None else "-" for key in keys]
        for name, values in columns.items()
    }
    return pd.DataFrame(cells, index=keys, dtype=object)


def _cell_of(value: object) -> object:
    return value if isinstance(value, int | float | str | None) else text(value)


def text(value: object) -> str:
    """A value in words that read the same whether it came from a run or back from its record's JSON.

    JSON makes text of a mapping's keys and a record sorts them.
    """
    if isinstance(value, dict):
        inside = sorted(value.items(), key=lambda item: str(item[0]))
        return "{" + ", ".join(f"{key}: {text(v)}" for key, v in inside) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(text, value)) + "]"
    return str(value)


def splits_with_boxes(rows: pd.DataFrame, names: dict[int, str]) -> list[str]:
    """Splits that have at least one box of every class, sorted."""
    counts = count(rows, names)
    boxes = counts[[f"{name} boxes" for name in names.values()]]
    return sorted(boxes.index[(boxes > 0).all(axis=1)])


def beside(requested: dict, effective: dict) -> pd.DataFrame:
    """What was requested beside what ran: a row per key of either, `-` where one side says nothing."""
    keys = sorted(requested.keys() | effective.keys())
    rows = {key: [text(side.get(key, "-")) for side in (requested, effective)] for key in keys}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["requested", "effective"])


STOP = ["epochs_n", "best_epoch", "stopped_early", "stop_reason", "train_s", "images_per_s"]
STOP += ["sha256", "bytes"]
ATTEMPT = ["epoch", "exact", "batch", "imgsz", "cache", "workers", "ended"]


def stops_table(stops: list[dict]) -> pd.DataFrame:
    """The stop of each patience, weights by the first digits of their hash."""
    frame = pd.DataFrame(stops).set_index("patience")
    return frame[STOP].assign(sha256=frame["sha256"].str[:12])


def attempts_table(attempts: list[dict]) -> pd.DataFrame:
    """The starts of a training: where each went on, with what, how it ended, what was given up then."""
    frame = pd.DataFrame(attempts)[ATTEMPT]
    steps = [row["step"] for row in attempts]
    frame["given up"] = [f"{s['key']} {s['before']} -> {s['after']}" if s else "-" for s in steps]
    frame["seed 004 would"] = [s["seed_key"] if s else "-" for s in steps]
    frame["wall_s"] = [row["wall_s"] or "-" for row in attempts]
    frame["not exact because"] = [", ".join(row["why"]) or "-" for row in attempts]
    return frame


def show_declared(declared: list[dict]) -> None:
    """Display the declared differences between request and effect that occurred."""
    if declared:
        display(pd.DataFrame(declared)[["key", "requested", "value", "reason"]])
    else:
        print("no difference between what was requested and what ran")


def count(rows: pd.DataFrame, names: dict[int, str]) -> pd.DataFrame:
    """Images, images without boxes, groups and boxes per class of each split, as a frame by split."""
    found = {}
    for name in index.SPLITS:
        mine = rows[rows["split"] == name]
        labels = [int(box[0]) for boxes in mine["boxes"] for box in boxes]
        found[name] = {
            "images": len(mine),
            "without boxes": sum(len(boxes) == 0 for boxes in mine["boxes"]),
            "groups": mine["group"].nunique(),
            **{f"{word} boxes": labels.count(key) for key, word in names.items()},
        }
    return pd.DataFrame(found).T


def apart(dataset) -> pd.DataFrame:
    """The counts of the same images re-split by whole groups, or the reason why that cannot be."""
    try:
        again = split.disjoint(dataset)
    except Refusal as refusal:
        return pd.DataFrame({"not possible": [str(refusal)]})
    return count(again.rows, again.names)


def box_sizes(dataset) -> pd.DataFrame:
    """Share of the frame that a box covers (a fraction) by class: count, 10th, 50th and 90th percentile."""
    areas = [(int(c), w * h) for boxes in dataset.rows["boxes"] for c, _, _, w, h in boxes]
    frame = pd.DataFrame(areas, columns=["class", "area_frac"])
    frame["class"] = frame["class"].map(dataset.names)
    table = frame.groupby("class")["area_frac"].describe(percentiles=[0.1, 0.5, 0.9])
    return table[["count", "10%", "50%", "90%"]].astype({"count": int}).reset_index()


def metrics_table(rows: list[dict]) -> pd.DataFrame:
    """The metrics that a notebook shows, a column per model and test set: three digits, whole counts, `-`."""
    names = [name for name in SHOWN + POINT if name not in ("model", "subset")]
    cells = {(row["model"], row["subset"]): [_cell(name, row.get(name)) for name in names] for row in rows}
    frame = pd.DataFrame(cells, index=names, dtype=object)
    return frame.rename_axis(columns=["model", "subset"])


def _cell(name: str, value: float | None) -> float | str:
    if value is None:
        return "-"
    return int(value) if name.endswith("_n") else round(value, 3)


def retention_table(rows: list[dict]) -> pd.DataFrame:
    """What stage 2 kept of stage 1: a row a model, figures to three digits, `-` with its reason beside it."""
    frame = pd.DataFrame(rows).set_index("model")
    return frame[sorted(frame)].round(3).astype(object).fillna("-")


def matrix_table(rows: list[dict]) -> pd.DataFrame:
    """Each model at each evaluation size, height x width in pixels: three digits, whole counts, `-`."""
    named = [{key: _cell(key, row[key]) for key in row if key not in ("model", "imgsz")} for row in rows]
    index = [(row["model"], "{} x {}".format(*row["imgsz"])) for row in rows]
    frame = pd.DataFrame(named, index=pd.MultiIndex.from_tuples(index, names=["model", "tested at"]))
    return frame[list(score.SIZED)]


def budgets(rows: list[dict]) -> pd.DataFrame:
    """Recall at each budget of false alarms, of `score.operation`; `-` with its reason beside it."""
    shown = [
        "threshold",
        "recall",
        "box_recall",
        "rate_per_day",
        "step_per_day",
        "negatives_n",
        "positives_n",
    ]
    frame = pd.DataFrame([row for row in rows if "budget_per_day" in row]).set_index("budget_per_day")
    return frame[[*shown, "why"]].astype(object).fillna("-")


def reader(tree):
    """A function from image name to the bytes in the tree."""
    split = dict(zip(tree.rows["image"], tree.rows["split"], strict=True))
    return lambda image: (tree.folder / "images" / split[image] / image).read_bytes()


def pictures(rows: pd.DataFrame, n: int) -> list[tuple]:
    """`n` pictures with their labels, evenly spread over the rows, for plots.gallery."""
    chosen = rows.iloc[:: max(1, len(rows) // n)].head(n)
    return [(r.image, to_xyxy_px(r.boxes, r.width, r.height).tolist(), []) for r in chosen.itertuples()]


def about(findings: pd.DataFrame, *topics: str) -> pd.DataFrame:
    """Rows of check.findings about one or more topics."""
    rows = findings[findings["about"].isin(topics)]
    return rows.drop(columns="about").set_index(["what", "where"])


def some(negatives: pd.DataFrame) -> pd.DataFrame:
    """Rows of check.negatives that speak of any image."""
    return negatives[negatives["n"] > 0].round(3).set_index(["split", "kind"])


def examples(dataset, listing: pd.DataFrame, *topics: str) -> None:
    """Display up to eight images of a check.listing, each under what was found, with the boxes kept."""
    names = [image for topic in topics for image in check.examples(dataset, listing, topic, 8 // len(topics))]
    kept = dataset.rows.set_index("image")
    told = listing[listing["image"].isin(names)].groupby("image")["what"].unique()
    titles = {image: f"{', '.join(told[image])}\n{image}" for image in told.index}
    rows = [(image, _corners(kept.loc[image]) if image in kept.index else [], []) for image in names]
    plots.gallery(dataset.read, rows, f"{' and '.join(topics)}, {dataset.provenance}", titles)


def _corners(row) -> list:
    return to_xyxy_px(row["boxes"], row["width"], row["height"]).tolist()


def misses(predictions, truth, images, cut: float, split: str = "test", n: int = 8) -> list[tuple]:
    """The `n` images of a split with the most boxes missed at the threshold `cut`, for plots.gallery."""
    truth, matches = _of(split, predictions, truth, images)
    found = matches[matches["tp"] & (matches["score"] >= cut)].groupby("image").size()
    missed = truth.groupby("image").size().sub(found, fill_value=0)
    missed = missed[missed > 0].sort_values(ascending=False, kind="stable")
    return [_row(image, truth, matches, cut) for image in missed.index[:n]]


def alarms(predictions, truth, images, cut: float, split: str = "test", n: int = 8) -> list[tuple]:
    """The `n` images of a split with the highest-scoring false detections at or above `cut`."""
    truth, matches = _of(split, predictions, truth, images)
    false = matches[~matches["tp"] & (matches["score"] >= cut)]
    worst = false.groupby("image")["score"].max().sort_values(ascending=False, kind="stable")
    return [_row(image, truth, matches, cut) for image in worst.index[:n]]


def _of(split: str, *frames):
    """Truth and matches of one split, of predictions, truth and images."""
    mine, boxes, those = (frame[frame["split"] == split].reset_index(drop=True) for frame in frames)
    return boxes, metrics.match(boxes, mine, those)


def _row(image: str, truth, matches, cut: float) -> tuple:
    """Image, true boxes and predicted boxes with their scores."""
    seen = matches[(matches["image"] == image) & (matches["score"] >= cut)]
    true = truth.loc[truth["image"] == image, BOX].astype(float).to_numpy().tolist()
    return image, true, seen[[*BOX, "score"]].astype(float).to_numpy().tolist()
