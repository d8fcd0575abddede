"""Tests `python -m saistudy stage` as a person types it: plan, run, status, release of any folder."""

import subprocess
import sys

import pytest

from saistudy.paths import ROOT


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "mine"
    for kind in ("images", "labels"):
        (folder / kind / "train").mkdir(parents=True)
    (folder / "images/train/a.jpg").write_bytes(bytes(range(256)) * 40)
    (folder / "labels/train/a.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (folder / "data.yaml").write_text(f"path: {folder}\ntrain: images/train\nval: images/train\nnc: 1\n")
    return folder


def stage(*words) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "saistudy", "stage", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_plan_run_status_release(source, tmp_path):
    target = tmp_path / "memory"
    planned = stage("plan", "--source", source, "--target", target)
    assert planned.returncode == 0 and "GiB" in planned.stdout + "MiB" and not target.exists()
    absent = stage("status", "--target", target)
    assert (absent.returncode, absent.stdout) == (1, f"{target}: not staged, or not whole\n")
    assert stage("run", "--source", source, "--target", target).stdout.endswith(f"{target}: staged\n")
    copy = target / "images/train/a.jpg"
    assert copy.read_bytes() == (source / "images/train/a.jpg").read_bytes()
    assert f"path: {target}" in (target / "data.yaml").read_text()
    assert stage("status", "--target", target).stdout == f"{target}: staged\n"
    (target / "mine.txt").write_text("notes")
    for words in (("run", "--source", source), ("release",)):
        kept = stage(*words, "--target", target)
        assert kept.returncode == 2 and "mine.txt" in kept.stderr and (target / "mine.txt").exists()
    (target / "mine.txt").unlink()
    assert stage("release", "--target", target).stdout == f"{target}: released\n"
    assert not target.exists() and (source / "images/train/a.jpg").exists()


@pytest.mark.parametrize(
    "words, said",
    [
        (("run", "--source", "/nowhere/at/all"), "--target"),
        (("run", "--target", "/nowhere/at/all"), "--source"),
        (("plan", "--source", "/nowhere/at/all", "--target", "/dev/shm/none"), "/nowhere/at/all"),
    ],
)
def test_wrong_words_are_one_sentence(words, said):
    done = stage(*words)
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1
