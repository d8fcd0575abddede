"""A run packed for download: what is inside, its hashes by sha256sum, and what is refused."""

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import time

import mounted
import pytest

from saistudy.__main__ import main
from saistudy.paths import ROOT

STAGE1, STAGE2 = "896-s0", "stage2-896-s0"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Folders (results, work) of a run of stage 1 and one of stage 2 as the study leaves them."""
    monkeypatch.setenv("SAISTUDY_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("SAISTUDY_WORK", str(tmp_path / "work"))
    weights = {
        STAGE1: {"patience-1": "train/weights/best_patience1.pt", "patience-3": "train/weights/best.pt"},
        STAGE2: {"named-patience-3": "named/weights/best.pt", "joint-patience-3": "joint/weights/best.pt"},
    }
    for run, models in weights.items():
        folder, stops = tmp_path / "results/demo" / run, []
        (folder / "predictions").mkdir(parents=True)
        for model, place in models.items():
            path = tmp_path / "work/demo" / run / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(f"weights of {run} {model}".encode())
            named = f"work/of-another-machine/{run}/{place}"
            stops.append({"model": model, "weights": named, "sha256": sha256(path.read_bytes())})
        (folder / "predictions" / "all.parquet").write_bytes(b"predictions")
        rows = [{"file": "predictions/all.parquet", "sha256": sha256(b"predictions")}]
        record = {"run": run, "notebook": "stage1", "stops": stops, "predictions": rows}
        (folder / "record.json").write_text(json.dumps(record))
        for name in ("run.ipynb", "epochs.csv", "args.yaml", "run.failed.ipynb", ".gitignore"):
            (folder / name).write_text(f"{name} of {run}")
    (tmp_path / "work/demo" / STAGE1 / "train/weights/model.md").write_text("what it is")
    return tmp_path / "results/demo", tmp_path / "work/demo"


def packed(path) -> dict[str, bytes]:
    """Contents of an archive by name."""
    with tarfile.open(path) as archive:
        return {entry.name: archive.extractfile(entry).read() for entry in archive.getmembers()}


def test_a_run_is_packed_with_hashes_that_sha256sum_accepts(runs, tmp_path, capsys):
    results, work = runs
    assert main(["bundle", STAGE1]) == 0
    path = work / "bundles" / f"{STAGE1}.tar.gz"
    said = capsys.readouterr().out
    assert str(path) in said and sha256(path.read_bytes()) in said
    found = packed(path)
    top = f"demo-{STAGE1}/"
    names = ["SHA256SUMS", "args.yaml", "epochs.csv", "predictions/all.parquet", "record.json", "run.ipynb"]
    names += ["weights/best.pt", "weights/best_patience1.pt", "weights/model.md"]
    assert list(found) == [top + name for name in names]
    assert found[top + "weights/best.pt"] == b"weights of 896-s0 patience-3"
    assert found[top + "run.ipynb"] == (results / STAGE1 / "run.ipynb").read_bytes()
    subprocess.run(["tar", "-xzf", path, "-C", tmp_path], check=True)
    check = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    told = subprocess.run(check, cwd=tmp_path / top, capture_output=True, text=True)
    assert told.returncode == 0 and told.stdout.count(": OK") == len(names) - 1
    (tmp_path / top / "weights/best.pt").write_bytes(b"weights of 896-s0 patience-4")
    assert subprocess.run(check, cwd=tmp_path / top, capture_output=True).returncode == 1


def test_equal_inputs_give_equal_bytes(runs, tmp_path):
    """At another time, into a file of another name, from files of another age, order and right."""
    assert main(["bundle", STAGE1, "--output", str(tmp_path / "a.tar.gz")]) == 0
    results, _ = runs
    shutil.move(results / STAGE1 / "args.yaml", tmp_path / "aside")
    shutil.move(tmp_path / "aside", results / STAGE1 / "args.yaml")
    os.chmod(results / STAGE1 / "args.yaml", 0o600)
    os.utime(results / STAGE1 / "run.ipynb", (1, 1))
    time.sleep(1.1)  # gzip counts in seconds
    assert main(["bundle", STAGE1, "--output", str(tmp_path / "b.tar.gz")]) == 0
    assert (tmp_path / "a.tar.gz").read_bytes() == (tmp_path / "b.tar.gz").read_bytes()


def test_the_weights_of_each_class_handling_stand_in_its_folder(runs):
    _, work = runs
    assert main(["bundle", STAGE2]) == 0
    found = packed(work / "bundles" / f"{STAGE2}.tar.gz")
    for handling in ("named", "joint"):
        weights = found[f"demo-{STAGE2}/{handling}/weights/best.pt"]
        assert weights == f"weights of {STAGE2} {handling}-patience-3".encode()


def refused(capsys, *words: str) -> str:
    assert main(["bundle", *words]) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    return sentence


def test_what_is_missing_or_of_another_training_is_refused(runs, tmp_path, capsys):
    results, work = runs
    output = tmp_path / "out" / "a.tar.gz"
    weights = work / STAGE1 / "train/weights/best.pt"
    right = weights.read_bytes()
    weights.write_bytes(b"another training")
    said = refused(capsys, STAGE1, "--output", str(output))
    assert f"best.pt has sha256 {sha256(b'another training')[:12]}" in said
    assert f"the record of 896-s0 says {sha256(right)[:12]}" in said
    weights.unlink()
    assert "best.pt, which the record of 896-s0 names, is not on this machine" in refused(capsys, STAGE1)
    weights.write_bytes(right)
    predictions = results / STAGE1 / "predictions/all.parquet"
    predictions.write_bytes(b"others")
    assert "all.parquet has sha256" in refused(capsys, STAGE1)
    predictions.unlink()
    assert "all.parquet, which the record" in refused(capsys, STAGE1)
    predictions.write_bytes(b"predictions")
    (results / STAGE1 / "run.ipynb").unlink()
    assert "run.ipynb does not exist beside its record" in refused(capsys, STAGE1)
    assert "record.json does not exist" in refused(capsys, "no-such-run")
    assert not output.exists() and not (work / "bundles").exists()


def test_a_full_disk_leaves_the_bundle_of_before(runs, tmp_path, capsys):
    """A tmpfs of 64 KiB, and weights that do not compress."""
    _, work = runs
    with mounted.tmpfs(tmp_path / "small", "size=64k") as place:
        output = place / "a.tar.gz"
        assert main(["bundle", STAGE1, "--output", str(output)]) == 0
        before = output.read_bytes()
        record = runs[0] / STAGE1 / "record.json"
        large = os.urandom(200_000)
        (work / STAGE1 / "train/weights/best.pt").write_bytes(large)
        told = json.loads(record.read_text())
        told["stops"][1]["sha256"] = sha256(large)
        record.write_text(json.dumps(told))
        said = refused(capsys, STAGE1, "--output", str(output))
        assert "cannot be written (No space left on device)" in said
        assert output.read_bytes() == before and [path.name for path in place.iterdir()] == [output.name]


def test_a_committed_run_whose_weights_are_elsewhere_is_refused(tmp_path, monkeypatch, capsys):
    """As in a fresh clone: weights are never committed."""
    if not (ROOT / "results/demo" / STAGE1 / "record.json").is_file():
        pytest.skip("no committed results of the demo")
    shutil.copytree(ROOT / "results/demo" / STAGE1, tmp_path / "results/mini" / STAGE1)
    monkeypatch.setenv("SAISTUDY_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("SAISTUDY_WORK", str(tmp_path / "work"))
    record = tmp_path / "results/mini" / STAGE1 / "record.json"
    record.write_text(record.read_text().replace("work/demo/", "work/nobody/"))
    assert "is not on this machine" in refused(capsys, STAGE1, "--profile", "mini")
