"""Fine-tuning by seed document 004: what is trained where, what is pasted, what file is promised."""

import json
import random
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import painted
import pytest
import yaml

from saistudy import params
from saistudy.paths import PARAMS, Refusal
from saistudy.training import cutouts, finetune, memory
from saistudy.training.fit import fit


def asked(profile="h200", **changed) -> SimpleNamespace:
    """Parameters of a profile with some changed."""
    return SimpleNamespace(**params.read("finetune", [PARAMS / profile / "finetune.yaml"], changed))


def some(settled: dict, *keys: str) -> tuple:
    return tuple(settled[key] for key in keys)


def test_the_defaults_are_the_seed_document_value_by_value():
    """Typed from seed 004, L155-194; L92-121 for the options."""
    p = asked()
    seed = dict(epochs=50, batch=16, imgsz=640, optimizer="AdamW", lr0=0.001, lrf=0.01, momentum=0.937)
    seed |= dict(weight_decay=0.0005, hsv_h=0.015, hsv_s=0.7, hsv_v=0.4, degrees=10.0, translate=0.1)
    seed |= dict(scale=0.5, fliplr=0.5, mosaic=1.0, mixup=0.1, workers=8, cache=True, amp=True)
    assert (seed | {"close_mosaic": 10}).items() <= p.train.items()
    # what the seed leaves open: Ultralytics' own defaults, and copy-paste, which pasting stands for
    ours = dict(nbs=64, cos_lr=False, warmup_epochs=3.0, copy_paste=0.0, device=0)
    assert {k: v for k, v in p.train.items() if k not in seed and k != "close_mosaic"} == ours
    assert (p.patiences, p.llrd_rate, p.synthetic_ratio, p.tensorboard_port) == ([10], 0.9, 2.0, 6006)
    on = {name for name, value in vars(p).items() if value is True}
    assert on == {"auto_scale", "oom_recovery", "dynamic_synthetic", "tensorboard", "exact"}


def test_the_preset_is_the_seed_document_value_by_value():
    """Typed from seed 004, L261-271, its yolov8m.pt as yaml: nothing is downloaded."""
    seed = dict(model="yolov8m.yaml", imgsz=640, epochs=50, batch=16, patience=10, optimizer="AdamW")
    assert finetune.presets() == {
        "competition": seed | dict(lr0=0.001, amp=True, cache=True, close_mosaic=10)
    }


@pytest.mark.parametrize(
    ("gib", "changed", "expected"),
    [
        (8.0, {}, ("medium", "yolov8m.yaml", 16, 640, 64, 50)),
        (139.8, {}, ("h200", "yolov8s.yaml", 128, 896, 128, 50)),
        (80.0, {"tier": "low"}, ("low", "yolov8s.yaml", 8, 480, 64, 50)),
        (80.0, {"auto_scale": False}, ("workstation", "yolov8m.yaml", 16, 640, 64, 50)),
        (80.0, {"preset": "competition"}, ("workstation", "yolov8m.yaml", 16, 640, 64, 50)),
        (80.0, {"fast": True}, ("workstation", "yolov8s.yaml", 64, 800, 64, 10)),
        (0.0, {"fast": True}, ("cpu", "yolov8n.yaml", 4, 320, 64, 10)),
        (80.0, {"model": "yolov8l.yaml"}, ("workstation", "yolov8l.yaml", 64, 800, 64, 50)),
        (80.0, {"model": "mine.pt", "fast": True}, ("workstation", "mine.pt", 64, 800, 64, 10)),
    ],
)
def test_what_a_machine_is_given(gib, changed, expected):
    keys = ("tier", "model", "batch", "imgsz", "nbs", "epochs")
    assert some(finetune.settle(asked(**changed), gib), *keys) == expected


def test_without_a_gpu_nothing_asks_for_one():
    settled = finetune.settle(asked(preset="competition"), 0.0)
    assert some(settled, "tier", "device", "amp") == ("cpu", "cpu", False)


