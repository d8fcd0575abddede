"""The gate: thresholds to the last digit, losses by other arithmetic, faults that are really there."""

import json
import math
import os
import time

import cv2
import numpy as np
import painted
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import DeviceType
from ultralytics.models.yolo.detect import DetectionTrainer

from saistudy import hardware, params
from saistudy.paths import PARAMS, ROOT, Refusal
from saistudy.study import causes, gate, record, verdicts
from saistudy.training import clocks, loading, sanity, telemetry
from saistudy.training.telemetry import Lacking

LIMIT = gate.limits("h200")
TRAIN = painted.BARE | {"imgsz": 64, "batch": 4, "nbs": 8, "lr0": 0.004, "lrf": 1.0, "close_mosaic": 0}
TRAIN |= {"mosaic": 0.0, "scale": 0.1, "translate": 0.05, "seed": 3}
AT_LIMIT = {name: verdicts.Seen(LIMIT[line.limit]) for name, line in verdicts.LINES.items()}


def seen(**change):
    return AT_LIMIT | {name: verdicts.Seen(value) for name, value in change.items()}


def holds(rows):
    return {row["line"]: row["holds"] for row in rows}


def facts(taken, found=None, **more):
    """What a cause is read from, as the notebook puts it together."""
    sums = taken.rows[sanity.PARTS].sum().to_dict()
    shares = {"whole": causes.parts({"build_s": taken.build_s} | sums)}
    shares["steady"] = causes.parts(taken.steady[sanity.PARTS].sum().to_dict())
    return shares | {"kernel_frac": None, "moved_frac": taken.moved_frac} | (found or {}) | more


# Thresholds: what the seed wrote, and which side of each figure holds.


def test_the_thresholds_are_the_seeds():
    """Typed from seed document 003, L8, L11, L13-L16, L18, L20, L27-L29."""
    seed = dict(batch=16, accumulation=8, workers=24, lr0=0.0005, seed=1337, steps_n=200, mean_n=10)
    seed |= dict(loader_images_per_s_min=300, loss_fall_min=0.15, minutes_max=25, gpu_util_min=0.85)
    assert seed.items() <= LIMIT.items()
    assert seed.items() <= gate.limits("mini").items()


@pytest.mark.parametrize("name", verdicts.LINES)
def test_a_threshold_that_is_met_exactly_holds_and_the_next_number_beyond_fails(name):
    threshold = LIMIT[verdicts.LINES[name].limit]
    worse = math.inf if name in ("time", "memory") else -math.inf
    assert all(holds(verdicts.judge(AT_LIMIT, LIMIT)).values())
    beyond = holds(verdicts.judge(seen(**{name: math.nextafter(threshold, worse)}), LIMIT))
    assert [line for line, held in beyond.items() if not held] == [name]
    assert holds(verdicts.judge(seen(**{name: math.nextafter(threshold, -worse)}), LIMIT))[name]


def test_units_of_the_limits_are_those_of_the_lines():
    """299.9 images/s, .149, 25.1 min and 84.9 % are what a person would call failed."""
    worse = {"loader": 299.9, "loss": 0.149, "time": 25.1, "util": 0.849}
    held = holds(verdicts.judge(seen(**worse), LIMIT))
    assert [name for name in held if not held[name]] == list(worse)


def test_the_verdict_rests_on_the_lines_that_apply():
    absent = dict.fromkeys(("util", "memory"), verdicts.gpu(Lacking("trained on cpu"), "cpu"))
    rows = verdicts.judge(AT_LIMIT | absent, LIMIT)
    told = verdicts.verdict(rows)
    assert (told["verdict"], told["rests_on_n"], told["lines_n"], told["failed"]) == ("GO", 4, 6, [])
    assert told["not_applicable"] == ["util", "memory"]
    assert "4 of 6" in told["sentence"]
    assert [row["why"] for row in rows[4:]] == ["not applicable: no GPU"] * 2
    # a failed line beside lines that do not apply
    rows = verdicts.judge(AT_LIMIT | absent | {"time": verdicts.Seen(26.0)}, LIMIT)
    sentence = verdicts.verdict(rows)["sentence"]
    assert sentence == "NO-GO, resting on 4 of 6 lines; failed: time; not applicable: util, memory"


