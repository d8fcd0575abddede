"""Figures: each frame against cases worked out by hand or by COCO's own code, and each chart drawn."""

import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text

from saistudy.evaluation import alarms, cocoeval, metrics, stats
from saistudy.paths import ROOT, Refusal
from saistudy.study import comparisons, figures, plots
from saistudy.study.charts import testing as tested
from saistudy.study.charts import training as trained
from saistudy.study.frames import cases, sized, testing, training

HEAD = "epoch,time,metrics/mAP50(B),metrics/mAP50-95(B),lr/pg0"
BOX = ["x1", "y1", "x2", "y2"]
# Stopped by patience 4 in epoch 9 of 12; resumed after epoch 4, where Ultralytics' clock begins anew.
STOPPED = [
    *[(1, 10, 0.2, 0.10, 0.004), (2, 20, 0.6, 0.30, 0.010), (3, 30, 0.4, 0.20, 0.009)],
    *[(4, 40, 0.4, 0.20, 0.008), (5, 12, 0.8, 0.40, 0.007), (6, 24, 0.7, 0.35, 0.006)],
    *[(7, 36, 0.7, 0.35, 0.005), (8, 48, 0.7, 0.35, 0.004), (9, 60, 0.7, 0.35, 0.003)],
]
ROSE = [(e, 10 * e, 0.02 * e, 0.01 * e, 0.01 / e) for e in range(1, 13)]


def write_csv(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([HEAD, *(",".join(map(str, row)) for row in rows)]) + "\n")


def metric(model, ap50, bins=True):
    row = {"model": model, "subset": "published", "ap50": ap50, "images_n": 4}
    sizes = [("area_px2", 0, 1024, None, 0), ("area_px2", 1024, 9216, ap50, 7)]
    sizes += [("area_px2", 9216, 1e10, 1.0, 2), ("area_frac", 0.0, 0.02, ap50, 9)]
    keys = ("measure", "low", "high", "ap50", "boxes_n")
    by_size = [dict(zip(keys, values, strict=True)) | {"ap50_95": 0.1} for values in sizes]
    return row | ({"ap_by_size": by_size} if bins else {})


def record(run, arm, seed, models, imgsz=(64, 96), **more):
    """What the frames read of a record; `models` maps model to (patience, AP50 on test)."""
    stage = "stage2" if run.startswith("stage2") else "stage1"
    patiences = sorted({patience for patience, _ in models.values()})
    stops = [
        {"model": model, "patience": p, "train_s": 1800.0, "images_per_s": 20.0}
        for model, (p, _) in models.items()
    ]
    conditions = {"imgsz": list(imgsz), "epochs": 12, "close_mosaic": 3, "mosaic": 1.0}
    params = {"arm": arm, "seed": seed, "patiences": patiences} | more.pop("params", {})
    return {
        **{"run": run, "notebook": stage, "profile": "demo", "params": params, "stops": stops},
        **{"conditions": conditions, "cost": {"device": "CPU"}},
        "data": {"fingerprint": stage, "provenance": "synthetic"},
        "metrics": [metric(model, ap50) for model, (_, ap50) in models.items()],
        **more,
    }


def images(n, groups_n, boxes, split="test"):
    """n images of 200 x 100 px in groups, and one or two boxes of truth on each of the first `boxes`."""
    rng = np.random.default_rng(n)
    frame = pd.DataFrame({"image": [f"{split}{i:03}.jpg" for i in range(n)], "split": split})
    frame["group"] = [f"{split}{i % groups_n}" for i in range(n)]
    frame = frame.assign(width=200, height=100)
    mine = frame.head(boxes)
    truth = pd.concat([mine, mine.iloc[::3]])[["image", "split", "group"]].reset_index(drop=True)
    corner, size = rng.uniform(0, 50, (len(truth), 2)), rng.uniform(8, 40, (len(truth), 2))
    truth["class"] = rng.integers(0, 2, len(truth))
    truth[BOX] = np.hstack([corner, corner + size])
    return frame, truth


