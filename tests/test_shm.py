"""Tests staging: what a plan says, that a staged tree is whole, and what happens when the process
is killed, the place fills up, the source changes or somebody else is at work there."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from saistudy.data import room, shm
from saistudy.paths import ROOT, Refusal

STAGE = (
    "import sys; from pathlib import Path; from saistudy.data import shm;"
    "shm.stage(Path(sys.argv[1]), Path(sys.argv[2]), threads_n=2)"
)
HOLD = (
    "import sys, time; from pathlib import Path; from saistudy.data import transfer\n"
    "with transfer.owned(Path(sys.argv[1]), 5):\n"
    " print('held', flush=True); time.sleep(float(sys.argv[2]))"
)


def plant(folder: Path, images_n: int, image_bytes: int) -> Path:
    """A tree of random bytes under the names of a real one."""
    chance = random.Random(images_n)
    for kind in ("images", "labels"):
        (folder / kind / "train").mkdir(parents=True)
    for i in range(images_n):
        (folder / f"images/train/a{i:05d}.jpg").write_bytes(chance.randbytes(image_bytes + i))
        (folder / f"labels/train/a{i:05d}.txt").write_text("1 0.5 0.5 0.1 0.1\n" * (i % 3))
    lines = f"path: {folder}\ntrain: images/train\nval: images/train\nnames: {{0: fire}}\n"
    (folder / "data.yaml").write_text(lines)
    (folder / "index.parquet").write_bytes(b"rows")
    (folder / "quarantine.csv").write_text("image,reason\n")
    (folder / "tree.json").write_text("{}\n")
    return folder


@pytest.fixture
def tree(tmp_path) -> Path:
    return plant(tmp_path / "tree", 40, 3000)


def contents(folder: Path) -> dict[str, bytes]:
    files = (p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def run(code: str, *arguments) -> subprocess.Popen:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_a_staged_tree_is_the_tree_with_its_own_path(tree, tmp_path):
    (tree / "labels/train.cache").write_bytes(b"left by a training")
    (tree / "images/train/a00000.npy").write_bytes(b"left by a training")
    target = shm.stage(tree, tmp_path / "to")
    staged, source = contents(target), contents(tree)
    left_out = {"data.yaml", "labels/train.cache", "images/train/a00000.npy"}
    expected = {name: data for name, data in source.items() if name not in left_out}
    written = {"data.yaml", "manifest.json", ".staging.json"}
    assert {name: data for name, data in staged.items() if name not in written} == expected
    described = yaml.safe_load(staged["data.yaml"])
    assert described == yaml.safe_load(source["data.yaml"]) | {"path": str(target)}
    files = json.loads(staged["manifest.json"])["files"]
    # hashes made here from the source's bytes
    for name, data in expected.items():
        assert files[name] == [len(data), hashlib.blake2b(data, digest_size=16).hexdigest()]
    assert set(files) == {*expected, "data.yaml"}
    assert shm.staged(target) and shm.differing(target) == []
    assert list(tmp_path.glob(".*")) == []


def test_nothing_is_staged_without_manifest_or_with_a_short_file(tree, tmp_path):
    target = tmp_path / "to"
    assert not shm.staged(target)
    shm.stage(tree, target)
    image = target / "images/train/a00003.jpg"
    whole = image.read_bytes()
    image.write_bytes(whole[:-1])
    assert not shm.staged(target)
    shm.stage(tree, target)
    assert image.read_bytes() == whole and shm.staged(target)
    (target / "manifest.json").unlink()
    assert not shm.staged(target)


def test_flipped_bytes_are_told(tree, tmp_path):
    target = shm.stage(tree, tmp_path / "to")
    image = target / "images/train/a00007.jpg"
    image.write_bytes(image.read_bytes()[:-1] + b"?")
    # same size: only reading everything shows it
    assert shm.staged(target)
    assert shm.differing(target) == ["images/train/a00007.jpg"]


def test_staging_again_touches_nothing(tree, tmp_path):
    target = shm.stage(tree, tmp_path / "to")
    before = {p: (p.stat().st_ino, p.stat().st_mtime_ns) for p in target.rglob("*")}
    shm.stage(tree, target)
    assert {p: (p.stat().st_ino, p.stat().st_mtime_ns) for p in target.rglob("*")} == before


def test_killed_twice_it_continues_to_the_same_state(tmp_path):
    tree, target = plant(tmp_path / "tree", 900, 15_000), tmp_path / "to"
    images, chance = target / "images/train", random.Random(time.time())
    kept: dict[str, int] = {}
    for share in (0.1, 0.4):
        process = run(STAGE, tree, target)
        enough, until = 900 * (share + chance.uniform(0, 0.25)), time.monotonic() + 20
        while not (images.is_dir() and len(os.listdir(images)) > enough):
            assert time.monotonic() < until and process.poll() is None
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        process.stdout.close()
        # killed in the middle: some files there, each of them whole, and nothing counts
        done = {p.name: p.stat().st_ino for p in images.glob("a*.jpg")}
        assert len(done) > 0 and not shm.staged(target)
        assert all((tree / f"images/train/{n}").stat().st_size == (images / n).stat().st_size
                   for n in done)  # fmt: skip
        assert kept.items() <= done.items()
        kept = done
    shm.stage(tree, target)
    # what had been copied was not copied again
    assert kept.items() <= {p.name: p.stat().st_ino for p in images.iterdir()}.items()
    continued = contents(target)
    shm.release(target)
    assert continued == contents(shm.stage(tree, target))
    assert shm.differing(target) == []


def test_what_does_not_fit_is_refused_before_the_first_byte(tree, tmp_path):
    target, free = tmp_path / "to", shutil.disk_usage(tmp_path).free
    plan = shm.plan(tree, target, reserve_bytes=2 * free)
    assert not plan["fits"] and plan["needed_bytes"] > 2 * free
    with pytest.raises(Refusal, match=r"lacks room: .* GiB are needed .* GiB reserve"):
        shm.stage(tree, target, reserve_bytes=2 * free)
    assert not target.exists()


def test_a_plan_counts_pages_and_what_is_already_there(tree, tmp_path):
    target = tmp_path / "to"
    plan = shm.plan(tree, target, loader_bytes=1000, reserve_bytes=500)
    # 40 images of 3000 to 3039 bytes; labels of 0, 18, 36 bytes 14, 13, 13 times; 4 + 13 + 3 bytes
    assert plan["bytes"] == 40 * 3000 + 780 + 13 * 18 + 13 * 36 + 20
    assert plan["files_n"] == 83
    # a page for every file that is not empty
    assert plan["needed_bytes"] == (83 - 14) * 4096 + 1500
    assert plan["fits"] and not target.exists()
    shm.stage(tree, target)
    assert shm.plan(tree, target)["needed_bytes"] == 0


def test_loader_bytes_by_hand():
    # (12 x 4 + 1) batches x 128 images x 3 x 896 x 896 bytes = 15.1 GB, and twice that to validate
    assert shm.loader_bytes(128, 896, 12, 4) == 15_105_785_856 * 3
    assert shm.loader_bytes(2, 10, 0, 4) == 600 * 3


@pytest.fixture
def small(tmp_path):
    """A tmpfs of 1 MiB with room for 60 files."""
    folder = tmp_path / "small"
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", "size=1m,nr_inodes=60", "tmpfs", str(folder)]
    try:
        done = subprocess.run(["mount", *options], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no mount command: a small tmpfs cannot be made")
    if done.returncode:
        pytest.skip(f"a small tmpfs cannot be mounted here ({done.stderr.strip()}): run as root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_tmpfs_is_refused_and_left_empty(small, tree):
    (small / "filler").write_bytes(b"x" * 900_000)
    with pytest.raises(Refusal, match="lacks room"):
        shm.stage(tree, small / "to")
    assert [p.name for p in small.iterdir()] == ["filler"]


def test_a_tmpfs_that_fills_up_on_the_way_is_given_back(small, tree):
    # the bytes fit, the file system runs out of inodes in the middle: the kernel's own ENOSPC
    assert shm.plan(tree, small / "to")["fits"]
    with pytest.raises(Refusal, match=r"could not be filled \(No space left on device\)") as seen:
        shm.stage(tree, small / "to")
    assert str(seen.value).count("\n") == 0
    assert list(small.iterdir()) == []


def test_a_changed_source_is_noticed(tree, tmp_path):
    target = shm.stage(tree, tmp_path / "to")
    same_size = (tree / "images/train/a00001.jpg").stat().st_size
    (tree / "images/train/a00001.jpg").write_bytes(b"n" * same_size)
    (tree / "images/train/a00002.jpg").unlink()
    (tree / "images/train/new.jpg").write_bytes(b"new")
    shm.stage(tree, target)
    assert (target / "images/train/a00001.jpg").read_bytes() == b"n" * same_size
    names = {p.name for p in (tree / "images/train").iterdir()}
    assert {p.name for p in (target / "images/train").iterdir()} == names
    (tree / "data.yaml").write_text("train: images/train\nval: images/val\nnames: {0: smoke}\n")
    shm.stage(tree, target)
    assert yaml.safe_load((target / "data.yaml").read_text())["names"] == {0: "smoke"}
    assert shm.staged(target)


def test_a_living_owner_is_waited_for(tree, tmp_path):
    target = tmp_path / "to"
    owner = run(HOLD, target, 1.0)
    assert owner.stdout.readline() == "held\n"
    with pytest.raises(Refusal, match=f"staged by process {owner.pid} since"):
        shm.stage(tree, target, wait_s=0.1)
    assert not target.exists()
    started = time.monotonic()
    shm.stage(tree, target, wait_s=10)
    # the owner keeps it for a second, of which a tenth has passed
    assert time.monotonic() - started > 0.5
    assert owner.wait(timeout=5) == 0 and shm.staged(target)
    owner.stdout.close()


def test_a_dead_owners_lock_is_taken_over(tree, tmp_path):
    target = tmp_path / "to"
    owner = run(HOLD, target, 60)
    assert owner.stdout.readline() == "held\n"
    owner.kill()
    owner.wait()
    owner.stdout.close()
    lock = tmp_path / ".to.lock"
    assert lock.read_text().split()[0] == str(owner.pid)
    shm.stage(tree, target, wait_s=0)
    assert shm.staged(target) and not lock.exists()


@pytest.mark.parametrize("inside", ["images/to", "."])
def test_a_target_inside_the_source_is_refused(tree, inside):
    before = contents(tree)
    with pytest.raises(Refusal, match="overlap|were not staged"):
        shm.stage(tree, tree / inside)
    assert contents(tree) == before


def test_a_folder_with_other_files_is_left_alone(tree, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("text")
    for act in (lambda: shm.stage(tree, mine), lambda: shm.release(mine)):
        with pytest.raises(Refusal, match="not staged"):
            act()
    assert contents(mine) == {"thesis.tex": b"text"}


def test_an_unfinished_tree_is_refused(tree, tmp_path):
    (tree / "tree.json").unlink()
    with pytest.raises(Refusal, match="no finished tree"):
        shm.stage(tree, tmp_path / "to")


def test_release_gives_everything_back(tree, tmp_path):
    target = shm.stage(tree, tmp_path / "deep/to")
    shm.release(target)
    assert list((tmp_path / "deep").iterdir()) == []
    shm.release(target)
    assert list((tmp_path / "deep").iterdir()) == []


def group(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)


def test_control_group_limits_are_read_in_both_versions(tmp_path):
    proc = tmp_path / "proc/self"
    group(proc, {"cgroup": "0::/job/step\n"})
    cgroup = tmp_path / "sys/fs/cgroup"
    stat = "anon 5\ninactive_file 30\nactive_file 10\n"
    group(cgroup / "job", {"memory.max": "1000\n", "memory.current": "100\n", "memory.stat": stat})
    group(cgroup / "job/step", {"memory.max": "max\n", "memory.current": "100\n"})
    # the parent's limit holds for the child; 40 of its 100 bytes are page cache
    assert room.memory_limits(tmp_path) == [(1000, 60)]
    group(proc, {"cgroup": "9:cpu:/job\n4:memory:/job\n0::/\n"})
    names = {"memory.limit_in_bytes": "500\n", "memory.usage_in_bytes": "70\n"}
    group(cgroup / "memory/job", names | {"memory.stat": "total_inactive_file 20\n"})
    unlimited = {"memory.limit_in_bytes": "9223372036854771712\n", "memory.usage_in_bytes": "9\n"}
    group(cgroup / "memory", unlimited)
    assert room.memory_limits(tmp_path) == [(500, 50)]


def test_room_in_memory_is_bounded_by_the_control_group_and_on_disk_it_is_not(tmp_path):
    group(tmp_path / "proc", {"meminfo": "MemTotal: 99 kB\nMemAvailable:       3 kB\n"})
    group(tmp_path / "proc/self", {"cgroup": "0::/job\n"})
    limits = {"memory.max": "5000\n", "memory.current": "1000\n", "memory.stat": ""}
    group(tmp_path / "sys/fs/cgroup/job", limits)
    for kind, usable in (("tmpfs", 3072), ("ext4", None)):
        group(tmp_path / "proc", {"mounts": f"x / {kind} rw 0 0\n"})
        there = room.room(tmp_path / "not/yet", tmp_path)
        assert there.memory_limit_bytes == 5000
        # 3 kB available is less than the 4000 bytes that the control group still allows
        assert there.usable_bytes == (usable or there.free_bytes)


def test_the_file_system_is_the_one_that_stat_names(tmp_path):
    for folder in (tmp_path, Path("/proc")):
        told = subprocess.run(["stat", "-f", "-c", "%T", folder], capture_output=True, text=True)
        kind = room.file_system(folder)
        # stat calls ext2, ext3 and ext4 by one name
        assert kind == told.stdout.strip() or told.stdout.startswith(kind[:3])