def test_nothing_measured_is_no_go():
    nothing = dict.fromkeys(verdicts.LINES, verdicts.Seen(None, "not applicable", False))
    assert verdicts.verdict(verdicts.judge(nothing, LIMIT))["verdict"] == "NO-GO"


@pytest.mark.parametrize("value", [Lacking("0 was read in all 16 samples"), None, math.nan, math.inf])
def test_a_gpu_whose_probe_does_not_work_passes_nothing(value):
    """The seed's 0.00 %: on a GPU, what could not be measured fails."""
    rows = verdicts.judge(AT_LIMIT | {"util": verdicts.gpu(value, "NVIDIA H200")}, LIMIT)
    assert rows[4]["holds"] is False and rows[4]["seen"] is None and rows[4]["why"]
    json.dumps(rows, allow_nan=False)
    assert verdicts.verdict(rows)["failed"] == ["util"]
    assert causes.causes_of(rows, {}) == {"util": rows[4]["why"]}


def test_the_table_says_what_a_row_says():
    rows = verdicts.judge(
        seen(time=26.0) | {"memory": verdicts.Seen(None, "not applicable: no GPU", False)}, LIMIT
    )
    shown = verdicts.table(rows)
    assert shown.loc[["loader", "time", "memory"], "holds"].tolist() == ["holds", "fails", "does not apply"]
    assert shown.loc["time", "seen"] == "26" and shown.loc["memory", "seen"] == "-"


# The seed's own figures.


def test_the_seed_is_no_go_by_its_own_thresholds():
    told = seen(loader=1998.78, loss=2.7692 - 1.9036, time=0.14, util=0.0)
    told |= dict.fromkeys(("chance", "memory"), verdicts.Seen(None, "not in the seed", False))
    verdict = verdicts.verdict(verdicts.judge(told, LIMIT))
    assert (verdict["verdict"], verdict["failed"], verdict["rests_on_n"]) == ("NO-GO", ["util"], 4)


def test_what_the_seeds_time_implies():
    """By hand: 200 x 16 x 8 = 25,600 and 200 x 16 = 3,200 images in 8.4 s (8.1 to 8.7)."""
    updates, batches = gate.implied(LIMIT, 0.14, 0.005, 1998.78)
    assert (updates["images"], batches["images"]) == (25_600, 3_200)
    assert updates["images/s"] == pytest.approx(3047.6, abs=0.1)
    assert batches["images/s"] == pytest.approx(380.95, abs=0.01)
    assert (updates["low"], updates["high"]) == pytest.approx((25_600 / 8.7, 25_600 / 8.1))
    assert updates["says"].startswith("more than the loader gives")
    assert batches["says"].startswith("the loader gives more than twice that")


# The loss.

LOSSES = st.lists(st.floats(0, 50), min_size=8, max_size=60)


@given(LOSSES, st.integers(2, 4))
def test_means_fall_and_error_are_numpys(losses, mean_n):
    found = gate.fall(losses, mean_n)
    first, last = np.array(losses[:mean_n]), np.array(losses[len(losses) - mean_n :])
    assert found["first"] == pytest.approx(first.mean(), abs=1e-12)
    assert found["last"] == pytest.approx(last.mean(), abs=1e-12)
    assert found["fall"] == pytest.approx(first.mean() - last.mean(), abs=1e-9)
    error = np.sqrt(first.var(ddof=1) / mean_n + last.var(ddof=1) / mean_n)
    assert found["se"] == pytest.approx(error, abs=1e-9)


def test_the_fall_of_a_hand_made_series():
    losses = [4.0, 2.0, 9.0, 9.0, 1.0, 3.0]
    # means 3 and 2; variances 2 and 2 over two each
    assert gate.fall(losses, 2) == {"first": 3.0, "last": 2.0, "fall": 1.0, "se": math.sqrt(2.0)}


def test_a_loss_that_is_no_number_fails_both_lines():
    found = gate.fall([3.0, 2.0, math.nan], 2)
    lines = gate.loss_lines(found, 0.1)
    rows = verdicts.judge(AT_LIMIT | lines, LIMIT)
    assert verdicts.verdict(rows)["failed"] == ["loss", "chance"]
    assert gate.finite([1.0, math.nan, -math.inf]) == [1.0, None, None]