def detections(frame, truth, seed):
    """Truth shaken, and as many boxes where nothing is; scores in steps, so that some are equal."""
    rng = np.random.default_rng(seed)
    near = truth.copy()
    near[BOX] += rng.normal(0, 3, (len(truth), 4))
    far = frame.sample(len(truth), replace=True, random_state=seed)[["image", "split", "group"]]
    corner = rng.uniform(60, 90, (len(far), 2))
    far = far.assign(**{"class": rng.integers(0, 2, len(far))}).reset_index(drop=True)
    far[BOX] = np.hstack([corner, corner + 9])
    found = pd.concat([near, far], ignore_index=True)
    found["score"] = rng.integers(1, 30, len(found)) / 30
    return found


TABLE = pd.DataFrame(
    [
        {"stage": 1, "arm": "896", "patience": 4, "ap50": 0.4},
        {"stage": 1, "arm": "896", "patience": 1, "delta": -0.2, "delta_low": -0.3, "delta_high": -0.1},
        {"stage": 1, "arm": "1440", "patience": 4, "delta": 0.1, "verdict": "unresolved"},
        {"stage": 2, "arm": "896", "patience": 4, "delta": 0.05, "handling": "single_cls"},
    ],
    columns=["stage", "arm", "stage2_arm", "handling", "patience", "ap50", "delta"]
    + ["delta_low", "delta_high", "verdict"],
).assign(stage2_arm=[None, None, None, "as-meant"])


@pytest.fixture
def profile(tmp_path, monkeypatch):
    """Results of two seeds of the baseline, one of another arm, and stage 2 of two seeds by two handlings."""
    monkeypatch.setenv("SAISTUDY_RESULTS", str(tmp_path))
    kept = {"patience-1": (1, 0.2), "patience-4": (4, 0.5)}
    other = {"patience-1": (1, 0.1), "patience-4": (4, 0.3)}
    second = {f"{h}-patience-{p}": (p, 0.1 * p) for h in ("named", "single_cls") for p in (1, 4)}
    at = [
        {"model": m, "imgsz": size, "ap50": ap50, "ap50_95": 0.1, "ap_small": None, "boxes_small_n": 0}
        for m, size, ap50 in [
            *[("patience-4", [64, 96], 0.5), ("patience-4", [96, 96], 0.7), ("patience-1", [96, 96], 0.9)],
        ]
    ]
    handled = {"handlings": ["named", "single_cls"], "frames_per_day": 100.0}
    runs = [
        record("896-s0", "896", 0, kept, sizes=at),
        record("896-s1", "896", 1, other),
        record("1440-s0", "1440", 0, kept, imgsz=(96, 96)),
        record("stage2-896-s0", "896", 0, second, params=dict(handled)),
        record("stage2-896-s1", "896", 1, second, params=dict(handled)),
    ]
    for told in runs:
        folder = tmp_path / "demo" / told["run"]
        two = told["notebook"] == "stage2"
        frame, truth = images(30, 24, boxes=20) if two else images(24, 24, boxes=24)
        for name in ("named", "single_cls") if two else ("",):
            write_csv(folder / name / "epochs.csv", ROSE if told["run"] == "896-s1" else STOPPED)
        (folder / "predictions").mkdir()
        frame.to_parquet(folder / "images.parquet")
        truth.to_parquet(folder / "truth.parquet")
        (folder / "record.json").write_text(json.dumps(told))
        height, width = told["conditions"]["imgsz"]
        for i, model in enumerate(s["model"] for s in told["stops"]):
            found = detections(frame, truth, seed=i + 10 * told["params"]["seed"])
            found.to_parquet(folder / "predictions" / f"{model}@{height}x{width}.parquet")
    return tmp_path / "demo"


@pytest.fixture
def drawn(profile):
    return figures.frames("demo", TABLE, resamples_n=20, bootstrap_seed=0)


def test_learning_has_a_row_an_epoch_and_the_last_of_two_counts(profile, tmp_path):
    write_csv(tmp_path / "twice.csv", [(1, 9, 0.1, 0.05, 0.1), (2, 9, 0.2, 0.1, 0.1), (2, 8, 0.4, 0.3, 0.1)])
    twice = training.curve(tmp_path / "twice.csv", "named", 7)
    assert twice.to_dict("list") == {
        **{"arm": ["named"] * 2, "seed": [7, 7], "epoch": [1, 2]},
        **{"ap50": [0.1, 0.4], "ap50_95": [0.05, 0.3]},
    }


