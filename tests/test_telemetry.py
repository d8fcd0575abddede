"""Telemetry: every second in its place by a second clock around it, batches told apart, threads that end."""

import math
import statistics
import subprocess
import tempfile
import threading
import time
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import painted
import pandas as pd
import psutil
import pytest
import torch
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from ultralytics.models.yolo.detect import DetectionTrainer

from saistudy.paths import Refusal
from saistudy.training import telemetry
from saistudy.training.rect import RectTrainer

PLAIN = painted.BARE | {"imgsz": 64, "batch": 8, "nbs": 8, "lr0": 0.001, "plots": False, "exist_ok": True}
PARTS = ["wait_s", "compute_s", "val_s", "save_s", "lost_s"]
BALLAST_BYTES = 64 * 2**20
ROUND = 1e-4 * len(PARTS)  # the csv has four decimals


class Seen:
    """Keeps what Ultralytics is about to train on, as it left the loader."""

    batches = ()

    def preprocess_batch(self, batch):
        self.batches = [*self.batches, (self.epoch, batch["img"].clone())]
        return super().preprocess_batch(batch)


class Stock(telemetry.Watched, Seen, DetectionTrainer):
    pass


class Rect(telemetry.Watched, Seen, RectTrainer):
    pass


class Enough(Exception):
    """Ends a training."""


def trainer_of(tree, folder, engine=Stock, workers=0, **change):
    place = {"model": "yolov8n.yaml", "data": str(tree.yaml), "project": str(folder), "name": "run"}
    trainer = engine(overrides=place | PLAIN | change)
    trainer.args.workers = workers  # the constructor sets 0 on a CPU
    return trainer


def watched(tree, folder, callbacks=(), probe=telemetry.nvml_probe, **change):
    """A trainer that was trained, and the csv's rows; callbacks are (event, function)."""
    trainer = trainer_of(tree, folder, **change)
    telemetry.attach(trainer, folder / "telemetry.csv", probe)
    for event, callback in callbacks:
        trainer.add_callback(event, callback)
    trainer.train()
    return trainer, read(folder / "telemetry.csv")


def read(csv) -> pd.DataFrame:
    return pd.read_csv(csv, dtype={"first_batch": str, "unmeasured": str})


def samplers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == telemetry.THREAD]


class Probe:
    """A device's utilisation that is always .25, and whether it was read in the epoch."""

    def __init__(self):
        self.was_read = threading.Event()

    def __call__(self, device):
        return self.read

    def read(self) -> float:
        self.was_read.set()
        return 0.25

    def wait(self, trainer):
        self.was_read.clear()
        assert self.was_read.wait(60) and len(samplers()) == 1


class Clock:
    """A second clock: the moments right before and right after telemetry's own callbacks."""

    events = (
        "on_train_start", "on_train_epoch_start", "on_train_batch_start", "on_train_batch_end",
        "on_train_epoch_end", "on_val_end", "on_model_save", "on_fit_epoch_end",
    )  # fmt: skip

    def __init__(self):
        self.moments = []  # (event, before, after) in order

    def before(self, trainer):
        # what others do between training and validation is no validation
        trainer.add_callback("on_train_epoch_end", lambda _: time.sleep(0.1))
        for event in self.events:
            trainer.add_callback(event, lambda _, e=event: self.moments.append([e, time.perf_counter(), 0]))

    def after(self, trainer):
        for event in self.events:
            trainer.add_callback(event, lambda _: self.moments[-1].__setitem__(2, time.perf_counter()))

    def epochs(self) -> list[list]:
        """The moments up to each row, from the end of the epoch before it on."""
        ends = [i for i, (event, *_) in enumerate(self.moments) if event == "on_model_save"]
        return [self.moments[a : b + 1] for a, b in pairwise([0, *ends])]


def bounds(moments: list, kinds: dict) -> dict[str, tuple[float, float]]:
    """Least and most seconds of each part: between the inner and between the outer sides of two callbacks."""
    found = defaultdict(lambda: (0.0, 0.0))
    for (first, out, inside), (second, before, after) in pairwise(moments):
        if part := kinds.get((first, second)):
            low, high = found[part]
            found[part] = low + max(before - inside, 0), high + after - out
    return found