def test_without_auto_scale_a_cpu_has_no_amp_and_a_missing_device_is_the_machine():
    settled = finetune.settle(asked("demo", preset="competition"), 0.0)
    assert some(settled, "device", "amp", "batch") == ("cpu", False, 16)
    train = {key: value for key, value in asked().train.items() if key != "device"}
    assert finetune.settle(asked(train=train), 80.0)["device"] == 0


def test_fast_keeps_some_epochs_with_mosaic():
    settled = finetune.settle(asked(fast=True), 80.0)
    assert some(settled, "epochs", "close_mosaic", "warmup_epochs") == (10, 2, pytest.approx(0.6))


def test_what_lies_around_a_training_is_no_part_of_it():
    p = vars(asked())
    assert finetune.AROUND.items() - {("resume", True)} <= (p | {"export": ""}).items()
    assert not finetune.AROUND.keys() & set(p["train"])


def test_a_batch_that_is_sought_leaves_nbs():
    settled = finetune.settle(asked(train=asked().train | {"batch": "auto"}), 139.8)
    assert some(settled, "batch", "nbs", "imgsz") == ("auto", 64, 896)
    settled = finetune.settle(asked(auto_scale=False, train=asked().train | {"batch": "auto"}), 80.0)
    assert some(settled, "batch", "nbs") == ("auto", 64)


def test_every_tier_can_be_named():
    tiers = yaml.safe_load((PARAMS / "tiers.yaml").read_text())
    for name in tiers:
        assert memory.tier(1.0, name)["tier"] == name == asked(tier=name).tier


@pytest.fixture
def mixed(tmp_path):
    """A tree of six painted images in train, of which two have no box."""
    tree = painted.tree(tmp_path / "tree", {"train": 6, "val": 2}, {0: "fire", 1: "smoke"}, [(64, 48)])
    for i in (1, 4):
        (tree.folder / "labels" / "train" / f"train{i}.txt").write_text("")
    bare = tree.rows["image"].isin(["train1.png", "train4.png"])
    boxes = [np.zeros((0, 5)) if empty else b for empty, b in zip(bare, tree.rows["boxes"], strict=True)]
    tree.rows["boxes"] = boxes
    return tree


def test_without_folders_the_training_images_are_pasted_on_each_other(mixed, tmp_path):
    paste = finetune.paste(asked(), mixed, tmp_path / "links")
    found = cutouts.backgrounds(paste.backgrounds_dir, cv2.IMREAD_COLOR)
    assert [file.name for file in found] == ["train1.png", "train4.png"]
    cut = cutouts.cutouts(paste.annotated_dir, mixed.names, cv2.IMREAD_COLOR, 0.05)
    assert len(cut) == 4 and paste.synthetic_ratio == 2.0


def test_folders_that_are_named_are_taken(mixed, tmp_path):
    p = asked(backgrounds_dir="/sky", annotated_dir="/smoke")
    paste = finetune.paste(p, mixed, tmp_path / "links")
    assert (str(paste.backgrounds_dir), str(paste.annotated_dir)) == ("/sky", "/smoke")


def test_other_files_in_the_folders_are_another_training(mixed, tmp_path):
    paste = finetune.paste(asked(), mixed, tmp_path / "links")
    before = paste.digest()
    assert (
        paste.digest()
        == before
        != finetune.paste(asked(synthetic_ratio=1.0), mixed, tmp_path / "links").digest()
    )
    (tmp_path / "links" / "more.png").write_bytes(b"x")
    assert paste.digest() != before


def test_nothing_is_pasted_where_there_is_no_background_or_it_is_not_asked(
    mixed, rectangles, tmp_path, capsys
):
    assert finetune.paste(asked(), rectangles, tmp_path / "links") is None
    assert "nothing is pasted: train has no image without boxes" in capsys.readouterr().out
    assert finetune.paste(asked(dynamic_synthetic=False), mixed, tmp_path / "links") is None


