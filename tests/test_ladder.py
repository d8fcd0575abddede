"""What is given up when memory runs out: pure steps, then real shortages in real trainings."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import painted
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ultralytics.utils.callbacks.base import default_callbacks

from saistudy.paths import Refusal
from saistudy.training import attempts, ladder
from saistudy.training.fit import fit

# as torch 2.15, CUDA 13, OpenCV 5, NumPy 2 and Linux say it
TEXTS = [
    (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total ..."), "gpu"),
    (RuntimeError("CUDA error: out of memory"), "gpu"),
    (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "gpu"),
    (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"), "gpu"),
    (RuntimeError("DataLoader worker (pid 712) is killed by signal: Killed. "), "host"),
    (RuntimeError("DataLoader worker (pid 712) is killed by signal: Bus error. It is possible that"), "host"),
    (RuntimeError("DataLoader worker (pid(s) 712) exited unexpectedly"), "host"),
    (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you"), "host"),
    (RuntimeError("unable to write to file </torch_712_33>: No space left on device (28)"), "host"),
    (RuntimeError("Caught MemoryError in DataLoader worker process 0.\nOriginal Traceback"), "host"),
    (MemoryError("Unable to allocate 3.1 GiB for an array"), "host"),
    (OSError(errno.ENOMEM, "Cannot allocate memory"), "host"),
    (RuntimeError("unable to open shared memory object </torch_712_9> in read-write mode"), "host"),
    (OSError(errno.ENOSPC, "No space left on device"), None),  # a disk, where nothing of the ladder helps
    (RuntimeError("PytorchStreamWriter failed writing file data/71: file write failed"), None),
    (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), None),
    (FileNotFoundError(errno.ENOENT, "no such file"), None),
    (Refusal("batch was requested as 4 but is 8 in effect"), None),
]


@pytest.mark.parametrize(("error", "kind"), TEXTS, ids=[str(error)[:40] for error, _ in TEXTS])
def test_which_memory_ran_out(error, kind):
    assert ladder.kind(error) == kind


def walk(train: dict, kind: str) -> list:
    """Every step down to the floor, as (key, after)."""
    found = []
    while True:
        try:
            step = ladder.step(train, kind)
        except Refusal as refusal:
            assert "\n" not in str(refusal) and kind in str(refusal)
            return found
        assert step["before"] == train[step["key"]]
        train = train | {step["key"]: step["after"]}
        found.append((step["key"], step["after"]))


def test_steps_by_hand():
    seed = {"batch": 16, "imgsz": 640, "cache": True, "workers": 8}
    # .75 of 640 is 480, of 480 is 360 and of that 352 a multiple of 32; .75 of 352 is below 320
    assert walk(seed, "gpu") == [("batch", 8), ("batch", 4), ("imgsz", 480), ("imgsz", 352)]
    assert walk(seed, "host") == [("cache", False)] + [("workers", n) for n in (4, 2, 1, 0)]
    assert walk(seed | {"batch": 2, "imgsz": [832, 1440]}, "gpu")[0] == ("imgsz", [608, 1056])  # 624, 1080
    assert walk(seed | {"cache": "disk", "workers": 0}, "host") == []
    assert walk(seed | {"batch": "auto"}, "gpu") == [("imgsz", 480), ("imgsz", 352)]


def test_the_order_of_the_seed_beside_ours():
    """Seed 004 lowers batch and size first, whichever memory ran out (L244-251)."""
    train = {"batch": 16, "imgsz": 640, "cache": True, "workers": 8}
    assert [ladder.step(train, kind)["seed_key"] for kind in ("gpu", "host")] == ["batch", "batch"]
    assert ladder.step(train | {"batch": 4}, "host")["seed_key"] == "imgsz"
    assert ladder.step(train | {"batch": 4, "imgsz": 320, "cache": False}, "host")["seed_key"] == "workers"


@given(
    st.integers(1, 4096),
    st.one_of(st.integers(1, 60), st.lists(st.integers(1, 60), min_size=2, max_size=2)),
    st.sampled_from([True, False, None, "ram", "disk"]),
    st.integers(0, 64),
    st.sampled_from(["gpu", "host"]),
)
def test_every_way_down_ends(batch, strides, cache, workers, kind):
    imgsz = strides * 32 if isinstance(strides, int) else [n * 32 for n in strides]
    way = walk({"batch": batch, "imgsz": imgsz, "cache": cache, "workers": workers}, kind)
    keys = [key for key, _ in way]
    assert keys == sorted(keys, key=ladder.ORDER[kind].index)
    for key, after in way:
        if key == "batch":
            assert after >= min(batch, 4)
        if key == "imgsz":
            sides = [after] if isinstance(after, int) else after
            assert max(sides) >= 320 and all(side % 32 == 0 and side > 0 for side in sides)


@pytest.fixture
def hook():
    """Registers a function for an event of every trainer to come, through Ultralytics' own table.

    The table of `callbacks.base`: a trainer that checks AMP binds `callbacks.default_callbacks` to a copy
    (8.4.190, engine/trainer.py), which no later trainer reads.
    """
    before = {event: known[:] for event, known in default_callbacks.items()}
    yield lambda event, act: default_callbacks[event].append(act)
    default_callbacks.update(before)


TRAIN = painted.LEARNABLE | {"epochs": 3, "batch": 16, "nbs": 16, "patiences": [3], "imgsz": 64}


def raise_where(condition):
    """A callback that reports a full GPU where the trainer meets a condition."""

    def act(trainer):
        if condition(trainer):
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    return act


def test_out_of_memory_in_a_later_epoch(rectangles, tmp_path, hook, capfd):
    hook("on_train_batch_start", raise_where(lambda trainer: trainer.epoch == 1 and trainer.batch_size > 8))
    run = fit("yolov8n.yaml", rectangles.yaml, tmp_path / "run", **TRAIN)
    first, second = run.attempts
    assert first["step"] == {"key": "batch", "before": 16, "after": 8, "seed_key": "batch"}
    assert first["ended"] == "gpu memory ran out in epoch 2" and second["ended"] == "finished"
    assert (second["epoch"], second["batch"], second["exact"]) == (2, 8, False)
    # nbs as it was: the same effective batch and weight decay from two batches each
    assert (run.conditions["batch"], run.conditions["accumulate"], run.conditions["nbs"]) == (8, 2, 16)
    assert run.conditions["weight_decay"] == pytest.approx(0.0005)
    assert pd.read_csv(run.folder / "results.csv")["epoch"].tolist() == [1, 2, 3]
    assert "gpu memory ran out in epoch 2: batch 16 becomes 8" in capfd.readouterr().out


def test_a_halved_batch_that_does_not_divide_nbs(rectangles, tmp_path, hook):
    """9 becomes 4: stock then decays by .0005 x 4 x 2 / 9, which follows from the step and is said."""
    hook("on_train_batch_start", raise_where(lambda trainer: trainer.epoch == 1 and trainer.batch_size > 8))
    run = fit("yolov8n.yaml", rectangles.yaml, tmp_path / "run", **TRAIN | {"batch": 9, "nbs": 9})
    assert run.attempts[0]["step"]["after"] == 4
    expected = 0.0005 * 4 * 2 / 9
    (declared,) = run.declared
    assert (declared["key"], declared["requested"]) == ("weight_decay", 0.0005)
    assert declared["value"] == pytest.approx(expected, rel=1e-12)
    assert run.conditions["weight_decay"] == pytest.approx(expected, rel=1e-12)
    # of the optimizer that trained, not of the one that the checkpoint remembers
    decays = {group["weight_decay"] for group in run.conditions["groups"]}
    assert sorted(decays) == pytest.approx([0, expected], rel=1e-12)


def test_out_of_memory_in_validation_and_ultralytics_own_halving(rectangles, tmp_path, hook):
    """First validation runs out, then a forward pass, after which Ultralytics would go on by itself."""
    val, forward = Once("CUDA error: out of memory"), Once("CUDA out of memory")
    hook("on_val_batch_start", lambda validator: val())

    def arm(trainer):
        if val.raised:
            trainer.model.register_forward_pre_hook(lambda *_: forward())

    hook("on_train_start", arm)
    run = fit("yolov8n.yaml", rectangles.yaml, tmp_path / "run", **TRAIN)
    assert val.raised and forward.raised
    assert [row["step"] and row["step"]["after"] for row in run.attempts] == [8, 4, None]
    assert run.conditions["batch"] == 4
    assert pd.read_csv(run.folder / "results.csv")["epoch"].tolist() == [1, 2, 3]


class Once:
    """Raises at its first call. Behind a function, for Ultralytics copies other callbacks deeply."""

    def __init__(self, text: str):
        self.text, self.raised = text, False

    def __call__(self):
        if not self.raised:
            self.raised = True
            raise RuntimeError(self.text)


def test_at_the_floor_one_sentence(rectangles, tmp_path, hook):
    hook("on_train_batch_start", raise_where(lambda trainer: True))
    with pytest.raises(Refusal, match="gpu memory ran out and nothing is left to give up .batch 4, imgsz 64"):
        fit("yolov8n.yaml", rectangles.yaml, tmp_path / "run", **TRAIN | {"batch": 8, "nbs": 8})
    assert [row["batch"] for row in attempts.rows(tmp_path / "run")] == [8, 4]


def test_without_recovery_one_sentence(rectangles, tmp_path, hook):
    hook("on_train_batch_start", raise_where(lambda trainer: True))
    with pytest.raises(Refusal, match="gpu memory ran out in epoch 1: lower batch"):
        fit("yolov8n.yaml", rectangles.yaml, tmp_path / "run", oom_recovery=False, **TRAIN)


def test_a_killed_worker_is_host_memory(rectangles, tmp_path, hook):
    """SIGKILL to a loader's worker, as the kernel's out-of-memory killer sends it; a real one."""

    def kill(trainer):
        workers = getattr(trainer.train_loader.iterator, "_workers", ())
        if trainer.epoch == 1 and len(workers) == 2:
            os.kill(workers[0].pid, signal.SIGKILL)

    hook("on_train_batch_start", kill)
    train = TRAIN | {"batch": 4, "nbs": 4, "workers": 2, "cache": "ram"}
    run = fit("yolov8n.yaml", rectangles.yaml, tmp_path / "run", **train)
    assert [(row["cache"], row["workers"]) for row in run.attempts] == [("ram", 2), (False, 2), (False, 1)]
    assert [row["epoch"] for row in run.attempts] == [1, 2, 2]
    assert run.conditions["workers"] == 1 and not run.attempts[-1]["exact"]


LIMITED = """
import json, resource, sys
from saistudy import hardware
hardware.pin_threads()
hardware.quiet()
import torch
from saistudy.paths import Refusal
from saistudy.training.fit import fit
def limit(trainer):
    used = 1024 * int(next(l for l in open("/proc/self/status") if l.startswith("VmSize")).split()[1])
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**20 * int(sys.argv[4]), hard))
from ultralytics.utils.callbacks.base import default_callbacks
default_callbacks["on_train_start"].append(limit)
try:
    fit("yolov8n.yaml", sys.argv[1], sys.argv[2], **json.loads(sys.argv[3]))
except Refusal as refusal:
    sys.exit(f"refused: {refusal}")
"""


def test_a_host_whose_memory_is_really_full(rectangles, tmp_path):
    """An address space of 64 MiB more than the set-up took: a batch of 16 at 640 px cannot be had."""
    train = TRAIN | {"imgsz": 640, "epochs": 1, "cache": "ram"}
    words = [sys.executable, "-c", LIMITED, rectangles.yaml, tmp_path / "run", json.dumps(train), "64"]
    process = subprocess.run(list(map(str, words)), capture_output=True, text=True, cwd=Path(__file__).parent)
    assert process.returncode == 1
    assert (
        "refused: host memory ran out and nothing is left to give up (cache False, workers 0)"
        in process.stderr
    )
    assert "host memory ran out in epoch 1: cache ram becomes False" in process.stdout