NORMAL = {
    ("on_model_save", "on_fit_epoch_end"): "save_s",
    ("on_train_epoch_start", "on_train_batch_start"): "wait_s",
    ("on_train_start", "on_train_epoch_start"): "wait_s",
    ("on_fit_epoch_end", "on_train_epoch_start"): "wait_s",
    ("on_train_batch_end", "on_train_batch_start"): "wait_s",
    ("on_train_batch_start", "on_train_batch_end"): "compute_s",
    ("on_train_epoch_end", "on_val_end"): "val_s",
    ("on_val_end", "on_model_save"): "save_s",
}


def clocked(tree, folder, callbacks=(), probe=telemetry.nvml_probe, **change):
    """A run between two other clocks, and the seconds of the whole call."""
    trainer, clock = trainer_of(tree, folder, **change), Clock()
    clock.before(trainer)
    telemetry.attach(trainer, folder / "telemetry.csv", probe)
    clock.after(trainer)
    for event, callback in callbacks:
        trainer.add_callback(event, callback)
    started = time.perf_counter()
    trainer.train()
    return clock, read(folder / "telemetry.csv"), time.perf_counter() - started


class Run(NamedTuple):
    """A run, what another clock saw of it, and what psutil and threading said after each batch."""

    clock: Clock
    rows: pd.DataFrame
    whole_s: float
    csv: Path
    threads: list
    memory: list


@pytest.fixture(scope="module")
def run(rectangles, tmp_path_factory):
    """Four epochs of a rectangle with mosaic until the second, each saved by a slow callback."""
    folder, threads, memory = tmp_path_factory.mktemp("run"), [], []
    look = [("on_model_save", lambda _: time.sleep(0.2))]
    look += [("on_train_batch_end", lambda _: threads.append(samplers()))]
    look += [("on_train_epoch_end", lambda _: memory.append(psutil.virtual_memory().available))]
    train = {"imgsz": [64, 96], "batch": 6, "nbs": 6, "epochs": 4, "mosaic": 0.7, "close_mosaic": 2}
    with tempfile.TemporaryFile(dir="/dev/shm") as ballast:
        ballast.write(bytes(BALLAST_BYTES))
        ballast.flush()
        seen = clocked(rectangles, folder, look, engine=Rect, **train)
    return Run(*seen, folder / "telemetry.csv", threads, memory)


def test_every_second_is_in_its_place(run):
    rows = run.rows
    assert rows["epoch"].tolist() == [1, 2, 3, 4]
    for moments, row in zip(run.clock.epochs(), rows.to_dict("records"), strict=True):
        expected = bounds(moments, NORMAL)
        for part in PARTS:
            low, high = expected[part]
            assert low - ROUND <= row[part] <= high + ROUND, part
        # what no part holds lies around telemetry's own look at memory, and is no negative time
        (own,) = [i for i, (event, *_) in enumerate(moments) if event == "on_train_epoch_end"]
        rest = row["epoch_s"] - sum(row[part] for part in PARTS)
        assert -ROUND <= rest <= moments[own][2] - moments[own - 1][1] + ROUND
    assert rows["epoch_s"].sum() <= run.whole_s
    # what other callbacks do after a row is the next row's saving
    assert (rows["save_s"][1:] >= 0.2).all()


def test_counts_and_rates(run):
    rows = run.rows
    # 16 images in batches of 6
    assert rows["images_n"].tolist() == [16] * 4 and rows["batches_n"].tolist() == [3] * 4
    assert rows["batch"].tolist() == [6] * 4
    busy_s = rows["wait_s"] + rows["compute_s"]
    assert rows["images_per_s"].tolist() == pytest.approx((16 / busy_s).tolist(), rel=1e-2)


def test_mosaic_closes_when_ultralytics_closes_it(run):
    assert run.rows["mosaic"].tolist() == [0.7, 0.7, 0, 0]


def test_memory_is_what_the_host_has_left_and_shm_holds(run):
    for available, free_gib in zip(run.memory, run.rows["host_free_gib"], strict=True):
        # a control group may allow less; a gibibyte for what other processes did between the two looks
        assert 0 < free_gib <= available / 2**30 + 1
    most = psutil.disk_usage("/dev/shm").total / 2**30
    assert run.rows["shm_gib"].between(BALLAST_BYTES / 2**30, most).all()


def test_nothing_is_sampled_on_a_cpu(run):
    assert len(run.threads) == 12 and not any(run.threads)


