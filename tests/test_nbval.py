"""The committed notebooks of the demo against the code at hand, by nbval.

The ablation is a function of committed records: executed again, every output must be the same. The training
notebooks really train again: their tagged cells must be the same, their AP50 within the profile's tolerance.
Both in a scratch folder, with the results of the last commit, so that a study that has just rewritten
results/ changes nothing here.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from saistudy.paths import ROOT
from saistudy.study import agreement

TRAINED = ["data", "setup-shm", "896-s0", "stage2-896-s0", "finetune", "claims"]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """The code at hand with the committed results of the demo."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("saistudy", "notebooks", "params"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("requirements.lock", "README.md"):
        shutil.copy(ROOT / name, folder / name)
    archive = subprocess.run(["git", "-C", ROOT, "archive", "HEAD", "results/demo"], capture_output=True)
    if archive.returncode:
        pytest.skip("no git checkout with committed demo results: nothing to compare with")
    subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
    return folder


def nbval(checkout: Path, out: Path, *words: str) -> subprocess.CompletedProcess:
    """nbval in a process of its own: results and work go to `out`."""
    environ = {
        key: value for key, value in os.environ.items() if not key.startswith(("SAISTUDY", "PYTEST", "MPL"))
    }
    environ |= {
        "PYTHONPATH": str(checkout),
        "SAISTUDY_RESULTS": str(out / "results"),
        "SAISTUDY_WORK": str(out / "work"),
        "SAISTUDY_SHM": str(out / "shm"),
    }
    call = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "--nbval-current-env",
    ]
    return subprocess.run(
        [*call, "-c", os.devnull, "--rootdir", str(checkout), *words],
        env=environ,
        cwd=checkout,
        capture_output=True,
        text=True,
    )


def only_the_figures_differ(done: subprocess.CompletedProcess) -> bool:
    """Whether nbval failed because outputs differ, not because a cell could not be executed."""
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    ran = "Cell execution caused an exception" not in done.stdout and " passed" in done.stdout
    return done.returncode == 1 and 1 <= len(failed) <= 4 and ran


def test_training_notebooks_give_the_same_again(checkout, tmp_path):
    paths = [f"results/demo/{run}/run.ipynb" for run in TRAINED]
    done = nbval(checkout, tmp_path, "--nbval-lax", *paths)
    assert done.returncode == 0, done.stdout[-3000:]
    # every run was trained again, not found
    fresh = [
        json.loads((tmp_path / "results/demo" / run / "record.json").read_text()) for run in TRAINED[2:5]
    ]
    kept = [json.loads((checkout / "results/demo" / run / "record.json").read_text()) for run in TRAINED[2:5]]
    rows = agreement.compare(fresh, kept, agreement.tolerance_of("demo"))
    assert len(rows) == sum(len(record["metrics"]) for record in kept)
    assert rows["inside"].all(), rows.to_string()


def test_the_ablation_gives_every_committed_output_again(checkout, tmp_path):
    results = tmp_path / "results"
    shutil.copytree(checkout / "results", results)
    done = nbval(checkout, tmp_path, "--nbval", "results/demo/ablation/run.ipynb")
    assert done.returncode == 0, done.stdout[-3000:]
    # the table that it has just written is the committed one, byte for byte
    for name in ("table.csv", "table.md"):
        assert (results / "demo" / name).read_bytes() == (checkout / "results/demo" / name).read_bytes()


def test_one_altered_number_in_a_record_is_noticed(checkout, tmp_path):
    results = tmp_path / "results"
    shutil.copytree(checkout / "results", results)
    path = results / "demo/1440-s0/record.json"
    record = json.loads(path.read_text())
    record["metrics"][0]["ap50"] += 0.01
    path.write_text(json.dumps(record))
    done = nbval(checkout, tmp_path, "--nbval", "results/demo/ablation/run.ipynb")
    assert only_the_figures_differ(done), done.stdout[-3000:]


def test_one_altered_number_in_the_committed_notebook_is_noticed(checkout, tmp_path):
    shutil.copytree(checkout / "results", tmp_path / "results")
    path = tmp_path / "results/demo/ablation/run.ipynb"
    text = path.read_text()
    cells = (checkout / "results/demo/table.md").read_text().split("|")
    shown = next(cell.strip() for cell in reversed(cells) if cell.strip().startswith("0."))  # of the last row
    assert shown and shown in text
    path.write_text(text.replace(shown, shown.replace("0.", "1.", 1)))
    done = nbval(checkout, tmp_path, "--nbval", str(path))
    assert only_the_figures_differ(done), done.stdout[-3000:]