def test_losses_without_any_spread_have_no_standard_error_to_stand_on():
    lines = gate.loss_lines(gate.fall([3.0, 3.0, 1.0, 1.0], 2), 0.1)
    rows = verdicts.judge(AT_LIMIT | lines, LIMIT)
    assert verdicts.verdict(rows)["failed"] == ["chance"]


@pytest.mark.parametrize(("step", "batches"), [("update", 8), ("batch", 1)])
def test_a_step_is_an_update_or_a_batch(step, batches):
    assert gate.batches_per_step(LIMIT | {"step": step}) == batches
    assert gate.batches_per_step(LIMIT | {"step": step, "steps_n": 20}) == batches
    with pytest.raises(Refusal, match="steps_n is 19, at least 2 x mean_n of 10"):
        gate.batches_per_step(LIMIT | {"step": step, "steps_n": 19})


# The steps.


def test_losses_are_those_of_ultralytics_own_trainer(rectangles, tmp_path):
    """Four batches an epoch, six batches: an epoch's end is in between, and nothing is saved at it."""
    theirs = []
    overrides = {"model": "yolov8n.yaml", "data": str(rectangles.yaml), "project": str(tmp_path)}
    # epochs as take sets them (they do not matter at a constant rate)
    trainer = DetectionTrainer(overrides=overrides | TRAIN | {"epochs": 2, "val": False, "plots": False})
    trainer.add_callback(
        "on_train_batch_end", lambda t: theirs.append([float(x) for x in t.loss_items.values()])
    )
    trainer.train()
    taken = sanity.take(
        "yolov8n.yaml", rectangles.yaml, tmp_path / "gate", 6, 1, engine="stock", declared=(), **TRAIN
    )
    assert np.allclose(taken.rows["loss"], np.array(theirs)[:6].sum(axis=1), rtol=1e-5)
    assert taken.rows["images_n"].tolist() == [4] * 6 and taken.rows["batch"].tolist() == [1, 2, 3, 4, 5, 6]
    assert taken.conditions["accumulate"] == 2 and taken.conditions["batch"] == 4
    assert not list((tmp_path / "gate").rglob("*.pt"))
    assert taken.losses(2) == pytest.approx(taken.rows["loss"].to_numpy().reshape(3, 2).mean(axis=1))
    assert len(taken.losses(4)) == 2 and len(taken.steady) == 5


def test_parts_of_the_seconds_fill_the_whole(rectangles, tmp_path):
    began = time.perf_counter()
    taken = sanity.take("yolov8n.yaml", rectangles.yaml, tmp_path / "gate", 4, 0, **TRAIN)
    outside = time.perf_counter() - began
    inside = taken.rows[sanity.PARTS].sum(axis=None)
    assert (taken.rows[sanity.PARTS] >= 0).all(axis=None)
    assert inside <= taken.wall_s - taken.build_s <= taken.wall_s <= outside
    assert taken.gpu["gpu_util"] == "trained on cpu" and taken.gpu_util_n == 0
    assert set(taken.gpu) == {"gpu_util", "gpu_peak_gib", "gpu_reserved_gib", "kernel_frac", "copy_frac"}


@pytest.mark.parametrize(("batches_n", "updated"), [(1, False), (2, True)])
def test_nbs_of_two_batches_updates_after_the_second(rectangles, tmp_path, batches_n, updated):
    taken = sanity.take("yolov8n.yaml", rectangles.yaml, tmp_path / "gate", batches_n, 0, **TRAIN)
    assert (taken.moved_frac > 0) == updated


def test_the_way_of_the_weights():
    before = [torch.tensor([3.0, 0.0]), torch.tensor([[4.0]])]
    after = [torch.tensor([3.0, 0.3]), torch.tensor([[4.4]])]
    assert sanity.moved(before, after) == pytest.approx(0.1)  # length .5 over 5
    assert sanity.moved(before, before) == 0


def test_a_condition_that_is_not_the_one_asked_for_is_refused(rectangles, tmp_path):
    with pytest.raises(Refusal, match="weight_decay was requested as"):  # nbs 10 is not a multiple of batch 4
        sanity.take("yolov8n.yaml", rectangles.yaml, tmp_path / "gate", 2, 0, **TRAIN | {"nbs": 10})
    with pytest.raises(Refusal, match="2 of 2 batches are the warm-up"):
        sanity.take("yolov8n.yaml", rectangles.yaml, tmp_path / "gate", 2, 2, **TRAIN)


