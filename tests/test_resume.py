"""Exact resume: kill -9 at chosen and at random moments, the same bits as a run that nobody disturbed."""

import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import mounted
import painted
import pandas as pd
import pytest
import torch

from saistudy.paths import Refusal
from saistudy.training import attempts, checkpoints, resume
from saistudy.training.fit import fit

CHILD = """
import json, sys
from pathlib import Path
from saistudy import hardware
hardware.pin_threads()
hardware.quiet()
from saistudy.training.fit import fit
fit("yolov8n.yaml", sys.argv[1], Path(sys.argv[2]), **json.loads(sys.argv[3]))
"""
EPOCHS = 5
TRAIN = painted.LEARNABLE | {"epochs": EPOCHS, "mosaic": 1.0, "mixup": 0.3, "degrees": 5.0, "close_mosaic": 2}
TRAIN |= {"seed": 1, "patiences": [1, EPOCHS]}
SQUARE, RECTANGLE = {"imgsz": 64, "workers": 0}, {"imgsz": [64, 96], "workers": 2}


def child(tree, folder: Path, **change) -> subprocess.Popen:
    """A training in a process of its own."""
    words = [sys.executable, "-c", CHILD, str(tree.yaml), str(folder), json.dumps(TRAIN | change)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finished(tree, folder: Path, **change) -> str:
    """What a training printed that went to its end."""
    process = child(tree, folder, **change)
    told, _ = process.communicate()
    assert process.returncode == 0, told
    return told


def rows_n(folder: Path) -> int:
    """Epochs in the csv."""
    path = folder / "results.csv"
    return max(0, path.read_text().count("\n") - 1) if path.is_file() else 0


def in_an_epoch(folder: Path) -> bool:
    """Two epochs are kept, the third is being trained."""
    return (folder / "checkpoints" / "epoch-00002").is_dir() and rows_n(folder) == 2


def after_the_csv(folder: Path) -> bool:
    """The third epoch stands in the csv, its checkpoint does not exist yet."""
    return rows_n(folder) == 3 and not (folder / "checkpoints" / "epoch-00003").exists()


def in_a_checkpoint(folder: Path) -> bool:
    """The fourth epoch's checkpoint is being filled: mosaic is closed, the state half written."""
    return (folder / "checkpoints" / ".epoch-00004.part" / resume.STATE).exists()


def killed(process: subprocess.Popen, when, folder: Path, later_s: float = 0.0) -> bool:
    """Whether kill -9 met the process at the moment, or so long after it."""
    while process.poll() is None and not when(folder):
        time.sleep(0.002)
    time.sleep(later_s)
    process.kill()
    process.communicate()
    return process.returncode == -9


def states(folder: Path) -> dict[str, dict]:
    """Tensors of last.pt, best.pt and its forks of a finished run."""
    files = [path for path in (folder / "weights").glob("*.pt") if path.name.startswith(("last", "best"))]
    load = {"map_location": "cpu", "weights_only": False}
    return {file.name: torch.load(file, **load)["model"].state_dict() for file in files}


def assert_same(one: Path, other: Path) -> None:
    """The same csv but for time, the same tensors in the same files."""
    left, right = (pd.read_csv(folder / "results.csv").drop(columns="time") for folder in (one, other))
    pd.testing.assert_frame_equal(left, right, check_exact=True)
    left, right = states(one), states(other)
    assert left.keys() == right.keys()
    for name, tensors in left.items():
        assert all(torch.equal(tensors[key], right[name][key]) for key in tensors), name


@pytest.fixture(scope="module")
def straight(rectangles, tmp_path_factory):
    """Folder of the undisturbed run of a kind of settings; each is trained once."""
    known = {}

    def folder(kind: dict) -> Path:
        key = json.dumps(kind)
        if key not in known:
            known[key] = tmp_path_factory.mktemp("straight") / "run"
            fit("yolov8n.yaml", rectangles.yaml, known[key], **TRAIN | kind)
        return known[key]

    return folder


def go_on(tree, folder: Path, capfd, **change) -> str:
    """What the same command prints, called again in this process."""
    capfd.readouterr()
    fit("yolov8n.yaml", tree.yaml, folder, **TRAIN | change)
    return capfd.readouterr().out


def test_killed_in_a_checkpoint_and_the_one_before_damaged(rectangles, straight, tmp_path, capfd):
    """Then the generation before it serves; mosaic was open there and closes after the resume."""
    assert killed(child(rectangles, tmp_path / "run", **SQUARE), in_a_checkpoint, tmp_path / "run")
    shutil.copytree(tmp_path / "run", tmp_path / "damaged")
    assert "resumed with epoch 4, exactly" in go_on(rectangles, tmp_path / "run", capfd, **SQUARE)
    assert_same(straight(SQUARE), tmp_path / "run")
    state = tmp_path / "damaged" / "checkpoints" / "epoch-00003" / resume.STATE
    with state.open("r+b") as file:
        file.seek(state.stat().st_size // 2)
        file.write(b"\0\1\2\3")
    told = go_on(rectangles, tmp_path / "damaged", capfd, **SQUARE)
    assert "resumed with epoch 3, exactly" in told and told.count("epoch ") == EPOCHS + 1
    assert_same(straight(SQUARE), tmp_path / "damaged")


@pytest.mark.full
@pytest.mark.parametrize("optimizer", ["SGD", "MuSGD"])
def test_killed_while_the_momentum_warms_up(rectangles, straight, tmp_path, capfd, optimizer):
    """Ultralytics raises it step by step then: what is kept in the middle is no other condition."""
    kind = SQUARE | {"optimizer": optimizer, "lr0": 0.01, "warmup_epochs": 4.0}
    assert killed(child(rectangles, tmp_path / "run", **kind), in_an_epoch, tmp_path / "run")
    assert "resumed with epoch 3, exactly" in go_on(rectangles, tmp_path / "run", capfd, **kind)
    assert_same(straight(kind), tmp_path / "run")


def test_killed_twice_with_two_workers_at_a_rectangle(rectangles, straight, tmp_path, capfd):
    for moment in (in_an_epoch, after_the_csv):
        assert killed(child(rectangles, tmp_path / "run", **RECTANGLE), moment, tmp_path / "run")
    go_on(rectangles, tmp_path / "run", capfd, **RECTANGLE)
    assert_same(straight(RECTANGLE), tmp_path / "run")
    rows = attempts.rows(tmp_path / "run")
    assert [row["ended"] for row in rows] == ["killed", "killed", "finished"]
    assert [row["epoch"] for row in rows] == [1, 3, 3]
    assert all(row["exact"] and not row["why"] and row["workers"] == 2 for row in rows)


@pytest.mark.full
@pytest.mark.parametrize("kind", [SQUARE, RECTANGLE, SQUARE | {"workers": 2}, RECTANGLE | {"workers": 0}])
def test_killed_at_ten_random_moments(rectangles, tmp_path, kind):
    """With the four kinds 40 kills; a start that is killed before its first epoch loses nothing."""
    started = time.monotonic()
    finished(rectangles, tmp_path / "straight", **kind)
    usual_s, draw, landed = time.monotonic() - started, random.Random(3), 0
    for _ in range(60):
        process = child(rectangles, tmp_path / "run", **kind)
        landed += killed(process, lambda folder: True, tmp_path / "run", draw.uniform(0.3, 1) * usual_s)
        if (tmp_path / "run" / "fit.json").is_file():
            assert_same(tmp_path / "straight", tmp_path / "run")
            shutil.rmtree(tmp_path / "run")
        if landed >= 10:
            break
    assert landed >= 10
    finished(rectangles, tmp_path / "run", **kind)
    assert_same(tmp_path / "straight", tmp_path / "run")


def test_from_the_second_place_alone(rectangles, straight, tmp_path, capfd):
    """The run's folder is gone, as rented disks go; later the finished run is taken from there too."""
    change = SQUARE | {"durable_dir": str(tmp_path / "second"), "save_period": 2}
    process = child(rectangles, tmp_path / "run", **change)
    assert killed(process, lambda folder: rows_n(folder) == 4, tmp_path / "run")
    kept = sorted(path.name for path in (tmp_path / "second").glob("*/epoch-*"))
    assert kept == ["epoch-00001", "epoch-00003"]  # every second epoch
    shutil.rmtree(tmp_path / "run")
    assert "resumed with epoch 4, exactly" in go_on(rectangles, tmp_path / "run", capfd, **change)
    assert_same(straight(SQUARE), tmp_path / "run")
    (finished,) = (tmp_path / "second").glob("*")
    assert [path.name for path in finished.iterdir()] == ["finished"]
    shutil.rmtree(tmp_path / "run")
    assert "nothing is trained again" in go_on(rectangles, tmp_path / "run", capfd, **change)
    assert_same(straight(SQUARE), tmp_path / "run")
    shutil.rmtree(finished)  # as a kill between the run's end and its mirror leaves it
    assert "nothing is trained again" in go_on(rectangles, tmp_path / "run", capfd, **change)
    assert checkpoints.whole(finished / "finished")


def test_a_full_second_place_is_one_sentence_and_nothing_is_lost(rectangles, straight, tmp_path, capfd):
    """A tmpfs with room for one checkpoint of about 70 MiB; given more, the same command goes on."""
    with mounted.tmpfs(tmp_path / "second", "size=100m") as second:
        change = SQUARE | {"durable_dir": str(second)}
        with pytest.raises(
            Refusal, match="epoch-00002 cannot be written .* the checkpoint before it is kept"
        ):
            go_on(rectangles, tmp_path / "run", capfd, **change)
        (mirrored,) = second.glob("*/epoch-*")
        assert mirrored.name == "epoch-00001" and checkpoints.whole(mirrored)
        subprocess.run(["mount", "-o", "remount,size=400m", str(second)], check=True)
        assert "resumed with epoch 3, exactly" in go_on(rectangles, tmp_path / "run", capfd, **change)
        assert_same(straight(SQUARE), tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        pytest.param({"nbs": 8}, "gradients accumulate over 2", marks=pytest.mark.full),
        ({"exact": False}, "not seeded anew"),
    ],
)
def test_what_is_not_exact_says_so(rectangles, tmp_path, capfd, change, why):
    change = SQUARE | change
    assert killed(child(rectangles, tmp_path / "run", **change), in_an_epoch, tmp_path / "run")
    shutil.copytree(tmp_path / "run", tmp_path / "other")
    assert why in go_on(rectangles, tmp_path / "run", capfd, **change)
    last = attempts.rows(tmp_path / "run")[-1]
    assert not last["exact"] and any(why in reason for reason in last["why"])
    epochs = pd.read_csv(tmp_path / "run" / "results.csv")
    assert epochs["epoch"].tolist() == list(range(1, EPOCHS + 1))
    assert epochs["time"].is_monotonic_increasing
    # another request in that folder starts afresh
    told = go_on(rectangles, tmp_path / "other", capfd, **change, lr0=0.002)
    assert "resumed" not in told and len(attempts.rows(tmp_path / "other")) == 1


def test_seeds_do_not_share_epochs():
    """Sums of seed and epoch would: seed 1000, epoch 0 and seed 0, epoch 1 in steps of 1000."""
    pairs = [(seed, epoch) for seed in range(1200) for epoch in range(40)]
    assert (
        len({resume.epoch_seed(*pair) for pair in pairs}) > len(pairs) - 4
    )  # of 2**32, birthday: .3 expected


def test_a_checkpoint_is_whole_or_not_there(tmp_path):
    def fails(folder):
        (folder / "state.pt").write_bytes(b"half")
        raise KeyboardInterrupt

    checkpoints.commit(tmp_path, 1, lambda folder: (folder / "a").write_bytes(b"1"))
    with pytest.raises(KeyboardInterrupt):
        checkpoints.commit(tmp_path, 2, fails)
    assert checkpoints.newest(tmp_path) == tmp_path / "epoch-00001"
    for epoch in (2, 3, 12):
        checkpoints.commit(tmp_path, epoch, lambda folder: (folder / "a").write_bytes(b"1"))
    assert sorted(path.name for path in tmp_path.glob("epoch-*")) == ["epoch-00003", "epoch-00012"]
    (tmp_path / "epoch-00012" / "more").touch()  # damaged: gone on from the one before, it makes room
    checkpoints.commit(tmp_path, 4, lambda folder: (folder / "a").write_bytes(b"1"))
    assert sorted(path.name for path in tmp_path.glob("epoch-*")) == ["epoch-00003", "epoch-00004"]
    (tmp_path / "epoch-00004" / "more").touch()
    assert checkpoints.newest(tmp_path, None) == tmp_path / "epoch-00003"