def test_an_unfinished_training_is_not_lost_by_accident(tmp_path):
    finetune.refuse_begun(tmp_path, resume=False)
    (tmp_path / "asked.txt").write_text("digest")
    finetune.refuse_begun(tmp_path, resume=True)
    with pytest.raises(Refusal, match="an unfinished training stands in .* set resume to True"):
        finetune.refuse_begun(tmp_path, resume=False)
    (tmp_path / "fit.json").write_text("{}")
    finetune.refuse_begun(tmp_path, resume=False)


def test_the_result_file_has_the_fields_of_the_seed(trained):
    """Fields of seed 004, L225-237; the metrics are those of the row that best.pt was saved in."""
    told = finetune.result(trained, "http://localhost:6006", {"imgsz": 64})
    rows = [line.split(",") for line in (trained.folder / "results.csv").read_text().split("\n") if line]
    head = [name.strip() for name in rows[0]]
    ap = [float(row[head.index("metrics/mAP50-95(B)")]) for row in rows[1:]]
    best = rows[1 + max(i for i, value in enumerate(ap) if value == max(ap))]
    assert told["metrics"]["mAP50-95"] == max(ap)
    assert told["metrics"]["recall"] == float(best[head.index("metrics/recall(B)")])
    assert told["epochs_completed"] == len(rows) - 1
    for name in ("best_model_path", "last_model_path"):
        assert Path(told[name]).is_file()
    fields = ["best_model_path", "config", "epochs_completed", "last_model_path", "metrics"]
    assert sorted(json.loads(json.dumps(told))) == [*fields, "tensorboard_url", "training_time_minutes"]


def test_validate_only_wants_trained_weights(tmp_path):
    with pytest.raises(Refusal, match="validate_only evaluates trained weights, model is 'yolov8n.yaml'"):
        finetune.weights("yolov8n.yaml", "", tmp_path)
    with pytest.raises(Refusal, match="do not exist"):
        finetune.weights(str(tmp_path / "none.pt"), "", tmp_path)


def test_validate_only_takes_a_copy_and_the_rectangle_of_the_checkpoint(rectangles, tmp_path):
    run = fit(
        "yolov8n.yaml",
        rectangles.yaml,
        tmp_path / "run",
        **painted.LEARNABLE | {"epochs": 1, "imgsz": [64, 96]},
    )
    mine = run.stops[-1]["weights"]
    copied = finetune.weights(str(mine), "", tmp_path / "elsewhere")
    assert copied.parent == tmp_path / "elsewhere" and copied.read_bytes() == mine.read_bytes()
    assert finetune.tensor(copied) == [64, 96]


def test_decay_and_paste_train_together(mixed, tmp_path):
    paste = finetune.paste(asked(synthetic_ratio=0.5), mixed, tmp_path / "links")
    small = painted.LEARNABLE | {"epochs": 1}
    run = fit("yolov8n.yaml", mixed.yaml, tmp_path / "run", llrd_rate=0.9, paste=paste, seed=0, **small)
    assert run.conditions["images_n"] == 9  # six real, three synthetic
    rates = [group["lr0"] for group in run.conditions["groups"] if group["kind"] == "weight"]
    assert rates[0] == pytest.approx(0.004) and rates[1] == pytest.approx(0.0036)


def test_examples_show_what_is_pasted_and_leave_the_stream_alone(mixed, tmp_path):
    paste = finetune.paste(asked(), mixed, tmp_path / "links")
    state = random.getstate()
    drawn = finetune.examples(paste, mixed.names, 3)
    assert random.getstate() == state and len(drawn) == 2
    for name, (data, boxes) in drawn.items():
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        before = cv2.imread(str(paste.backgrounds_dir / name.partition("on ")[2]))
        changed = np.abs(picture.astype(int) - before).max(axis=2) > 60
        inside = np.zeros(changed.shape, bool)
        for x1, y1, x2, y2 in np.round(boxes).astype(int):
            inside[y1:y2, x1:x2] = True
        assert boxes and changed[inside].any() and changed[~inside].mean() < 0.1
    assert finetune.examples(paste, mixed.names, 3) == drawn != finetune.examples(paste, mixed.names, 4)