def test_learning_has_every_seed_of_every_arm(drawn):
    one = drawn["learning"].groupby(["arm", "seed"], sort=False)["epoch"].max()
    assert one.to_dict() == {("896", 0): 9, ("896", 1): 12, ("1440", 0): 9}
    assert drawn["learning-stage2"]["arm"].unique().tolist() == ["named", "single_cls"]


def test_patience_by_hand(drawn):
    frame = drawn["patience"].query("stage == 1 and arm == '896' and seed == 0").set_index("patience")
    assert frame["known"].tolist() == [False, True, True, True, True]
    assert (
        frame.loc[0].drop(["stage", "arm", "label", "seed", "known"]).isna().all()
    )  # nobody knows what came after epoch 9
    known = frame.loc[1:]
    assert known["stop_epoch"].tolist() == [3, 4, 8, 9] and known["best_epoch"].tolist() == [2, 2, 5, 5]
    assert known["epochs_saved"].tolist() == [6, 5, 1, 0] and known["stopped_early"].all()
    # 100 s in all: 40 before the resume and 60 after it
    assert (known["hours_saved"] * 3600).tolist() == pytest.approx([70, 60, 12, 0])
    assert known["val_ap50_95"].tolist() == [0.3, 0.3, 0.4, 0.4]
    assert known["val_ap50_95_lost"].tolist() == pytest.approx([0.1, 0.1, 0, 0])
    assert known["test_ap50_lost"].fillna(-1).tolist() == pytest.approx([0.3, -1, -1, 0])
    assert known["lr_frac"].tolist() == pytest.approx([0.9, 0.8, 0.4, 0.3])
    assert known["mosaic_open"].all()  # it closes for epochs 10 to 12


def test_patience_of_a_run_that_came_to_its_end(drawn):
    frame = drawn["patience"].set_index(["stage", "arm", "seed"]).loc[(1, "896", 1)]
    assert frame["patience"].tolist() == [0, 1, 2, 3, 4] and frame["known"].all()
    assert (frame["stop_epoch"] == 12).all() and not frame["stopped_early"].any()
    assert not frame["mosaic_open"].any() and (frame["epochs_saved"] == 0).all()
    assert frame["test_ap50_lost"].fillna(-1).tolist() == pytest.approx([-1, 0.2, -1, -1, 0])


def test_patience_of_stage_2_is_of_the_named_class_alone(drawn):
    second = drawn["patience"].query("stage == 2")
    assert second["label"].unique().tolist() == ["named"] and len(second) == 2 * 5
    assert second["test_ap50_lost"].fillna(-1).tolist() == pytest.approx([-1, 0.3, -1, -1, 0] * 2)


@pytest.mark.parametrize(
    ("mosaic", "close", "epoch", "on"),
    [(1.0, 3, 9, True), (1.0, 3, 10, False), (1.0, 0, 12, True), (0.0, 3, 1, False)],
)
def test_mosaic_is_on_until_ultralytics_closes_it(mosaic, close, epoch, on):
    conditions = {"epochs": 12, "mosaic": mosaic, "close_mosaic": close}
    assert training._mosaic_open(conditions, epoch) is on


def test_ap_by_size_is_the_longest_patience_s(drawn):
    mine = drawn["ap-by-size"].query("arm == '896' and stage == 1 and seed == 0")
    assert mine["boxes_n"].tolist() == [0, 7, 2, 9] and mine["ap50"].fillna(-1).tolist() == [-1, 0.5, 1, 0.5]
    older = record("896-s0", "896", 0, {"patience-4": (4, 0.5)})
    del older["metrics"][0]["ap_by_size"]
    assert sized.ap_by_size(cases.longest([older], TABLE)).empty


def test_precision_by_hand():
    """One image, two boxes: found, not found, found. Precision 1 up to half of them, then two of three."""
    truth = pd.DataFrame({"image": ["a", "a"], "class": [0, 0]})
    matches = pd.DataFrame({"image": ["a"] * 3, "class": 0, "score": [0.9, 0.8, 0.7]})
    (seen,) = testing.precisions(matches.assign(tp=[True, False, True]), truth, ["a"], np.ones((1, 1), int))
    assert seen.tolist() == pytest.approx([1.0] * 51 + [2 / 3] * 50)