# Faults, each really there.


def test_a_network_that_learns_passes_and_one_at_rate_zero_does_not(rectangles, tmp_path):
    """Sixteen images, four batches an epoch, means over whole epochs."""
    for lr0, failed in ((0.004, []), (0.0, ["loss", "chance"])):
        train = TRAIN | {"nbs": 4, "lr0": lr0}
        taken = sanity.take("yolov8n.yaml", rectangles.yaml, tmp_path / "gate", 44, 4, **train)
        found = gate.fall(taken.losses(1), 8)
        rows = verdicts.judge(AT_LIMIT | gate.loss_lines(found, taken.moved_frac), LIMIT)
        assert verdicts.verdict(rows)["failed"] == failed
        told = causes.causes_of(rows, facts(taken, found))
        assert all("no weight moved" in why for why in told.values())
    assert taken.moved_frac == 0


def test_a_fall_by_chance_is_no_fall():
    """At rate zero ten losses of a spread of 4 fall by more than .15 nearly half of the time."""
    rng = np.random.default_rng(0)
    passed = {"loss": 0, "chance": 0}
    for _ in range(400):
        lines = gate.loss_lines(gate.fall(rng.normal(12, 4, 40).tolist(), 10), 0.1)
        held = holds(verdicts.judge(AT_LIMIT | lines, LIMIT))
        passed = {name: n + held[name] for name, n in passed.items()}
    assert passed["loss"] > 160 and passed["chance"] < 24


def test_a_loss_that_overflows_ends_the_test_and_fails_it(rectangles, tmp_path):
    train = TRAIN | {"box": 3e38}  # the largest 32-bit float is 3.4e38
    taken = sanity.take("yolov8n.yaml", rectangles.yaml, tmp_path / "gate", 40, 1, **train)
    assert len(taken.rows) < 40 and not math.isfinite(taken.rows["loss"].iloc[-1])
    rows = verdicts.judge(AT_LIMIT | gate.loss_lines(gate.fall(taken.losses(1), 10), taken.moved_frac), LIMIT)
    assert verdicts.verdict(rows)["failed"] == ["loss", "chance"]