def test_a_cpu_has_no_gpu_figures_but_a_reason(run):
    rows, csv = run.rows, run.csv
    summed = telemetry.summary(csv)
    for column in ("gpu_peak_gib", "gpu_reserved_gib", "gpu_util"):
        assert rows[column].isna().all() and summed[column] is None
        assert summed["reasons"][column] == "trained on cpu (4 of 4 epochs)"
    assert rows["gpu_util_n"].tolist() == [0] * 4


@pytest.mark.parametrize("workers", [0, 2])
def test_hashes_tell_seeds_apart(rectangles, tmp_path, workers):
    def run(name, seed):
        end = [("on_model_save", stop)]
        with pytest.raises(Enough):
            watched(rectangles, tmp_path / name, end, seed=seed, workers=workers, epochs=2)
        return read(tmp_path / name / "telemetry.csv")["first_batch"].tolist()

    def stop(trainer):
        assert trainer.train_loader.num_workers == workers
        firsts.append([img for epoch, img in trainer.batches if epoch == trainer.epoch][0])
        if trainer.epoch == 1:
            raise Enough

    firsts = []
    one, again, other = run("a", 1), run("b", 1), run("c", 2)
    assert one == again and not set(one) & set(other) and len(set(one)) == 2
    # by hand from the images themselves
    assert [xxhash.xxh3_64_hexdigest(img.numpy().tobytes()) for img in firsts] == one + again + other


def test_a_trainer_that_is_not_watched(rectangles, tmp_path):
    written(tmp_path, [{"epoch": 1}, {"epoch": 2}])  # of an older run, which this one does not go on with
    _, rows = watched(rectangles, tmp_path, engine=DetectionTrainer, epochs=1)
    assert rows["epoch"].tolist() == [1]
    summed = telemetry.summary(tmp_path / "telemetry.csv")
    for column in ("images_n", "images_per_s", "first_batch"):
        assert rows[column].isna().all() and summed[column] is None
        assert "Watched" in summed["reasons"][column]
    assert rows["batches_n"].tolist() == [2]


def test_rows_after_a_resume(rectangles, tmp_path):
    """A run that died in its fourth epoch goes on from the weights of its second."""
    csv, last = tmp_path / "telemetry.csv", tmp_path / "run" / "weights" / "last.pt"
    kept = []

    def die(trainer):
        kept.append(last.read_bytes())
        if trainer.epoch == 2:
            raise Enough

    with pytest.raises(Enough):
        watched(rectangles, tmp_path, [("on_model_save", die)], epochs=4)
    before = csv.read_text().splitlines()
    assert [line.split(",")[0] for line in before] == ["epoch", "1", "2", "3"]
    last.write_bytes(kept[1])
    csv.write_text(csv.read_text() + "2,0.12")  # torn by the kill
    watched(rectangles, tmp_path, model=str(last), resume=str(last))
    after = csv.read_text().splitlines()
    assert [line.split(",")[0] for line in after] == ["epoch", "1", "2", "3", "4"]
    assert after[:3] == before[:3] and after[3] != before[3]


def test_a_csv_of_something_else_is_refused(rectangles, tmp_path):
    (tmp_path / "telemetry.csv").write_text("epoch,time\n1,2\n")
    with pytest.raises(Refusal, match="telemetry.csv") as told:
        watched(rectangles, tmp_path, epochs=1)
    assert "\n" not in str(told.value)
    assert (tmp_path / "telemetry.csv").read_text() == "epoch,time\n1,2\n"


def lost_bounds(moments: list) -> tuple[float, float]:
    """Least and most seconds from the opening of an epoch to its last start."""
    starts = [i for i, (event, *_) in enumerate(moments) if event == "on_train_epoch_start"]
    opening = [m for m in moments[: starts[0]] if m[0] in ("on_train_start", "on_fit_epoch_end")][-1]
    return moments[starts[-1]][1] - opening[2], moments[starts[-1]][2] - opening[1]


