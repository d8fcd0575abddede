"""Tests staging: what a plan says, that a staged folder is whole, and what happens when the process is
killed, the place fills up or is read-only, the source changes or somebody else is at work there."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import mounted
import pytest
import xxhash
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saistudy.data import room, shm
from saistudy.data import tree as trees
from saistudy.data.staging import origin, pace
from saistudy.paths import ROOT, Refusal

STAGE = (
    "import sys; from pathlib import Path; from saistudy.data import shm;"
    "print('ready', flush=True);"
    "shm.stage(Path(sys.argv[1]), Path(sys.argv[2]), threads_n=2)"
)
HOLD = (
    "import sys, time; from pathlib import Path; from saistudy.data.staging import transfer\n"
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
    # hashes made here from the source's bytes, in one piece
    for name, data in expected.items():
        time_ns = (tree / name).stat().st_mtime_ns
        assert files[name] == [len(data), time_ns, xxhash.xxh3_128_hexdigest(data)]
    # a label without boxes: the value that xxHash publishes for no bytes at all
    assert files["labels/train/a00000.txt"][2] == "99aa06d3014798d86001c324468d497f"
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


def test_a_flipped_byte_is_told(tree, tmp_path):
    target = shm.stage(tree, tmp_path / "to")
    image = target / "images/train/a00007.jpg"
    before, data = image.stat(), image.read_bytes()
    image.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    # written again: the time differs
    assert not shm.staged(target)
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    # same size and time, as when memory fails: only reading everything shows it
    assert shm.staged(target)
    assert shm.differing(target) == ["images/train/a00007.jpg"]
    (target / "labels/train/a00001.txt").unlink()
    assert shm.differing(target) == ["images/train/a00007.jpg", "labels/train/a00001.txt"]
    shm.release(target)
    with pytest.raises(Refusal, match="stage it first"):
        shm.differing(target)


@pytest.mark.parametrize("text", ["", '{"hash": "xxh3-128", "files": {"a.jpg": [1', '{"files": []}', "[]"])
def test_a_truncated_manifest_is_none_and_the_next_staging_mends_it(tree, tmp_path, text):
    target = shm.stage(tree, tmp_path / "to")
    whole = contents(target)
    inode = (target / "images/train/a00003.jpg").stat().st_ino
    (target / "manifest.json").write_text(text)
    assert not shm.staged(target)
    assert contents(shm.stage(tree, target)) == whole
    # the files themselves were not copied again
    assert (target / "images/train/a00003.jpg").stat().st_ino == inode


def test_what_somebody_adds_is_told_and_what_a_training_leaves_is_not(tree, tmp_path):
    target = shm.stage(tree, tmp_path / "to")
    (target / "labels/train.cache").write_bytes(b"left by a training")
    (target / "images/train/a00000.npy").write_bytes(b"left by a training")
    assert shm.staged(target)
    # an image more would be trained on
    shutil.copy(tree / "images/train/a00000.jpg", target / "images/train/b.jpg")
    assert not shm.staged(target)
    for act in (lambda: shm.stage(tree, target), lambda: shm.release(target)):
        with pytest.raises(Refusal, match="images/train/b.jpg, which was not staged"):
            act()
    (target / "images/train/b.jpg").unlink()
    shm.stage(tree, target)
    assert shm.staged(target)


def test_another_source_takes_the_place_and_says_so(tree, tmp_path):
    other, said = plant(tmp_path / "other", 3, 500), []
    target = shm.stage(tree, tmp_path / "to")
    shm.stage(other, target, say=said.append)
    assert said == [f"{target} held a copy of {tree}: it is replaced"] and shm.staged(target)
    assert len(list((target / "images/train").iterdir())) == 3


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
        enough, until = 900 * (share + chance.uniform(0, 0.25)), time.monotonic() + 60
        while not (images.is_dir() and len(os.listdir(images)) > enough):
            assert time.monotonic() < until and process.poll() is None
            time.sleep(0.002)
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
    shm.stage(tree, target)
    described, manifest = ((target / name).stat().st_size for name in ("data.yaml", "manifest.json"))
    # 40 images of 3000 to 3039 bytes; labels of 0, 18, 36 bytes 14, 13, 13 times; 4 + 13 + 3 bytes
    assert plan["bytes"] == 40 * 3000 + 780 + 13 * 18 + 13 * 36 + 20 + described
    assert plan["files_n"] == 84
    # a page for every file that is not empty, for the mark, and what the manifest takes
    assert plan["needed_bytes"] == (84 - 14 + 1 + -(-manifest // 4096)) * 4096 + 1500
    assert plan["fits"] and plan["missing_n"] == 84
    again = shm.plan(tree, target)
    assert again["needed_bytes"] == again["missing_n"] == again["seconds"] == 0
    (tree / "images/train/a00009.jpg").write_bytes(b"x" * 5000)
    # two pages come and one goes; the manifest and the mark are written anew, the old manifest goes
    assert shm.plan(tree, target)["needed_bytes"] == (2 - 1 + 1) * 4096


def test_a_plan_says_all_its_numbers_in_one_sentence_and_writes_nothing(tree, tmp_path):
    plan = shm.plan(tree, tmp_path / "new/to", loader_bytes=3 * 2**30, reserve_bytes=2**29)
    for words in ("84 of 84 files", "3.00 GiB for the data loaders", "0.50 GiB reserve", "of memory"):
        assert words in plan["sentence"]
    assert f"about {plan['seconds']:.1f} s with {plan['threads_n']} thread(s)" in plan["sentence"]
    assert plan["seconds"] > 0 and not (tmp_path / "new").exists()


def test_threads_by_hand():
    # nothing to wait for: two a core; as long as the work: three; the median of three is 2; never above 32
    assert [pace.threads_n(waits, 2) for waits in ([0.0], [1.0, 1.0], [3.0, 0.0, 2.0], [99.0])] == [
        4,
        6,
        8,
        32,
    ]
    assert pace.threads_n([1.0], 1) == 3 and pace.threads_n([0.0], 16) == 32


def test_every_job_is_done_once_and_the_first_error_stops_the_others():
    done: list[int] = []
    pace.drain(range(5000), lambda number: done.append, 8)
    assert sorted(done) == list(range(5000))
    started: list[int] = []

    def act(job: int) -> None:
        started.append(job)
        if job == 10:
            raise IndexError("job 10")

    with pytest.raises(IndexError, match="job 10"):
        pace.drain(range(100_000), lambda number: act, 2)
    assert len(started) < 100_000


@pytest.mark.full
def test_a_long_job_says_a_line_every_five_seconds_and_a_short_one_none():
    said, done = [], {}
    sizes = {str(i): 2**30 for i in range(120)}

    def worker(number: int):
        return lambda name: (time.sleep(0.1), done.update({name: ""}))

    tell = pace.teller(sizes, done, said.append)
    pace.drain(list(sizes)[:20], worker, 1, tell)
    assert said == []
    pace.drain(list(sizes)[20:], worker, 1, tell)
    assert len(said) == 2 and said[0].startswith(("48 of 120 files", "49 of 120", "50 of 120"))
    assert "of 120.00 GiB" in said[0] and said[0].endswith("s left")


def test_loader_bytes_by_hand():
    # (12 x 4 + 1) batches x 128 images x 3 x 896 x 896 bytes = 15.1 GB, and twice that to validate
    assert shm.loader_bytes(128, 896, 12, 4) == 15_105_785_856 * 3
    assert shm.loader_bytes(2, 10, 0, 4) == 600 * 3


@pytest.mark.full
def test_killed_twenty_times_at_random_moments_no_file_is_torn(tmp_path):
    tree, target = plant(tmp_path / "tree", 900, 15_000), tmp_path / "to"
    source, chance = contents(tree), random.Random(time.time())
    whole = contents(shm.stage(tree, target))
    shm.release(target)
    for number in range(20):
        process = run(STAGE, tree, target)
        assert process.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0, 0.25))
        process.kill()
        process.wait()
        process.stdout.close()
        there = contents(target) if target.exists() else {}
        for name in there.keys() & source.keys() - {"data.yaml"}:
            assert there[name] == source[name], name
        assert not shm.staged(target) or there == whole
        if number % 5 == 4:
            assert contents(shm.stage(tree, target)) == whole
            if number % 2:
                shm.release(target)
    assert contents(shm.stage(tree, target)) == whole and shm.differing(target) == []


@pytest.fixture
def small(tmp_path):
    """A tmpfs of 1 MiB."""
    with mounted.tmpfs(tmp_path / "small", "size=1m") as place:
        yield place


def test_a_full_tmpfs_is_refused_and_left_empty(small, tree):
    (small / "filler").write_bytes(b"x" * 900_000)
    with pytest.raises(Refusal, match="lacks room"):
        shm.stage(tree, small / "to")
    assert [p.name for p in small.iterdir()] == ["filler"]


def test_a_tmpfs_without_room_for_the_names_is_refused(tree, tmp_path):
    with mounted.tmpfs(tmp_path / "names", "size=1m,nr_inodes=60") as place:
        # of 60 names the top folder and the lock have one each
        with pytest.raises(Refusal, match="lacks room: .* and 58 files can be added"):
            shm.stage(tree, place / "to")
        assert list(place.iterdir()) == []


def test_a_tmpfs_that_fills_up_on_the_way_is_given_back(small, tree):
    target = shm.stage(tree, small / "to")
    # the old pages count as given back, but second names hold on to them: the kernel's own ENOSPC
    (small / "kept").mkdir()
    for image in (target / "images/train").iterdir():
        os.link(image, small / "kept" / image.name)
    for image in (tree / "images/train").iterdir():
        image.write_bytes(b"n" * 20_000)
    assert shm.plan(tree, target)["fits"]
    with pytest.raises(Refusal, match=r"could not be filled \(No space left on device\), all") as seen:
        shm.stage(tree, target)
    assert str(seen.value).count("\n") == 0
    assert [p.name for p in small.iterdir()] == ["kept"]


def test_a_read_only_target_is_refused_in_one_sentence_and_keeps_what_it_has(small, tree):
    shm.stage(tree, small / "to")
    before = contents(small)
    (tree / "images/train/a00001.jpg").write_bytes(b"changed")
    subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
    for act in (lambda: shm.stage(tree, small / "to"), lambda: shm.release(small / "to")):
        with pytest.raises(Refusal, match="Read-only file system") as seen:
            act()
        assert str(seen.value).count("\n") == 0
    assert contents(small) == before


def test_a_target_that_is_read_only_below_a_writable_folder_is_refused(small, tree):
    # the lock can be written beside the mount point, nothing below it
    subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
    with pytest.raises(Refusal, match=r"could not be filled \(Read-only file system: .*small"):
        shm.stage(tree, small)
    assert list(small.iterdir()) == []


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(0, 9000), min_size=1, max_size=40))
def test_a_plan_is_what_the_tmpfs_then_lacks(small, tmp_path, sizes):
    source = tmp_path / "sizes"
    shutil.rmtree(source, ignore_errors=True)
    (source / "deep").mkdir(parents=True)
    for i, size in enumerate(sizes):
        (source / "deep" / f"{i}.bin").write_bytes(b"x" * size)
    planned = shm.plan(source, small / "to")["needed_bytes"]
    free = shutil.disk_usage(small).free
    shm.stage(source, small / "to")
    assert free - shutil.disk_usage(small).free == planned
    shm.release(small / "to")
    assert shutil.disk_usage(small).free == free


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


WRITE = (
    "import os, sys, time\n"
    "handle = os.open(sys.argv[1], os.O_WRONLY); print('writing', flush=True)\n"
    "for i in range(10**9): os.pwrite(handle, bytes([i % 256]), 0)"
)


def test_a_source_that_changes_while_it_is_copied_is_noticed(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.bin").write_bytes(bytes(1000))
    (source / "b.bin").write_bytes(bytes(30 << 20))
    writer = run(WRITE, source / "b.bin")
    assert writer.stdout.readline() == "writing\n"
    try:
        with pytest.raises(Refusal, match="b.bin changed while it was staged") as seen:
            shm.stage(source, tmp_path / "to")
    finally:
        writer.kill()
        writer.wait()
        writer.stdout.close()
    assert str(seen.value).count("\n") == 0 and not shm.staged(tmp_path / "to")
    # nothing of the torn copy is left, and the next run goes on
    assert {p.name for p in (tmp_path / "to").iterdir()} <= {".staging.json", "a.bin"}
    shm.stage(source, tmp_path / "to")
    assert shm.staged(tmp_path / "to")
    assert (tmp_path / "to/b.bin").read_bytes() == (source / "b.bin").read_bytes()


def test_leftovers_of_killed_attempts_are_removed(tree, tmp_path):
    target = tmp_path / "to"
    target.mkdir()
    (target / ".3.part").write_bytes(b"torn")
    shm.stage(tree, target)
    (target / "manifest.json").unlink()
    (target / "images/train/.0.part").write_bytes(b"torn")
    shm.stage(tree, target)
    assert list(target.rglob("*.part")) == [] and shm.staged(target)


def test_two_at_once_both_succeed(tmp_path):
    tree, target = plant(tmp_path / "tree", 900, 15_000), tmp_path / "to"
    both = [run(STAGE, tree, target) for _ in range(2)]
    assert [process.wait(timeout=60) for process in both] == [0, 0]
    for process in both:
        process.stdout.close()
    assert shm.staged(target) and shm.differing(target) == []
    left = [p.name for p in [*tmp_path.glob(".*"), *target.rglob(".*")]]
    assert left == [".staging.json"]


def test_a_living_owner_is_waited_for(tree, tmp_path):
    target = tmp_path / "to"
    owner = run(HOLD, target, 1.0)
    assert owner.stdout.readline() == "held\n"
    with pytest.raises(Refusal, match=f"staged by process {owner.pid} on {os.uname().nodename} since"):
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


@pytest.mark.parametrize("inside", ["images/to", "new/folder/to", ".", ".."])
def test_a_target_inside_the_source_is_refused_and_the_other_way_round(tree, inside):
    before = sorted(tree.parent.rglob("*"))
    with pytest.raises(Refusal, match="overlap"):
        shm.stage(tree, tree / inside)
    assert sorted(tree.parent.rglob("*")) == before


def test_a_folder_with_other_files_is_left_alone(tree, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("text")
    for act in (lambda: shm.stage(tree, mine), lambda: shm.release(mine)):
        with pytest.raises(Refusal, match="not staged"):
            act()
    assert contents(mine) == {"thesis.tex": b"text"}


def test_a_folder_with_files_of_its_own_names_is_left_alone(tmp_path, tree):
    for name in (".profile", "manifest.json"):
        mine = tmp_path / name.strip(".")
        mine.mkdir()
        (mine / name).write_text("{}")
        for act in (lambda mine=mine: shm.stage(tree, mine), lambda mine=mine: shm.release(mine)):
            with pytest.raises(Refusal, match="not staged"):
                act()
        assert contents(mine) == {name: b"{}"}


def test_a_plain_folder_is_copied_as_it_is(tmp_path):
    source = tmp_path / "plain"
    (source / "deep/.hidden").mkdir(parents=True)
    files = {"a.npy": b"array", "b.cache": b"", "deep/c ü\n.txt": b"text", "x" * 255: b"long name"}
    for name, data in files.items():
        (source / name).write_bytes(data)
    for name in (".secret", "deep/.hidden/d.txt"):
        (source / name).write_bytes(b"hidden")
    target = shm.stage(source, tmp_path / "to")
    assert contents(target).items() >= files.items()
    assert contents(target).keys() == files.keys() | {"manifest.json", ".staging.json"}
    shutil.rmtree(source)
    for act in (lambda: shm.stage(source, tmp_path / "on"), lambda: shm.plan(source, tmp_path / "on")):
        with pytest.raises(Refusal, match="is no folder"):
            act()
    source.mkdir()
    with pytest.raises(Refusal, match="holds no files"):
        shm.stage(source, tmp_path / "on")


def test_a_manifest_of_the_sources_own_is_refused_and_a_staged_copy_can_be_staged(tree, tmp_path):
    first = shm.stage(tree, tmp_path / "first")
    second = shm.stage(first, tmp_path / "second")
    assert contents(second)["data.yaml"] == contents(first)["data.yaml"].replace(b"/first", b"/second")
    (tree / "manifest.json").write_text("{}")
    with pytest.raises(Refusal, match="manifest.json of its own"):
        shm.stage(tree, tmp_path / "third")


DESCRIBED = {
    "absolute": "path: {0}\ntrain: {0}/images/train\nval: images/val\n",
    "none": "train: images/train\nval: [images/val]\n",
    "moved here": "path: /gone/away\ntrain: images/train\nval: images/val\n",
    "by name": "path: ../datasets/mine\ntrain: images/train\nval: images/val\n",
    "one up": "train: ../images/train\nval: ../images/val\ntest:\n",
    "lists": "path: {0}\ntrain: train.txt\nval: {0}/val.txt\n",
    "below": "path: {0}/images\ntrain: train\nval: val\n",
}


@pytest.mark.parametrize("text", DESCRIBED.values(), ids=DESCRIBED)
def test_ultralytics_finds_anybodys_data_set_at_the_target_and_nowhere_else(tmp_path, text):
    from ultralytics.data.base import BaseDataset
    from ultralytics.data.utils import check_det_dataset

    source = tmp_path / "set"
    for split in ("train", "val"):
        (source / "images" / split).mkdir(parents=True)
        (source / "images" / split / f"{split}.jpg").write_bytes(b"pixels")
    (source / "data.yaml").write_text(text.format(source) + "names: [smoke]\n")
    (source / "train.txt").write_text(f"{source}/images/train/train.jpg\r\n")
    (source / "val.txt").write_text("./images/val/val.jpg\n")
    target = shm.stage(source, tmp_path / "else/where")
    shutil.rmtree(source)
    data = check_det_dataset(str(target / "data.yaml"), autodownload=False)
    lister = BaseDataset.__new__(BaseDataset)
    lister.prefix, lister.fraction = "", 1.0
    for split in ("train", "val"):
        found = [Path(path).resolve() for path in lister.get_img_files(data[split])]
        assert found == [target / "images" / split / f"{split}.jpg"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train: [images\n", "no YAML"),
        ("just words\n", "no keys"),
        ("path: {0}/outside\ntrain: pictures\nval: pictures\n", "`path` is .*outside"),
        ("train: images/train\nval: {0}/outside/pictures\n", "outside of it"),
        ("train: images/train\nval: ../outside/pictures\n", "outside of it"),
        ("train: list.txt\nval: images/train\n", "outside of it"),
    ],
)
def test_a_description_that_leads_outside_is_refused(tmp_path, text, words):
    source = plant(tmp_path / "set", 3, 10)
    (tmp_path / "outside/pictures").mkdir(parents=True)
    (source / "data.yaml").write_text(text.format(tmp_path))
    (source / "list.txt").write_text(f"{tmp_path}/outside/pictures/a.jpg\n")
    with pytest.raises(Refusal, match=words) as seen:
        shm.stage(source, tmp_path / "to")
    assert str(seen.value).count("\n") == 0 and not (tmp_path / "to").exists()


def test_links_in_a_source_are_copied_as_what_they_lead_to(tree, tmp_path):
    (tree / "images/train").rename(tmp_path / "elsewhere")
    (tree / "images/train").symlink_to(tmp_path / "elsewhere")
    label = tree / "labels/train/a00001.txt"
    label.rename(tmp_path / "label.txt")
    label.symlink_to(tmp_path / "label.txt")
    target = shm.stage(tree, tmp_path / "to")
    assert not [p for p in target.rglob("*") if p.is_symlink()]
    assert (target / "labels/train/a00001.txt").read_text() == "1 0.5 0.5 0.1 0.1\n"
    assert len(list((target / "images/train").iterdir())) == 40


@pytest.mark.parametrize(
    ("link", "to", "words"),
    [
        ("images/round", "..", "was linked to before"),
        ("images/gone.jpg", "nowhere", "neither a file nor a folder"),
        ("images/away", "../../to", "overlap"),
    ],
)
def test_links_in_a_source_that_lead_astray_are_refused(tree, tmp_path, link, to, words):
    (tree / link).symlink_to(to)
    (tmp_path / "to").mkdir()
    with pytest.raises(Refusal, match=words):
        shm.stage(tree, tmp_path / "to")
    assert list((tmp_path / "to").iterdir()) == []


def test_nothing_is_read_or_written_through_a_link_in_a_target(tree, tmp_path):
    target, outside = shm.stage(tree, tmp_path / "to"), tmp_path / "outside"
    outside.mkdir()
    (outside / "a00000.jpg").write_bytes(b"mine")
    (tmp_path / "alias").symlink_to(target)
    with pytest.raises(Refusal, match="alias is a link"):
        shm.stage(tree, tmp_path / "alias")
    (target / "images/train/a00000.jpg").unlink()
    (target / "images/train/a00000.jpg").symlink_to(outside / "a00000.jpg")
    for act in (shm.stage, shm.plan):
        with pytest.raises(Refusal, match="a00000.jpg is a link"):
            act(tree, target)
    assert not shm.staged(target)
    shutil.rmtree(target / "images/train")
    (target / "images/train").symlink_to(outside)
    with pytest.raises(Refusal, match="train is a link"):
        shm.stage(tree, target)
    shm.release(target)
    assert contents(outside) == {"a00000.jpg": b"mine"} and not target.exists()
    # nor is the lock written through one
    (tmp_path / ".to.lock").symlink_to(outside / "a00000.jpg")
    with pytest.raises(Refusal, match=r"\.to\.lock cannot be written"):
        shm.stage(tree, target)
    assert contents(outside) == {"a00000.jpg": b"mine"}


def test_an_unfinished_tree_is_refused(tree, tmp_path):
    (tree / "tree.json").rename(tree / "tree.begun")
    with pytest.raises(Refusal, match="no finished tree"):
        shm.stage(tree, tmp_path / "to")
    assert (trees.DONE, trees.BEGUN) == (origin.DONE, origin.BEGUN)


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