@pytest.fixture(scope="module")
def huge(tmp_path_factory):
    """A tree whose 24 images are one large noisy JPEG each: nothing but decoding."""
    folder = tmp_path_factory.mktemp("huge")
    noise = np.random.default_rng(0).integers(0, 256, (2600, 2600, 3), np.uint8)
    cv2.imwrite(str(folder / "noise.jpg"), noise, [cv2.IMWRITE_JPEG_QUALITY, 95])
    for split, images_n in (("train", 24), ("val", 1)):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        for i in range(images_n):
            os.link(folder / "noise.jpg", folder / "images" / split / f"{split}{i}.jpg")
            (folder / "labels" / split / f"{split}{i}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    text = {"path": str(folder), "train": "images/train", "val": "images/val", "names": {0: "fire"}}
    (folder / "data.yaml").write_text(yaml.safe_dump(text))
    return folder / "data.yaml"


def test_a_starving_loader_is_named_and_a_quick_one_is_not(huge, rectangles, tmp_path):
    limit = LIMIT | {"minutes_max": 1e-6}
    for data, begins in ((huge, "the loader"), (rectangles.yaml, "the step")):
        taken = sanity.take("yolov8n.yaml", data, tmp_path / "gate", 7, 2, **TRAIN | {"batch": 2})
        found = facts(taken, kernel_frac=None)
        # of a GPU that waits, as its utilisation would be
        rows = verdicts.judge(seen(util=0.2, time=taken.wall_s / 60), limit)
        told = causes.causes_of(rows, found | {"whole": found["steady"]})
        assert set(told) == {"time", "util"}  # the limit of time is too low as well
        assert all(why.startswith(begins) for why in told.values()), (told, found)


def test_the_loader_alone_is_its_own_cause(huge, tmp_path):
    """A real pass over images that take long to decode, against 300 images/s."""
    seen_pass = loading.feed(
        huge, False, 0, 2, 64, batches_n=2, images_n=8, scratch=tmp_path, device="cpu", mosaic=0.0
    )
    rate = seen_pass.images_per_s
    rows = verdicts.judge(seen(loader=rate), LIMIT)
    told = causes.causes_of(rows, {"loader_images_per_s": rate, "workers": 0})
    assert told == {"loader": f"0 workers, {rate:.1f} images/s each: {math.ceil(300 / rate)} would be needed"}


def test_utilisation_is_sampled_over_the_steady_part_alone(huge, tmp_path):
    """Most batches are the warm-up: readings from the start on would be too many for the seconds after it."""
    reads = []

    def read() -> float:
        reads.append(0.25)
        return reads[-1]

    train = TRAIN | {"batch": 2, "nbs": 2}
    taken = sanity.take("yolov8n.yaml", huge, tmp_path / "gate", 12, 8, probe=lambda _: read, **train)
    steady_s = taken.steady[sanity.PARTS].sum(axis=None)
    assert taken.gpu_util_n == len(reads) <= steady_s / telemetry.SAMPLE_S + 1
    util = taken.gpu["gpu_util"]
    assert util == 0.25 if reads else isinstance(util, Lacking)


# Causes by rule.


@pytest.mark.parametrize(
    ("shares", "kernel_frac", "begins"),
    [
        ({"wait": 0.51, "transfer": 0.0, "step": 0.49}, 0.9, "the loader: 51%"),
        ({"wait": 0.5, "transfer": 0.0, "step": 0.5}, None, "the step: 50%"),
        ({"wait": 0.1, "transfer": 0.6, "step": 0.3}, None, "the transfer to the device: 60%"),
        ({"build": 0.7, "wait": 0.1, "transfer": 0.0, "step": 0.2}, None, "building: 70%"),
        ({"wait": 0.1, "transfer": 0.1, "step": 0.8}, 0.5, "the network's kernels: kernels"),
        ({"wait": 0.1, "transfer": 0.1, "step": 0.8}, 0.49, "the host: between"),
    ],
)
def test_the_rule_names_the_part_with_more_than_half(shares, kernel_frac, begins):
    assert causes.named(shares, kernel_frac).startswith(begins)


def test_shares_are_of_the_sum():
    assert causes.parts({"wait_s": 1.0, "step_s": 3.0}) == {"wait": 0.25, "step": 0.75}
    assert causes.parts({"wait_s": 0.0}) == {"wait": 0.0}


# How long a device was busy.

SPANS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 30)).map(lambda s: (s[0], sum(s))), max_size=12)


@given(SPANS)
def test_the_union_of_intervals_is_that_of_their_cells(spans):
    cells = {cell for start, end in spans for cell in range(start, end)}
    assert clocks.covered(spans) == len(cells)


def test_shares_of_a_profiled_window_are_those_of_torchs_own_sums():
    """On one thread, the union of nested operators is the sum of what each took by itself."""
    square = torch.rand(300, 300)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        began = time.perf_counter()
        for _ in range(5):
            square = (square @ square).tanh()
        window_s = time.perf_counter() - began
    own_s = sum(event.self_cpu_time_total for event in profiler.key_averages()) / 1e6
    found = clocks.shares(profiler.events(), window_s, DeviceType.CPU)
    assert found["kernel_frac"] == pytest.approx(own_s / window_s, rel=0.02)
    assert found["copy_frac"] == 0
    none = clocks.shares(profiler.events(), window_s)  # of a GPU that is not there
    assert set(none.values()) == {"torch's profiler saw no kernel"}


# A whole run, and the refusal.


@pytest.fixture(scope="module")
def told():
    """The committed record of a demo training."""
    path = ROOT / "results" / "demo" / "896-s0" / "record.json"
    if not path.is_file():
        pytest.skip("no committed record of a training")
    return json.loads(path.read_text())


def test_a_whole_run_on_a_cpu_rests_on_its_rate(told):
    telemetry = told["telemetry"][""]
    rows = gate.over_run(telemetry, told["cost"]["device"], told["environment"], LIMIT)
    assert [row["line"] for row in rows if row["holds"] is not None] == ["loader"]
    rate = telemetry["images_n"] / (telemetry["wait_s"] + telemetry["compute_s"])
    assert rows[0]["seen"] == pytest.approx(rate) and rows[0]["holds"] == (rate >= 300)
    assert causes.of_run(telemetry)["wait"] == pytest.approx(telemetry["wait_frac"], abs=1e-3)