def test_a_class_that_a_resample_lacks_is_left_out():
    """Image a: fire found at once. Image b: smoke, missed."""
    truth = pd.DataFrame({"image": ["a", "b"], "class": [0, 1]})
    matches = pd.DataFrame({"image": ["a"], "class": [0], "score": [0.9], "tp": [True]})
    seen = testing.precisions(matches, truth, ["a", "b"], np.array([[1, 1], [2, 0], [0, 1], [0, 0]]))
    assert seen[:, 0].tolist()[:3] == pytest.approx([0.5, 1, 0]) and np.isnan(seen[3]).all()


def of_coco(frame, truth, found) -> np.ndarray:
    """Precision at 101 recalls, mean of the classes with truth, by faster-coco-eval."""
    evaluation = cocoeval.evaluated(truth, found, frame, {0: "fire", 1: "smoke"})
    precision = evaluation.eval["precision"][0, :, :, 0, -1]
    return precision[:, (precision > -1).all(axis=0)].mean(axis=1)


def repeated(weight, *parts):
    """Frames in which each image stands as often as its weight says, under names that keep their order."""
    names = parts[0]["image"]
    copies = pd.DataFrame({"image": np.repeat(names, weight)})
    copies["copy"] = copies["image"] + copies.groupby("image").cumcount().map("_{:03}".format)
    merged = (part.merge(copies, on="image").drop(columns="image") for part in parts)
    return [part.rename(columns={"copy": "image"}) for part in merged]


@pytest.mark.parametrize("seed", range(5))
def test_precision_is_coco_s_and_a_weight_repeats_an_image(seed):
    frame, truth = images(12, 4, boxes=9)
    found = detections(frame, truth, seed)
    weight = np.random.default_rng(seed).integers(0, 3, 12)
    weights = np.stack([np.ones(12, int), weight])
    once, often = testing.precisions(metrics.match(truth, found, frame), truth, frame["image"], weights)
    assert once == pytest.approx(of_coco(frame, truth, found), abs=1e-9)
    assert often == pytest.approx(of_coco(*repeated(weight, frame, truth, found)), abs=1e-9)


def test_the_mean_of_precision_is_ap50_and_bands_are_of_whole_groups(drawn, profile):
    mine = drawn["precision-recall"].query("stage == 1 and arm == '896'").reset_index(drop=True)
    frame, truth = images(24, 24, boxes=24)
    found = [pd.read_parquet(p) for p in sorted(profile.glob("896-s*/predictions/patience-4*"))]
    curves = [of_coco(frame, truth, seed) for seed in found]
    assert mine["precision"].to_numpy() == pytest.approx(np.mean(curves, axis=0), abs=1e-9)
    weights = stats.group_bootstrap_weights(frame["group"], 20, np.random.default_rng(0))
    again = [[of_coco(*repeated(w, frame, truth, seed))[50] for seed in found] for w in weights]
    low, high = stats.interval(np.mean(again, axis=1), 24)
    assert (mine["low"][50], mine["high"][50]) == pytest.approx((low, high), abs=1e-9)
    assert (mine["seeds_n"] == 2).all() and (mine["groups_n"] == 24).all()


def test_too_few_groups_give_no_band(profile):
    for path in profile.glob("*/images.parquet"):
        frame = pd.read_parquet(path)
        frame.assign(group=[f"g{i % 19}" for i in range(len(frame))]).to_parquet(path)
    drawn = figures.frames("demo", TABLE, 20, 0)
    for name in ("precision-recall", "alarms-per-day"):
        assert len(drawn[name]) and drawn[name][["low", "high"]].isna().all(axis=None)


@pytest.mark.parametrize("seed", range(5))
def test_alarms_are_those_of_recall_at(seed):
    frame, truth = images(20, 5, boxes=12)
    found = detections(frame, truth, seed)
    found = found[found["image"].isin(frame["image"].iloc[::2]) | (found["score"] < 0.7)]
    budgets = np.array([0.0, 3, 12.4, 12.6, 30, 55, 99, 100])  # one of 8 negatives is worth 12.5 of 100
    positive = frame["image"].isin(truth["image"]).to_numpy()
    best = testing.highest(found, frame)
    (seen,) = testing.recalls(best, positive, np.ones((1, 20), int), budgets / 100)
    matches = metrics.match(truth, found, frame)
    expected = [alarms.recall_at(truth, matches, frame, 100.0, budget)["recall"] or 0 for budget in budgets]
    assert seen.tolist() == pytest.approx(expected)