def test_out_of_memory_leaves_one_row_and_the_time_lost(rectangles, tmp_path):
    calls = []

    def fail(module, inputs):
        calls.append(module)
        if len(calls) == 2:
            raise RuntimeError("CUDA out of memory. Injected.")

    def hook(trainer):
        trainer.model.register_forward_pre_hook(fail)

    probe = Probe()
    callbacks = [("on_train_start", hook), ("on_train_batch_start", probe.wait)]
    clock, rows, _ = clocked(rectangles, tmp_path, callbacks, probe, epochs=2)
    assert rows["epoch"].tolist() == [1, 2] and rows["batch"].tolist() == [4, 4]
    # batches of 4 after the halving, none of the lost pass
    assert rows["images_n"].tolist() == [16, 16] and rows["batches_n"].tolist() == [4, 4]
    low, high = lost_bounds(clock.epochs()[0])
    assert 0 < low - ROUND <= rows["lost_s"][0] <= high + ROUND and rows["lost_s"][1] == 0
    assert (rows[PARTS].sum(axis=1) <= rows["epoch_s"] + ROUND).all()


def test_a_recovered_nan_leaves_one_row_and_the_time_lost(rectangles, tmp_path):
    spoiled = []

    def spoil(trainer):
        if trainer.epoch == 1 and len(spoiled) < 2:
            spoiled.append(trainer.epoch)
            trainer.loss = torch.tensor(math.nan)

    probe = Probe()
    callbacks = [("on_train_epoch_end", spoil), ("on_train_batch_start", probe.wait)]
    clock, rows, _ = clocked(rectangles, tmp_path, callbacks, probe, epochs=2)
    assert not samplers()
    assert len(spoiled) == 2 and rows["epoch"].tolist() == [1, 2]
    assert rows["images_n"].tolist() == [16, 16]
    low, high = lost_bounds(clock.epochs()[1])
    assert 0 < low - ROUND <= rows["lost_s"][1] <= high + ROUND and rows["lost_s"][0] == 0
    assert (rows[PARTS].sum(axis=1) <= rows["epoch_s"] + ROUND).all()


def test_sampling_lasts_as_long_as_the_training_part(rectangles, tmp_path):
    probe, seen = Probe(), []
    look = [("on_val_end", lambda _: seen.append(samplers())), ("on_train_batch_start", probe.wait)]
    _, rows = watched(rectangles, tmp_path, look, probe, epochs=2)
    assert rows["gpu_util"].tolist() == [0.25, 0.25] and (rows["gpu_util_n"] >= 2).all()
    assert seen and not any(seen) and not samplers()


@pytest.mark.parametrize("error", [Enough, KeyboardInterrupt])
def test_the_thread_ends_with_the_training(rectangles, tmp_path, error):
    probe = Probe()

    def fail(trainer):
        raise error

    with pytest.raises(error):
        callbacks = [("on_train_batch_start", probe.wait), ("on_train_batch_end", fail)]
        watched(rectangles, tmp_path, callbacks, probe, epochs=1)
    assert probe.was_read.is_set() and not samplers()
    assert len(read(tmp_path / "telemetry.csv")) == 0


def sampled(values: list[float | None]):
    """What a sampler makes of a reader that gives these values, fails at None, and fails after the last."""
    left, done = iter(values), threading.Event()

    def reader() -> float:
        value = next(left, "end")
        if value == "end":
            done.set()
        if not isinstance(value, float):
            raise OSError("no such, thing |\n today")
        return value

    sampler = telemetry.Sampler(reader, every_s=0.0005)
    assert done.wait(60)
    return sampler.stop()


@settings(deadline=None, max_examples=50)
@given(st.lists(st.none() | st.floats(0, 1), max_size=12))
def test_the_mean_is_of_what_was_read(values):
    known = [value for value in values if value is not None]
    mean, samples_n = sampled(values)
    assert samples_n == len(known) and not samplers()
    if any(known):
        assert mean == pytest.approx(statistics.fmean(known), abs=1e-4)
    elif known:
        assert isinstance(mean, telemetry.Lacking) and f"all {len(known)} samples" in mean
    else:
        assert isinstance(mean, telemetry.Lacking) and "no such thing today" in mean


def test_no_sample_is_not_zero():
    mean, samples_n = telemetry.Sampler(lambda: 0.5, every_s=60).stop()
    assert isinstance(mean, telemetry.Lacking) and samples_n == 0 and "60" in mean