@pytest.mark.parametrize(("util", "used_gib", "failed"), [(0.85, 90, []), (0.84, 127, ["util", "memory"])])
def test_a_whole_run_on_a_gpu_is_held_to_utilisation_and_memory(told, util, used_gib, failed):
    telemetry = told["telemetry"][""] | {"gpu_util": util, "gpu_reserved_gib": float(used_gib)}
    telemetry |= {"images_n": 30_000, "wait_s": 20.0, "compute_s": 80.0}  # 300 images/s
    machine = {"gpus": [{"name": "other", "memory_gib": 1.0}, {"name": "NVIDIA H200", "memory_gib": 140.0}]}
    verdict = verdicts.verdict(gate.over_run(telemetry, "NVIDIA H200", machine, LIMIT))
    assert verdict["failed"] == failed and verdict["rests_on_n"] == 3
    missing = telemetry | {"gpu_util": None, "reasons": {"gpu_util": "0 was read in all 9 samples"}}
    rows = gate.over_run(missing, "NVIDIA H200", machine, LIMIT)
    assert rows[4]["holds"] is False and "0 was read in all 9 samples" in rows[4]["why"]


@pytest.fixture
def said(tmp_path, monkeypatch):
    """Writes the record of a gate of profile h200 with one word."""
    monkeypatch.setenv("SAISTUDY_RESULTS", str(tmp_path))
    monkeypatch.delenv(gate.TOLD, raising=False)

    def write(rows, **change):
        whole = dict(run=gate.RUN, notebook="gate", profile="h200", run_id="", params={}, data={}, cost={})
        path = record.write_record(
            tmp_path / "h200" / gate.RUN, metrics=[], verdict=verdicts.verdict(rows), **whole
        )
        path.write_text(json.dumps(json.loads(path.read_text()) | change))

    return write


def test_no_go_refuses_unless_told_to(said, monkeypatch):
    said(verdicts.judge(seen(time=30.0), LIMIT))
    with pytest.raises(Refusal, match="NO-GO, resting on 6 of 6 lines; failed: time.*SAISTUDY_NO_GO=1"):
        gate.refuse_no_go("h200")
    assert gate.refuse_no_go("demo") == ""
    monkeypatch.setenv(gate.TOLD, "0")
    with pytest.raises(Refusal):
        gate.refuse_no_go("h200")
    monkeypatch.setenv(gate.TOLD, "1")
    assert "NO-GO" in gate.refuse_no_go("h200")


def test_go_starts(said):
    said(verdicts.judge(AT_LIMIT, LIMIT))
    assert "GO, resting on 6 of 6 lines" in gate.refuse_no_go("h200")


def test_the_gate_of_another_machine_or_none_says_so(said):
    assert gate.refuse_no_go("h200").startswith("no gate of h200 was run on this machine")
    other = hardware.environment() | {"gpus": [{"name": "another card"}]}
    said(verdicts.judge(seen(time=30.0), LIMIT), environment=other)
    assert gate.refuse_no_go("h200").startswith("no gate of h200 was run on this machine")


def test_the_parameters_of_stage_1_are_part_of_a_gates_identity():
    read = gate.inputs("demo")
    assert read["stage1"] == params.read("stage1", [PARAMS / "demo" / "stage1.yaml"], {})
    values = gate.limits("demo")
    changed = read | {"stage1": read["stage1"] | {"seed": 5}}
    assert params.identity("gate", values, read) != params.identity("gate", values, changed)


def test_a_training_of_h200_is_refused_before_a_kernel_starts(said, tmp_path, monkeypatch, capsys):
    """By the command that make study runs: one sentence, a non-zero exit, nothing written."""
    from saistudy.__main__ import main

    said(verdicts.judge(seen(time=30.0), LIMIT))
    words = ["run", "stage1", "-f", str(PARAMS / "h200/stage1.yaml"), "--output", str(tmp_path / "run.ipynb")]
    assert main(words) != 0
    assert "NO-GO, resting on" in capsys.readouterr().err
    assert not (tmp_path / "run.ipynb").exists()