def test_alarms_by_hand_and_weighted():
    """Negatives at .9 and .5 (twice); positives at .95, .6, .5 and one without a detection."""
    best = np.array([0.9, 0.5, 0.5, 0.95, 0.6, 0.5, -np.inf])
    positive = np.array([False] * 3 + [True] * 4)
    shares = np.array([0, 0.3, 1 / 3, 2 / 3, 1])
    weights = np.array([[1] * 7, [0, 1, 1, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0, 0], [0, 0, 0, 1, 1, 1, 1]])
    seen = testing.recalls(best, positive, weights, shares)
    # of three negatives one may alarm from a third on; both at .5 only together
    assert seen[0].tolist() == pytest.approx([1 / 4, 1 / 4, 2 / 4, 2 / 4, 3 / 4])
    assert seen[1].tolist() == pytest.approx([2 / 3] * 4 + [1])
    assert np.isnan(seen[2:]).all()


def test_alarms_begin_at_one_false_alarm_and_end_at_every_frame(drawn):
    frame = drawn["alarms-per-day"]
    assert frame["label"].unique().tolist() == ["named", "single_cls"] and (frame["stage"] == 2).all()
    ends = frame.query("label == 'named'")["false_alarms_per_day"].iloc[[0, -1]].tolist()
    assert ends == pytest.approx([10, 100])  # 100 frames a day, 10 images without boxes
    assert (frame[["negatives_n", "positives_n", "frames_per_day"]] == [10, 20, 100.0]).all(axis=None)
    assert frame["low"].notna().all() and (frame["low"] <= frame["high"]).all()
    assert frame.groupby("label")["recall"].apply(lambda r: r.is_monotonic_increasing).all()
    assert (frame["seeds_n"] == 2).all()


def test_alarms_are_the_mean_of_the_seeds(drawn, profile):
    frame, truth = images(30, 24, boxes=20)
    mine = drawn["alarms-per-day"].query("label == 'named'").iloc[[0, 20, 40]]
    paths = sorted(profile.glob("stage2-896-s*/predictions/named-patience-4*"))
    matches = [metrics.match(truth, pd.read_parquet(path), frame) for path in paths]
    budgets = mine["false_alarms_per_day"] + 1e-6  # not on a step, where rounding decides
    seen = [[alarms.recall_at(truth, m, frame, 100.0, b)["recall"] or 0 for m in matches] for b in budgets]
    assert len(paths) == 2 and mine["recall"].tolist() == pytest.approx(np.mean(seen, axis=1).tolist())


def test_without_negatives_there_are_no_alarms_a_day(profile):
    frame, truth = images(24, 24, boxes=24)
    frame.to_parquet(profile / "stage2-896-s0" / "images.parquet")
    truth.to_parquet(profile / "stage2-896-s0" / "truth.parquet")
    for path in profile.glob("stage2-*/predictions/*"):
        detections(frame, truth, 0).to_parquet(path)
    assert figures.frames("demo", TABLE, 20, 0)["alarms-per-day"].empty


def test_forest_cost_and_sizes_by_hand(drawn):
    forest = drawn["forest"]
    assert forest["label"].tolist() == [
        *["896, patience 1", "1440, patience 4", "stage 2 single_cls from 896, patience 4"]
    ]
    assert forest["delta"].tolist() == [-0.2, 0.1, 0.05]
    cost = drawn["cost"]
    assert cost["ap50"].tolist() == [0.5, 0.3, 0.5] and (cost["train_h"] == 0.5).all()
    assert cost["pixels"].tolist() == [64 * 96] * 2 + [96 * 96]
    shown = drawn["sizes"][["arm", "seed", "train_h_px", "train_w_px", "eval_h_px", "eval_w_px", "ap50"]]
    assert shown.to_numpy().tolist() == [["896", 0, 64, 96, 64, 96, 0.5], ["896", 0, 64, 96, 96, 96, 0.7]]