def test_nvml_that_is_not_there_is_a_reason():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert isinstance(telemetry.nvml_probe(torch.device("cpu")), telemetry.Lacking)
    # a GPU is claimed where there is none
    told = telemetry.nvml_probe(torch.device("cuda:0"))
    assert isinstance(told, telemetry.Lacking) and told


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
def test_a_gpu_is_measured(rectangles, tmp_path):
    def multiply(trainer):
        square, until = torch.ones(4096, 4096, device=trainer.device), time.monotonic() + 2
        while time.monotonic() < until:
            (square @ square).sum().item()

    train = {"device": "0", "imgsz": 640, "epochs": 2, "batch": 16, "nbs": 16, "workers": 2}
    _, rows = watched(rectangles, tmp_path, [("on_train_batch_start", multiply)], **train)
    assert (rows["gpu_util_n"] >= 1).all() and rows["gpu_util"].between(0.2, 1).all()
    peak, reserved = rows["gpu_peak_gib"], rows["gpu_reserved_gib"]
    assert (peak <= reserved).all() and torch.cuda.get_device_properties(
        0
    ).total_memory / 2**30 > reserved.max()
    # a step on 16 images of 640 px in 32 bits takes more than the images themselves
    assert (peak > 16 * 3 * 640 * 640 * 4 / 2**30).all()


def test_memory_that_cannot_be_read_is_a_reason():
    child = subprocess.Popen(["true"])
    gone = psutil.Process(child.pid)
    child.wait()
    told = telemetry.gib(lambda: gone.memory_full_info().pss)
    assert isinstance(told, telemetry.Lacking) and str(child.pid) in told
    assert telemetry.gib(lambda: 3 * 2**29) == 1.5


def written(folder, rows: list[dict]):
    """A csv as a run leaves it."""
    base = dict.fromkeys(telemetry.COLUMNS, 1) | {"first_batch": "00e1", "unmeasured": ""}
    lines = [",".join(telemetry.COLUMNS), *(",".join(str(v) for v in (base | row).values()) for row in rows)]
    (folder / "telemetry.csv").write_text("\n".join(lines) + "\n")
    return folder / "telemetry.csv"


def test_a_summary_by_hand(tmp_path):
    rows = [
        {"epoch": 1, "wait_s": 3, "compute_s": 7, "images_per_s": 10, "gpu_util": 0.5, "gpu_util_n": 1},
        {"epoch": 2, "wait_s": 1, "compute_s": 9, "images_per_s": 40, "gpu_util": 0.9, "gpu_util_n": 3},
        {"epoch": 4, "wait_s": 2, "compute_s": 8, "images_per_s": 20, "gpu_util": "", "gpu_util_n": 0},
    ]
    rows[0] |= {"gpu_peak_gib": 4, "host_free_gib": 2.5, "batch": 8, "mosaic": 0.7, "first_batch": "0012"}
    rows[1] |= {"gpu_peak_gib": 6, "host_free_gib": 1.5, "batch": 8, "mosaic": 0.7}
    rows[2] |= {"gpu_peak_gib": 5, "host_free_gib": "", "batch": 4, "mosaic": 0}
    rows[2] |= {"unmeasured": "gpu_util: NVML is lost | host_free_gib: gone"}
    summed = telemetry.summary(written(tmp_path, rows))
    assert (summed["epochs_n"], summed["epochs_missing"]) == (3, [3])
    assert (summed["wait_s"], summed["compute_s"], summed["wait_frac"]) == (6, 24, 0.2)
    assert (summed["images_per_s"], summed["gpu_peak_gib"], summed["host_free_gib"]) == (20, 6, 1.5)
    # (.5 * 1 + .9 * 3) / 4
    assert (summed["gpu_util"], summed["gpu_util_n"]) == (pytest.approx(0.8), 4)
    assert (summed["batch"], summed["mosaic_epochs_n"], summed["first_batch"]) == ([8, 4], 2, "0012")
    assert summed["reasons"] == {
        "gpu_util": "NVML is lost (1 of 3 epochs)",
        "host_free_gib": "gone (1 of 3 epochs)",
    }


def test_a_summary_of_a_run_without_a_finished_epoch(tmp_path):
    summed = telemetry.summary(written(tmp_path, []))
    assert summed["epochs_n"] == 0 and summed["wait_s"] is None and summed["images_per_s"] is None
    assert summed["reasons"]["wait_s"] == summed["reasons"]["gpu_peak_gib"] == "no epoch was finished"


def test_a_summary_of_nothing_is_refused(tmp_path):
    with pytest.raises(Refusal, match="nothing.csv"):
        telemetry.summary(tmp_path / "nothing.csv")