def test_the_same_records_give_the_same_bytes(drawn, profile):
    again = figures.frames("demo", TABLE, 20, 0)
    for name in figures.CHARTS:
        pd.testing.assert_frame_equal(drawn[name], again[name], check_exact=True)
    folder, few = profile / "figures", ["patience", "forest"]
    figures.write("demo", {name: drawn[name] for name in few})
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(first) == {"patience.csv", "patience.png", "forest.csv", "forest.png"}
    with plt.rc_context({"font.size": 20, "figure.facecolor": "red"}):  # what a notebook may have set
        figures.write("demo", {name: again[name] for name in few})
    assert first == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert b"\r" not in first["patience.csv"] and b"Matplotlib" not in first["patience.png"]
    assert first["forest.csv"].splitlines()[1] == b'"896, patience 1",-0.200000,-0.300000,-0.100000,'


def texts(figure) -> str:
    return " ".join(text.get_text() for text in figure.findobj(Text))


def test_a_figure_says_what_it_is_and_cuts_nothing_off(drawn):
    for name, frame in drawn.items():
        figure = figures.draw(name, frame, figures.note("demo"))
        assert "profile demo, SYNTHETIC twin data, n=1 to 2 seeds" in texts(figure), name
        figure.canvas.draw()
        inner, outer = figure.get_tightbbox().extents * figure.dpi, figure.bbox.extents
        assert (inner[:2] >= outer[:2] - 1).all() and (inner[2:] <= outer[2:] + 1).all(), name
        plt.close(figure)


def test_a_figure_needs_nothing_but_its_csv(drawn, profile):
    for name in drawn:
        drawn[name].to_csv(profile / "it.csv", index=False)
        csv = pd.read_csv(profile / "it.csv", dtype={"arm": str, "label": str})
        figure, again = (figures.draw(name, f, "note") for f in (drawn[name], csv))
        assert texts(figure) == texts(again), name
        plt.close("all")


def test_empty_frames_are_drawn_with_the_reason(drawn):
    for name, frame in drawn.items():
        figure = figures.draw(name, frame.head(0), "note")
        assert "no" in texts(figure).replace("note", ""), name
        plt.close(figure)
    assert "no run was evaluated at several sizes" in texts(tested.sizes(pd.DataFrame(), "note"))
    plt.close("all")


def test_an_early_stop_is_hollow_and_its_learning_rate_shown(drawn):
    figure = trained.patience(drawn["patience"], "note")
    value, rate = figure.axes[0], figure.axes[4]
    faces = {to_hex(line.get_markerfacecolor()) for line in value.lines if line.get_marker() != "None"}
    assert "#ffffff" in faces and "mosaic still on" in texts(figure)
    assert "learning rate" in rate.get_ylabel()
    shown = {float(y) for line in rate.lines for y in np.atleast_1d(line.get_ydata())}
    assert {0.9, 0.8} <= {round(y, 6) for y in shown}
    plt.close(figure)


def test_lines_are_told_apart_without_colour_too():
    looks = plots.style([f"arm {i}" for i in range(8)])
    assert len({(look["ls"], look["marker"]) for look in looks.values()}) == 8
    assert len({(look["color"], look["ls"]) for look in looks.values()}) == 8


@pytest.mark.parametrize("profile", ["demo", "mini", "h200"])
def test_the_committed_records_are_drawn(profile):
    path = ROOT / "results" / profile / "table.csv"
    if not path.is_file():
        with pytest.raises(Refusal, match="no record"):
            figures.note(profile)
        return
    table = pd.read_csv(path, dtype={"arm": str})
    drawn = figures.frames(profile, table, resamples_n=20, bootstrap_seed=0)
    for name, frame in drawn.items():
        plt.close(figures.draw(name, frame, figures.note(profile)))
    table = table[~table["arm"].str.endswith(comparisons.OTHER_SEEDS)]  # a row of the table, no arm
    longest = table[table["patience"] == table.groupby(["stage", "arm"])["patience"].transform("max")]
    curves = drawn["precision-recall"].groupby(["stage", "label"], sort=False)["precision"].mean()
    assert curves.tolist() == pytest.approx(longest["ap50"].tolist(), abs=1e-6)  # six digits of the records
